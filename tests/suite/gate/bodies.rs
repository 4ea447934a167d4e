//! Bodies that are refused, cut short, too slow or announced with `Expect`.

use std::time::Duration;

use crate::fixture::http::{Client, get, request};
use crate::fixture::target::{Target, serve};
use crate::fixture::{ELSEWHERE, eventually};

/// Sent as a body: must never be served.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: t\r\n\r\n";

const MIB: u64 = 1024 * 1024;

/// Sends this, which is refused with this status, and the connection is closed.
fn assert_refused(server: &Target, name: &str, status: u16, bytes: &str) {
    let mut client = server.connect();
    client.send(bytes);
    let response = client.response();
    assert_eq!(response.status, status, "{name}: {response:?}");
    assert!(response.closes() && response.json()["error"].is_string(), "{name}: {response:?}");
    client.assert_closed(name);
}

#[test]
fn a_refused_request_is_answered_before_its_body_and_its_body_is_no_request() {
    let server = serve(&["--max-body", "1000000"]);
    server.register();
    let length = SMUGGLED.len();
    let auth = server.auth();
    let fields = |more: &str, length: &str| format!("{more}Content-Length: {length}\r\n");
    let push = "/api/machines/snapshot?machine_id=m";
    let text = format!("{auth}Content-Type: text/plain\r\n");
    let huge = "9999999999999999";
    let most = "18446744073709551615";
    let length = length.to_string();
    let bad = "Authorization: Bearer cs_0000000000000000000000000000000000000000\r\n";
    let vectors: &[(&str, u16, String)] = &[
        ("push_without_credentials", 401, request("POST", push, &fields("", "31457280"))),
        ("push_with_bad_credentials", 401, request("POST", push, &fields(bad, "31457280"))),
        ("json_without_credentials", 401, request("POST", "/api/machines", &fields("", &length))),
        ("huge_without_credentials", 401, request("POST", push, &fields("", huge))),
        ("huge", 413, request("POST", push, &fields(&auth, huge))),
        ("largest_number", 413, request("POST", push, &fields(&auth, most))),
        ("over_max_body", 413, request("POST", push, &fields(&auth, "1000001"))),
        ("huge_login", 413, request("POST", "/api/auth/login", &fields("", huge))),
        ("huge_on_health", 413, request("GET", "/healthz", &fields("", most))),
        ("over_the_small_limit", 413, request("POST", "/api/machines", &fields(&auth, "65537"))),
        ("unknown_route", 404, request("POST", "/nowhere", &fields("", &length))),
        ("wrong_method", 405, request("DELETE", "/api/machines", &fields(&auth, &length))),
        ("other_media_type", 415, request("POST", push, &fields(&text, &length))),
    ];
    for (n, (name, status, head)) in vectors.iter().enumerate() {
        // First the response, without a byte of the body; then once more with a body behind.
        assert_refused(&server, name, *status, head);
        assert_refused(&server, name, *status, &format!("{head}{SMUGGLED}{SMUGGLED}"));
        let logged = server.wait_for_requests(1 + 2 * (n + 1));
        assert_eq!(logged.len(), 1 + 2 * (n + 1), "{name}: a second request was seen");
    }
    server.assert_serves(ELSEWHERE);
    assert_eq!(server.uploads(), 0);
    assert!(!server.requests().iter().any(|request| request.path.contains("smuggled")));
}

#[test]
fn only_a_push_that_will_be_taken_is_told_to_continue() {
    let server = serve(&[]);
    server.register();
    let expect = "Expect: 100-continue\r\n";
    let unknown = format!("Content-Length: 5\r\n{expect}");
    let anonymous = server.push_head(31_457_280, expect).replacen(&server.auth(), "", 1);
    let stranger = server.push_head(31_457_280, expect).replacen(&server.token, "cs_x", 1);
    for (name, status, head) in [
        ("no_credentials", 401, anonymous),
        ("bad_credentials", 401, stranger),
        ("too_large", 413, server.push_head(1 << 40, expect)),
        ("unknown_route", 404, request("POST", "/nowhere", &unknown)),
    ] {
        assert_refused(&server, name, status, &head);
    }
    let mut client = server.connect();
    client.send(server.push_head(5, expect));
    assert_eq!(client.response().status, 100);
    client.send("state");
    assert_eq!(client.response().status, 201);
    // A client that does not wait needs no telling; the response is the same.
    client.send(server.push_head(5, expect) + "other");
    let first = client.response();
    let last = if first.status == 100 { client.response() } else { first };
    assert_eq!(last.status, 201);
    client.assert_reusable("after two pushes");
    let mut client = server.connect();
    client.send(server.push_head(5, expect).replacen("HTTP/1.1", "HTTP/1.0", 1) + "third");
    assert_eq!(client.response().status, 201, "HTTP/1.0 knows no 100");
    client.assert_closed("HTTP/1.0");
}

