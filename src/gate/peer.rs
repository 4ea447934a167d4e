//! Finds the client of a request, even behind a trusted proxy.

use std::net::IpAddr;
use std::sync::Once;

use super::head::Head;
use crate::util::log;
use crate::util::network::Network;

static HINT: Once = Once::new();

/// The client of a request, as far as the network shows.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    /// The client's address.
    pub address: IpAddr,
    /// A trusted proxy forwarded the request, and may describe it in `X-Forwarded-…` fields.
    pub through_proxy: bool,
}

/// True for an address whose `X-Forwarded-For` is trusted.
pub fn is_proxy(trusted: &[Network], address: IpAddr) -> bool {
    trusted.iter().any(|network| network.contains(address))
}

/// Returns the client: the socket's peer, or, if that is a trusted proxy, the rightmost address in
/// `X-Forwarded-For` that is not a trusted proxy. The client may have written everything left of
/// that entry, so it proves nothing and may be malformed. If the entry itself is malformed, the
/// socket's peer counts.
pub fn client(peer: IpAddr, trusted: &[Network], head: &Head) -> Client {
    let lines = head.fields("x-forwarded-for");
    if !is_proxy(trusted, peer) {
        if peer.is_loopback() && lines.count() > 0 {
            // If the peer is a proxy, all of its clients appear under this address.
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
    let client = from_right.find(|ip| !ip.as_ref().is_ok_and(|ip| is_proxy(trusted, *ip)));
    let address = client.and_then(Result::ok).unwrap_or(peer);
    Client { address, through_proxy: true }
}

#[cfg(test)]
mod tests {
    use super::super::head;
    use super::*;

    #[test]
    fn a_trusted_proxy_speaks_for_the_rightmost_address_that_is_not_a_proxy() {
        let trusted = ["127.0.0.1", "10.0.0.0/8", "fd00::/8"].map(|text| text.parse().unwrap());
        for (peer, forwarded, address) in [
            ("127.0.0.1", "192.0.2.1", "192.0.2.1"),
            ("127.0.0.1", "6.6.6.6, 192.0.2.1, 10.0.0.1", "192.0.2.1"),
            ("127.0.0.1", "6.6.6.6, 11.0.0.1, fd77::7, 10.255.0.1", "11.0.0.1"),
            ("127.0.0.1", "6.6.6.6\r\nX-Forwarded-For: 2001:db8::1", "2001:db8::1"),
            ("127.0.0.1", "::ffff:192.0.2.1", "192.0.2.1"),
            ("127.0.0.1", "", "127.0.0.1"),
            ("127.0.0.1", "unknown, 192.0.2.1", "192.0.2.1"),
            ("127.0.0.1", "192.0.2.1, unknown", "127.0.0.1"),
            ("127.0.0.1", "192.0.2.1:80", "127.0.0.1"),
            ("127.0.0.1", "192.0.2.1, ", "127.0.0.1"),
            ("127.0.0.1", "999.0.2.1", "127.0.0.1"),
            ("127.0.0.1", "10.0.0.1, 127.0.0.1", "127.0.0.1"),
            ("127.0.0.2", "192.0.2.1", "127.0.0.2"),
        ] {
            let text = format!("GET / HTTP/1.1\r\nHost: t\r\nX-Forwarded-For: {forwarded}\r\n\r\n");
            let (head, _) = head::parse(text.as_bytes()).ok().flatten().unwrap();
            let found = client(peer.parse().unwrap(), &trusted, &head);
            assert_eq!(found.address.to_string(), address, "{forwarded}");
            assert_eq!(found.through_proxy, peer != "127.0.0.2", "{forwarded}");
        }
        let (head, _) = head::parse(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n").ok().flatten().unwrap();
        let proxy = "10.0.0.1".parse().unwrap();
        assert_eq!(client(proxy, &trusted, &head).address, proxy, "no such field");
    }
}
