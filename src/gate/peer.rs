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
