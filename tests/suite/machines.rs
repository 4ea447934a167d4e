//! GET and POST /api/machines.

use serde_json::json;

use crate::fixture::{assert_has, refused, with_machine, with_user};

#[test]
fn a_machine_is_registered_once_and_updated_afterwards() {
    let (_server, user) = with_user(&[]);
    let body = json!({ "machine_id": "A.z_0:9-", "name": "laptop", "platform": "linux",
        "arch": "arm64", "cli_version": "2.0", "unknown": [1] });
    let machine = user.post("/api/machines", &body).is(201)["machine"].clone();
    let expected = json!({ "machine_id": "A.z_0:9-", "user_id": 1, "platform": "linux",
        "cli_version": "2.0", "last_push_at": null, "latest_snapshot_id": null,
        "snapshot_count": 0 });
    assert_has(&machine, expected);
    let again = json!({ "machine_id": "A.z_0:9-", "name": "desk" });
    let renamed = user.post("/api/machines", &again).is(200)["machine"].clone();
    // What the client leaves out keeps its value; what it never sent is null.
    assert_has(&renamed, json!({ "id": machine["id"], "name": "desk", "arch": "arm64" }));
    let least = json!({ "machine_id": "m", "name": "x" });
    let machine = user.post("/api/machines", &least).is(201)["machine"].clone();
    let nulls =
        json!({ "platform": null, "arch": null, "cli_version": null, "last_push_at": null });
    assert_has(&machine, nulls);
    for time in ["created_at", "updated_at", "last_seen_at"] {
        let text = machine[time].as_str().unwrap();
        assert_eq!((text.len(), &text[10..11], &text[19..20], &text[23..]), (24, "T", ".", "Z"));
    }
}

#[test]
fn the_list_begins_with_the_newest_activity() {
    let (_server, user) = with_user(&[]);
    ["one", "two", "three"].iter().for_each(|machine| user.register(machine));
    user.stored("one", b"state");
    let list = user.read("/api/machines");
    assert_eq!(list["user"], json!({ "id": 1, "email": "a@example.org" }));
    assert_eq!(list["machines"].as_array().unwrap().len(), 3);
    let first = &list["machines"][0];
    let members: Vec<&String> = first.as_object().unwrap().keys().collect();
    let expected = [
        "arch", "cli_version", "created_at", "id", "last_push_at", "last_seen_at",
        "latest_snapshot_id", "machine_id", "name", "platform", "snapshot_count", "updated_at",
        "user_id",
    ];
    assert_eq!(members, expected);
    assert_has(first, json!({ "name": "one", "snapshot_count": 1, "latest_snapshot_id": 1 }));
    assert!(first["last_push_at"].is_string());
}

#[test]
fn two_users_with_the_same_machine_id_never_meet() {
    let (server, a) = with_machine(&[]);
    let b = server.user("b@example.org");
    refused(&b.push("m", b"state", ""), 404, "machine_not_registered");
    b.post("/api/machines", &json!({ "machine_id": "m", "name": "m" })).is(201);
    assert_eq!((a.stored("m", b"of a"), b.stored("m", b"of b")), (1, 2));
    for (user, state, id) in [(&a, b"of a", 1), (&b, b"of b", 2)] {
        assert_eq!(user.pull("?machine_id=m").body, state);
        assert_eq!(user.history(), [id]);
        assert_eq!(user.read("/api/machines")["machines"][0]["snapshot_count"], 1);
    }
}
