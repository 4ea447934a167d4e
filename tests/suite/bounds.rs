//! What one signed-in user may take: rows, entries of a request, deleted things, audit rows. Each
//! bound is tried one over, and the other user notices nothing.

use serde_json::json;

use crate::access::{furnish, writes};
use crate::fixture::{
    Server, Setup, User, alone, assert_says, at_once, eventually, noise, refused, with_two_users,
    with_user,
};

/// What the rows of one user may count.
const TEXT_BYTES_MAX: i64 = 64 * 1024 * 1024;

/// Nothing may be added, with this code and a sentence with these words; the rest stays allowed.
fn assert_reads_and_deletes_alone(user: &User, code: &str, words: &str) {
    for (method, path, body) in writes() {
        // Every other write adds rows or makes them longer.
        if method == "DELETE" || path == "/api/sync/commit" {
            continue;
        }
        let response = user.raw(method, path, "", body.to_string().as_bytes());
        let found = (response.status, response.field("retry-after"));
        assert_eq!(found, (507, None), "{method} {path}");
        assert_says(&refused(&response, 507, code), &[words]);
    }
    refused(&user.push("m", &noise(9), ""), 507, code);
    user.register("m");
    user.read("/api/machines");
    assert_eq!(user.pull("?id=1").body, b"state");
    user.push("m", &[0; 3], "").is(200);
    user.patch("/api/projects/1", &json!({ "name": "q" })).is(200);
    user.delete("/api/projects/1/env/1?env=dev&visibility=shared").is(200);
    user.delete("/api/modules/4").is(200);
    user.delete("/api/machines/m").is(200);
}

#[test]
fn no_route_adds_a_row_above_what_the_rows_of_a_user_may_take() {
    let (server, a, b) = with_two_users(&[]);
    furnish(&a);
    b.register("m");
    let fill = |left: i64| {
        let sql = "UPDATE users SET text_bytes = ?1 WHERE id = 1";
        server.database().execute(sql, [TEXT_BYTES_MAX - left]).unwrap();
    };
    fill(0);
    assert_reads_and_deletes_alone(&a, "quota_exceeded", "67108864");
    b.stored("m", b"the other user has room");
    // One more row of one byte fits to the byte, and the next one does not.
    fill(1024 + 2);
    a.add("config", "x");
    assert_eq!(server.count("SELECT text_bytes FROM users WHERE id = 1"), TEXT_BYTES_MAX);
    refused(&a.post("/api/configs", &json!({ "slug": "y", "name": "y" })), 507, "quota_exceeded");
}

#[test]
fn no_route_adds_a_row_over_quota() {
    let (server, a, b) = with_two_users(&[]);
    furnish(&a);
    b.register("m");
    // All that it allows is used: no version would fit that a new entity is made for.
    server.ok(&["user", "quota", "a@example.org", "13"]);
    assert_reads_and_deletes_alone(&a, "quota_exceeded", "13");
    b.stored("m", b"the other user has room");
}

#[test]
fn no_route_adds_a_row_where_the_disk_is_short() {
    let (server, user) = with_user(&[]);
    furnish(&user);
    let server = server.restarted(&["--min-free", "9223372036854775807"]);
    let sentence = "9223372036854775807 are kept (--min-free)";
    assert_reads_and_deletes_alone(&user, "disk_full", sentence);
    user.delete("/api/projects/1").is(200);
    assert_eq!(server.health(), (503, "disk_full".to_owned()));
    assert_eq!(server.files("snapshots"), 7, "of before");
}

#[test]
fn a_request_may_have_ten_thousand_entries() {
    let (_server, user) = with_user(&[]);
    user.add("project", "p");
    let plan = |entries: usize| {
        let entity = json!({ "type": "project", "id": 1, "local_version": 0, "local_hash": "" });
        let entities = vec![entity; entries];
        user.post("/api/sync/plan", &json!({ "machine_id": "m", "entities": entities }))
    };
    let commit = |entries: usize| {
        let update = json!({ "entity_type": "x", "entity_id": 1, "new_last_synced_version": 1 });
        let updates = vec![update; entries];
        user.post("/api/sync/commit", &json!({ "machine_id": "m", "updates": updates }))
    };
    let environments = |entries: usize| {
        user.sync_environments(vec![json!({ "name": "dev", "tier": "custom" }); entries].into())
    };
    let planned = plan(10_000).is(200);
    let actions = planned["actions"].as_array().unwrap();
    assert!(actions.len() == 10_000 && actions.iter().all(|step| step["action"] == "noop"));
    commit(10_000).is(200);
    environments(10_000).is(200);
    for over in [plan(10_001), commit(10_001), environments(10_001)] {
        assert!(refused(&over, 400, "bad_request").contains("10000"), "{over:?}");
    }
}

