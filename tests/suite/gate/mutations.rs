//! Mutated requests, the same on every run, over real sockets.

use std::cell::RefCell;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::fixture::mutated::{mutated, with_each};
use crate::fixture::{ELSEWHERE, Server, User, at_once, request, responses, with_machine};

const CONNECTIONS: u32 = 4000;

#[test]
fn mutated_requests_get_complete_responses_or_the_end_and_the_server_lives() {
    let (server, user) = with_machine(&["--head-timeout", "5", "--body-grace", "5"]);
    user.stored("m", b"state");
    let before = server.usage_at_rest();
    let statuses = at_once(2, |seed| attack(&server, &user, seed as u64)).concat();
    let count = |status| statuses.iter().filter(|s| **s == status).count();
    let (good, malformed) = (count(200), count(400));
    println!("{CONNECTIONS} mutated: {} responses, {good} good, {malformed} bad", statuses.len());
    let enough = CONNECTIONS as usize / 20;
    assert!(good > enough && malformed > enough, "too little was tried");
    assert_eq!(count(500), 0);
    server.assert_settles(before);
    server.assert_no_upload_left();
    server.assert_serves(ELSEWHERE);
}

/// Sends one to three requests in a row with a few places changed, on half of the connections; the
/// statuses of all responses.
fn attack(server: &Server, user: &User, seed: u64) -> Vec<u16> {
    let json = r#"{"machine_id":"m","metadata":{"a":[1]},"encrypted_state":"QUJD"}"#;
    let whole = vec![
        request("GET", "/healthz", ""),
        user.pull_request(true),
        user.pull_request(false),
        user.push_head(5, "") + "state",
        user.post_request("/api/machines", r#"{"machine_id":"m","name":"n"}"#),
        user.post_request("/api/machines/snapshot", json),
        request("GET", "/api/machines", &user.auth()),
    ];
    let row = vec(select(whole), 1..4).prop_map(|row| row.concat().into_bytes());
    let statuses = RefCell::new(Vec::new());
    let inputs = (mutated(row, &TOKENS), any::<Index>());
    with_each(seed, CONNECTIONS / 2, inputs, |(bytes, cut)| {
        let mut client = server.connect();
        let cut = cut.index(bytes.len() + 1);
        let _ = client.try_send(&bytes[..cut]) && client.try_send(&bytes[cut..]);
        client.finish();
        let found = responses(&client.rest());
        let found = found.unwrap_or_else(|error| panic!("{error}\nto {}", bytes.escape_ascii()));
        statuses.borrow_mut().extend(found.iter().map(|response| response.status));
    });
    statuses.into_inner()
}

const TOKENS: [&str; 20] = [
    " ", "\r", "\n", "\r\n", ":", "\t", "\0", ",", "#", "%", "%00", "\u{e9}", "\r\n\r\n", "\r\n ",
    "\r\nHost: a\r\n", "\r\nContent-Length: 5\r\n", "\r\nTransfer-Encoding: chunked\r\n",
    "\r\nExpect: 100-continue\r\n", "HTTP/2.0", "\r\nConnection: close\r\n",
];
