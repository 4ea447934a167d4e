//! POST and GET /api/machines/snapshot, GET /api/machines/history, GET /api/usage.

use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::fixture::{Response, User, assert_has, eventually, noise, refused, with_machine};

const SNAPSHOT: &str = "/api/machines/snapshot";
const BYTES: &str = "Accept: application/octet-stream\r\n";
const JSON: &str = "application/json";

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

fn push_json(user: &User, bytes: &[u8]) -> Response {
    let state = STANDARD.encode(bytes);
    user.post(SNAPSHOT, &json!({ "machine_id": "m", "encrypted_state": state }))
}

#[test]
fn what_was_pushed_raw_is_pulled_raw_and_as_json() {
    let (_server, user) = with_machine(&[]);
    let bytes = noise(5_000_000);
    let pushed = user.push("m&message=a+b%2Bc&version=2&timestamp=now", &bytes, "");
    let snapshot = pushed.is(201)["snapshot"].clone();
    let expected = json!({ "id": 1, "machine_id": "m", "machine_name": "m", "message": "a b+c",
        "size_bytes": 5_000_000, "sha256": hex(&bytes), "version": "2", "timestamp": "now" });
    assert_has(&snapshot, expected);
    let members: Vec<&String> = snapshot.as_object().unwrap().keys().collect();
    let expected = [
        "created_at", "id", "machine_id", "machine_name", "message", "sha256", "size_bytes",
        "timestamp", "version",
    ];
    assert_eq!(members, expected);
    assert!(snapshot["created_at"].as_str().unwrap().ends_with('Z'));
    let usage = json!({ "stored_bytes": 5_000_000, "snapshots": 1, "quota_bytes": null });
    assert_eq!(user.read("/api/usage"), usage);
    let raw = user.pull("");
    assert!(raw.status == 200 && raw.body == bytes);
    for (name, value) in [
        ("content-type", "application/octet-stream"),
        ("x-snapshot-id", "1"),
        ("x-machine-id", "m"),
        ("etag", &format!("\"{}\"", hex(&bytes))),
    ] {
        assert_eq!(raw.field(name), Some(value));
    }
    // JSON where octets are not named, or are wanted less.
    let octets_less = "Accept: application/octet-stream;q=0.5, application/json;q=0.6\r\n";
    for accept in ["Accept: */*\r\n", octets_less] {
        assert_eq!(user.raw("GET", SNAPSHOT, accept, b"").field("content-type"), Some(JSON));
    }
    let both = "Accept: application/json\r\nAccept: application/octet-stream\r\n";
    assert!(user.raw("GET", SNAPSHOT, both, b"").body == bytes);
    let pulled = user.read(SNAPSHOT);
    assert!(STANDARD.decode(pulled["encrypted_state"].as_str().unwrap()).unwrap() == bytes);
    assert_has(&pulled, snapshot);
}

#[test]
fn what_was_pushed_as_json_is_pulled_raw_whatever_stands_around_it() {
    let (server, user) = with_machine(&[]);
    for len in [1, 2, 3, 64, 100_000, 1_000_001] {
        let bytes = noise(len);
        let state = STANDARD.encode(&bytes);
        let body = json!({ "metadata": { "machine_vars": { "KEY": "in-clear-51" }, "x": [[], "}"] },
            "message": "é\nline", "encrypted_state": state, "machine_id": "m", "extra": null });
        assert_eq!(user.post(SNAPSHOT, &body).is(201)["snapshot"]["message"], "é\nline");
        assert!(user.pull("").body == bytes, "{len}");
    }
    // Names and base64 may be spelled with any escape.
    let spelled = r#"{"machine\u005fid":"\u006d","meta\u0064ata":"in-clear-51",
        "\u0065ncrypted\u005fstate":"+\/\u0041\u003D"}"#;
    user.raw("POST", SNAPSHOT, "", spelled.as_bytes()).is(201);
    assert_eq!(user.read(SNAPSHOT)["encrypted_state"], "+/A=");
    assert_eq!(user.history().len(), 7);
    assert!(!server.holds(b"in-clear-51"), "metadata is kept nowhere");
}

