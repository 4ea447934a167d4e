//! The open connections: how many there may be, in total and of one network, and which of them a
//! stop closes.

use std::collections::HashMap;
use std::net::{IpAddr, Shutdown, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::Config;
use super::error::Error;
use super::peer::is_proxy;
use crate::util::metrics::Metrics;
use crate::util::net::Network;
use crate::util::sync::lock;

/// The slots of one gate.
pub struct Slots {
    pub config: Config,
    pub metrics: Arc<Metrics>,
    /// By descriptor, which no other connection has while this one is open.
    open: Mutex<HashMap<RawFd, Open>>,
    closed: Condvar,
    stopping: AtomicBool,
}

struct Open {
    stream: Arc<TcpStream>,
    /// The network that it counts for: on a trusted proxy's connection that of the client whose
    /// request is on it. None for a proxy's idle connection.
    peer: Option<Network>,
    /// No request of it is in flight.
    idle: bool,
}

/// A connection and its slot, which is free again on drop, in a panic too.
pub struct Slot {
    /// The slots it is one of.
    pub slots: Arc<Slots>,
    pub stream: Arc<TcpStream>,
    pub peer: IpAddr,
    of_proxy: bool,
}

impl Slots {
    pub fn new(config: Config, metrics: Arc<Metrics>) -> Slots {
        let (open, closed, stopping) = (Mutex::default(), Condvar::new(), AtomicBool::new(false));
        Slots { config, metrics, open, closed, stopping }
    }

    /// A slot for a connection from `peer`, if there is one.
    pub fn take(self: &Arc<Self>, stream: &Arc<TcpStream>, peer: IpAddr) -> Option<Slot> {
        let mut open = lock(&self.open);
        // A proxy's connection carries many clients: it counts against the total only.
        let of_proxy = is_proxy(&self.config.trusted_proxies, peer);
        let network = (!of_proxy).then(|| Network::of_peer(peer));
        let full = open.len() >= self.config.connections_max;
        if full || network.is_some_and(|network| self.is_full(&open, network)) {
            self.metrics.refused.add(1);
            return None;
        }
        let entry = Open { stream: Arc::clone(stream), peer: network, idle: true };
        open.insert(stream.as_raw_fd(), entry);
        self.metrics.opened.add(1);
        Some(Slot { slots: Arc::clone(self), stream: Arc::clone(stream), peer, of_proxy })
    }

    /// From now on no connection waits for another request.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        for open in lock(&self.open).values().filter(|open| open.idle) {
            let _ = open.stream.shutdown(Shutdown::Read);
        }
    }

    /// True after [`Slots::stop`].
    pub fn stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// True if all connections ended within `wait`.
    pub fn all_ended(&self, wait: Duration) -> bool {
        let waited =
            self.closed.wait_timeout_while(lock(&self.open), wait, |open| !open.is_empty());
        waited.unwrap_or_else(PoisonError::into_inner).0.is_empty()
    }

    fn is_full(&self, open: &HashMap<RawFd, Open>, peer: Network) -> bool {
        let of_peer = open.values().filter(|open| open.peer == Some(peer));
        of_peer.count() >= self.config.connections_per_peer_max
    }
}

impl Slot {
    /// No request is in flight until [`Slot::begin_request`]; false if none may come any more.
    pub fn mark_idle(&self) -> bool {
        if let Some(open) = lock(&self.slots.open).get_mut(&self.stream.as_raw_fd()) {
            open.idle = true;
            if self.of_proxy {
                open.peer = None;
            }
        }
        !self.slots.stopping()
    }

    /// A request of `client` came. On a proxy's connection it takes a slot of its client until it
    /// is answered; 503 if there is none.
    pub fn begin_request(&self, client: IpAddr) -> Result<(), Error> {
        let (mut open, client) = (lock(&self.slots.open), Network::of_peer(client));
        if self.of_proxy && self.slots.is_full(&open, client) {
            self.slots.metrics.refused.add(1);
            return Err(Error::overloaded("too many requests at once; try again"));
        }
        if let Some(open) = open.get_mut(&self.stream.as_raw_fd()) {
            open.idle = false;
            open.peer = Some(client);
        }
        Ok(())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        lock(&self.slots.open).remove(&self.stream.as_raw_fd());
        self.slots.metrics.closed.add(1);
        self.slots.closed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    struct Fixture {
        slots: Arc<Slots>,
        listener: TcpListener,
    }

    const PROXY: &str = "127.0.0.1";

    fn fixture(connections_max: usize, connections_per_peer_max: usize) -> Fixture {
        let trusted_proxies = vec![PROXY.parse().unwrap()];
        let config = Config {
            connections_max,
            connections_per_peer_max,
            trusted_proxies,
            head_timeout: Duration::ZERO,
            idle_timeout: Duration::ZERO,
            body_grace: Duration::ZERO,
            phrase: |_| "",
        };
        let slots = Arc::new(Slots::new(config, Arc::default()));
        Fixture { slots, listener: TcpListener::bind("127.0.0.1:0").unwrap() }
    }

    impl Fixture {
        fn take(&self, peer: &str) -> Option<Slot> {
            let stream = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
            self.slots.take(&Arc::new(stream), address(peer))
        }
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_network_cannot_take_the_slots_of_the_others() {
        let slots = fixture(3, 2);
        let held = [slots.take("2001:db8::1"), slots.take("2001:db8::2")];
        assert!(held.iter().all(Option::is_some));
        assert!(slots.take("2001:db8::1").is_none(), "the same /64");
        let other = slots.take("192.0.2.1");
        assert!(other.is_some());
        assert!(slots.take("192.0.2.2").is_none(), "the total");
    }

    #[test]
    fn a_dropped_slot_is_free_and_leaves_nothing() {
        let slots = fixture(1, 1);
        for _ in 0..3 {
            assert!(slots.take("192.0.2.1").is_some());
        }
        assert!(lock(&slots.slots.open).is_empty());
    }

    #[test]
    fn a_proxy_counts_in_total_and_its_clients_by_network() {
        let slots = fixture(3, 1);
        let proxies = [slots.take(PROXY), slots.take(PROXY), slots.take(PROXY)].map(Option::unwrap);
        assert!(slots.take(PROXY).is_none());
        let [first, second, third] = &proxies;
        assert!(first.begin_request(address("192.0.2.1")).is_ok());
        assert!(second.begin_request(address("192.0.2.1")).is_err());
        assert!(third.begin_request(address("192.0.2.2")).is_ok());
        // Answered: it waits for the next request, and the slot is free again.
        assert!(first.mark_idle() && second.begin_request(address("192.0.2.1")).is_ok());
        assert!(first.begin_request(address("192.0.2.1")).is_err());
    }
}
