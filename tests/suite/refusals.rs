//! A refusal is understood: by who reads the status line alone, by who reads the JSON, and by who
//! reads the log.

use serde_json::json;

use crate::fixture::http::Response;
use crate::fixture::{HERE, Server, User, assert_has, refused, serve, with_machine, with_user};

/// The standard phrase of each status that the contract names.
const PHRASES: [(u16, &str); 10] = [
    (400, "Bad Request"),
    (401, "Unauthorized"),
    (403, "Forbidden"),
    (404, "Not Found"),
    (405, "Method Not Allowed"),
    (409, "Conflict"),
    (411, "Length Required"),
    (412, "Precondition Failed"),
    (413, "Payload Too Large"),
    (415, "Unsupported Media Type"),
];

fn assert_understood(response: &Response) {
    let phrase = PHRASES.iter().find(|(status, _)| *status == response.status);
    let sentence = response.json()["error"].as_str().unwrap().to_owned();
    let ascii: String =
        sentence.chars().map(|c| if c.is_ascii() { c } else { '?' }).take(200).collect();
    if let Some((_, phrase)) = phrase {
        assert_eq!(response.reason, format!("{phrase}: {ascii}"));
    }
    assert!(response.reason.len() <= 240 && response.reason.contains(": "), "{}", response.reason);
}

/// Every refusal that one can cause without waiting.
fn refusals(server: &Server, user: &User) -> Vec<Response> {
    let ask = |method, path, fields: &str| user.raw(method, path, fields, b"");
    let many = "x".repeat(300);
    vec![
        ask("GET", "/api/machines/snapshot?id=x", ""),
        server.ask("GET", "/api/machines", "", b""),
        server.ask("GET", "/api/machines", "Authorization: Bearer cs_x\r\n", b""),
        ask("GET", "/api/machines", "Origin: https://evil.example\r\n"),
        ask("GET", "/nowhere", ""),
        ask("PUT", "/api/machines", ""),
        user.push("unknown", b"x", ""),
        user.push("m", b"x", "If-None-Match: *\r\n"),
        user.push("m", &[7; 2000], ""),
        user.push("m", b"x", "Content-Encoding: gzip\r\n"),
        user.post("/api/machines", &json!({ "machine_id": many, "name": "m" })),
        server.send(HERE, "POST /api/machines HTTP/1.1\r\nHost: t\r\n\r\n", b"", false),
        server.send(HERE, "GET / HTTP/1.1\r\nHost: t\r\nHost: u\r\n\r\n", b"", false),
    ]
}

#[test]
fn the_status_line_of_every_refusal_carries_its_sentence() {
    let (server, user) = with_machine(&["--max-body", "1000"]);
    user.stored("m", b"state");
    let responses = refusals(&server, &user);
    let statuses: Vec<u16> = responses.iter().map(|response| response.status).collect();
    assert_eq!(statuses, [400, 401, 401, 403, 404, 405, 404, 412, 413, 415, 400, 411, 400]);
    responses.iter().for_each(assert_understood);
    let sentence = responses[1].json()["error"].as_str().unwrap().to_owned();
    assert!(sentence.contains("`configsync-server token create`"), "{sentence}");
    assert!(sentence.contains("`configsync login`"), "{sentence}");
    // What is no refusal has the standard phrase alone.
    assert_eq!(user.get("/api/machines").reason, "OK");
    assert_eq!(user.push("m", b"state 2", "").reason, "Created");
}

#[test]
fn the_log_line_of_every_refusal_carries_its_code_and_why_a_bearer_is_bad() {
    let (server, user) = with_user(&[]);
    let token = |args: &[&str]| server.ok(&[&["token"], args].concat()).trim().to_owned();
    let expired = token(&["create", "a@example.org", "--name", "e", "--expires-days", "1"]);
    let sql = "UPDATE api_tokens SET expires_at = 1 WHERE name = 'e'";
    server.database().execute(sql, []).unwrap();
    token(&["revoke", "1"]);
    let disabled = server.user("b@example.org").bearer;
    server.ok(&["user", "disable", "b@example.org"]);
    for (n, (bearer, reason)) in [
        ("cs_0123456789012345678901234567890123456789012", "unknown"),
        ("nonsense", "unknown"),
        (&expired, "expired"),
        (&user.bearer, "revoked"),
        (&disabled, "disabled"),
    ]
    .into_iter()
    .enumerate()
    {
        let field = format!("Authorization: Bearer {bearer}\r\n");
        refused(&server.ask("GET", "/api/machines", &field, b""), 401, "unauthorized");
        server.wait_for_requests(n + 1);
        let line = server.wait_for_log("\"msg\":\"request\"").pop().unwrap();
        let line = serde_json::from_str(&line).unwrap();
        assert_has(&line, json!({ "code": "unauthorized", "reason": reason }));
    }
    server.ask("GET", "/nowhere", "", b"").is(404);
    assert!(server.wait_for_log("/nowhere")[0].contains("\"code\":\"not_found\""));
}