/// A way to leave in the middle of a body.
type Leave = fn(Client);

#[test]
fn a_body_cut_short_stores_nothing_and_leaves_nothing() {
    let server = serve(&[]);
    server.register();
    let json = r#"{"machine_id":"m","encrypted_state":"QUJD"#;
    let json_head = server.post("/api/machines/snapshot", &" ".repeat(2 * MIB as usize));
    let json_head = json_head.trim_end_matches(' ').to_owned() + json;
    let raw_head = server.push_head(2 * MIB, "");
    let leave: [(&str, Leave); 3] = [
        ("closed", drop),
        ("reset", Client::reset),
        ("half_closed", |mut client| {
            client.finish();
            let rest = client.rest();
            assert!(!rest.starts_with(b"HTTP/1.1 2"), "{}", rest.escape_ascii());
        }),
    ];
    let mut seen = 1;
    for head in [&raw_head, &json_head] {
        for (name, leave) in leave {
            let mut client = server.connect();
            client.send(head);
            client.send("QUJD".repeat(100_000));
            eventually("the upload is under way", || server.uploads() == 1);
            leave(client);
            server.assert_no_upload_left();
            seen += 1;
            let logged = server.wait_for_requests(seen);
            let last = logged.last().unwrap();
            assert!(logged.len() == seen && !matches!(last.status, 200 | 201), "{name}: {last:?}");
        }
    }
    // A JSON document that is whole but for its last byte, and a small body.
    for path in ["/api/machines/snapshot", "/api/machines"] {
        let whole = server.post(path, r#"{"machine_id":"x","name":"n","encrypted_state":"QUJD"}"#);
        let mut client = server.connect();
        client.send(&whole[..whole.len() - 1]);
        client.finish();
        assert!(!client.rest().starts_with(b"HTTP/1.1 2"), "{path}");
    }
    assert_eq!(server.snapshots(), []);
    let machines = server.ask(request("GET", "/api/machines", &server.auth())).json();
    assert_eq!(machines["machines"].as_array().unwrap().len(), 1);
    server.assert_no_upload_left();
}

#[test]
fn a_body_may_end_where_the_next_request_begins() {
    let server = serve(&[]);
    server.register();
    let mut client = server.connect();
    let first = server.push_head(SMUGGLED.len() as u64, "") + SMUGGLED;
    client.send(first + &get("/healthz"));
    assert_eq!(client.response().status, 201);
    assert_eq!(client.response().status, 200);
    assert_eq!(server.wait_for_requests(3).len(), 3);
    assert_eq!(server.snapshots()[0].1, SMUGGLED.len() as u64);
}

#[test]
fn a_client_that_sends_a_refused_body_all_the_same_can_read_why() {
    let server = serve(&[]);
    for (name, status, head) in [
        ("too_large", 413, server.post("/api/machines", &"x".repeat(200_000))),
        ("unknown", 404, server.post("/nowhere", &"x".repeat(200_000))),
        ("bad_json", 400, server.post("/api/machines/snapshot", &"x".repeat(200_000))),
        ("bad_base64", 400, {
            let body = format!(r#"{{"encrypted_state":"{}"}}"#, "?".repeat(200_000));
            server.post("/api/machines/snapshot", &body)
        }),
    ] {
        assert_refused(&server, name, status, &head);
    }
    server.assert_no_upload_left();
}

#[test]
fn a_client_that_is_still_sending_when_it_is_refused_is_not_cut_off() {
    let server = serve(&[]);
    for (n, (status, path)) in [(413, "/api/machines"), (404, "/nowhere")].into_iter().enumerate() {
        let whole = server.post(path, &"x".repeat(120_000));
        let (head, body) = whole.as_bytes().split_at(whole.len() - 120_000);
        let mut client = server.connect();
        client.send(head);
        server.wait_for_requests(n + 1);
        // A reset would fail the second or third of these.
        for piece in body.chunks(40_000) {
            client.send(piece);
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(client.response().status, status, "{path}");
        client.assert_closed(path);
    }
}

#[test]
fn a_body_that_trickles_is_dropped_after_its_grace() {
    let server = serve(&["--body-grace", "1"]);
    server.register();
    let before = server.usage_at_rest();
    let mut client = server.connect();
    client.send(server.push_head(MIB, ""));
    // Bytes come all the time, far below 1 KiB a second.
    let dropped = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        !client.try_send("x") || server.wait_for_requests(1).len() > 1
    });
    assert!(dropped, "200 bytes in ten seconds are too few");
    assert_eq!(client.response().status, 408);
    client.assert_closed("a trickle");
    assert_eq!(server.wait_for_requests(2)[1].status, 408);
    server.assert_no_upload_left();
    drop(client);
    server.assert_settles(before);
}
