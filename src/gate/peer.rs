//! Whose request it is when a trusted proxy forwards it.

use std::net::IpAddr;
use std::sync::Once;

use super::head::Head;
use crate::util::log;

static HINT: Once = Once::new();

/// Who asks, as far as the network tells.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    /// The address.
    pub address: IpAddr,
    /// A trusted proxy speaks for it, and may say more of the request in `X-Forwarded-…` fields.
    pub through_proxy: bool,
}

/// The client's address: the socket's peer, or, if that is a trusted proxy, the rightmost address
/// in `X-Forwarded-For` that is not itself one. Everything left of it was written by the client
/// and proves nothing, not even that the list is no list. Something malformed in its place falls
/// back to the socket's peer.
pub fn client(peer: IpAddr, trusted: &[IpAddr], head: &Head) -> Client {
    let lines = head.fields("x-forwarded-for");
    if !trusted.contains(&peer) {
        if peer.is_loopback() && lines.count() > 0 {
            // If it is a proxy, every client looks like this one.
            HINT.call_once(|| {
                log::warn(&format!(
                    "X-Forwarded-For from {peer} is ignored: if that is your reverse proxy, start \
                     with --trusted-proxy {peer}, else all its clients share one address"
                ));
            });
        }
        return Client { address: peer, through_proxy: false };
    }
    let address = |entry: &str| entry.trim().parse().map(|ip: IpAddr| ip.to_canonical());
    let mut from_right = lines.rev().flat_map(|line| line.rsplit(',')).map(address);
    let client = from_right.find(|ip| !ip.as_ref().is_ok_and(|ip| trusted.contains(ip)));
    let address = client.and_then(Result::ok).unwrap_or(peer);
    Client { address, through_proxy: true }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::head::parse;

    fn seen(fields: &str) -> String {
        let head = parse(format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n").as_bytes()).unwrap();
        let trusted = ["127.0.0.1".parse().unwrap(), "10.0.0.1".parse().unwrap()];
        client(trusted[0], &trusted, &head).address.to_string()
    }

    #[test]
    fn the_rightmost_untrusted_address_is_the_client() {
        assert_eq!(seen("X-Forwarded-For: 192.0.2.1\r\n"), "192.0.2.1");
        assert_eq!(seen("X-Forwarded-For: 6.6.6.6, 192.0.2.1, 10.0.0.1\r\n"), "192.0.2.1");
        assert_eq!(seen("X-Forwarded-For: garbage, 192.0.2.1\r\n"), "192.0.2.1");
        assert_eq!(
            seen("X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: ::ffff:192.0.2.1\r\n"),
            "192.0.2.1"
        );
    }

    #[test]
    fn without_a_good_list_it_is_the_proxy() {
        for list in [
            "",
            "X-Forwarded-For: \r\n",
            "X-Forwarded-For: 10.0.0.1\r\n",
            "X-Forwarded-For: 192.0.2.1, unknown\r\n",
            "X-Forwarded-For: 192.0.2.1,\r\n",
            "X-Forwarded-For: 192.0.2.1, unknown, 10.0.0.1\r\n",
            "X-Forwarded-For: 192.0.2.1:80\r\n",
        ] {
            assert_eq!(seen(list), "127.0.0.1", "{list}");
        }
    }

    #[test]
    fn a_stranger_cannot_name_another_address() {
        let head = parse(b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n").unwrap();
        let peer = "192.0.2.9".parse().unwrap();
        assert_eq!(client(peer, &["127.0.0.1".parse().unwrap()], &head).address, peer);
    }
}
