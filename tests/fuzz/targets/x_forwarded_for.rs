//! `X-Forwarded-For` from a trusted proxy: the client is the rightmost address that is no proxy, or
//! the peer itself where something else stands there.
#![no_main]

use std::net::IpAddr;

use configsync_server::fuzzing::{Network, client, head};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|lines: &str| {
    let _ = lines.parse::<Network>();
    let fields: String =
        lines.split('\n').map(|line| format!("X-Forwarded-For:{line}\r\n")).collect();
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let Ok(Some((head, _))) = head::parse(head.as_bytes()) else { return };
    let trusted: Vec<Network> = ["10.0.0.0/8", "fd00::/8"].map(|text| text.parse().unwrap()).into();
    let proxy = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets()[0] == 10,
        IpAddr::V6(ip) => ip.octets()[0] == 0xfd,
    };
    let peer: IpAddr = "10.1.2.3".parse().unwrap();
    let mut expected = peer;
    let entries: Vec<&str> = lines.split('\n').flat_map(|line| line.split(',')).collect();
    for entry in entries.iter().rev() {
        match entry.trim().parse::<IpAddr>() {
            Err(_) => break,
            Ok(ip) if proxy(ip.to_canonical()) => {}
            Ok(ip) => {
                expected = ip.to_canonical();
                break;
            }
        }
    }
    assert_eq!(client(peer, &trusted, &head).address, expected, "{lines}");
    // From anybody else the field says nothing.
    let other: IpAddr = "192.0.2.1".parse().unwrap();
    assert_eq!(client(other, &trusted, &head).address, other, "{lines}");
});
