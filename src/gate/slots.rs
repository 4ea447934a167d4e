//! Slots: how many connections there are, in total and from one network.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::net::Network;
use crate::sync::lock;

/// The slots of one gate.
pub struct Slots {
    taken: Mutex<Taken>,
    total_max: usize,
    per_peer_max: usize,
}

#[derive(Default)]
struct Taken {
    total: usize,
    /// Never more entries than slots: an entry goes with its last slot.
    by_peer: HashMap<Network, usize>,
}

/// A taken slot; free again when it goes.
pub struct Slot {
    slots: Arc<Slots>,
    counts_in_total: bool,
    peer: Option<Network>,
}

impl Slots {
    /// At most `total_max` slots, and `per_peer_max` of them for one network.
    pub fn new(total_max: usize, per_peer_max: usize) -> Slots {
        Slots { taken: Mutex::default(), total_max, per_peer_max }
    }

    /// A slot for a connection; without a network (a trusted proxy) only the total counts.
    pub fn connection(self: &Arc<Self>, peer: Option<Network>) -> Option<Slot> {
        self.take(true, peer)
    }

    /// A slot for a request that a trusted proxy forwards for `peer`.
    pub fn forwarded(self: &Arc<Self>, peer: Network) -> Option<Slot> {
        self.take(false, Some(peer))
    }

    fn take(self: &Arc<Self>, counts_in_total: bool, peer: Option<Network>) -> Option<Slot> {
        let mut taken = lock(&self.taken);
        let of_peer = peer.and_then(|peer| taken.by_peer.get(&peer).copied()).unwrap_or(0);
        if (counts_in_total && taken.total >= self.total_max)
            || (peer.is_some() && of_peer >= self.per_peer_max)
        {
            return None;
        }
        taken.total += usize::from(counts_in_total);
        if let Some(peer) = peer {
            taken.by_peer.insert(peer, of_peer + 1);
        }
        Some(Slot { slots: Arc::clone(self), counts_in_total, peer })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = lock(&self.slots.taken);
        taken.total = taken.total.saturating_sub(usize::from(self.counts_in_total));
        if let Some(peer) = self.peer {
            let left = taken.by_peer.get(&peer).map_or(0, |n| n.saturating_sub(1));
            match left {
                0 => taken.by_peer.remove(&peer),
                _ => taken.by_peer.insert(peer, left),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn network(text: &str) -> Network {
        text.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn one_network_cannot_take_the_slots_of_the_others() {
        let slots = Arc::new(Slots::new(3, 2));
        let (a, b) = (network("2001:db8::1"), network("192.0.2.1"));
        let held = [slots.connection(Some(a)), slots.connection(Some(network("2001:db8::2")))];
        assert!(held.iter().all(Option::is_some));
        assert!(slots.connection(Some(a)).is_none(), "the same /64");
        let other = slots.connection(Some(b));
        assert!(other.is_some());
        assert!(slots.connection(Some(network("192.0.2.2"))).is_none(), "the total");
    }

    #[test]
    fn a_dropped_slot_is_free_and_leaves_nothing() {
        let slots = Arc::new(Slots::new(1, 1));
        for _ in 0..3 {
            assert!(slots.connection(Some(network("192.0.2.1"))).is_some());
        }
        assert!(lock(&slots.taken).by_peer.is_empty());
    }

    #[test]
    fn a_proxy_counts_in_total_and_its_clients_by_network() {
        let slots = Arc::new(Slots::new(2, 1));
        let proxies = (slots.connection(None), slots.connection(None));
        assert!(proxies.0.is_some() && proxies.1.is_some() && slots.connection(None).is_none());
        let first = slots.forwarded(network("192.0.2.1"));
        assert!(first.is_some() && slots.forwarded(network("192.0.2.1")).is_none());
        assert!(slots.forwarded(network("192.0.2.2")).is_some());
    }
}
