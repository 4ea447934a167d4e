//! POST and GET /api/machines/snapshot, GET /api/machines/history.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::support::{Server, User, noise, refused, serve};

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

fn with_machine() -> (Server, User) {
    let server = serve(&[]);
    let user = server.user("a@example.org");
    user.register("m");
    (server, user)
}

fn push_json(user: &User, bytes: &[u8]) -> super::wire::Answer {
    let state = STANDARD.encode(bytes);
    user.post("/api/machines/snapshot", &json!({ "machine_id": "m", "encrypted_state": state }))
}

#[test]
fn what_was_pushed_raw_is_pulled_raw_and_as_json() {
    let (_server, user) = with_machine();
    let bytes = noise(5_000_000);
    let path = "/api/machines/snapshot?machine_id=m&message=a+b%2Bc&version=2&timestamp=now";
    let pushed = user.raw("POST", path, "Content-Type: application/octet-stream\r\n", &bytes);
    assert_eq!(pushed.status, 201);
    let snapshot = pushed.json()["snapshot"].clone();
    assert_eq!(snapshot["size_bytes"], 5_000_000);
    assert_eq!(snapshot["sha256"], hex(&bytes));
    assert_eq!(snapshot["message"], "a b+c");
    assert_eq!(snapshot["version"], "2");
    assert_eq!(snapshot["timestamp"], "now");
    assert_eq!((&snapshot["machine_id"], &snapshot["machine_name"]), (&json!("m"), &json!("m")));

    let raw = user.pull("");
    assert_eq!(raw.status, 200);
    assert!(raw.body == bytes);
    assert_eq!(raw.field("content-type"), Some("application/octet-stream"));
    assert_eq!(raw.field("x-snapshot-id"), Some("1"));
    assert_eq!(raw.field("x-machine-id"), Some("m"));
    assert_eq!(raw.field("etag"), Some(format!("\"{}\"", hex(&bytes)).as_str()));
    let pulled = user.read("/api/machines/snapshot");
    assert!(STANDARD.decode(pulled["encrypted_state"].as_str().unwrap()).unwrap() == bytes);
    assert_eq!(pulled["sha256"], snapshot["sha256"]);
}

#[test]
fn what_was_pushed_as_json_is_pulled_raw_whatever_stands_around_it() {
    let (server, user) = with_machine();
    for (n, len) in [1, 2, 3, 64, 100_000, 1_000_001].into_iter().enumerate() {
        let bytes = noise(len);
        let state = STANDARD.encode(&bytes);
        let body = json!({ "metadata": { "machine_vars": { "KEY": "in-clear-51" }, "x": [[], "}"] },
            "message": "é\nline", "encrypted_state": state, "machine_id": "m", "extra": null });
        let answer = user.post("/api/machines/snapshot", &body);
        assert_eq!(answer.status, 201, "{len}");
        assert_eq!(answer.json()["snapshot"]["message"], "é\nline");
        assert!(user.pull("").body == bytes, "{len}");
        assert_eq!(user.history().len(), n + 1);
    }
    for file in super::support::files(&server.data()).into_iter().filter(|file| file.is_file()) {
        let bytes = std::fs::read(&file).unwrap();
        let clear = bytes.windows(11).any(|window| window == b"in-clear-51");
        assert!(!clear, "metadata reached {}", file.display());
    }
}

#[test]
fn the_same_bytes_again_are_a_retry_and_store_nothing() {
    let (server, user) = with_machine();
    let first = user.push("m", b"state", "");
    let again = user.push("m", b"state", "If-None-Match: *\r\n");
    assert_eq!((first.status, again.status), (201, 200));
    assert_eq!(first.json(), again.json());
    assert_eq!(push_json(&user, b"state").status, 200);
    user.stored("m", b"other");
    assert_eq!(user.push("m", b"state", "").status, 201, "no longer the newest");
    assert_eq!(server.files("snapshots"), 3);
    assert_eq!(server.files("tmp"), 0);
}

#[test]
fn a_retry_needs_no_room() {
    let server = serve(&["--quota", "10"]);
    let user = server.user("a@example.org");
    user.register("m");
    user.stored("m", b"0123456789");
    assert_eq!(user.push("m", b"0123456789", "").status, 200);
    assert_eq!(push_json(&user, b"0123456789").status, 200);
    refused(&user.push("m", b"1123456789", ""), 507, "quota_exceeded");
    refused(&push_json(&user, b"1123456789"), 507, "quota_exceeded");
    assert_eq!(server.files("snapshots"), 1);
}

