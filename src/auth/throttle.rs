//! The throttle in front of logins: failures are counted, and too many are refused.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::util::limits::{
    LOGIN_FAILURES_PER_ACCOUNT, LOGIN_FAILURES_PER_ADDRESS, LOGIN_WINDOW_S, THROTTLE_ENTRIES_MAX,
};
use crate::util::net::Network;
use crate::util::sync::lock;

/// Counts failed logins of an account from an address, and of an address over all accounts, in a
/// sliding window. The account alone is never refused: nobody elsewhere can lock its owner out.
pub struct Throttle {
    /// What was typed as an account is kept as a keyed hash only.
    account_key: RandomState,
    failures: Mutex<Failures>,
}

/// What somebody tries to sign in with. Each is counted apart: garbage tokens from an address do
/// not hold up its passwords.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Secret {
    /// Of the account that an email address names.
    Password,
    /// An API token, which stands for its account.
    Token,
}

/// Who tries to sign in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    secret: Secret,
    account: u64,
    from: Network,
}

/// A login that is not even tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttled {
    /// How long until an attempt is accepted again.
    pub retry_after: Duration,
    /// Whether this refusal is the first of its account, address and window.
    pub first: bool,
}

impl Default for Throttle {
    fn default() -> Throttle {
        let accounts = FailureLog::new(LOGIN_FAILURES_PER_ACCOUNT);
        let addresses = FailureLog::new(LOGIN_FAILURES_PER_ADDRESS);
        let failures = Mutex::new(Failures { accounts, addresses });
        Throttle { account_key: RandomState::new(), failures }
    }
}

impl Throttle {
    /// Who tries this secret for this account from there.
    pub fn source(&self, secret: Secret, account: &str, from: Network) -> Source {
        Source { secret, account: self.account_key.hash_one(account.to_lowercase()), from }
    }

    /// Refuses an attempt that would be one too many. A refusal counts nowhere, so that trying
    /// again does not prolong it.
    pub fn check(&self, source: Source, now: Instant) -> Result<(), Throttled> {
        lock(&self.failures).check(source, now)
    }

    /// The same, and counts a failure in advance, so that guesses sent at once cannot exceed the
    /// limit.
    pub fn attempt(&self, source: Source, now: Instant) -> Result<(), Throttled> {
        let mut failures = lock(&self.failures);
        failures.check(source, now)?;
        failures.accounts.add(source, now);
        failures.addresses.add((source.secret, source.from), now);
        Ok(())
    }

    /// The attempt was no failure: clears this account from this address. Of the address only one
    /// is taken back, or the owner of one account could guess at others for ever.
    pub fn succeeded(&self, source: Source) {
        let failures = &mut *lock(&self.failures);
        failures.accounts.entries.remove(&source);
        if let Some(entry) = failures.addresses.entries.get_mut(&(source.secret, source.from)) {
            entry.failures.pop_back();
        }
    }
}

struct Failures {
    accounts: FailureLog<Source>,
    addresses: FailureLog<(Secret, Network)>,
}

impl Failures {
    fn check(&mut self, source: Source, now: Instant) -> Result<(), Throttled> {
        let address = (source.secret, source.from);
        let of_account = self.accounts.wait(source, now);
        let of_address = self.addresses.wait(address, now);
        let Some(retry_after) = of_account.max(of_address) else { return Ok(()) };
        // An address that is refused as a whole is reported once, whatever accounts it makes up.
        let first = match of_account {
            Some(_) => self.accounts.is_first_report(source, now),
            None => self.addresses.is_first_report(address, now),
        };
        Err(Throttled { retry_after, first })
    }
}

/// The failures of the window by key, for a bounded number of keys. When there is no room, the
/// key that has been quiet longest goes, after those whose failures have left the window.
///
/// What a flood gains: to push out the counter of one account from his address, somebody needs
/// 10,000 newer failures, from 100 addresses that may fail 100 times each. His own address's
/// counter stands in a table of its own, which takes 10,000 addresses to flood; who has those may
/// make 100,000 guesses at the account without any flood.
struct FailureLog<K> {
    limit: usize,
    entries: HashMap<K, Entry>,
}

#[derive(Default)]
struct Entry {
    /// The newest, at most `limit`, oldest first.
    failures: VecDeque<Instant>,
    reported: Option<Instant>,
}

impl<K: Copy + Eq + Hash> FailureLog<K> {
    fn new(limit: usize) -> FailureLog<K> {
        FailureLog { limit, entries: HashMap::new() }
    }

    /// How long the window still holds as many failures of this key as it may.
    fn wait(&self, key: K, now: Instant) -> Option<Duration> {
        let failures = &self.entries.get(&key)?.failures;
        let oldest = failures.front().filter(|_| failures.len() >= self.limit)?;
        let age = now.saturating_duration_since(*oldest);
        WINDOW.checked_sub(age).filter(|wait| !wait.is_zero())
    }

    fn add(&mut self, key: K, now: Instant) {
        if self.entries.len() >= THROTTLE_ENTRIES_MAX && !self.entries.contains_key(&key) {
            self.make_room(now);
        }
        let failures = &mut self.entries.entry(key).or_default().failures;
        if failures.len() >= self.limit {
            failures.pop_front();
        }
        failures.push_back(now);
    }

    fn make_room(&mut self, now: Instant) {
        let in_window = |newest: &Instant| now.saturating_duration_since(*newest) < WINDOW;
        self.entries.retain(|_, entry| entry.failures.back().is_some_and(in_window));
        let quietest = self.entries.iter().min_by_key(|(_, entry)| entry.failures.back());
        if let Some((key, _)) = quietest.filter(|_| self.entries.len() >= THROTTLE_ENTRIES_MAX) {
            let key = *key;
            self.entries.remove(&key);
        }
    }

    /// True once a window for each key.
    fn is_first_report(&mut self, key: K, now: Instant) -> bool {
        let Some(entry) = self.entries.get_mut(&key) else { return false };
        let first = entry.reported.is_none_or(|at| now.saturating_duration_since(at) >= WINDOW);
        if first {
            entry.reported = Some(now);
        }
        first
    }
}

const WINDOW: Duration = Duration::from_secs(LOGIN_WINDOW_S);

#[cfg(test)]
mod tests;
