//! A credential is asked again when a request writes: one that is revoked while the body comes
//! gets 401 and writes nothing, whatever the route.

use serde_json::{Value, json};

use crate::fixture::{Held, Server, User, refused, serve, with_two_users};

/// Every table whose rows a user's request can write, by a query that shows all of each row.
const TABLES: [&str; 11] = [
    "machines", "state_snapshots", "keypairs", "entities", "entity_versions", "machine_projects",
    "machine_profiles", "profile_workspaces", "layer_keys", "variables", "environments",
];

/// A request of every route that writes: method, path, body. Those without a body of their own
/// get one of one byte, which is read and ignored.
fn writes() -> Vec<(&'static str, &'static str, Value)> {
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
        ("POST", "/api/machines/unknown/push", json!({ "encrypted_state": "BBBB" })),
        ("DELETE", "/api/machines/m", json!(0)),
        ("POST", "/api/auth/keypair", keypair),
        ("POST", "/api/machines/other/projects", link.clone()),
        ("PATCH", "/api/machines/m/projects/1", link),
        ("PATCH", "/api/machines/m/profiles/3", json!({ "active": true })),
        ("POST", "/api/sync/commit", commit),
        ("PUT", "/api/environments/sync", environments),
        ("POST", "/api/profiles/3/workspaces", json!({ "workspace_id": 4 })),
        ("DELETE", "/api/profiles/3/workspaces/2", json!(0)),
        ("POST", "/api/projects/1/env/keys", json!({ "layer_id": "x", "wrapped_dek": "BBBB" })),
        ("PUT", "/api/projects/1/env/NEW", variable),
        ("DELETE", "/api/projects/1/env/OLD?env=dev&visibility=shared", json!(0)),
        ("POST", "/api/configs", new.clone()),
        ("PATCH", "/api/projects/1", new),
        ("DELETE", "/api/projects/1", json!(0)),
        ("POST", "/api/projects/1/versions", json!({ "ciphertext": "BBBB" })),
        ("POST", "/api/projects/1/keys", json!({ "wrapped_dek": "BBBB" })),
    ]
}

/// What the requests above find.
fn furnish(user: &User) {
    user.register("m");
    user.stored("m", b"state");
    for (kind, slug) in [("project", "p"), ("workspace", "w"), ("profile", "f"), ("workspace", "v")]
    {
        user.add(kind, slug);
    }
    user.push_version("project", 1, b"version");
    user.post("/api/machines/m/projects", &json!({ "project_id": 1 })).is(201);
    user.post("/api/profiles/3/workspaces", &json!({ "workspace_id": 2 })).is(201);
    let variable = json!({ "environment_tier": "dev", "encrypted_value": "AAAA" });
    user.put("/api/projects/1/env/OLD", &variable).is(200);
    let old = json!({ "environments": [{ "name": "old", "tier": "custom" }] });
    user.put("/api/environments/sync", &old).is(200);
}

/// All rows that requests write, and how many audit rows they caused.
fn rows(server: &Server) -> (Vec<String>, i64) {
    let database = server.database();
    let mut found = Vec::new();
    for table in TABLES {
        let mut statement = database.prepare(&format!("SELECT * FROM {table}")).unwrap();
        let columns = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let cells = (0..columns).map(|n| row.get::<_, rusqlite::types::Value>(n).unwrap());
            found.push(format!("{table} {:?}", cells.collect::<Vec<_>>()));
        }
    }
    // Logins and starts are noted a little later, and commands are not requests.
    let audit = "SELECT count(*) FROM audit_log
                  WHERE substr(event, 1, instr(event, '.'))
                        NOT IN ('token.', 'user.', 'login.', 'server.')";
    (found, server.count(audit))
}

fn held(user: &User, (method, path, body): &(&str, &str, Value)) -> Held {
    user.hold(method, path, "Content-Type: application/json\r\n", body.to_string().as_bytes())
}

/// Holds every request that writes, does something to the credential, and lets them go on: all get
/// 401, and nothing was written.
fn nothing_is_written_after(bearer_of: impl Fn(&Server, &User) -> User, end: impl Fn(&Server)) {
    let (server, a, b) = with_two_users(&[]);
    furnish(&a);
    b.register("m");
    let user = bearer_of(&server, &a);
    let waiting: Vec<_> = writes().iter().map(|write| held(&user, write)).collect();
    let files = server.files("snapshots");
    end(&server);
    let before = rows(&server);
    for (held, (method, path, _)) in waiting.into_iter().zip(writes()) {
        let response = held.release();
        assert_eq!(response.status, 401, "{method} {path}");
        refused(&response, 401, "unauthorized");
    }
    assert_eq!(rows(&server), before);
    assert!(server.files("snapshots") <= files);
    server.assert_no_upload_left();
    b.stored("m", b"the other user goes on");
}

#[test]
fn a_token_that_is_revoked_while_a_body_comes_writes_nothing() {
    nothing_is_written_after(|_, a| a.clone(), |server| drop(server.ok(&["token", "revoke", "1"])));
}

#[test]
fn a_token_that_expires_while_a_body_comes_writes_nothing() {
    let expire = "UPDATE api_tokens SET expires_at = 1 WHERE id = 1";
    nothing_is_written_after(
        |_, a| a.clone(),
        |server| assert_eq!(server.database().execute(expire, []).unwrap(), 1),
    );
}

#[test]
fn a_user_who_is_disabled_while_a_body_comes_writes_nothing() {
    let disable = ["user", "disable", "a@example.org"];
    nothing_is_written_after(|_, a| a.clone(), |server| drop(server.ok(&disable)));
}

#[test]
fn a_user_who_is_removed_while_a_body_comes_gets_401_and_no_error_of_the_database() {
    let remove = ["user", "remove", "a@example.org", "--yes"];
    nothing_is_written_after(|_, a| a.clone(), |server| drop(server.ok(&remove)));
}

#[test]
fn a_jwt_whose_token_is_revoked_while_a_body_comes_writes_nothing() {
    let trade = |server: &Server, a: &User| {
        let jwt = server.login_from([127, 0, 0, 1], &json!({ "token": a.bearer })).is(200);
        User::of(server, &a.email, jwt["token"].as_str().unwrap())
    };
    nothing_is_written_after(trade, |server| drop(server.ok(&["token", "revoke", "1"])));
}

#[test]
fn a_new_password_ends_the_jwt_of_a_push_under_way_and_leaves_the_api_token() {
    let server = serve(&[]);
    let a = server.user("a@example.org");
    furnish(&a);
    let jwt = server.login_from([127, 0, 0, 1], &json!({ "token": a.bearer })).is(200);
    let by_jwt = User::of(&server, "a@example.org", jwt["token"].as_str().unwrap());
    let push =
        ("POST", "/api/machines/snapshot", json!({ "machine_id": "m", "encrypted_state": "BBBB" }));
    let waiting = [held(&by_jwt, &push), held(&a, &push)];
    let passwd = ["user", "passwd", "a@example.org", "--password-stdin"];
    assert_eq!(server.cli_with(&passwd, "correct horse\n").code, 0);
    let statuses = waiting.map(|held| held.release().status);
    assert_eq!(statuses, [401, 201]);
}
