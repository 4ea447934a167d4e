//! What a signed-in client may send wrong: each is refused with a clear error, nothing of it is
//! stored, and nothing panics.

use serde_json::json;

use crate::access::{filled, routes};
use crate::fixture::{Server, assert_says, refused, with_machine};

const SNAPSHOT: &str = "/api/machines/snapshot";

#[track_caller]
fn assert_nothing_stored(server: &Server) {
    assert_eq!(server.count("SELECT count(*) FROM state_snapshots"), 0);
    assert_eq!((server.files("snapshots"), server.files("tmp")), (0, 0));
}

#[test]
fn a_body_that_is_no_json_object_is_refused() {
    let (server, user) = with_machine(&["--max-body", "1000000"]);
    let good = r#"{"machine_id":"m","name":"m","encrypted_state":"AAAA""#;
    let texts = [
        "", " ", "null", "[]", "7", "\"x\"", "{", "{'machine_id':'m'}",
        r#"["m", "m", "linux", "arm64", "1"]"#, r#" [{"machine_id": "m", "name": "m"}]"#,
    ];
    let ends = ["", "}}", "} x", ",}", " \"x\":1}", ",\"machine_id\":\"m\"}"];
    let ends = ends.map(|end| format!("{good}{end}"));
    let broken = [good.as_bytes(), b",\"x\":\"\xff\"}"].concat();
    let bad = texts.into_iter().chain(ends.iter().map(String::as_str)).map(str::as_bytes);
    for bad in bad.chain([&*broken]) {
        for path in ["/api/machines", SNAPSHOT] {
            refused(&user.raw("POST", path, "", bad), 400, "bad_request");
        }
    }
    let lone_surrogate = format!("{good},\"message\":\"\\ud800\"}}");
    refused(&user.raw("POST", SNAPSHOT, "", lone_surrogate.as_bytes()), 400, "bad_request");
    assert_nothing_stored(&server);
}

#[test]
fn a_state_that_is_empty_absent_or_no_canonical_base64_is_refused() {
    let (server, user) = with_machine(&[]);
    refused(&user.push("m", b"", ""), 400, "bad_request");
    // The unit tests of the splitter have every other text that is no canonical base64.
    for bad in [
        json!({ "machine_id": "m" }),
        json!({ "machine_id": "m", "encrypted_state": null }),
        json!({ "machine_id": "m", "encrypted_state": "" }),
        json!({ "machine_id": "m", "encrypted_state": "AA" }),
        json!({ "encrypted_state": "AAAA" }),
        json!({ "machine_id": 7, "encrypted_state": "AAAA" }),
        json!({ "machine_id": "..", "encrypted_state": "AAAA" }),
        json!({ "machine_id": "m", "encrypted_state": "AAAA", "message": 7 }),
    ] {
        refused(&user.post(SNAPSHOT, &bad), 400, "bad_request");
    }
    assert_nothing_stored(&server);
}

#[test]
fn fields_one_character_over_their_limit_are_refused() {
    let (server, user) = with_machine(&[]);
    let push = |field: &str, value: String| {
        user.post(SNAPSHOT, &json!({ "machine_id": "m", "encrypted_state": "AAAA", field: value }))
    };
    for (field, max) in [("message", 4096), ("version", 128), ("timestamp", 128)] {
        refused(&push(field, "é".repeat(max + 1)), 400, "bad_request");
        refused(&push(field, "\u{1b}[2J".into()), 400, "bad_request");
        let with = format!("m&{field}={}", "x".repeat(max + 1));
        refused(&user.push(&with, b"x", ""), 400, "bad_request");
    }
    assert_nothing_stored(&server);
    push("message", "é".repeat(4096)).is(201);
}

#[test]
fn a_body_over_the_limit_is_refused_with_the_limit_and_its_flag() {
    let (server, user) = with_machine(&["--max-body", "1000000"]);
    let over = user.push("m", &vec![7; 1_000_001], "");
    assert_says(&refused(&over, 413, "too_large"), &["1000000", "--max-body"]);
    let rest = json!({ "machine_id": "m", "encrypted_state": "AAAA", "x": "y".repeat(70_000) });
    let large = json!({ "machine_id": "m", "name": "y".repeat(70_000) });
    for (path, body) in [(SNAPSHOT, rest), ("/api/machines", large)] {
        refused(&user.post(path, &body), 413, "too_large");
    }
    assert_nothing_stored(&server);
    user.stored("m", &vec![7; 1_000_000]);
}

#[test]
fn another_media_type_is_refused_and_without_a_body_none_counts() {
    let (server, user) = with_machine(&[]);
    for (path, kind) in [
        (SNAPSHOT, "text/plain"),
        (SNAPSHOT, "multipart/form-data; boundary=x"),
        (SNAPSHOT, "application/json; charset=utf-16"),
        ("/api/machines", "application/octet-stream"),
        ("/api/machines", "application/x-www-form-urlencoded"),
        ("/api/machines/m/push", "application/octet-stream"),
    ] {
        let response = user.raw("POST", path, &format!("Content-Type: {kind}\r\n"), b"{}");
        refused(&response, 415, "unsupported_media_type");
    }
    for fields in [
        "Content-Type: application/json; charset=UTF-8\r\n",
        "Content-Type: Application/JSON\r\n",
        "",
    ] {
        let body = br#"{"machine_id":"m","name":"x"}"#;
        user.raw("POST", "/api/machines", fields, body).is(200);
    }
    // A GET and a DELETE are not parsed.
    let json = "Content-Type: application/json\r\n";
    for (method, path, body) in [
        ("GET", "/api/machines", &b""[..]),
        ("GET", "/api/machines", b"no json"),
        ("DELETE", "/api/machines/x/actions", b""),
    ] {
        user.raw(method, path, json, body).is(200);
    }
    assert_nothing_stored(&server);
}

#[test]
fn every_route_survives_nonsense_in_its_body_and_its_path() {
    let (server, user) = with_machine(&[]);
    for (method, pattern) in routes() {
        for fill in ["0", "-1", "99999999999999999999", "x%20y", "%00", "%", "é", ".."] {
            let path = filled(&pattern.replace("{mid}", fill), fill);
            let bodies: &[&[u8]] = match method {
                "GET" | "DELETE" => &[b""],
                _ => &[b"", b"{}", b"[]", b"{\"machine_id\":[],\"id\":1e999}", b"\0\xff"],
            };
            for body in bodies {
                let response = user.raw(method, &path, "", body);
                assert!(response.status < 500, "{method} {path}: {response:?}");
            }
        }
    }
    assert_nothing_stored(&server);
}