#[test]
fn the_same_bytes_again_are_a_retry_and_store_nothing() {
    let (server, user) = with_machine(&["--quota", "15"]);
    let first = user.push("m", b"state", "").is(201);
    assert_eq!(user.push("m", b"state", "If-None-Match: *\r\n").is(200), first);
    assert_eq!(push_json(&user, b"state").is(200), first);
    user.stored("m", b"other");
    // No longer the newest.
    user.stored("m", b"state");
    // A retry needs no room.
    user.push("m", b"state", "").is(200);
    push_json(&user, b"state").is(200);
    refused(&user.push("m", b"newer", ""), 507, "quota_exceeded");
    refused(&push_json(&user, b"newer"), 507, "quota_exceeded");
    assert_eq!((server.files("snapshots"), server.files("tmp")), (3, 0));
}

#[test]
fn two_identical_pushes_at_once_are_stored_once_whatever_the_timing() {
    let (server, user) = with_machine(&[]);
    for round in 0..3_u8 {
        let files = server.files("snapshots");
        let path = "/api/machines/snapshot?machine_id=m";
        let octets = "Content-Type: application/octet-stream\r\n";
        let held = [(); 2].map(|()| user.hold("POST", path, octets, &[round; 1000]));
        // The test has the lock of the database until both have looked at the newest snapshot and
        // their files lie in place.
        let database = server.database();
        database.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut statuses = std::thread::scope(|scope| {
            let pushes = held.map(|held| scope.spawn(|| held.release()));
            eventually("both wait for the database", || server.files("snapshots") == files + 2);
            database.execute_batch("COMMIT").unwrap();
            pushes.map(|push| push.join().unwrap().status)
        });
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 201]);
        assert_eq!(server.files("snapshots"), files + 1);
    }
    assert_eq!(user.history().len(), 3);
}

#[test]
fn a_conditional_push_depends_on_the_users_newest_snapshot() {
    let (_server, user) = with_machine(&[]);
    user.register("other");
    let tag = |bytes: &[u8]| format!("If-Match: \"{}\"\r\n", hex(bytes));
    let fails = |fields: &str| {
        refused(&user.push("m", b"new", fields), 412, "precondition_failed");
    };
    fails("If-Match: *\r\n");
    fails(&tag(b"one"));
    user.push("m", b"one", "If-None-Match: *\r\n").is(201);
    fails("If-None-Match: *\r\n");
    user.push("other", b"two", &tag(b"one")).is(201);
    fails(&tag(b"one"));
    fails(&format!("If-Match: W/\"{}\"\r\n", hex(b"two")));
    fails(&format!("If-None-Match: \"{}\"\r\n", hex(b"two")));
    assert_eq!(user.history().len(), 2, "nothing of the refused is stored");
    user.push("m", b"three", &format!("If-Match: \"x\", \"{}\"\r\n", hex(b"two"))).is(201);
    user.push("m", b"four", "If-Match: *\r\n").is(201);
    refused(&user.push("m", b"five", "If-Match: unquoted\r\n"), 400, "bad_request");
}

#[test]
fn a_pull_may_depend_on_what_the_client_has() {
    let (_server, user) = with_machine(&[]);
    user.stored("m", b"state");
    let strong = format!("\"{}\"", hex(b"state"));
    let weak = format!("W/{strong}");
    for (accept, etag) in [("", &weak), (BYTES, &strong)] {
        for (status, condition) in [
            (304, format!("If-None-Match: {weak}")),
            (304, format!("If-None-Match: {strong}")),
            (304, "If-None-Match: *".into()),
            (304, format!("If-None-Match: \"a,b\", {weak}")),
            (200, "If-None-Match: \"b\"".into()),
            (200, "If-Match: *".into()),
            (200, format!("If-Match: \"a,b\", {strong}")),
            (412, "If-Match: \"a,b\"".into()),
            (412, format!("If-Match: {weak}")),
            (400, "If-Match: a".into()),
        ] {
            let found = user.raw("GET", SNAPSHOT, &format!("{condition}\r\n{accept}"), b"");
            assert_eq!(found.status, status, "{condition}");
            match status {
                200 | 304 => assert_eq!(found.field("etag"), Some(&**etag), "{condition}"),
                412 => assert_eq!(found.json()["code"], "precondition_failed"),
                _ => assert_eq!(found.json()["code"], "bad_request"),
            }
            if status == 304 {
                assert_eq!((found.body.len(), found.field("content-length")), (0, None));
            }
        }
    }
}

