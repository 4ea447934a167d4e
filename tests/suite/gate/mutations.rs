//! Mutated requests, the same on every run, over real sockets.

use crate::fixture::http::{request, responses};
use crate::fixture::random::Random;
use crate::fixture::{ELSEWHERE, Server, User, at_once, with_machine};

const CONNECTIONS: usize = 4000;

#[test]
fn mutated_requests_get_complete_responses_or_the_end_and_the_server_lives() {
    let (server, user) = with_machine(&["--head-timeout", "5", "--body-grace", "5"]);
    user.stored("m", b"state");
    let before = server.usage_at_rest();
    let half = |seed| attack(&server, &user, Random::new(seed as u64), CONNECTIONS / 2);
    let statuses = at_once(2, half).concat();
    let count = |status| statuses.iter().filter(|s| **s == status).count();
    let (good, malformed) = (count(200), count(400));
    println!("{CONNECTIONS} mutated: {} responses, {good} good, {malformed} bad", statuses.len());
    assert!(good > CONNECTIONS / 20 && malformed > CONNECTIONS / 20, "too little was tried");
    assert_eq!(count(500), 0);
    server.assert_settles(before);
    server.assert_no_upload_left();
    server.assert_serves(ELSEWHERE);
}

/// Sends mutated requests, one connection each; the statuses of all responses.
fn attack(server: &Server, user: &User, mut random: Random, count: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..count {
        let bytes = requests(user, &mut random);
        let mut client = server.connect();
        let cut = random.below(bytes.len() + 1);
        let _ = client.try_send(&bytes[..cut]) && client.try_send(&bytes[cut..]);
        client.finish();
        match responses(&client.rest()) {
            Ok(found) => statuses.extend(found.iter().map(|response| response.status)),
            Err(error) => panic!("{error}\nto {}", bytes.escape_ascii()),
        }
    }
    statuses
}

/// One to three requests in a row, with a few places changed.
fn requests(user: &User, random: &mut Random) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..=random.below(3) {
        let one = match random.below(6) {
            0 => request("GET", "/healthz", ""),
            1 => user.pull_request(random.below(2) == 0),
            2 => user.push_head(5, "") + "state",
            3 => user.post_request("/api/machines", r#"{"machine_id":"m","name":"n"}"#),
            4 => {
                let body = r#"{"machine_id":"m","metadata":{"a":[1]},"encrypted_state":"QUJD"}"#;
                user.post_request("/api/machines/snapshot", body)
            }
            _ => request("GET", "/api/machines", &user.auth()),
        };
        bytes.extend_from_slice(one.as_bytes());
    }
    random.mutate(&mut bytes, &TOKENS);
    bytes
}

const TOKENS: [&str; 20] = [
    " ", "\r", "\n", "\r\n", ":", "\t", "\0", ",", "#", "%", "%00", "\u{e9}", "\r\n\r\n", "\r\n ",
    "\r\nHost: a\r\n", "\r\nContent-Length: 5\r\n", "\r\nTransfer-Encoding: chunked\r\n",
    "\r\nExpect: 100-continue\r\n", "HTTP/2.0", "\r\nConnection: close\r\n",
];