#[test]
fn of_deleted_things_the_thousand_deleted_last_are_kept() {
    let (server, a, b) = with_two_users(&[]);
    let (oldest, newest) = (a.add("project", "oldest"), a.add("project", "newest"));
    for id in [oldest, newest] {
        a.push_version("project", id, b"version");
    }
    b.add("project", "oldest");
    a.delete(&format!("/api/projects/{oldest}")).is(200);
    b.delete("/api/projects/3").is(200);
    // 999 more, deleted since.
    let fill = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 999)
        INSERT INTO entities (user_id, kind, slug, name, created_at, updated_at, deleted_at)
        SELECT 1, 'config', 'c' || n, 'c', 0, 0, (SELECT max(deleted_at) + 1 FROM entities) FROM n";
    server.database().execute(fill, []).unwrap();
    assert_eq!(server.files("snapshots"), 2);
    a.delete(&format!("/api/projects/{newest}")).is(200);
    let deleted = |user: i64| {
        let sql = "SELECT count(*) FROM entities WHERE deleted_at IS NOT NULL AND user_id =";
        server.count(&format!("{sql} {user}"))
    };
    assert_eq!((deleted(1), deleted(2)), (1000, 1));
    assert_eq!(server.count("SELECT count(*) FROM entities WHERE slug = 'newest'"), 1);
    assert_eq!(server.files("snapshots"), 1, "the file of the oldest went with its row");
    for names in [0..1, 1..1001, 0..0] {
        let row = |n| json!({ "name": format!("e{n}"), "tier": "custom" });
        a.sync_environments(names.map(row).collect()).is(200);
    }
    let kept = ["count(*)", "min(id)"];
    let kept = kept.map(|what| server.count(&format!("SELECT {what} FROM environments")));
    assert_eq!(kept, [1000, 2]);
}

#[test]
fn registering_again_and_again_leaves_no_row_and_refused_pushes_leave_one() {
    let (server, user) = with_user(&[]);
    let noted = || server.audit(&["--event", "machine.register"]).len();
    for _ in 0..50 {
        user.register("m");
    }
    assert_eq!(noted(), 1);
    let renamed = json!({ "machine_id": "m", "name": "renamed" });
    user.post("/api/machines", &renamed).is(200);
    user.delete("/api/machines/m").is(200);
    user.post("/api/machines", &renamed).is(200);
    assert_eq!(noted(), 3, "renamed, and back");
    server.user("b@example.org").post("/api/machines", &renamed).is(201);
    assert_eq!(noted(), 4, "the same machine of another user is new");
    user.stored("m", b"state");
    user.add("project", "p");
    server.ok(&["user", "quota", "a@example.org", "5"]);
    refused(&user.push("m", b"more", ""), 507, "quota_exceeded");
    let version = json!({ "ciphertext": "AAAA" });
    refused(&user.post("/api/projects/1/versions", &version), 507, "quota_exceeded");
    let refusals = "SELECT count(*) FROM audit_log WHERE outcome = 'refused' AND user_id = 1
                      AND event IN ('snapshot.push', 'entity.push') AND detail = 'quota_exceeded'";
    eventually("both are noted", || server.count(refusals) == 2);
}

#[test]
fn a_sync_of_environments_notes_how_many_it_added_changed_and_deleted() {
    let (server, user) = with_user(&[]);
    let row = |name: &str, tier: &str| json!({ "name": name, "tier": tier });
    let first = json!([row("a", "custom"), row("b", "custom"), row("c", "custom")]);
    let other = json!([row("a", "custom"), row("b", "staging"), row("d", "custom")]);
    for rows in [&first, &other, &other] {
        let synced = user.sync_environments(rows.clone()).is(200);
        assert_eq!(synced["environments"].as_array().unwrap().len(), 3);
    }
    let rows = server.audit(&["--event", "environment.sync"]);
    let details: Vec<_> = rows.iter().map(|row| &row["detail"]).collect();
    assert_eq!(details, ["3 added, 0 changed, 0 deleted", "1 added, 1 changed, 1 deleted"]);
}

/// As much text as one user may have, in rows as long as they can be.
fn fill_with_text(server: &Server) {
    let sql = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 1900)
        INSERT INTO entities (user_id, kind, slug, name, description, source_hint,
                              created_at, updated_at)
        SELECT 1, 'config', 'c' || n, 'c', printf('%.*c', 16384, 'd'), printf('%.*c', 16384, 'h'),
               0, 0 FROM n";
    server.database().execute(sql, []).unwrap();
    let text = server.count("SELECT text_bytes FROM users WHERE id = 1");
    assert!(text < TEXT_BYTES_MAX && text > TEXT_BYTES_MAX - 3_000_000, "{text}");
}

#[test]
fn no_signed_in_user_ends_a_process_that_has_256_mib() {
    let _alone = alone();
    let server = Setup::new().after("ulimit -d 262144").flags(&[]).start();
    let (a, b) = (server.user("a@example.org"), server.user("b@example.org"));
    furnish(&a);
    b.register("m");
    fill_with_text(&server);
    let entities = vec![json!({ "type": "project", "id": 1, "local_hash": "6" }); 10_000];
    let plan = json!({ "machine_id": "m", "entities": entities });
    let value = "A".repeat(1_000_000);
    for round in ["plans", "histories", "variables", "links", "lists and plans"] {
        let statuses = at_once(31, |n| match round {
            "plans" => a.post("/api/sync/plan", &plan).status,
            "histories" => a.get("/api/machines/history?limit=200").status,
            "variables" => a.put_variable(&format!("V{n}"), &value).status,
            "links" => a.post("/api/machines/m/projects", &json!({ "project_id": 1 })).status,
            _ if n % 2 == 0 => a.get("/api/configs").status,
            _ => a.post("/api/sync/plan", &plan).status,
        });
        // Served, or told that there is no room: nothing breaks.
        let expected = |status: &u16| matches!(status, 200 | 201 | 503 | 507);
        assert!(statuses.iter().all(expected), "{round}: {statuses:?}");
        b.read("/api/machines");
    }
    b.stored("m", b"the other user is served");
}
