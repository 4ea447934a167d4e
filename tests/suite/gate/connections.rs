//! Who gets a connection, how long it may be idle, and whose request it counts as.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{SMUGGLED, half_a_push};
use crate::fixture::{
    Client, ELSEWHERE, HERE, Server, assert_says, eventually, get, noise, refused, request, serve,
    with_machine, with_user,
};

/// A fresh connection that is served; None if it is refused as it must be.
fn is_served(server: &Server, from: [u8; 4]) -> Option<Client> {
    let mut client = server.connect_from(from);
    // The server may have refused and closed before it sees a request.
    client.try_send(get("/healthz"));
    let response = client.response();
    if response.status == 200 {
        return Some(client);
    }
    assert_eq!(response.status, 503, "{response:?}");
    assert!(response.field("retry-after").is_some() && response.closes(), "{response:?}");
    client.assert_closed("no slot");
    None
}

#[test]
fn one_address_and_all_together_get_their_connections_and_no_more() {
    let server = serve(&["--max-connections", "33"]);
    let mut held: Vec<Client> = (0..32).map_while(|_| is_served(&server, HERE)).collect();
    assert_eq!(held.len(), 32);
    let threads = server.usage().threads;
    let mut more: Vec<Client> = (0..500).map(|_| server.connect()).collect();
    more.iter_mut().for_each(|client| assert_eq!(client.response().status, 503));
    assert!(is_served(&server, HERE).is_none());
    server.assert_serves(ELSEWHERE);
    assert!(server.usage().threads <= threads + 2);
    let mut last = None;
    eventually("the total is reached", || {
        last = last.take().or_else(|| is_served(&server, ELSEWHERE));
        last.is_some()
    });
    assert!(is_served(&server, ELSEWHERE).is_none());
    drop(last);
    held.pop();
    eventually("a closed connection gives its slot back", || is_served(&server, HERE).is_some());
    held.iter_mut().for_each(|client| client.assert_reusable("held all the while"));
}

