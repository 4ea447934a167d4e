//! Who may do what: nobody without credentials, and nobody to another user's things.

use serde_json::{Value, json};

use crate::client_sync::commit;
use crate::fixture::{User, assert_has, assert_says, refused, with_two_users, with_user};

/// Routes that need no credentials.
const OPEN: [&str; 4] = ["/", "/healthz", "/api/auth/login", "/api/auth/register"];
/// What has versions and keys.
pub const KINDS: [&str; 5] = ["project", "workspace", "config", "module", "profile"];

/// Method and pattern of every route, from the table itself, but those of another listener.
pub fn routes() -> Vec<(&'static str, &'static str)> {
    let table = include_str!("../../src/app/routes.rs");
    let rows = table.lines().filter_map(|line| line.trim().strip_prefix("route(\""));
    let words = rows.filter(|row| !row.contains("Metrics(")).map(|row| row.split('"'));
    words.map(|mut words| (words.next().unwrap(), words.nth(1).unwrap())).collect()
}

pub fn filled(pattern: &str, id: &str) -> String {
    let words = [("{kinds}", "projects"), ("{mid}", "m"), ("{empty}", "actions"), ("{}", id)];
    words.iter().fold(pattern.to_owned(), |path, (word, segment)| path.replace(word, segment))
}

#[test]
fn every_route_but_login_registration_health_and_the_page_needs_credentials() {
    let (server, user) = with_user(&[]);
    let by_jwt = user.by_jwt(&server);
    let (open, closed): (Vec<_>, Vec<_>) =
        routes().into_iter().partition(|(_, pattern)| OPEN.contains(pattern));
    assert!(open.len() == OPEN.len() && closed.len() > 35, "{}", closed.len());
    for (method, pattern) in open {
        assert_ne!(server.ask(method, pattern, "", b"").status, 404, "{pattern}");
    }
    for (method, pattern) in closed {
        let path = filled(pattern, "1");
        for field in ["", "Authorization: Bearer x\r\n", "Authorization: Basic YTpi\r\n"] {
            let response = server.ask(method, &path, field, b"");
            let sentence = refused(&response, 401, "unauthorized");
            assert_eq!(response.field("www-authenticate"), Some("Bearer"), "{method} {pattern}");
            assert_says(&sentence, &["`configsync-server token create`", "`configsync login`"]);
        }
        for user in [&user, &by_jwt] {
            assert_ne!(user.raw(method, &path, "", b"").status, 401, "{method} {pattern}");
        }
    }
}

/// Everything that a user can have.
pub fn furnish(user: &User) {
    user.register("m");
    user.stored("m", b"state");
    user.post("/api/machines/m/push", &json!({ "encrypted_state": "AAAA" })).is(200);
    for kind in KINDS {
        let id = user.add(kind, "s");
        user.push_version(kind, id, b"x");
        user.post(&format!("/api/{kind}s/{id}/keys"), &json!({ "wrapped_dek": "BBBB" })).is(201);
    }
    user.add("workspace", "without a key");
    user.post("/api/profiles/5/workspaces", &json!({ "workspace_id": 2 })).is(201);
    user.post("/api/machines/m/projects", &json!({ "project_id": 1 })).is(201);
    user.put_variable("1", "AAAA").is(200);
    user.sync_environments(json!([{ "name": "dev", "tier": "development" }])).is(200);
}

