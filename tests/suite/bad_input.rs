//! What a signed-in client may send wrong: each is refused with a clear error, nothing of it is
//! stored, and nothing panics.

use serde_json::json;

use super::support::{Server, User, refused, serve};

fn with_machine() -> (Server, User) {
    let server = serve(&["--max-body", "1000000"]);
    let user = server.user("a@example.org");
    user.register("m");
    (server, user)
}

fn assert_nothing_stored(server: &Server) {
    assert_eq!(server.count("SELECT count(*) FROM state_snapshots"), 0);
    assert_eq!((server.files("snapshots"), server.files("tmp")), (0, 0));
}

#[test]
fn a_push_that_is_no_json_object_is_refused() {
    let (server, user) = with_machine();
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let deep_metadata = format!("{{\"metadata\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    for bad in [
        "",
        " ",
        "null",
        "[]",
        "\"x\"",
        "{",
        "{\"machine_id\":\"m\",\"encrypted_state\":\"AAAA\"",
        "{\"machine_id\":\"m\",\"encrypted_state\":\"AAAA\"}}",
        "{\"machine_id\":\"m\",\"encrypted_state\":\"AAAA\"} x",
        "{\"machine_id\":\"m\",\"encrypted_state\":\"AAAA\",}",
        "{'machine_id':'m'}",
        "{\"machine_id\":\"m\" \"encrypted_state\":\"AAAA\"}",
        "{\"machine_id\":\"m\",\"encrypted_state\":\"AAAA\",\"message\":\"\\ud800\"}",
        "{\"machine_id\":\"m\",\"encrypted_state\":\"AAAA\",\"encrypted_state\":\"BBBB\"}",
        "{\"machine_id\":\"m\",\"encrypted_state\":\"AAAA\",\"encrypted\\u005fstate\":\"BBBB\"}",
        "{\"machine_id\":\"m\",\"machine_id\":\"m\",\"encrypted_state\":\"AAAA\"}",
        &deep,
        &deep_metadata,
    ] {
        let answer = user.raw("POST", "/api/machines/snapshot", "", bad.as_bytes());
        let about = bad.get(..60).unwrap_or(bad);
        assert!(matches!(answer.status, 400 | 413), "{about}: {answer:?}");
        assert!(answer.json()["error"].is_string());
    }
    assert_nothing_stored(&server);
}

#[test]
fn bytes_that_are_no_utf_8_are_no_json() {
    let (server, user) = with_machine();
    let bad = b"{\"machine_id\":\"m\",\"message\":\"\xff\",\"encrypted_state\":\"AAAA\"}";
    refused(&user.raw("POST", "/api/machines/snapshot", "", bad), 400, "bad_request");
    assert_nothing_stored(&server);
}

#[test]
fn base64_that_is_not_canonical_is_refused() {
    let (server, user) = with_machine();
    for bad in [
        "A", "AA", "AAA", "AA=", "AB==", "AAB=", "A===", "AA==AA==", "AAAA\n", "A A=", "_-8=",
        "AAAA=", "====", "AAAA\\n", "\\u003dAAA", "AAAA\\\\",
    ] {
        let body = format!("{{\"machine_id\":\"m\",\"encrypted_state\":\"{bad}\"}}");
        let answer = user.raw("POST", "/api/machines/snapshot", "", body.as_bytes());
        refused(&answer, 400, "bad_request");
    }
    assert_nothing_stored(&server);
}

#[test]
fn an_empty_or_absent_state_is_refused() {
    let (server, user) = with_machine();
    refused(&user.push("m", b"", ""), 400, "bad_request");
    for bad in [
        json!({ "machine_id": "m" }),
        json!({ "machine_id": "m", "encrypted_state": "" }),
        json!({ "machine_id": "m", "encrypted_state": null }),
        json!({ "machine_id": "m", "encrypted_state": 7 }),
        json!({ "machine_id": "m", "encrypted_state": ["AAAA"] }),
        json!({ "machine_id": "m", "encrypted_state": { "a": "AAAA" } }),
        json!({ "encrypted_state": "AAAA" }),
        json!({ "machine_id": 7, "encrypted_state": "AAAA" }),
        json!({ "machine_id": "..", "encrypted_state": "AAAA" }),
        json!({ "machine_id": "m", "encrypted_state": "AAAA", "message": 7 }),
    ] {
        refused(&user.post("/api/machines/snapshot", &bad), 400, "bad_request");
    }
    assert_nothing_stored(&server);
}