#[test]
fn a_snapshot_is_found_by_id_by_machine_and_by_both() {
    let (_server, user) = with_machine(&[]);
    user.register("n");
    assert_eq!((user.stored("m", b"one"), user.stored("n", b"two")), (1, 2));
    for (query, state) in
        [("", b"two"), ("?machine_id=m", b"one"), ("?id=1", b"one"), ("?id=2&machine_id=n", b"two")]
    {
        assert_eq!(user.pull(query).body, state);
    }
    for none in ["?id=1&machine_id=n", "?id=99", "?machine_id=x"] {
        refused(&user.pull(none), 404, "no_snapshot");
    }
    for bad in ["?id=", "?id=x", "?id=-1", "?id=9223372036854775808", "?machine_id=a%2Fb"] {
        refused(&user.pull(bad), 400, "bad_request");
    }
}

#[test]
fn history_comes_in_pages_newest_first_of_at_most_200() {
    let (_server, user) = with_machine(&[]);
    user.register("n");
    for n in 0..201_u8 {
        user.stored(if n % 5 == 0 { "n" } else { "m" }, &[n]);
    }
    let page = |query: &str| -> (Vec<i64>, Value) {
        let page = user.read(&format!("/api/machines/history{query}"));
        let rows = page["snapshots"].as_array().unwrap();
        (rows.iter().map(|row| row["id"].as_i64().unwrap()).collect(), page["next_before"].clone())
    };
    assert_eq!(page(""), ((182..=201).rev().collect(), json!(182)));
    assert_eq!(page("?before=6"), (vec![5, 4, 3, 2, 1], Value::Null));
    assert_eq!(page("?before=6&limit=5"), (vec![5, 4, 3, 2, 1], Value::Null));
    assert_eq!(page("?machine_id=n&limit=2"), (vec![201, 196], json!(196)));
    assert_eq!(page("?machine_id=unknown"), (vec![], Value::Null));
    for most in ["?limit=200", "?limit=1000", "?limit=99999999999999999999"] {
        assert_eq!(page(most), ((2..=201).rev().collect(), json!(2)), "{most}");
    }
    for bad in [
        "limit=0", "limit=-1", "limit=x", "limit=", "limit=1.5", "limit=+1", "before=x",
        "limit=1&limit=2",
    ] {
        refused(&user.get(&format!("/api/machines/history?{bad}")), 400, "bad_request");
    }
}

#[test]
fn a_pull_finds_the_newest_snapshot_while_pushes_delete_the_one_before() {
    let (_server, user) = with_machine(&["--keep", "1"]);
    user.stored("m", b"first");
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            (0..400_u32).for_each(|n| _ = user.stored("m", &n.to_le_bytes()));
            done.store(true, Ordering::SeqCst);
        });
        while !done.load(Ordering::SeqCst) {
            user.get("/api/machines/latest").is(200);
        }
    });
}

#[test]
fn what_keep_deletes_makes_room_in_the_quota() {
    let (server, user) = with_machine(&["--keep", "2", "--quota", "1000"]);
    for _ in 0..5 {
        user.stored("m", &noise(450));
    }
    assert_eq!(user.history().len(), 2);
    refused(&user.push("m", &noise(600), ""), 507, "quota_exceeded");
    assert_eq!((user.history().len(), server.files("snapshots")), (2, 2), "rolled back");
}