/// A request of every route that writes, of a user who is furnished: method, path, body. Those
/// without a body of their own get one of one byte, which is read and ignored.
pub fn writes() -> Vec<(&'static str, &'static str, Value)> {
    let link = json!({ "project_id": 1, "local_path": "/new", "last_synced_version": 9 });
    let new = json!({ "slug": "new", "name": "new" });
    let keypair = json!({ "public_key": "AAAA", "encrypted_private_key": "AAAA",
        "kek_salt": "AAAA", "kek_iterations": 1 });
    let commit = json!({ "machine_id": "m", "updates":
        [{ "entity_type": "project", "entity_id": 1, "new_last_synced_version": 9 }] });
    let environments =
        json!({ "environments": [{ "name": "new", "tier": "custom" }], "delete_missing": true });
    let variable = json!({ "environment_tier": "dev", "encrypted_value": "BBBB" });
    vec![
        ("POST", "/api/machines", json!({ "machine_id": "n", "name": "n" })),
        ("POST", "/api/machines/register", json!({ "machine_id": "m", "name": "renamed" })),
        ("POST", "/api/machines/snapshot", json!({ "machine_id": "m", "encrypted_state": "BBBB" })),
        ("POST", "/api/machines/m/push", json!({ "encrypted_state": "CCCC" })),
        ("POST", "/api/machines/unknown/push", json!({ "encrypted_state": "BBBB" })),
        ("DELETE", "/api/machines/m", json!(0)),
        ("POST", "/api/auth/keypair", keypair),
        ("POST", "/api/machines/other/projects", link.clone()),
        ("PATCH", "/api/machines/m/projects/1", link),
        ("PATCH", "/api/machines/m/profiles/5", json!({ "active": true })),
        ("POST", "/api/sync/commit", commit),
        ("PUT", "/api/environments/sync", environments),
        ("POST", "/api/profiles/5/workspaces", json!({ "workspace_id": 6 })),
        ("DELETE", "/api/profiles/5/workspaces/2", json!(0)),
        ("POST", "/api/projects/1/env/keys", json!({ "layer_id": "x", "wrapped_dek": "BBBB" })),
        ("PUT", "/api/projects/1/env/NEW", variable),
        ("DELETE", "/api/projects/1/env/1?env=dev&visibility=shared", json!(0)),
        ("POST", "/api/configs", new.clone()),
        ("PATCH", "/api/projects/1", new),
        ("DELETE", "/api/projects/1", json!(0)),
        ("POST", "/api/projects/1/versions", json!({ "ciphertext": "BBBB" })),
        ("POST", "/api/workspaces/6/keys", json!({ "wrapped_dek": "BBBB" })),
    ]
}

#[test]
fn another_users_things_answer_like_things_that_never_were() {
    let (server, a, b) = with_two_users(&[]);
    furnish(&a);
    let done = "SELECT count(*) FROM audit_log WHERE event NOT IN ('entity.pull', 'server.start')";
    let before = server.count(done);
    let body = json!({ "name": "z", "slug": "z", "project_id": 1, "local_path": "/x",
        "last_synced_version": 1, "active": true, "workspace_id": 2, "layer_id": "l",
        "wrapped_dek": "CCCC", "environment_tier": "dev", "encrypted_value": "AAAA",
        "ciphertext": "AAAA" })
    .to_string();
    let mut tried = 0;
    for (method, pattern) in routes().into_iter().filter(|(_, pattern)| pattern.contains("{}")) {
        for (kind, id) in KINDS.iter().flat_map(|kind| (1..=5).map(move |id| (kind, id))) {
            let ask = |id: &str| {
                let pattern = pattern.replace("{kinds}", &format!("{kind}s"));
                let path = format!("{}?env=dev&visibility=shared", filled(&pattern, id));
                let body = if matches!(method, "GET" | "DELETE") { "" } else { &body };
                b.raw(method, &path, "", body.as_bytes())
            };
            let (foreign, unknown) = (ask(&id.to_string()), ask("987654"));
            let is_same = foreign.status == unknown.status && foreign.body == unknown.body;
            assert!(is_same, "{method} {pattern} {id}: {foreign:?}");
            let gone = foreign.status == 404 || pattern.contains("/workspaces/{}");
            assert!(gone, "{method} {pattern}: {foreign:?}");
            tried += 1;
        }
    }
    assert!(tried > 200, "{tried}");
    assert_eq!(server.count(done), before, "nothing of it happened");
}