#[test]
fn a_silent_client_does_not_keep_its_connection_after_its_last_response() {
    let (server, user) = with_user(&["--max-connections-per-ip", "1"]);
    let mut silent = server.connect();
    silent.send(request("GET", "/api/machines", &(user.auth() + "Connection: close\r\n")));
    assert_eq!(silent.response().status, 200);
    let begin = Instant::now();
    while is_served(&server, HERE).is_none() {
        assert!(begin.elapsed() < Duration::from_secs(6), "a second is enough");
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(silent);
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let (server, user) = with_user(&["--idle-timeout", "1", "--head-timeout", "60"]);
    let before = server.usage_at_rest();
    let mut fresh = server.connect();
    let mut used = server.connect();
    used.assert_reusable("before");
    // An empty line after a body is not the beginning of a request.
    let post = user.post_request("/api/machines", r#"{"machine_id":"m","name":"n"}"#) + "\r\n";
    let mut ended = server.connect();
    for status in [201, 200] {
        ended.send(&post);
        assert_eq!(ended.response().status, status);
    }
    used.assert_closed("idle after a request");
    ended.assert_closed("idle after an empty line");
    fresh.assert_closed("idle from the start");
    server.assert_settles(before);
    assert_eq!(server.wait_for_requests(3).len(), 3);
}

#[test]
fn a_head_that_does_not_end_in_time_is_answered_and_closed() {
    let server = serve(&["--head-timeout", "1"]);
    let half = "GET /healthz HTTP/1.1\r\nHost: t\r\nX: ";
    let whole = get("/healthz");
    let both = whole.clone() + half;
    let mut clients = [&*both, half, "G", &whole[..whole.len() - 1]].map(|sent| {
        let mut client = server.connect();
        client.send(sent);
        (sent, client)
    });
    assert_eq!(clients[0].1.response().status, 200, "the whole before a half");
    for (sent, client) in &mut clients {
        let response = client.response();
        assert_says(&refused(&response, 408, "too_slow"), &["head", "--head-timeout"]);
        assert!(response.closes(), "{sent:?}: {response:?}");
        client.assert_closed(sent);
    }
    assert_eq!(server.wait_for_requests(5).len(), 5);
}

#[test]
fn no_response_waits_for_an_acknowledgement() {
    let (server, user) = with_machine(&[]);
    let mut client = server.connect();
    for size in [100_usize, 1_000, 4_000, 12_000, 40_000, 100_000] {
        user.stored("m", &vec![7; size]);
        for raw in [true, false] {
            // A stall of 40 ms and more strikes every response but perhaps the first ones; so the
            // fastest of many tells, however busy the machine is.
            let took = (0..20).map(|_| {
                let start = Instant::now();
                client.send(user.pull_request(raw));
                assert_eq!(client.response().status, 200);
                start.elapsed()
            });
            let fastest = took.skip(10).min().unwrap();
            assert!(fastest < Duration::from_millis(30), "{size} bytes, {raw}: {fastest:?}");
        }
    }
}

#[test]
fn a_strangers_word_on_whom_he_speaks_for_counts_for_nothing() {
    let server = serve(&[]);
    let forwarded =
        "X-Forwarded-For: 192.0.2.1\r\nX-Real-IP: 192.0.2.1\r\nForwarded: for=192.0.2.1\r\n";
    (0..2).for_each(|_| _ = server.send(HERE, request("GET", "/healthz", forwarded)));
    let logged = server.wait_for_requests(2);
    assert!(logged.iter().all(|request| request.peer == "127.0.0.1"), "{logged:?}");
    assert_eq!(server.wait_for_log("--trusted-proxy").len(), 1, "said once");
}

#[test]
fn requests_behind_a_proxy_share_the_slots_of_their_own_address() {
    let proxies = ["10.0.0.0/8", "127.0.0.1"].map(|proxy| ["--trusted-proxy", proxy]).concat();
    let (server, user) = with_machine(&[&proxies[..], &["--max-connections-per-ip", "2"]].concat());
    let forwarded =
        |client: u8| format!("X-Forwarded-For: 6.6.6.6, 192.0.2.{client}, 10.0.0.1\r\n");
    let push = |client: u8| user.push_head(5, &forwarded(client));
    let mut held: Vec<Client> = (0..2).map(|_| server.connect()).collect();
    held.iter_mut().for_each(|client| client.send(push(1)));
    eventually("both uploads wait for their bodies", || server.files("tmp") == 2);
    let refused = server.send(HERE, push(1) + "state");
    assert_eq!(refused.status, 503);
    assert!(refused.field("retry-after").is_some() && refused.closes());
    assert_eq!(server.send(HERE, push(2) + "state").status, 201, "another client");
    server.wait_for_log(r#""peer":"192.0.2.2""#);
    for client in &mut held {
        client.send("state");
        assert!(matches!(client.response().status, 200 | 201));
        client.assert_reusable("a proxy keeps its connections");
    }
    assert!(matches!(server.send(HERE, push(1) + "state").status, 200 | 201), "the slots are back");
}

#[test]
fn bytes_after_the_last_request_do_not_cut_its_response() {
    let (server, user) = with_machine(&[]);
    let state = noise(4_000_000);
    user.stored("m", &state);
    for n in 0..10 {
        let mut client = server.connect();
        client.send(user.pull_request(true).replacen("Accept", "Connection: close\r\nAccept", 1));
        std::thread::sleep(Duration::from_millis(1 + n));
        client.try_send(if n % 2 == 0 { "\r\n" } else { SMUGGLED });
        let response = client.response();
        assert!(response.status == 200 && response.body == state, "cut at {}", response.body.len());
        client.assert_closed("as it asked for");
    }
}

#[test]
fn a_server_that_was_halted_for_a_moment_goes_on_with_every_connection() {
    let (server, user) = with_machine(&[]);
    let (mut idle, mut half) = (server.connect(), server.connect());
    idle.assert_reusable("before");
    let head = get("/healthz");
    half.send(&head[..20]);
    let mut refused = server.connect();
    refused.send(request("POST", "/api/machines/snapshot", "Content-Length: 100000\r\n"));
    assert_eq!(refused.response().status, 401);
    let mut pushing = half_a_push(&server, &user);
    server.signal(Signal::STOP);
    std::thread::sleep(Duration::from_millis(100));
    server.signal(Signal::CONT);
    idle.assert_reusable("idle");
    half.send(&head[20..]);
    assert_eq!(half.response().status, 200);
    // What nobody will read is still taken, and the connection is no reset.
    refused.send("x".repeat(50_000));
    refused.send("x".repeat(50_000));
    pushing.send("x".repeat(50_000));
    assert_eq!(pushing.response().status, 201);
}