#[test]
fn fields_one_character_over_their_limit_are_refused() {
    let (server, user) = with_machine();
    let push = |field: &str, value: String| {
        let body = json!({ "machine_id": "m", "encrypted_state": "AAAA", field: value });
        user.post("/api/machines/snapshot", &body)
    };
    for (field, max) in [("message", 4096), ("version", 128), ("timestamp", 128)] {
        refused(&push(field, "é".repeat(max + 1)), 400, "bad_request");
        refused(&push(field, "\u{1b}[2J".into()), 400, "bad_request");
        let query = format!("/api/machines/snapshot?machine_id=m&{field}={}", "x".repeat(max + 1));
        let octets = "Content-Type: application/octet-stream\r\n";
        refused(&user.raw("POST", &query, octets, b"x"), 400, "bad_request");
    }
    assert_nothing_stored(&server);
    assert_eq!(push("message", "é".repeat(4096)).status, 201);
}

#[test]
fn a_machine_that_is_unknown_or_hidden_cannot_push() {
    let (server, user) = with_machine();
    refused(&user.push("unknown", b"x", ""), 404, "machine_not_registered");
    assert_eq!(user.delete("/api/machines/m").status, 200);
    refused(&user.push("m", b"x", ""), 404, "machine_not_registered");
    assert_nothing_stored(&server);
}

#[test]
fn a_body_over_the_limit_is_refused_with_the_limit_and_its_flag() {
    let (server, user) = with_machine();
    let answer = user.push("m", &vec![7; 1_000_001], "");
    refused(&answer, 413, "too_large");
    let error = answer.json()["error"].as_str().unwrap().to_owned();
    assert!(error.contains("1000000") && error.contains("--max-body"), "{error}");
    let rest = json!({ "machine_id": "m", "encrypted_state": "AAAA", "x": "y".repeat(70_000) });
    refused(&user.post("/api/machines/snapshot", &rest), 413, "too_large");
    let large = json!({ "machine_id": "m", "name": "y".repeat(70_000) });
    refused(&user.post("/api/machines", &large), 413, "too_large");
    assert_nothing_stored(&server);
    user.stored("m", &vec![7; 1_000_000]);
}

#[test]
fn another_media_type_is_refused() {
    let (server, user) = with_machine();
    for (path, kind) in [
        ("/api/machines/snapshot", "text/plain"),
        ("/api/machines/snapshot", "multipart/form-data; boundary=x"),
        ("/api/machines/snapshot", "application/json; charset=utf-16"),
        ("/api/machines", "application/octet-stream"),
        ("/api/machines", "application/x-www-form-urlencoded"),
        ("/api/machines/m/push", "application/octet-stream"),
    ] {
        let answer = user.raw("POST", path, &format!("Content-Type: {kind}\r\n"), b"{}");
        refused(&answer, 415, "unsupported_media_type");
    }
    for kind in ["application/json; charset=UTF-8", "Application/JSON"] {
        let body = br#"{"machine_id":"m","name":"x"}"#;
        let answer = user.raw("POST", "/api/machines", &format!("Content-Type: {kind}\r\n"), body);
        assert_eq!(answer.status, 200);
    }
    assert_nothing_stored(&server);
}

#[test]
fn every_route_survives_nonsense_in_its_body_and_its_path() {
    let (server, user) = with_machine();
    let routes = include_str!("../../src/app/routes.rs");
    let rows = routes.lines().filter_map(|line| line.trim().strip_prefix("route(\""));
    let mut tried = 0;
    for row in rows {
        let mut words = row.split('"');
        let (method, pattern) = (words.next().unwrap(), words.nth(1).unwrap());
        for fill in ["0", "-1", "99999999999999999999", "x%20y", "%00", "%", "é", ".."] {
            let path = pattern.replace("{kinds}", "projects").replace("{mid}", fill);
            let path = path.replace("{}", fill);
            let bodies: &[&[u8]] = match method {
                "GET" | "DELETE" => &[b""],
                _ => &[b"", b"{}", b"[]", b"{\"machine_id\":[],\"id\":1e999}", b"\0\xff"],
            };
            for body in bodies {
                let answer = user.raw(method, &path, "", body);
                assert!(answer.status < 500, "{method} {path}: {answer:?}");
                tried += 1;
            }
        }
    }
    assert!(tried > 400, "{tried}");
    assert_eq!(server.count("SELECT count(*) FROM state_snapshots"), 0);
}

#[test]
fn a_body_that_is_no_object_or_no_utf_8_is_refused() {
    let server = serve(&[]);
    let user = server.user("a@example.org");
    for bad in [
        &br#"["m", "m", "linux", "arm64", "1"]"#[..],
        br#" [{"machine_id": "m", "name": "m"}]"#,
        b"{\"machine_id\": \"m\", \"name\": \"m\", \"z\": \"\xff\"}",
        br#""m""#,
        b"7",
    ] {
        refused(&user.raw("POST", "/api/machines", "", bad), 400, "bad_request");
    }
    assert_eq!(user.read("/api/machines")["machines"], json!([]));
}
