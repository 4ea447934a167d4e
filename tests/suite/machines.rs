//! GET and POST /api/machines.

use serde_json::json;

use super::support::{refused, serve};

#[test]
fn a_machine_is_registered_once_and_updated_afterwards() {
    let server = serve(&[]);
    let user = server.user("a@example.org");
    let body = json!({ "machine_id": "A.z_0:9-", "name": "laptop", "platform": "linux",
        "arch": "arm64", "cli_version": "2.0", "unknown": [1] });
    let first = user.post("/api/machines", &body);
    assert_eq!(first.status, 201);
    let machine = &first.json()["machine"];
    assert_eq!(machine["machine_id"], "A.z_0:9-");
    assert_eq!(machine["user_id"], 1);
    assert_eq!(machine["platform"], "linux");
    for null in ["last_push_at", "latest_snapshot_id"] {
        assert!(machine[null].is_null(), "{null}");
    }
    assert_eq!(machine["snapshot_count"], 0);
    let again = user.post("/api/machines", &json!({ "machine_id": "A.z_0:9-", "name": "desk" }));
    assert_eq!(again.status, 200);
    let renamed = &again.json()["machine"];
    assert_eq!((&renamed["id"], &renamed["name"]), (&machine["id"], &json!("desk")));
    assert_eq!(renamed["arch"], "arm64", "what the client leaves out keeps its value");
}

#[test]
fn what_a_client_never_sent_is_null_and_times_are_rfc_3339_in_utc_with_milliseconds() {
    let server = serve(&[]);
    let user = server.user("a@example.org");
    let body = json!({ "machine_id": "m", "name": "x" });
    let machine = user.post("/api/machines", &body).json()["machine"].clone();
    for null in ["platform", "arch", "cli_version", "last_push_at"] {
        assert!(machine[null].is_null(), "{null}");
    }
    for time in ["created_at", "updated_at", "last_seen_at"] {
        let text = machine[time].as_str().unwrap();
        assert_eq!((text.len(), &text[10..11], &text[19..20], &text[23..]), (24, "T", ".", "Z"));
    }
}

#[test]
fn the_list_begins_with_the_newest_activity() {
    let server = serve(&[]);
    let user = server.user("a@example.org");
    for machine in ["one", "two", "three"] {
        user.register(machine);
    }
    user.stored("one", b"state");
    let list = user.read("/api/machines");
    let names: Vec<_> = list["machines"].as_array().unwrap().iter().map(|m| &m["name"]).collect();
    assert_eq!(names[0], "one");
    assert_eq!(names.len(), 3);
    assert_eq!(list["user"], json!({ "id": 1, "email": "a@example.org" }));
    assert_eq!(list["machines"][0]["snapshot_count"], 1);
    assert_eq!(list["machines"][0]["latest_snapshot_id"], 1);
    assert!(list["machines"][0]["last_push_at"].is_string());
}

#[test]
fn two_users_with_the_same_machine_id_never_meet() {
    let server = serve(&[]);
    let (a, b) = (server.user("a@example.org"), server.user("b@example.org"));
    a.register("shared");
    refused(&b.push("shared", b"state", ""), 404, "machine_not_registered");
    b.register("shared");
    a.stored("shared", b"of a");
    b.stored("shared", b"of b");
    assert_eq!(a.pull("?machine_id=shared").body, b"of a");
    assert_eq!(b.pull("?machine_id=shared").body, b"of b");
    assert_eq!(a.history(), [1]);
    assert_eq!(b.history(), [2]);
    assert_eq!(b.read("/api/machines")["machines"][0]["snapshot_count"], 1);
}

#[test]
fn a_bad_registration_names_what_is_wrong_and_stores_nothing() {
    let server = serve(&[]);
    let user = server.user("a@example.org");
    let long = "x".repeat(129);
    let name = "x".repeat(256);
    for bad in [
        json!({ "name": "x" }),
        json!({ "machine_id": "m" }),
        json!({ "machine_id": null, "name": "x" }),
        json!({ "machine_id": 3, "name": "x" }),
        json!({ "machine_id": "", "name": "x" }),
        json!({ "machine_id": "..", "name": "x" }),
        json!({ "machine_id": "latest", "name": "x" }),
        json!({ "machine_id": "a/b", "name": "x" }),
        json!({ "machine_id": "é", "name": "x" }),
        json!({ "machine_id": long, "name": "x" }),
        json!({ "machine_id": "m", "name": "" }),
        json!({ "machine_id": "m", "name": "  " }),
        json!({ "machine_id": "m", "name": "a\u{7}" }),
        json!({ "machine_id": "m", "name": name }),
        json!({ "machine_id": "m", "name": "x", "platform": long }),
        json!({ "machine_id": "m", "name": "x", "arch": "a\n" }),
        json!({ "machine_id": "m", "name": "x", "cli_version": 2 }),
        json!([]),
        json!("m"),
    ] {
        let answer = user.post("/api/machines", &bad);
        refused(&answer, 400, "bad_request");
    }
    assert_eq!(server.count("SELECT count(*) FROM machines"), 0);
}
