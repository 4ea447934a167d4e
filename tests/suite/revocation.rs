//! A credential is asked again when a request writes: one that is revoked while the body comes
//! gets 401 and writes nothing, whatever the route.

use serde_json::Value;

use crate::access::{furnish, writes};
use crate::fixture::{Held, Server, User, refused, with_two_users, with_user};

/// Every table whose rows a user's request can write, by a query that shows all of each row.
const TABLES: [&str; 11] = [
    "machines", "state_snapshots", "keypairs", "entities", "entity_versions", "machine_projects",
    "machine_profiles", "profile_workspaces", "layer_keys", "variables", "environments",
];

/// All rows that requests write, and how many audit rows they caused.
pub fn rows(server: &Server) -> (Vec<String>, i64) {
    let database = server.database();
    let mut found = Vec::new();
    for table in TABLES {
        let mut statement = database.prepare(&format!("SELECT * FROM {table}")).unwrap();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            found.push(format!("{table} {row:?}"));
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

/// What ends a credential.
type End = fn(&Server);

/// Holds every request that writes, ends the credential, and lets them go on: all get 401, and
/// nothing was written.
#[test]
fn a_credential_that_ends_while_a_body_comes_writes_nothing() {
    let revoke: End = |server| drop(server.ok(&["token", "revoke", "1"]));
    let expire: End = |server| {
        let sql = "UPDATE api_tokens SET expires_at = 1 WHERE id = 1";
        assert_eq!(server.database().execute(sql, []).unwrap(), 1);
    };
    let disable: End = |server| drop(server.ok(&["user", "disable", "a@example.org"]));
    let remove: End = |server| drop(server.ok(&["user", "remove", "a@example.org", "--yes"]));
    for (what, by_jwt, end) in [
        ("a revoked token", false, revoke),
        ("an expired token", false, expire),
        ("a disabled user", false, disable),
        ("a removed user", false, remove),
        ("the JWT of a revoked token", true, revoke),
    ] {
        let (server, a, b) = with_two_users(&[]);
        furnish(&a);
        b.register("m");
        let user = if by_jwt { a.by_jwt(&server) } else { a };
        let waiting: Vec<_> = writes().iter().map(|write| held(&user, write)).collect();
        let files = server.files("snapshots");
        end(&server);
        let before = rows(&server);
        for (held, (method, path, _)) in waiting.into_iter().zip(writes()) {
            let response = held.release();
            assert_eq!(response.status, 401, "{what}: {method} {path}");
            refused(&response, 401, "unauthorized");
        }
        assert_eq!(rows(&server), before, "{what}");
        assert!(server.files("snapshots") <= files, "{what}");
        server.assert_no_upload_left();
        b.stored("m", b"the other user goes on");
    }
}

#[test]
fn a_new_password_ends_the_jwt_of_a_push_under_way_and_leaves_the_api_token() {
    let (server, user) = with_user(&[]);
    furnish(&user);
    let push = &writes()[2];
    let waiting = [held(&user.by_jwt(&server), push), held(&user, push)];
    let passwd = ["user", "passwd", "a@example.org", "--password-stdin"];
    server.cli_with(&passwd, "correct horse\n").ok();
    assert_eq!(waiting.map(|held| held.release().status), [401, 201]);
}
