//! Bodies that are refused, cut short, too slow or announced with `Expect`.

use std::time::Duration;

use super::{SMUGGLED, assert_refused, assert_seen};
use crate::fixture::{
    Client, ELSEWHERE, assert_says, eventually, refused, request, with_machine, with_user,
};

const MIB: u64 = 1024 * 1024;

#[test]
fn a_refused_request_is_answered_before_its_body_and_its_body_is_no_request() {
    let (server, user) = with_machine(&["--max-body", "2000000"]);
    let push = "/api/machines/snapshot?machine_id=m";
    let auth = user.auth();
    let text = format!("{auth}Content-Type: text/plain\r\n");
    let bad = "Authorization: Bearer cs_0000000000000000000000000000000000000000\r\n";
    // Who may not send it is not told to continue either.
    let [expect, bad_expect, auth_expect] =
        ["", bad, &auth].map(|fields| format!("{fields}Expect: 100-continue\r\n"));
    let (huge, most, length) = (9_999_999_999_999_999, u64::MAX, SMUGGLED.len() as u64);
    // The line of a request follows its response.
    let mut seen = server.wait_for_requests(1).len();
    for (status, method, path, fields, length) in [
        (401, "POST", push, "", 31_457_280),
        (401, "POST", push, bad, 31_457_280),
        (401, "POST", push, &expect, 31_457_280),
        (401, "POST", push, &bad_expect, 31_457_280),
        (401, "POST", "/api/machines", "", length),
        (401, "POST", push, "", huge),
        (413, "POST", push, &auth, huge),
        (413, "POST", push, &auth, most),
        (413, "POST", push, &auth, 2_000_001),
        (413, "POST", push, &auth_expect, 1 << 40),
        (413, "POST", "/api/auth/login", "", huge),
        // tiny_http would take them for negative lengths.
        (413, "GET", "/healthz", "", most),
        (413, "GET", "/healthz", "", 1 << 63),
        (413, "POST", "/api/machines", &auth, 65_537),
        (413, "POST", "/api/sync/plan", &auth, 1 + MIB),
        (404, "POST", "/nowhere", "", length),
        (404, "POST", "/nowhere", &expect, length),
        (405, "DELETE", "/api/machines", &auth, length),
        (415, "POST", push, &text, length),
    ] {
        let head = request(method, path, &format!("{fields}Content-Length: {length}\r\n"));
        // First the response, without a byte of the body; then once more with a body behind.
        for bytes in [head.clone(), format!("{head}{SMUGGLED}{SMUGGLED}")] {
            assert_refused(&server, &head, status, bytes.as_bytes(), bytes.len());
            seen += 1;
            assert_seen(&server, &head, seen, status);
        }
    }
    server.assert_serves(ELSEWHERE);
    assert_eq!(server.files("tmp"), 0);
}

#[test]
fn a_push_that_will_be_taken_is_told_to_continue() {
    let (server, user) = with_machine(&[]);
    let expect = "Expect: 100-continue\r\n";
    let mut client = server.connect();
    client.send(user.push_head(5, expect));
    assert_eq!(client.response().status, 100);
    client.send("state");
    assert_eq!(client.response().status, 201);
    // A client that does not wait needs no telling; the response is the same.
    client.send(user.push_head(5, expect) + "other");
    let first = client.response();
    let last = if first.status == 100 { client.response() } else { first };
    assert_eq!(last.status, 201);
    client.assert_reusable("after two pushes");
    let mut client = server.connect();
    client.send(user.push_head(5, expect).replacen("HTTP/1.1", "HTTP/1.0", 1) + "third");
    assert_eq!(client.response().status, 201, "HTTP/1.0 knows no 100");
    client.assert_closed("HTTP/1.0");
}

/// A way to leave in the middle of a body.
type Leave = fn(Client);

#[test]
fn a_body_cut_short_stores_nothing_and_leaves_nothing() {
    let (server, user) = with_machine(&[]);
    let json = r#"{"machine_id":"m","encrypted_state":"QUJD"#;
    let json_head = user.post_request("/api/machines/snapshot", &" ".repeat(2 * MIB as usize));
    let json_head = json_head.trim_end_matches(' ').to_owned() + json;
    let half_close: Leave = |mut client| {
        client.finish();
        let rest = client.rest();
        assert!(!rest.starts_with(b"HTTP/1.1 2"), "{}", rest.escape_ascii());
    };
    let mut seen = server.wait_for_requests(1).len();
    for head in [user.push_head(2 * MIB, ""), json_head] {
        for leave in [drop, Client::reset, half_close] {
            let mut client = server.connect();
            client.send(&head);
            client.send("QUJD".repeat(100_000));
            eventually("the upload is under way", || server.files("tmp") == 1);
            leave(client);
            server.assert_no_upload_left();
            seen += 1;
            let logged = server.wait_for_requests(seen);
            let last = logged.last().unwrap();
            assert!(logged.len() == seen && !matches!(last.status, 200 | 201), "{last:?}");
        }
    }
    // A JSON document that is whole but for its last byte, and a small body.
    for path in ["/api/machines/snapshot", "/api/machines"] {
        let whole =
            user.post_request(path, r#"{"machine_id":"x","name":"n","encrypted_state":"QUJD"}"#);
        let mut client = server.connect();
        client.send(&whole[..whole.len() - 1]);
        half_close(client);
    }
    assert!(user.history().is_empty());
    assert_eq!(server.count("SELECT count(*) FROM machines"), 1);
    server.assert_no_upload_left();
}

#[test]
fn a_client_that_sends_a_refused_body_all_the_same_can_read_why_and_is_not_cut_off() {
    let (server, user) = with_user(&[]);
    let long = "x".repeat(200_000);
    let bad_base64 = format!(r#"{{"encrypted_state":"{}"}}"#, "?".repeat(200_000));
    for (n, (status, path, body)) in (1..).zip([
        (413, "/api/machines", &long),
        (404, "/nowhere", &long),
        (400, "/api/machines/snapshot", &long),
        (400, "/api/machines/snapshot", &bad_base64),
    ]) {
        let whole = user.post_request(path, body);
        assert_refused(&server, path, status, whole.as_bytes(), whole.len());
        // Still sending when it is refused, the first two by their heads.
        let (head, body) = whole.as_bytes().split_at(whole.len() - body.len());
        let mut client = server.connect();
        client.send(head);
        server.wait_for_requests(if status == 400 { 0 } else { 2 * n });
        // A reset would fail the second or third of these.
        for piece in body.chunks(40_000) {
            client.send(piece);
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(client.response().status, status, "{path}");
        client.assert_closed(path);
    }
    server.assert_no_upload_left();
}

#[test]
fn a_body_that_trickles_is_dropped_after_its_grace() {
    let (server, user) = with_machine(&["--body-grace", "1"]);
    let before = server.usage_at_rest();
    let mut client = server.connect();
    client.send(user.push_head(MIB, ""));
    // Bytes come all the time, far below 1 KiB a second.
    let dropped = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        !client.try_send("x") || server.wait_for_requests(1).len() > 1
    });
    assert!(dropped, "200 bytes in ten seconds are too few");
    assert_says(&refused(&client.response(), 408, "too_slow"), &["body", "--body-grace"]);
    client.assert_closed("a trickle");
    assert_seen(&server, "a trickle", 2, 408);
    server.assert_no_upload_left();
    drop(client);
    server.assert_settles(before);
}
