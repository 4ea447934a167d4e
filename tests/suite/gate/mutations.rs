//! Mutated requests, the same on every run, over real sockets.

use super::fixture::{Server, serve};
use super::wire::{answers, request};

const CONNECTIONS: usize = 4000;

#[test]
fn mutated_requests_get_complete_answers_or_the_end_and_the_server_lives() {
    let server = serve(&["--head-timeout", "5", "--body-grace", "5"]);
    server.store(b"state");
    let before = server.usage_at_rest();
    let half = |seed| attack(&server, Random::new(seed), CONNECTIONS / 2);
    let half = &half;
    let statuses = std::thread::scope(|scope| {
        let halves = [1, 2].map(|seed| scope.spawn(move || half(seed)));
        halves.map(|half| half.join().unwrap()).concat()
    });
    let count = |status| statuses.iter().filter(|s| **s == status).count();
    let (good, malformed) = (count(200), count(400));
    println!("{CONNECTIONS} mutated: {} answers, {good} good, {malformed} bad", statuses.len());
    assert!(good > CONNECTIONS / 20 && malformed > CONNECTIONS / 20, "too little was tried");
    assert_eq!(count(500), 0);
    server.assert_settles(before);
    server.assert_no_upload_left();
    server.assert_serves(super::fixture::ELSEWHERE);
}

/// Sends mutated requests, one connection each; the statuses of all answers.
fn attack(server: &Server, mut random: Random, count: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..count {
        let bytes = requests(server, &mut random);
        let mut client = server.connect();
        let cut = random.below(bytes.len() + 1);
        let _ = client.try_send(&bytes[..cut]) && client.try_send(&bytes[cut..]);
        client.finish();
        match answers(&client.rest()) {
            Ok(found) => statuses.extend(found.iter().map(|answer| answer.status)),
            Err(error) => panic!("{error}\nto {}", bytes.escape_ascii()),
        }
    }
    statuses
}

/// One to three requests in a row, with a few places changed.
fn requests(server: &Server, random: &mut Random) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..=random.below(3) {
        let one = match random.below(6) {
            0 => request("GET", "/healthz", ""),
            1 => server.pull(random.below(2) == 0),
            2 => server.push_head(5, "") + "state",
            3 => server.post("/api/machines", r#"{"machine_id":"m","name":"n"}"#),
            4 => {
                let body = r#"{"machine_id":"m","metadata":{"a":[1]},"encrypted_state":"QUJD"}"#;
                server.post("/api/machines/snapshot", body)
            }
            _ => request("GET", "/api/machines", &server.auth()),
        };
        bytes.extend_from_slice(one.as_bytes());
    }
    for _ in 0..random.below(4) {
        let at = random.below(bytes.len() + 1);
        let until = bytes.len().min(at + random.below(16));
        match random.below(5) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 => bytes.insert(at, random.below(256) as u8),
            2 => drop(bytes.drain(at..until)),
            3 => {
                let copy = bytes[at..until].to_vec();
                drop(bytes.splice(at..at, copy));
            }
            _ => {
                let token = TOKENS[random.below(TOKENS.len())];
                drop(bytes.splice(at..at, token.bytes()));
            }
        }
    }
    bytes
}

const TOKENS: [&str; 20] = [
    " ", "\r", "\n", "\r\n", ":", "\t", "\0", ",", "#", "%", "%00", "\u{e9}", "\r\n\r\n", "\r\n ",
    "\r\nHost: a\r\n", "\r\nContent-Length: 5\r\n", "\r\nTransfer-Encoding: chunked\r\n",
    "\r\nExpect: 100-continue\r\n", "HTTP/2.0", "\r\nConnection: close\r\n",
];

/// xorshift64: the same sequence on every run.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        Random(0x9e37_79b9_7f4a_7c15 ^ seed)
    }

    /// A number below `n`.
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % n
    }
}
