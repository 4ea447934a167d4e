//! A refusal is understood: by who reads the status line alone, by who reads the JSON, and by who
//! reads the log.

use serde_json::json;

use crate::fixture::{ELSEWHERE, HERE, assert_has, assert_says, refused, with_machine, with_user};

#[test]
fn the_status_line_of_every_refusal_carries_its_sentence() {
    let (server, user) = with_machine(&["--max-body", "1000"]);
    user.stored("m", b"state");
    let ask = |method, path, fields: &str| user.raw(method, path, fields, b"");
    let list = |fields: &str| server.ask("GET", "/api/machines", fields, b"");
    let long = json!({ "machine_id": "x".repeat(300), "name": "m" });
    let no_length = "POST /api/machines HTTP/1.1\r\nHost: t\r\n\r\n";
    let two_hosts = "GET / HTTP/1.1\r\nHost: t\r\nHost: u\r\n\r\n";
    let tls = server.send(HERE, [0x16, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]);
    // Every refusal that one can cause without waiting, with the standard phrase of its status.
    for (line, response) in [
        ("400 Bad Request: ", ask("GET", "/api/machines/snapshot?id=x", "")),
        ("401 Unauthorized: ", list("")),
        ("401 Unauthorized: ", list("Authorization: Bearer cs_x\r\n")),
        ("403 Forbidden: ", ask("GET", "/api/machines", "Origin: https://evil.example\r\n")),
        ("404 Not Found: ", ask("GET", "/nowhere", "")),
        ("405 Method Not Allowed: ", ask("PUT", "/api/machines", "")),
        ("404 Not Found: ", user.push("unknown", b"x", "")),
        ("412 Precondition Failed: ", user.push("m", b"x", "If-None-Match: *\r\n")),
        ("413 Payload Too Large: ", user.push("m", &[7; 2000], "")),
        ("415 Unsupported Media Type: ", user.push("m", b"x", "Content-Encoding: gzip\r\n")),
        ("400 Bad Request: ", user.post("/api/machines", &long)),
        ("411 Length Required: ", server.send(HERE, no_length)),
        ("400 Bad Request: ", server.send(HERE, two_hosts)),
        ("400 Bad Request: ", tls.clone()),
    ] {
        let sentence = response.json()["error"].as_str().unwrap().to_owned();
        let ascii = sentence.chars().map(|c| if c.is_ascii() { c } else { '?' });
        let ascii: String = ascii.take(200).collect();
        assert_eq!(format!("{} {}", response.status, response.reason), format!("{line}{ascii}"));
    }
    assert_says(&refused(&tls, 400, "bad_request"), &["https"]);
    server.wait_for_log("\"reason\":\"tls\"");
    // What is no refusal has the standard phrase alone.
    assert_eq!(user.get("/api/machines").reason, "OK");
    assert_eq!(user.push("m", b"state 2", "").reason, "Created");
}

#[test]
fn the_log_line_of_every_refusal_carries_its_code_and_why_a_bearer_is_bad() {
    let (server, user) = with_user(&[]);
    let create = ["token", "create", "a@example.org", "--name", "e", "--expires-days", "1"];
    let expired = server.ok(&create);
    let sql = "UPDATE api_tokens SET expires_at = 1 WHERE name = 'e'";
    server.database().execute(sql, []).unwrap();
    server.ok(&["token", "revoke", "1"]);
    let disabled = server.user("b@example.org").bearer;
    server.ok(&["user", "disable", "b@example.org"]);
    for (n, (bearer, reason)) in (1..).zip([
        ("cs_0123456789012345678901234567890123456789012", "unknown"),
        ("nonsense", "unknown"),
        (expired.trim(), "expired"),
        (&user.bearer, "revoked"),
        (&disabled, "disabled"),
    ]) {
        let field = format!("Authorization: Bearer {bearer}\r\n");
        refused(&server.ask("GET", "/api/machines", &field, b""), 401, "unauthorized");
        server.wait_for_requests(n);
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
    server.login("a@example.org", "right horse").is(200);
    for field in [
        "Origin: http://t\r\n", "Origin: https://T\r\n", "Sec-Fetch-Site: same-origin\r\n",
        "Sec-Fetch-Site: none\r\n", "Sec-Fetch-Site: same-site\r\n",
    ] {
        assert_eq!(user.raw("GET", "/api/machines", field, b"").status, 200, "{field}");
    }
    // A trusted proxy says under which name the browser knows this server.
    let fields = "Origin: https://sync.example\r\nX-Forwarded-Host: sync.example\r\n";
    let request = user.request("GET", "/api/machines", fields, b"");
    assert_eq!(server.send(ELSEWHERE, &request).status, 200);
    assert_eq!(server.send(HERE, &request).status, 403);
}
