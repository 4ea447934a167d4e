//! Failed logins, counted by account and address.
//!
//! Memory is bounded: at most [`THROTTLE_ENTRIES_MAX`] entries of each kind. A flood that fills
//! the table drops the oldest entries; who would empty his own count that way needs as many
//! addresses as there are entries, and with those he has as many times the limit anyway.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use crate::limits::{
    LOGIN_FAILURES_PER_ACCOUNT, LOGIN_FAILURES_PER_ADDRESS, LOGIN_WINDOW_S, THROTTLE_ENTRIES_MAX,
};
use crate::net::Network;
use crate::sync::lock;

/// Counts attempts and says when there were too many.
#[derive(Default)]
pub struct Throttle {
    tables: Mutex<Tables>,
}

#[derive(Default)]
struct Tables {
    accounts: Table<Account>,
    addresses: Table<Network>,
}

/// A digest of account and address: what was typed is kept nowhere.
type Account = [u8; 32];

/// An attempt that was counted as failed, until it succeeds.
pub struct Attempt {
    account: Account,
    from: Network,
    at: Instant,
}

/// Too many failures.
#[derive(Debug)]
pub struct Throttled {
    /// Until the oldest failure leaves the window.
    pub retry_after: Duration,
    /// True for the first refusal of this account and address in the window.
    pub first: bool,
}

impl Throttle {
    /// Counts an attempt before its password is looked at, so that guesses sent at once cannot
    /// exceed the limit. A refused attempt does not count: waiting out the window is enough.
    pub fn attempt(&self, email: &str, from: Network, now: Instant) -> Result<Attempt, Throttled> {
        let account = account(email, from);
        let mut tables = lock(&self.tables);
        let tables = &mut *tables;
        let waits = [
            tables.accounts.wait(&account, LOGIN_FAILURES_PER_ACCOUNT, now),
            tables.addresses.wait(&from, LOGIN_FAILURES_PER_ADDRESS, now),
        ];
        if let Some(retry_after) = waits.into_iter().flatten().max() {
            let first = tables.accounts.mark_refused(account, now);
            return Err(Throttled { retry_after, first });
        }
        tables.accounts.add(account, now);
        tables.addresses.add(from, now);
        Ok(Attempt { account, from, at: now })
    }

    /// The password was right: the account is cleared for that address.
    pub fn succeeded(&self, attempt: Attempt) {
        let mut tables = lock(&self.tables);
        tables.accounts.entries.remove(&attempt.account);
        tables.addresses.take_back(&attempt.from, attempt.at);
    }

    /// The password was never looked at.
    pub fn withdraw(&self, attempt: Attempt) {
        let mut tables = lock(&self.tables);
        tables.accounts.take_back(&attempt.account, attempt.at);
        tables.addresses.take_back(&attempt.from, attempt.at);
    }
}

fn account(email: &str, from: Network) -> Account {
    Sha256::new()
        .chain_update(from.to_string())
        .chain_update([0])
        .chain_update(email)
        .finalize()
        .into()
}

struct Table<K> {
    entries: HashMap<K, Entry>,
}

#[derive(Default)]
struct Entry {
    /// Failures within the window, oldest first; never more than the limit.
    failures: VecDeque<Instant>,
    refused_at: Option<Instant>,
}

impl<K> Default for Table<K> {
    fn default() -> Table<K> {
        Table { entries: HashMap::new() }
    }
}

impl<K: Hash + Eq + Copy> Table<K> {
    /// How long until one more is allowed; None if it is now.
    fn wait(&mut self, key: &K, limit: usize, now: Instant) -> Option<Duration> {
        let entry = self.entries.get_mut(key)?;
        entry.forget(now);
        if entry.failures.len() < limit {
            return None;
        }
        let oldest = entry.failures.front()?;
        Some(window().saturating_sub(now.saturating_duration_since(*oldest)))
    }

    fn add(&mut self, key: K, now: Instant) {
        self.make_room(&key, now);
        self.entries.entry(key).or_default().failures.push_back(now);
    }

    /// True the first time within a window.
    fn mark_refused(&mut self, key: K, now: Instant) -> bool {
        self.make_room(&key, now);
        let entry = self.entries.entry(key).or_default();
        let first = entry.refused_at.is_none_or(|at| now.saturating_duration_since(at) >= window());
        if first {
            entry.refused_at = Some(now);
        }
        first
    }