#[test]
fn a_page_of_another_site_is_refused_before_anything_is_counted_or_done() {
    let (server, user) = with_user(&["--trusted-proxy", "127.0.0.2"]);
    server.cli_with(&["user", "passwd", "a@example.org", "--password-stdin"], "right horse\n");
    let wrong = br#"{"email": "a@example.org", "password": "wrong"}"#;
    for field in [
        "Origin: https://evil.example\r\n",
        "Origin: null\r\n",
        "Origin: http://t:81\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        "Origin: http://t\r\nSec-Fetch-Site: cross-site\r\n",
        "Origin: http://x\r\nX-Forwarded-Host: x\r\n",
    ] {
        for _ in 0..12 {
            let response = server.ask("POST", "/api/auth/login", field, wrong);
            refused(&response, 403, "cross_site");
        }
        assert_eq!(user.raw("GET", "/api/machines", field, b"").status, 403, "{field}");
    }
    // Nothing was counted: the owner is not throttled.
    let right = br#"{"email": "a@example.org", "password": "right horse"}"#;
    server.ask("POST", "/api/auth/login", "", right).is(200);
    for field in [
        "Origin: http://t\r\n", "Origin: https://T\r\n", "Sec-Fetch-Site: same-origin\r\n",
        "Sec-Fetch-Site: none\r\n", "Sec-Fetch-Site: same-site\r\n",
    ] {
        assert_eq!(user.raw("GET", "/api/machines", field, b"").status, 200, "{field}");
    }
    // A trusted proxy says under which name the browser knows this server.
    let head = format!(
        "GET /api/machines HTTP/1.1\r\nHost: t\r\nOrigin: https://sync.example\r\n\
         X-Forwarded-Host: sync.example\r\n{}\r\n",
        user.auth()
    );
    assert_eq!(server.send([127, 0, 0, 2], &head, b"", false).status, 200);
    assert_eq!(server.send(HERE, &head, b"", false).status, 403);
}

#[test]
fn a_compressed_body_and_a_part_of_one_are_refused_and_nothing_is_stored() {
    let (server, user) = with_machine(&[]);
    for coding in ["gzip", "br", "deflate", "identity, gzip", "GZIP", ""] {
        let response = user.push("m", b"state", &format!("Content-Encoding: {coding}\r\n"));
        refused(&response, 415, "unsupported_media_type");
        assert_eq!(response.field("accept-encoding"), Some("identity"), "{coding}");
    }
    let part = user.push("m", b"state", "Content-Range: bytes 0-4/10\r\n");
    refused(&part, 400, "bad_request");
    assert_eq!(server.files("snapshots"), 0);
    user.push("m", b"state", "Content-Encoding: identity\r\n").is(201);
}

#[test]
fn a_path_that_is_no_route_shows_the_base_url() {
    let server = serve(&[]);
    for path in ["/api/api/machines", "/machines", "/v1/api/machines", "/api/", "/api/machines/"] {
        let response = server.ask("GET", path, "", b"");
        refused(&response, 404, "not_found");
        let sentence = response.json()["error"].as_str().unwrap().to_owned();
        assert!(sentence.contains("http://t"), "{path}: {sentence}");
    }
}

#[test]
fn a_client_that_speaks_tls_to_this_port_is_named_in_the_log() {
    let server = serve(&[]);
    let mut client = server.connect();
    client.send([0x16, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]);
    let response = client.response();
    refused(&response, 400, "bad_request");
    assert!(response.json()["error"].as_str().unwrap().contains("https"), "{response:?}");
    server.wait_for_log("\"reason\":\"tls\"");
}

#[test]
fn a_request_that_comes_too_slowly_is_told_which_part_and_which_flag() {
    let (server, user) = with_machine(&["--head-timeout", "1", "--body-grace", "1"]);
    let mut head = server.connect();
    head.send("GET / HTTP/1.1\r\n");
    let slow = head.response();
    refused(&slow, 408, "too_slow");
    let sentence = slow.json()["error"].as_str().unwrap().to_owned();
    assert!(sentence.contains("head") && sentence.contains("--head-timeout"), "{sentence}");
    let mut body = server.connect();
    body.send(format!(
        "POST /api/machines/snapshot?machine_id=m HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\n\
         Content-Type: application/octet-stream\r\n{}\r\n12",
        user.auth()
    ));
    let slow = body.response();
    refused(&slow, 408, "too_slow");
    let sentence = slow.json()["error"].as_str().unwrap().to_owned();
    assert!(sentence.contains("body") && sentence.contains("--body-grace"), "{sentence}");
}
