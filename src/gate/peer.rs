//! Whose request it is when a trusted proxy forwards it.

use std::net::IpAddr;
use std::sync::Once;

use super::head::Head;
use crate::util::log;
use crate::util::net::Network;

static HINT: Once = Once::new();

/// Who asks, as far as the network tells.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    /// The address.
    pub address: IpAddr,
    /// A trusted proxy speaks for it, and may say more of the request in `X-Forwarded-…` fields.
    pub through_proxy: bool,
}

/// True of an address whose `X-Forwarded-For` counts.
pub fn is_proxy(trusted: &[Network], address: IpAddr) -> bool {
    trusted.iter().any(|network| network.contains(address))
}

/// The client's address: the socket's peer, or, if that is a trusted proxy, the rightmost address
/// in `X-Forwarded-For` that is not itself one. Everything left of it was written by the client
/// and proves nothing, and may be malformed. A malformed entry in its place falls back to the
/// socket's peer.
pub fn client(peer: IpAddr, trusted: &[Network], head: &Head) -> Client {
    let lines = head.fields("x-forwarded-for");
    if !is_proxy(trusted, peer) {
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
    let client = from_right.find(|ip| !ip.as_ref().is_ok_and(|ip| is_proxy(trusted, *ip)));
    let address = client.and_then(Result::ok).unwrap_or(peer);
    Client { address, through_proxy: true }
}
