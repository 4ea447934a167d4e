//! What a signed-in client may send wrong: each is refused with a clear error, nothing of it is
//! stored, and nothing panics.

use serde_json::json;

use crate::access::{filled, furnish, routes, writes};
use crate::fixture::{Server, assert_says, refused, with_machine, with_user};
use crate::revocation::rows;

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

/// Of a good body one member at a time has a bad value: where that is null, it is also left out.
#[test]
fn a_member_that_its_route_does_not_take_is_refused_and_nothing_is_stored() {
    let (server, user) = with_user(&[]);
    furnish(&user);
    let before = rows(&server);
    let (x129, x256) = ("x".repeat(129), "x".repeat(256));
    let negative =
        json!({ "entity_type": "project", "entity_id": 1, "new_last_synced_version": -1 });
    for (path, member, bad) in [
        ("/api/machines", "machine_id", json!([null, 3, "", ".", "..", "a/b", "é", x129])),
        ("/api/machines", "machine_id", json!(["latest", "register", "history", "snapshot"])),
        ("/api/machines", "name", json!([null, "", "  ", "a\u{7}", x256])),
        ("/api/machines", "platform", json!([x129])),
        ("/api/machines", "arch", json!(["a\n"])),
        ("/api/machines", "cli_version", json!([2])),
        (SNAPSHOT, "machine_id", json!([null, 7, ".."])),
        // The unit tests of the splitter have every other text that is no canonical base64.
        (SNAPSHOT, "encrypted_state", json!([null, "", "AA"])),
        (SNAPSHOT, "message", json!([7, "é".repeat(4097), "\u{1b}[2J"])),
        (SNAPSHOT, "version", json!([x129, "\u{1b}[2J"])),
        (SNAPSHOT, "timestamp", json!([x129, "\u{1b}[2J"])),
        ("/api/auth/login", "email", json!([null, 1, x256])),
        ("/api/auth/login", "password", json!([null, "", "x".repeat(1025)])),
        ("/api/machines/unknown/push", "machine_id", json!(["other", 7])),
        ("/api/machines/unknown/push", "encrypted_state", json!([null, ""])),
        ("/api/auth/keypair", "public_key", json!(["!", ""])),
        ("/api/auth/keypair", "encrypted_private_key", json!([7])),
        ("/api/auth/keypair", "kek_salt", json!([null])),
        ("/api/auth/keypair", "kek_iterations", json!([-1, "many"])),
        ("/api/machines/m/projects/1", "last_synced_version", json!([-1])),
        ("/api/machines/m/profiles/5", "active", json!([null])),
        ("/api/sync/commit", "updates", json!([null, [negative]])),
        ("/api/environments/sync", "environments", json!([[{ "name": "" , "tier": "x" }]])),
        ("/api/environments/sync", "environments", json!([[{ "tier": "x" }], [7]])),
        ("/api/profiles/5/workspaces", "workspace_id", json!([null])),
        ("/api/projects/1/env/keys", "wrapped_dek", json!(["!"])),
        ("/api/projects/1/env/NEW", "environment_tier", json!([null, ""])),
        ("/api/projects/1/env/NEW", "visibility", json!(["secret"])),
        ("/api/projects/1/env/NEW", "encrypted_value", json!(["!", 7])),
        ("/api/projects/1/env/NEW", "required", json!(["yes"])),
        ("/api/projects/1/versions", "ciphertext", json!([null, "", "AA"])),
        ("/api/projects/1/versions", "content_hash", json!([7, x129])),
        ("/api/workspaces/6/keys", "wrapped_dek", json!([null, "!"])),
    ] {
        let login = json!({ "email": "a@example.org", "password": "x" });
        let writes = [writes(), vec![("POST", "/api/auth/login", login)]].concat();
        let (method, _, good) = writes.iter().find(|(_, of, _)| *of == path).unwrap();
        for bad in bad.as_array().unwrap() {
            let (mut with, mut without) = (good.clone(), good.clone());
            with[member] = bad.clone();
            without.as_object_mut().unwrap().remove(member);
            for body in if bad.is_null() { vec![with, without] } else { vec![with] } {
                let response = user.raw(method, path, "", body.to_string().as_bytes());
                assert_eq!(response.status, 400, "{path} {body}");
                refused(&response, 400, "bad_request");
            }
        }
    }
    refused(&user.push("m", b"", ""), 400, "bad_request");
    for (field, length) in [("message", 4097), ("version", 129), ("timestamp", 129)] {
        let with = format!("m&{field}={}", "x".repeat(length));
        refused(&user.push(&with, b"x", ""), 400, "bad_request");
    }
    assert_eq!(rows(&server), before);
    server.assert_no_upload_left();
    assert_eq!(user.push_version("project", 1, b"x"), 2, "the refused ones got no number");
    let message = "é".repeat(4096);
    let most = json!({ "machine_id": "m", "encrypted_state": "AAAB", "message": message });
    user.post(SNAPSHOT, &most).is(201);
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
fn another_media_type_a_coding_or_a_part_is_refused_and_without_a_body_no_type_counts() {
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
    for coding in ["gzip", "br", "deflate", "identity, gzip", "GZIP", ""] {
        let response = user.push("m", b"state", &format!("Content-Encoding: {coding}\r\n"));
        refused(&response, 415, "unsupported_media_type");
        assert_eq!(response.field("accept-encoding"), Some("identity"), "{coding}");
    }
    let part = user.push("m", b"state", "Content-Range: bytes 0-4/10\r\n");
    refused(&part, 400, "bad_request");
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
    user.push("m", b"state", "Content-Encoding: identity\r\n").is(201);
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
