//! The slots of open connections, limited in total and per network.

use std::collections::HashMap;
use std::net::{IpAddr, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Gate;
use super::error::Error;
use super::peer::is_proxy;
use crate::util::limits::PEER_NETWORK_BITS;
use crate::util::network::Network;
use crate::util::sync::lock;

/// An open connection.
pub struct Open {
    pub stream: Arc<TcpStream>,
    /// The network it counts against, even while it is idle. None for a trusted proxy's connection,
    /// which carries many clients and counts against the total only.
    peer: Option<Network>,
    /// The network of the client whose request is in flight; it counts against that one too.
    pub client: Option<Network>,
}

/// A connection and its slot, which is freed on drop, even in a panic.
pub struct Slot {
    pub gate: Arc<Gate>,
    pub stream: Arc<TcpStream>,
    pub peer: IpAddr,
}

impl Gate {
    /// Takes a slot for a connection from `peer`, if one is free.
    pub fn take(self: &Arc<Self>, stream: &Arc<TcpStream>, peer: IpAddr) -> Option<Slot> {
        let mut open = lock(&self.open);
        let of_proxy = is_proxy(&self.config.trusted_proxies, peer);
        let network = (!of_proxy).then(|| Network::of(peer, PEER_NETWORK_BITS));
        let full = open.len() >= self.config.connections_max;
        if full || network.is_some_and(|network| self.is_full(&open, network)) {
            self.metrics.refused.add(1);
            return None;
        }
        let entry = Open { stream: Arc::clone(stream), peer: network, client: None };
        open.insert(stream.as_raw_fd(), entry);
        self.metrics.opened.add(1);
        Some(Slot { gate: Arc::clone(self), stream: Arc::clone(stream), peer })
    }

    fn is_full(&self, open: &HashMap<RawFd, Open>, network: Network) -> bool {
        let counts = |open: &&Open| [open.peer, open.client].contains(&Some(network));
        open.values().filter(counts).count() >= self.config.connections_per_peer_max
    }
}

impl Slot {
    /// True after [`Gate::stop`].
    pub fn stopping(&self) -> bool {
        self.gate.stopping.load(Ordering::SeqCst)
    }

    /// Marks the connection idle until [`Slot::begin_request`]; false once the gate is stopping.
    pub fn mark_idle(&self) -> bool {
        if let Some(open) = lock(&self.gate.open).get_mut(&self.stream.as_raw_fd()) {
            open.client = None;
        }
        !self.stopping()
    }

    /// Marks a request of `client` as in flight. On a proxy's connection it takes a slot of that
    /// client until the response is sent, and fails with 503 if none is free.
    pub fn begin_request(&self, client: IpAddr) -> Result<(), Error> {
        let (mut open, client) = (lock(&self.gate.open), Network::of(client, PEER_NETWORK_BITS));
        let full = self.gate.is_full(&open, client);
        let Some(open) = open.get_mut(&self.stream.as_raw_fd()) else { return Ok(()) };
        if open.peer.is_none() && full {
            self.gate.metrics.refused.add(1);
            return Err(Error::overloaded("too many requests at once; try again"));
        }
        open.client = Some(client);
        Ok(())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        lock(&self.gate.open).remove(&self.stream.as_raw_fd());
        self.gate.metrics.closed.add(1);
        self.gate.closed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Duration;

    use super::super::Config;
    use super::*;

    const PROXY: &str = "127.0.0.1";

    fn fixture(connections_max: usize, connections_per_peer_max: usize) -> Arc<Gate> {
        let config = Config {
            connections_max,
            connections_per_peer_max,
            trusted_proxies: vec![PROXY.parse().unwrap()],
            head_timeout: Duration::ZERO,
            idle_timeout: Duration::ZERO,
            body_grace: Duration::ZERO,
            phrase: |_| "",
        };
        Arc::new(Gate::new(TcpListener::bind("127.0.0.1:0").unwrap(), config, Arc::default()))
    }

    fn take(gate: &Arc<Gate>, peer: &str) -> Option<Slot> {
        let stream = TcpStream::connect(gate.listener.local_addr().unwrap()).unwrap();
        gate.take(&Arc::new(stream), address(peer))
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_network_cannot_take_the_slots_of_the_others() {
        let gate = fixture(3, 2);
        let held = [take(&gate, "2001:db8::1"), take(&gate, "2001:db8::2")];
        assert!(held.iter().all(Option::is_some));
        assert!(take(&gate, "2001:db8::1").is_none(), "the same /64");
        let other = take(&gate, "192.0.2.1");
        assert!(other.is_some());
        assert!(take(&gate, "192.0.2.2").is_none(), "the total");
    }

    #[test]
    fn a_dropped_slot_is_free_and_leaves_nothing() {
        let gate = fixture(1, 1);
        for _ in 0..3 {
            assert!(take(&gate, "192.0.2.1").is_some());
        }
        assert!(lock(&gate.open).is_empty());
    }

    #[test]
    fn a_proxy_counts_in_total_and_its_clients_by_network() {
        let gate = fixture(3, 1);
        let proxies =
            [take(&gate, PROXY), take(&gate, PROXY), take(&gate, PROXY)].map(Option::unwrap);
        assert!(take(&gate, PROXY).is_none());
        let [first, second, third] = &proxies;
        assert!(first.begin_request(address("192.0.2.1")).is_ok());
        assert!(second.begin_request(address("192.0.2.1")).is_err());
        assert!(third.begin_request(address("192.0.2.2")).is_ok());
        // Its response is sent: the connection is idle, and the client's slot is free again.
        assert!(first.mark_idle() && second.begin_request(address("192.0.2.1")).is_ok());
        assert!(first.begin_request(address("192.0.2.1")).is_err());
    }
}