    fn take_back(&mut self, key: &K, at: Instant) {
        if let Some(entry) = self.entries.get_mut(key) {
            if let Some(place) = entry.failures.iter().position(|failure| *failure == at) {
                entry.failures.remove(place);
            }
            if entry.failures.is_empty() && entry.refused_at.is_none() {
                self.entries.remove(key);
            }
        }
    }

    /// Makes room for one more entry: the expired go first, then the older half, so that the
    /// work of one sweep is shared by the thousands of attempts until the next.
    fn make_room(&mut self, key: &K, now: Instant) {
        if self.entries.len() < THROTTLE_ENTRIES_MAX || self.entries.contains_key(key) {
            return;
        }
        self.entries.retain(|_, entry| {
            entry.forget(now);
            entry.newest().is_some()
        });
        if self.entries.len() >= THROTTLE_ENTRIES_MAX / 2 {
            let mut times: Vec<_> = self.entries.values().filter_map(Entry::newest).collect();
            times.sort_unstable();
            let middle = times.get(times.len() / 2).copied();
            self.entries.retain(|_, entry| entry.newest() > middle);
        }
    }
}

impl Entry {
    fn newest(&self) -> Option<Instant> {
        self.failures.back().copied().max(self.refused_at)
    }

    fn forget(&mut self, now: Instant) {
        let old = |at: &Instant| now.saturating_duration_since(*at) >= window();
        while self.failures.front().is_some_and(old) {
            self.failures.pop_front();
        }
        self.refused_at = self.refused_at.filter(|at| !old(at));
    }
}

fn window() -> Duration {
    Duration::from_secs(LOGIN_WINDOW_S)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn from(text: &str) -> Network {
        text.parse::<IpAddr>().unwrap().into()
    }

    fn fail(throttle: &Throttle, email: &str, network: &str, times: usize, now: Instant) {
        for _ in 0..times {
            assert!(throttle.attempt(email, from(network), now).is_ok());
        }
    }

    #[test]
    fn the_eleventh_failure_of_an_account_from_an_address_waits_for_the_window() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        fail(&throttle, "a@b", "192.0.2.1", 10, now);
        let refused = throttle.attempt("a@b", from("192.0.2.1"), now).err().unwrap();
        assert!(refused.first && refused.retry_after == window());
        assert!(!throttle.attempt("a@b", from("192.0.2.1"), now).err().unwrap().first);
        fail(&throttle, "a@b", "192.0.2.2", 1, now);
        fail(&throttle, "c@d", "192.0.2.1", 1, now);
        fail(&throttle, "a@b", "192.0.2.1", 10, now + window());
    }

    #[test]
    fn a_success_clears_the_account_and_takes_its_own_attempt_back() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        for _ in 0..50 {
            fail(&throttle, "a@b", "192.0.2.1", 1, now);
            let attempt = throttle.attempt("a@b", from("192.0.2.1"), now).ok().unwrap();
            throttle.succeeded(attempt);
        }
        let tables = lock(&throttle.tables);
        assert_eq!(tables.addresses.entries[&from("192.0.2.1")].failures.len(), 50);
        assert!(tables.accounts.entries.is_empty());
    }

    #[test]
    fn an_address_has_a_hundred_failures_over_all_accounts() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        for n in 0..100 {
            fail(&throttle, &format!("{n}@b"), "2001:db8::1", 1, now);
        }
        assert!(throttle.attempt("new@b", from("2001:db8::2"), now).is_err(), "the same /64");
        fail(&throttle, "new@b", "2001:db8:0:1::1", 1, now);
    }

    #[test]
    fn a_withdrawn_attempt_was_none() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        for _ in 0..1000 {
            throttle.withdraw(throttle.attempt("a@b", from("192.0.2.1"), now).ok().unwrap());
        }
        assert!(lock(&throttle.tables).addresses.entries.is_empty());
    }

    #[test]
    fn a_flood_of_addresses_is_bounded_and_the_newest_stay() {
        let (throttle, start) = (Throttle::default(), Instant::now());
        for n in 0..THROTTLE_ENTRIES_MAX as u32 * 3 {
            let address = IpAddr::from(n.to_be_bytes());
            let now = start + Duration::from_millis(u64::from(n));
            assert!(throttle.attempt("a@b", address.into(), now).is_ok());
        }
        let mut tables = lock(&throttle.tables);
        assert!(tables.addresses.entries.len() <= THROTTLE_ENTRIES_MAX);
        let last = IpAddr::from((THROTTLE_ENTRIES_MAX as u32 * 3 - 1).to_be_bytes());
        assert!(tables.addresses.entries.contains_key(&last.into()));
        assert!(tables.accounts.wait(&[0; 32], 1, start).is_none());
    }
}
