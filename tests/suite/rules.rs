//! What holds of every route: fields, methods, lengths, errors, and what the log says.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::access::{filled, furnish, routes};
use crate::fixture::http::request;
use crate::fixture::{eventually, refused, serve, with_machine, with_user};

#[test]
fn every_response_carries_the_same_safe_fields() {
    let (server, user) = with_machine(&[]);
    user.stored("m", b"state");
    let mut ids = std::collections::HashSet::new();
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
        assert_eq!(
            response.field("content-length"),
            Some(response.body.len().to_string().as_str())
        );
        assert!(ids.insert(response.field("x-request-id").unwrap().to_owned()), "its own id");
        if response.status >= 400 {
            assert_eq!(response.field("content-type"), Some("application/json"));
            let body = response.json();
            assert!(body["error"].is_string() && body["code"].is_string(), "{body}");
        }
    }
}

#[test]
fn head_answers_wherever_get_does_with_the_same_fields_and_without_the_body() {
    let (_server, user) = with_user(&[]);
    furnish(&user);
    user.stored("m", &[7; 100_000]);
    for (_, pattern) in routes().into_iter().filter(|(method, _)| *method == "GET") {
        let path = filled(pattern, "1");
        for accept in ["", "Accept: application/octet-stream\r\n"] {
            let head = user.raw("HEAD", &path, accept, b"");
            let get = user.raw("GET", &path, accept, b"");
            assert_eq!((head.status, head.body.len()), (get.status, 0), "{path}");
            for field in ["content-length", "content-type", "etag"] {
                assert_eq!(head.field(field), get.field(field), "{path} {field}");
            }
        }
    }
}

#[test]
fn a_method_that_a_path_does_not_take_is_refused_with_those_it_does() {
    let (_server, user) = with_user(&[]);
    for (method, path, allow) in [
        ("DELETE", "/api/machines", "GET, HEAD, POST"),
        ("PUT", "/api/machines/snapshot", "GET, HEAD, POST"),
        ("POST", "/healthz", "GET, HEAD"),
        ("GET", "/api/auth/login", "POST"),
        ("OPTIONS", "/api/machines", "GET, HEAD, POST"),
    ] {
        let response = user.raw(method, path, "", b"");
        refused(&response, 405, "method_not_allowed");
        assert_eq!(response.field("allow"), Some(allow), "{method} {path}");
    }
    for path in ["/api", "/api/", "/api/machines/", "//api/machines", "/API/machines"] {
        refused(&user.get(path), 404, "not_found");
    }
}

#[test]
fn a_body_without_a_length_is_refused() {
    let (server, user) = with_user(&[]);
    let bearer = format!("Authorization: Bearer {}\r\n", user.bearer);
    for (method, path) in
        [("POST", "/api/machines"), ("PUT", "/api/projects/1/env/x"), ("PATCH", "/api/projects/1")]
    {
        let mut client = server.connect();
        client.send(request(method, path, &bearer));
        refused(&client.response(), 411, "length_required");
    }
    let chunked = "Transfer-Encoding: chunked\r\n";
    refused(&server.ask("GET", "/healthz", chunked, b""), 411, "length_required");
}

#[test]
fn a_get_with_a_json_type_and_no_body_is_no_json() {
    let (_server, user) = with_user(&[]);
    let fields = "Content-Type: application/json\r\n";
    user.raw("GET", "/api/machines", fields, b"").is(200);
    user.raw("DELETE", "/api/machines/x/actions", fields, b"").is(200);
    user.raw("GET", "/api/machines", fields, b"no json").is(200);
}

#[test]
fn no_content_type_means_json() {
    let (_server, user) = with_user(&[]);
    let machine = br#"{"machine_id": "m", "name": "m"}"#;
    user.raw("POST", "/api/machines", "", machine).is(201);
    let push = br#"{"machine_id": "m", "encrypted_state": "AAAA"}"#;
    user.raw("POST", "/api/machines/snapshot", "", push).is(201);
}

#[test]
fn health_needs_no_credentials_and_says_the_version() {
    let server = serve(&[]);
    let response = server.ask("GET", "/healthz", "", b"");
    let expected = json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") });
    assert_eq!((response.status, response.json()), (200, expected));
}