#[test]
fn a_conditional_push_depends_on_the_users_newest_snapshot() {
    let (_server, user) = with_machine();
    user.register("other");
    let tag = |bytes: &[u8]| format!("If-Match: \"{}\"\r\n", hex(bytes));
    let fails = |fields: &str| {
        refused(&user.push("m", b"new", fields), 412, "precondition_failed");
    };
    fails("If-Match: *\r\n");
    fails(&tag(b"one"));
    assert_eq!(user.push("m", b"one", "If-None-Match: *\r\n").status, 201);
    fails("If-None-Match: *\r\n");
    assert_eq!(user.push("other", b"two", &tag(b"one")).status, 201);
    fails(&tag(b"one"));
    fails(&format!("If-Match: W/\"{}\"\r\n", hex(b"two")));
    fails(&format!("If-None-Match: \"{}\"\r\n", hex(b"two")));
    assert_eq!(user.history().len(), 2, "nothing of the refused is stored");
    let either = format!("If-Match: \"x\", \"{}\"\r\n", hex(b"two"));
    assert_eq!(user.push("m", b"three", &either).status, 201);
    assert_eq!(user.push("m", b"four", "If-Match: *\r\n").status, 201);
    refused(&user.push("m", b"five", "If-Match: unquoted\r\n"), 400, "bad_request");
}

#[test]
fn a_client_that_has_the_bytes_is_told_so() {
    let (_server, user) = with_machine();
    user.stored("m", b"state");
    let tag = format!("\"{}\"", hex(b"state"));
    for accept in ["", "Accept: application/octet-stream\r\n"] {
        let fields = format!("If-None-Match: \"a\", W/{tag}\r\n{accept}");
        let answer = user.raw("GET", "/api/machines/snapshot", &fields, b"");
        assert_eq!((answer.status, answer.body.len()), (304, 0));
        assert_eq!(answer.field("etag"), Some(tag.as_str()));
        assert_eq!(answer.field("content-length"), None);
    }
    let other = user.raw("GET", "/api/machines/snapshot", "If-None-Match: \"b\"\r\n", b"");
    assert_eq!(other.status, 200);
}

#[test]
fn a_snapshot_is_found_by_id_by_machine_and_by_both() {
    let (_server, user) = with_machine();
    user.register("n");
    let (one, two) = (user.stored("m", b"one"), user.stored("n", b"two"));
    assert_eq!(user.pull("").body, b"two");
    assert_eq!(user.pull("?machine_id=m").body, b"one");
    assert_eq!(user.pull(&format!("?id={one}")).body, b"one");
    assert_eq!(user.pull(&format!("?id={two}&machine_id=n")).body, b"two");
    for none in [format!("?id={one}&machine_id=n"), "?id=99".into(), "?machine_id=x".into()] {
        refused(&user.pull(&none), 404, "no_snapshot");
    }
    for bad in ["?id=", "?id=x", "?id=-1", "?id=9223372036854775808", "?machine_id=a%2Fb"] {
        refused(&user.pull(bad), 400, "bad_request");
    }
}

#[test]
fn raw_bytes_come_back_only_where_accept_names_them() {
    let (_server, user) = with_machine();
    user.stored("m", b"state");
    for (accept, raw) in [
        ("*/*", false),
        ("application/json", false),
        ("application/*", false),
        ("application/octet-stream", true),
        ("application/json, Application/Octet-Stream;q=0.5", true),
    ] {
        let answer =
            user.raw("GET", "/api/machines/snapshot", &format!("Accept: {accept}\r\n"), b"");
        assert_eq!(answer.body == b"state", raw, "{accept}");
    }
}

#[test]
fn history_comes_in_pages_newest_first() {
    let (_server, user) = with_machine();
    user.register("n");
    for n in 0..25_u8 {
        user.stored(if n % 5 == 0 { "n" } else { "m" }, &[n]);
    }
    let ids = |page: &Value| -> Vec<i64> {
        page["snapshots"].as_array().unwrap().iter().map(|s| s["id"].as_i64().unwrap()).collect()
    };
    let first = user.read("/api/machines/history");
    assert_eq!(ids(&first), (6..=25).rev().collect::<Vec<_>>());
    assert_eq!(first["next_before"], 6);
    let second = user.read("/api/machines/history?before=6");
    assert_eq!(ids(&second), [5, 4, 3, 2, 1]);
    assert!(second["next_before"].is_null());
    let exact = user.read("/api/machines/history?limit=25");
    assert_eq!((ids(&exact).len(), &exact["next_before"]), (25, &Value::Null));
    let machine = user.read("/api/machines/history?machine_id=n&limit=2");
    assert_eq!((ids(&machine), &machine["next_before"]), (vec![21, 16], &json!(16)));
    assert!(ids(&user.read("/api/machines/history?machine_id=unknown")).is_empty());
    assert_eq!(ids(&user.read("/api/machines/history?limit=99999999999999999999")).len(), 25);
    for bad in ["0", "-1", "x", "", "1.5", "+1"] {
        refused(&user.get(&format!("/api/machines/history?limit={bad}")), 400, "bad_request");
    }
    refused(&user.get("/api/machines/history?before=x"), 400, "bad_request");
    refused(&user.get("/api/machines/history?limit=1&limit=2"), 400, "bad_request");
}

#[test]
fn more_than_200_rows_count_as_200() {
    let (_server, user) = with_machine();
    for n in 0..201_u16 {
        user.stored("m", &n.to_be_bytes());
    }
    let page = user.read("/api/machines/history?limit=1000");
    assert_eq!(page["snapshots"].as_array().unwrap().len(), 200);
    assert_eq!(page["next_before"], 2);
}
