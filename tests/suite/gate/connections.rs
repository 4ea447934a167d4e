//! Who gets a connection, how long it may be idle, and whose request it counts as.

use std::time::{Duration, Instant};

use crate::fixture::http::{Client, get, request};
use crate::fixture::target::{Target, serve};
use crate::fixture::{ELSEWHERE, HERE, eventually};

/// True if a fresh connection is served; false if it is refused as it must be.
fn is_served(server: &Target, from: [u8; 4]) -> Option<Client> {
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
fn one_address_gets_its_connections_and_no_more() {
    let server = serve(&[]);
    let mut held: Vec<Client> = (0..32).map_while(|_| is_served(&server, HERE)).collect();
    assert_eq!(held.len(), 32);
    for _ in 0..5 {
        assert!(is_served(&server, HERE).is_none());
    }
    server.assert_serves(ELSEWHERE);
    held.pop();
    eventually("a closed connection gives its slot back", || is_served(&server, HERE).is_some());
    held.iter_mut().for_each(|client| client.assert_reusable("held all the while"));
}

#[test]
fn all_addresses_together_get_the_total_and_no_more() {
    let server = serve(&["--max-connections", "6"]);
    let from = |n: u8| [127, 0, 0, 10 + n];
    let mut held: Vec<Client> = (0..6).map_while(|n| is_served(&server, from(n))).collect();
    assert_eq!(held.len(), 6);
    assert!(is_served(&server, from(7)).is_none());
    held.clear();
    eventually("the slots are back", || is_served(&server, from(7)).is_some());
}

#[test]
fn a_burst_of_keep_alive_connections_is_answered_on_every_one() {
    let server = serve(&[]);
    for burst in [8, 8, 30] {
        let mut clients: Vec<Client> = (0..burst).map(|_| server.connect()).collect();
        for _ in 0..5 {
            clients.iter_mut().for_each(|client| client.send(get("/healthz")));
            clients.iter_mut().for_each(|client| assert_eq!(client.response().status, 200));
        }
        let before = server.usage().threads;
        drop(clients);
        eventually("the threads end", || server.usage().threads <= before - burst);
    }
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let server = serve(&["--idle-timeout", "1"]);
    let before = server.usage_at_rest();
    let mut fresh = server.connect();
    let mut used = server.connect();
    used.assert_reusable("before");
    used.assert_closed("idle after a request");
    fresh.assert_closed("idle from the start");
    server.assert_settles(before);
    assert_eq!(server.wait_for_requests(1).len(), 1);
}

#[test]
fn an_empty_line_after_a_body_is_no_request() {
    let server = serve(&["--idle-timeout", "1", "--head-timeout", "60"]);
    let mut client = server.connect();
    let post = server.post("/api/machines", r#"{"machine_id":"m","name":"n"}"#) + "\r\n";
    client.send(&post);
    assert_eq!(client.response().status, 201);
    client.send(&post);
    assert_eq!(client.response().status, 200, "the request after the empty line");
    client.assert_closed("idle after an empty line");
    assert_eq!(server.wait_for_requests(2).len(), 2);
}

#[test]
fn a_head_that_does_not_end_in_time_is_answered_and_closed() {
    let server = serve(&["--head-timeout", "1"]);
    let half = "GET /healthz HTTP/1.1\r\nHost: t\r\nX: ";
    let whole = get("/healthz");
    let clients = [
        ("half a head", half.to_owned(), 0),
        ("one byte", "G".to_owned(), 0),
        ("all but the last byte", whole[..whole.len() - 1].to_owned(), 0),
        ("a half behind a whole", whole.clone() + half, 1),
    ]
    .map(|(name, first, responses)| {
        let mut client = server.connect();
        client.send(first);
        (name, client, responses)
    });
    for (name, mut client, responses) in clients {
        (0..responses).for_each(|_| assert_eq!(client.response().status, 200, "{name}"));
        let response = client.response();
        assert_eq!(response.status, 408, "{name}");
        assert!(response.closes(), "{name}");
        client.assert_closed(name);
    }
    assert_eq!(server.wait_for_requests(5).len(), 5);
}

#[test]
fn no_response_waits_for_an_acknowledgement() {
    let server = serve(&[]);
    let mut client = server.connect();
    for size in [100_usize, 1_000, 4_000, 12_000, 40_000, 100_000] {
        server.store(&vec![7; size]);
        for raw in [true, false] {
            // A stall of 40 ms and more strikes every response but perhaps the first ones; so the
            // fastest of many tells, however busy the machine is.
            let took = (0..20).map(|_| {
                let start = Instant::now();
                client.send(server.pull(raw));
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
    server.ask(request("GET", "/healthz", forwarded));
    server.ask(request("GET", "/healthz", forwarded));
    let logged = server.wait_for_requests(2);
    assert!(logged.iter().all(|request| request.peer == "127.0.0.1"), "{logged:?}");
    assert_eq!(server.wait_for_log("--trusted-proxy").len(), 1, "said once");
}

#[test]
fn a_trusted_proxy_speaks_for_the_rightmost_address_that_is_not_a_proxy() {
    let proxies = ["127.0.0.1", "10.0.0.0/8", "fd00::/8"];
    let server = serve(&proxies.map(|proxy| ["--trusted-proxy", proxy]).concat());
    let vectors: &[(&str, &str)] = &[
        ("X-Forwarded-For: 192.0.2.1\r\n", "192.0.2.1"),
        ("X-Forwarded-For: 6.6.6.6, 192.0.2.1, 10.0.0.1\r\n", "192.0.2.1"),
        ("X-Forwarded-For: 6.6.6.6, 11.0.0.1, fd77::7, 10.255.0.1\r\n", "11.0.0.1"),
        ("X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 2001:db8::1\r\n", "2001:db8::1"),
        ("X-Forwarded-For: ::ffff:192.0.2.1\r\n", "192.0.2.1"),
        ("", "127.0.0.1"),
        ("X-Forwarded-For:\r\n", "127.0.0.1"),
        ("X-Forwarded-For: unknown, 192.0.2.1\r\n", "192.0.2.1"),
        ("X-Forwarded-For: 192.0.2.1, unknown\r\n", "127.0.0.1"),
        ("X-Forwarded-For: 192.0.2.1:80\r\n", "127.0.0.1"),
        ("X-Forwarded-For: 192.0.2.1, \r\n", "127.0.0.1"),
        ("X-Forwarded-For: 999.0.2.1\r\n", "127.0.0.1"),
        ("X-Forwarded-For: 10.0.0.1, 127.0.0.1\r\n", "127.0.0.1"),
    ];
    for (n, (fields, expected)) in vectors.iter().enumerate() {
        server.ask(request("GET", "/healthz", fields));
        assert_eq!(server.wait_for_requests(n + 1)[n].peer, *expected, "{fields}");
    }
    let mut client = server.connect_from(ELSEWHERE);
    client.send(request("GET", "/healthz", "X-Forwarded-For: 192.0.2.1\r\n"));
    assert_eq!(client.response().status, 200);
    let logged = server.wait_for_requests(vectors.len() + 1);
    assert_eq!(logged.last().unwrap().peer, "127.0.0.2", "not a proxy");
}

#[test]
fn requests_behind_a_proxy_share_the_slots_of_their_own_address() {
    let server = serve(&["--trusted-proxy", "127.0.0.1", "--max-connections-per-ip", "2"]);
    server.register();
    let push = |client: u8| server.push_head(5, &format!("X-Forwarded-For: 192.0.2.{client}\r\n"));
    let mut held: Vec<Client> = (0..2).map(|_| server.connect()).collect();
    held.iter_mut().for_each(|client| client.send(push(1)));
    eventually("both uploads wait for their bodies", || server.uploads() == 2);
    let refused = server.ask(push(1) + "state");
    assert_eq!(refused.status, 503);
    assert!(refused.field("retry-after").is_some() && refused.closes());
    assert_eq!(server.ask(push(2) + "state").status, 201, "another client of the same proxy");
    for client in &mut held {
        client.send("state");
        assert!(matches!(client.response().status, 200 | 201));
        client.assert_reusable("a proxy keeps its connections");
    }
    assert!(matches!(server.ask(push(1) + "state").status, 200 | 201), "the slots are back");
}

#[test]
fn bytes_after_the_last_request_do_not_cut_its_response() {
    let server = serve(&[]);
    server.register();
    let state: Vec<u8> = (0..4_000_000_u32).map(|n| (n % 251) as u8).collect();
    server.store(&state);
    for (n, more) in
        ["\r\n", "GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n"].iter().cycle().take(10).enumerate()
    {
        let mut client = server.connect();
        let auth = server.auth();
        let fields = format!("{auth}Accept: application/octet-stream\r\nConnection: close\r\n");
        client.send(request("GET", "/api/machines/snapshot", &fields));
        std::thread::sleep(Duration::from_millis(1 + n as u64));
        client.try_send(more);
        let response = client.response();
        assert!(response.status == 200 && response.body == state, "cut at {}", response.body.len());
        client.assert_closed("as it asked for");
    }
}

#[test]
fn a_flood_of_passwords_does_not_hold_up_the_trade_of_a_token() {
    let server = serve(&[]);
    let login = |body: &str| server.post("/api/auth/login", body);
    let wrong = |n: usize| login(&format!(r#"{{"email":"{n}@x.org","password":"x"}}"#));
    let mut flood: Vec<Client> = (0..90)
        .map(|n| {
            let mut client = server.connect_from([127, 0, 0, 20 + (n / 30) as u8]);
            client.send(wrong(n));
            client
        })
        .collect();
    let token = server.auth().trim().rsplit(' ').next().unwrap().to_owned();
    for _ in 0..10 {
        let traded = server.ask(login(&format!(r#"{{"token":"{token}"}}"#)));
        assert_eq!(traded.status, 200, "{traded:?}");
    }
    let statuses: Vec<u16> = flood.iter_mut().map(|client| client.response().status).collect();
    assert!(statuses.iter().all(|status| matches!(status, 401 | 503)), "{statuses:?}");
}

#[test]
fn a_server_that_was_halted_for_a_moment_goes_on_with_every_connection() {
    let server = serve(&[]);
    server.register();
    let (mut idle, mut half) = (server.connect(), server.connect());
    idle.assert_reusable("before");
    let head = get("/healthz");
    half.send(&head[..20]);
    let (mut refused, mut pushing) = (server.connect(), server.connect());
    refused.send(request("POST", "/api/machines/snapshot", "Content-Length: 100000\r\n"));
    assert_eq!(refused.response().status, 401);
    pushing.send(server.push_head(100_000, "") + &"x".repeat(50_000));
    eventually("the upload is under way", || server.uploads() == 1);
    server.halt();
    idle.assert_reusable("idle");
    half.send(&head[20..]);
    assert_eq!(half.response().status, 200);
    // What nobody will read is still taken, and the connection is no reset.
    refused.send("x".repeat(50_000));
    refused.send("x".repeat(50_000));
    pushing.send("x".repeat(50_000));
    assert_eq!(pushing.response().status, 201);
}
