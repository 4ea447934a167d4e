//! What holds of every route: fields, methods, lengths, errors, and what the log says.

use std::collections::HashSet;
use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::access::{filled, furnish, routes};
use crate::fixture::{
    HERE, assert_has, eventually, refused, request, serve, with_machine, with_user,
};

#[test]
fn every_response_carries_the_same_safe_fields() {
    let (server, user) = with_machine(&[]);
    user.stored("m", b"state");
    let mut ids = HashSet::new();
    for response in [
        user.get("/healthz"),
        user.get("/api/machines"),
        user.pull(""),
        user.get("/api/machines/snapshot"),
        user.get("/nowhere"),
        user.delete("/api/machines"),
        server.ask("GET", "/api/machines", "", b""),
        server.ask("POST", "/api/auth/login", "", b"x"),
    ] {
        assert_eq!(response.field("cache-control"), Some("no-store"));
        assert_eq!(response.field("x-content-type-options"), Some("nosniff"));
        let length = response.body.len().to_string();
        assert_eq!(response.field("content-length"), Some(&*length));
        assert!(ids.insert(response.field("x-request-id").unwrap().to_owned()), "its own id");
        assert_eq!(response.field("allow").is_some(), response.status == 405);
        if response.status >= 400 {
            assert_eq!(response.field("content-type"), Some("application/json"));
            let body = response.json();
            assert!(body["error"].is_string() && body["code"].is_string(), "{body}");
        }
    }
}

#[test]
fn head_answers_as_get_does_everywhere_and_neither_it_nor_a_304_has_a_body() {
    let (server, user) = with_user(&[]);
    furnish(&user);
    user.stored("m", &[7; 100_000]);
    // A body where none may be would be taken for the next response of the one connection.
    let mut client = server.connect();
    let gets = routes().into_iter().filter(|(method, _)| *method == "GET");
    for pattern in gets.map(|(_, pattern)| pattern).chain(["/nowhere"]) {
        let path = filled(pattern, "1");
        for accept in ["", "Accept: application/octet-stream\r\n"] {
            client.send(user.request("HEAD", &path, accept, b""));
            let head = client.response_or_end(true).unwrap();
            client.send(user.request("GET", &path, accept, b""));
            let get = client.response();
            assert_eq!(head.status, get.status, "{path}");
            for field in ["content-length", "content-type", "etag"] {
                assert_eq!(head.field(field), get.field(field), "{path} {field}");
            }
            if let Some(etag) = get.field("etag") {
                let unchanged = format!("{accept}If-None-Match: {etag}\r\n");
                client.send(user.request("GET", &path, &unchanged, b""));
                assert_eq!(client.response().status, 304, "{path}");
            }
        }
    }
}

#[test]
fn a_body_without_a_length_is_refused() {
    let (server, user) = with_user(&[]);
    for (method, path) in
        [("POST", "/api/machines"), ("PUT", "/api/projects/1/env/x"), ("PATCH", "/api/projects/1")]
    {
        let head = request(method, path, &user.auth());
        refused(&server.send(HERE, head), 411, "length_required");
    }
}

#[test]
fn json_nests_128_deep_on_every_route_and_no_deeper() {
    let (_server, user) = with_user(&[]);
    let nested = |n: usize| format!(r#"{}0{}"#, "[".repeat(n), "]".repeat(n));
    for (path, rest) in [
        ("/api/machines", r#""machine_id":"m","name":"n""#),
        ("/api/machines/snapshot", r#""machine_id":"m","encrypted_state":"AAAA""#),
    ] {
        for (depth, name, fits) in
            [(127, "x", true), (128, "x", false), (127, "metadata", true), (128, "metadata", false)]
        {
            let body = format!(r#"{{"{name}":{},{rest}}}"#, nested(depth));
            let status = user.raw("POST", path, "", body.as_bytes()).status;
            assert_eq!(status < 300, fits, "{path} {depth} {name}: {status}");
        }
    }
}

#[test]
fn health_is_looked_at_once_a_second_whoever_asks() {
    let expected = json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") });
    // On a busy machine a second may pass between the two; then once more.
    let told = (0..10).find_map(|_| {
        let mut server = serve(&[]);
        server.errors_expected = true;
        let health = || server.ask("GET", "/healthz", "", b"");
        let start = Instant::now();
        assert_eq!(health().is(200), expected);
        fs::rename(server.data().join("configsync.db"), server.beside("moved")).unwrap();
        let soon = health().status;
        let in_time = start.elapsed() < Duration::from_secs(1);
        eventually("it is looked at again", || health().status == 503);
        in_time.then_some(soon)
    });
    assert_eq!(told, Some(200));
}

#[test]
fn the_log_has_a_line_for_each_request_and_no_secret() {
    let (server, user) = with_user(&[]);
    server.cli_with(&["user", "passwd", "a@example.org", "--password-stdin"], "pass-word-zq7qz\n");
    let login = server.login("a@example.org", "pass-word-zq7qz").is(200);
    server.login("typed-email-zq7qz@example.org", "typed-pass-zq7qz").is(401);
    user.register("m");
    user.stored("m", b"state-zq7qz");
    user.get("/api/projects?git_url=https%3A%2F%2Fme%3Asecret-zq7qz%40example.org%2Fx");
    server.ask("GET", "/api/machines", "Authorization: Bearer master-pass-zq7qz\r\n", b"");
    // Credentials in a path.
    user.get(&format!("/nope/{}", user.bearer));
    user.get(&format!("/api/machines/{}/actions", user.bearer));
    let long = format!("/{}", "a".repeat(4000));
    user.get(&long);
    // Its beginning alone.
    assert_eq!(server.wait_for_requests(9)[8].path, long[..256]);
    assert_eq!(server.wait_for_log("(secret)").len(), 2);
    let text = server.log_lines().join("\n");
    let jwt = login["token"].as_str().unwrap();
    for secret in ["zq7qz", &user.bearer, jwt, &user.bearer[3..20]] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    let pushed = server.wait_for_log("/api/machines/snapshot").pop().unwrap();
    let line: Value = serde_json::from_str(&pushed).unwrap();
    let expected = json!({ "method": "POST", "status": 201, "bytes_in": 11, "user": 1,
        "peer": "127.0.0.1", "path": "/api/machines/snapshot" });
    assert_has(&line, expected);
    for key in ["time", "level", "msg", "bytes_out", "ms", "request_id"] {
        assert!(!line[key].is_null(), "{key}");
    }
}