#[test]
fn every_list_shows_its_own_user_alone() {
    let (_server, a, b) = with_two_users(&[]);
    furnish(&a);
    for path in [
        "machines", "machines/history", "machines/m/projects", "environments", "projects",
        "workspaces", "configs", "modules", "profiles",
    ] {
        let last = path.rsplit('/').next().unwrap();
        let member = if last == "history" { "snapshots" } else { last };
        let path = format!("/api/{path}");
        assert_ne!(a.read(&path)[member], json!([]), "{path} of its owner");
        assert_eq!(b.read(&path)[member], json!([]), "{path} of another");
    }
    for path in ["latest", "latest?machine_id=m", "snapshot?id=1"] {
        refused(&b.get(&format!("/api/machines/{path}")), 404, "no_snapshot");
    }
    let nothing = json!({ "stored_bytes": 0, "snapshots": 0, "quota_bytes": null });
    assert_eq!(b.read("/api/usage"), nothing);
    let plan = json!({ "machine_id": "m",
        "entities": [{ "type": "project", "id": 1, "local_version": 1, "local_hash": "" }] });
    assert_eq!(b.post("/api/sync/plan", &plan).is(200)["actions"][0]["action"], "error");
}

#[test]
fn what_one_user_changes_of_many_rows_at_once_are_their_own() {
    let (_server, a, b) = with_two_users(&[]);
    // The mark of the default profile moves among one's own.
    let profile = json!({ "slug": "p", "name": "p", "is_default": true });
    for user in [&a, &b] {
        user.post("/api/profiles", &profile).is(201);
    }
    assert_eq!(a.read("/api/profiles")["profiles"][0]["is_default"], true);
    // An abandoned slug is given up for a new one of the same user.
    let id = a.add("project", "p");
    a.post(&format!("/api/projects/{id}/keys"), &json!({ "wrapped_dek": "AAAA" })).is(201);
    b.add("project", "p");
    assert_eq!(a.read("/api/projects")["projects"][0]["id"], id);
    // Missing environments are one's own.
    a.sync_environments(json!([{ "name": "e", "tier": "custom" }])).is(200);
    b.sync_environments(json!([])).is(200);
    assert_eq!(a.read("/api/environments")["environments"][0]["name"], "e");
}

#[test]
fn what_has_no_number_in_its_path_is_ones_own_too() {
    let (_server, a, b) = with_two_users(&[]);
    let keypair = json!({ "public_key": "AAAA", "encrypted_private_key": "AAAA",
        "kek_salt": "AAAA", "kek_iterations": 1 });
    a.post("/api/auth/keypair", &keypair).is(201);
    refused(&b.get("/api/auth/keypair"), 404, "not_found");
    // A machine that another user has is hidden for nobody, whether one has its name too or not.
    a.register("m");
    refused(&b.delete("/api/machines/m"), 404, "not_found");
    b.register("m");
    b.delete("/api/machines/m").is(200);
    refused(&b.push("m", b"to one that is hidden", ""), 404, "machine_not_registered");
    assert_eq!(a.read("/api/machines")["machines"][0]["machine_id"], "m");
    // A link is not changed by who has a machine of the same name.
    let path = "/api/machines/m/projects";
    let link = |user: &User| {
        let id = user.add("project", "p");
        user.push_version("project", id, b"state");
        user.post(path, &json!({ "project_id": id })).is(201);
        id
    };
    let of_a = link(&a);
    commit(&b, "m", of_a, 9);
    refused(&b.patch(&format!("{path}/{of_a}"), &json!({})), 404, "not_found");
    assert_eq!(b.read(path)["projects"], json!([]));
    let of_b = link(&b);
    commit(&a, "m", of_b, 9);
    b.patch(&format!("{path}/{of_b}"), &json!({})).is(200);
    for (user, id) in [(&a, of_a), (&b, of_b)] {
        let links = user.read(path)["projects"].clone();
        assert_eq!(links.as_array().unwrap().len(), 1);
        assert_has(&links[0], json!({ "id": id, "last_synced_version": 1 }));
    }
}