#[test]
fn health_is_looked_at_once_a_second_whoever_asks() {
    // On a busy machine a second may pass between the two; then once more.
    let told = (0..10).find_map(|_| {
        let mut server = serve(&[]);
        server.errors_expected = true;
        let start = Instant::now();
        server.ask("GET", "/healthz", "", b"").is(200);
        fs::rename(server.data().join("configsync.db"), server.beside("moved")).unwrap();
        let soon = server.ask("GET", "/healthz", "", b"").status;
        let in_time = start.elapsed() < Duration::from_secs(1);
        eventually("it is looked at again", || {
            server.ask("GET", "/healthz", "", b"").status == 503
        });
        in_time.then_some(soon)
    });
    assert_eq!(told, Some(200));
}

#[test]
fn the_log_has_a_line_for_each_request_and_no_secret() {
    let (server, user) = with_user(&[]);
    server.cli_with(&["user", "passwd", "a@example.org", "--password-stdin"], "pass-word-zq7qz\n");
    let login = json!({ "email": "a@example.org", "password": "pass-word-zq7qz" });
    let login = server.ask("POST", "/api/auth/login", "", login.to_string().as_bytes());
    let jwt = login.json()["token"].as_str().unwrap().to_owned();
    let wrong = json!({ "email": "typed-email-zq7qz@example.org", "password": "typed-pass-zq7qz" });
    server.ask("POST", "/api/auth/login", "", wrong.to_string().as_bytes());
    user.register("m");
    user.stored("m", b"state-zq7qz");
    user.get("/api/projects?git_url=https%3A%2F%2Fme%3Asecret-zq7qz%40example.org%2Fx");
    server.ask("GET", "/api/machines", "Authorization: Bearer master-pass-zq7qz\r\n", b"");
    let wanted = |lines: &[String]| lines.iter().filter(|l| l.contains("\"request\"")).count() >= 6;
    eventually("the requests are logged", || wanted(&server.log_lines()));
    let lines = server.log_lines();
    let text = lines.join("\n");
    let token = &user.bearer;
    for secret in ["zq7qz", token.as_str(), &jwt, &token[3..20]] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    let push = lines.iter().find(|l| l.contains("POST") && l.contains("/snapshot")).unwrap();
    let line: Value = serde_json::from_str(push).unwrap();
    assert_eq!(line["status"], 201);
    assert_eq!((&line["bytes_in"], &line["user"]), (&json!(11), &json!(1)));
    assert_eq!(line["peer"], "127.0.0.1");
    assert_eq!(line["path"], "/api/machines/snapshot");
    for key in ["time", "level", "msg", "method", "bytes_out", "ms", "request_id"] {
        assert!(!line[key].is_null(), "{key}");
    }
}

#[test]
fn a_text_log_has_the_same_in_words() {
    let server = serve(&["--log-format", "text"]);
    server.ask("GET", "/healthz", "", b"");
    let is_it = |line: &String| {
        line.contains("info  request method=GET path=/healthz status=200") && line.contains(" ms=")
    };
    eventually("the request is logged", || server.log_lines().iter().any(is_it));
}

#[test]
fn a_lower_max_body_holds_for_every_route() {
    let (_server, user) = with_user(&["--max-body", "1000"]);
    let long = json!({ "machine_id": "m", "name": "m", "x": "y".repeat(1000) });
    for (method, path) in [("POST", "/api/machines"), ("GET", "/api/machines")] {
        let response = user.raw(method, path, "", long.to_string().as_bytes());
        refused(&response, 413, "too_large");
        let sentence = response.json()["error"].to_string();
        assert!(sentence.contains("1000") && sentence.contains("--max-body"), "{sentence}");
    }
    user.register("m");
}

#[test]
fn a_credential_in_a_path_is_not_logged() {
    let (server, user) = with_user(&[]);
    let token = server.token("a@example.org");
    user.get(&format!("/nope/{token}"));
    user.get(&format!("/api/machines/{token}/actions"));
    eventually("both are logged", || {
        server.log_lines().iter().filter(|line| line.contains("(secret)")).count() == 2
    });
    assert!(!server.log_lines().iter().any(|line| line.contains(&token)));
}
