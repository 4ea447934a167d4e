//! Who may do what: nobody without credentials, and nobody to another user's things.

use serde_json::json;

use super::support::{User, refused, serve};

/// Routes that need no credentials.
const OPEN: [&str; 5] = ["/", "/healthz", "/metrics", "/api/auth/login", "/api/auth/register"];

/// Method and pattern of every route, from the table itself.
pub fn routes() -> Vec<(&'static str, &'static str)> {
    let table = include_str!("../../src/app/routes.rs");
    let rows = table.lines().filter_map(|line| line.trim().strip_prefix("route(\""));
    rows.map(|row| {
        let mut words = row.split('"');
        (words.next().unwrap(), words.nth(1).unwrap())
    })
    .collect()
}

pub fn filled(pattern: &str, id: &str) -> String {
    pattern.replace("{kinds}", "projects").replace("{mid}", "m").replace("{}", id)
}

#[test]
fn every_route_but_login_registration_and_health_needs_credentials() {
    let server = serve(&[]);
    let (open, closed): (Vec<_>, Vec<_>) =
        routes().into_iter().partition(|(_, pattern)| OPEN.contains(pattern));
    assert!(open.len() == OPEN.len() && closed.len() > 35, "{}", closed.len());
    for (method, pattern) in open {
        // On this listener there are no metrics.
        let answer = server.ask(method, pattern, "", b"");
        assert_eq!(answer.status == 404, pattern == "/metrics", "{pattern}");
    }
    for (method, pattern) in closed {
        for field in ["", "Authorization: Bearer x\r\n", "Authorization: Basic YTpi\r\n"] {
            let answer = server.ask(method, &filled(pattern, "1"), field, b"");
            refused(&answer, 401, "unauthorized");
            assert_eq!(answer.field("www-authenticate"), Some("Bearer"), "{method} {pattern}");
        }
    }
}

/// Everything that a user can have.
fn furnish(user: &User) {
    user.register("m");
    user.stored("m", b"state");
    user.post("/api/machines/m/push", &json!({ "encrypted_state": "AAAA" }));
    for kind in ["projects", "workspaces", "configs", "modules", "profiles"] {
        let made = user.post(&format!("/api/{kind}"), &json!({ "slug": "s", "name": "n" }));
        assert_eq!(made.status, 201);
        let singular = kind.trim_end_matches('s');
        let id = made.json()[singular]["id"].as_i64().unwrap();
        let version = json!({ "ciphertext": "AAAA", "content_hash": "x" });
        assert_eq!(user.post(&format!("/api/{kind}/{id}/versions"), &version).status, 201);
        let key = json!({ "wrapped_dek": "BBBB" });
        assert_eq!(user.post(&format!("/api/{kind}/{id}/keys"), &key).status, 201);
        if kind == "projects" {
            let link = json!({ "project_id": id, "local_path": "/home/a" });
            assert_eq!(user.post("/api/machines/m/projects", &link).status, 201);
            let value = json!({ "environment_tier": "dev", "encrypted_value": "AAAA" });
            assert_eq!(user.put(&format!("/api/projects/{id}/env/1"), &value).status, 200);
        }
    }
}

#[test]
fn another_users_things_answer_like_things_that_never_were() {
    let server = serve(&[]);
    let (a, b) = (server.user("a@example.org"), server.user("b@example.org"));
    furnish(&a);
    let before = server
        .count("SELECT count(*) FROM audit_log WHERE event NOT IN ('entity.pull', 'server.start')");
    let body = json!({ "name": "z", "slug": "z", "project_id": 1, "local_path": "/x",
        "last_synced_version": 1, "active": true, "workspace_id": 2, "layer_id": "l",
        "wrapped_dek": "CCCC", "environment_tier": "dev", "encrypted_value": "AAAA",
        "ciphertext": "AAAA" });
    let mut tried = 0;
    for (method, pattern) in routes() {
        if !pattern.contains("{}") {
            continue;
        }
        for kind in ["projects", "workspaces", "configs", "modules", "profiles"] {
            let pattern = pattern.replace("{kinds}", kind);
            for id in 1..=5 {
                let ask = |user: &User, id: &str| {
                    let path = format!("{}?env=dev&visibility=shared", filled(&pattern, id));
                    match method {
                        "GET" => user.get(&path),
                        "DELETE" => user.delete(&path),
                        "POST" => user.post(&path, &body),
                        "PUT" => user.put(&path, &body),
                        _ => user.patch(&path, &body),
                    }
                };
                let (foreign, unknown) = (ask(&b, &id.to_string()), ask(&b, "987654"));
                assert_eq!(foreign.status, unknown.status, "{method} {pattern} {id}");
                assert_eq!(foreign.body, unknown.body, "{method} {pattern} {id}");
                let gone = foreign.status == 404 || pattern.contains("/workspaces/{}");
                assert!(gone, "{method} {pattern}: {foreign:?}");
                tried += 1;
            }
        }
    }
    assert!(tried > 200, "{tried}");
    let after = server
        .count("SELECT count(*) FROM audit_log WHERE event NOT IN ('entity.pull', 'server.start')");
    assert_eq!(after, before, "nothing of it happened");
}

#[test]
fn every_list_shows_its_own_user_alone() {
    let server = serve(&[]);
    let (a, b) = (server.user("a@example.org"), server.user("b@example.org"));
    furnish(&a);
    let dev = json!([{ "name": "dev", "tier": "development", "color": null, "protect": false }]);
    let sync = json!({ "environments": dev, "delete_missing": true });
    assert_eq!(a.put("/api/environments/sync", &sync).status, 200);
    for (path, member) in [
        ("/api/machines", "machines"),
        ("/api/machines/history", "snapshots"),
        ("/api/environments", "environments"),
        ("/api/machines/m/projects", "projects"),
        ("/api/projects", "projects"),
        ("/api/workspaces", "workspaces"),
        ("/api/configs", "configs"),
        ("/api/modules", "modules"),
        ("/api/profiles", "profiles"),
    ] {
        assert!(!a.read(path)[member].as_array().unwrap().is_empty(), "{path} of its owner");
        assert!(b.read(path)[member].as_array().unwrap().is_empty(), "{path} of another");
    }
    refused(&b.get("/api/machines/latest"), 404, "no_snapshot");
    refused(&b.get("/api/machines/latest?machine_id=m"), 404, "no_snapshot");
    refused(&b.get("/api/machines/snapshot?id=1"), 404, "no_snapshot");
    refused(&b.get("/api/auth/keypair"), 404, "not_found");
    let usage = b.read("/api/usage");
    assert_eq!((&usage["stored_bytes"], &usage["snapshots"]), (&json!(0), &json!(0)));
    let plan = json!({ "machine_id": "m",
        "entities": [{ "type": "project", "id": 1, "local_version": 1, "local_hash": "" }] });
    assert_eq!(b.post("/api/sync/plan", &plan).json()["actions"][0]["action"], "error");
}
