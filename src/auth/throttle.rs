//! The throttle in front of logins: counts failures, and refuses attempts over the limit.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash};
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::util::limits::{
    LOGIN_FAILURES_PER_ACCOUNT, LOGIN_FAILURES_PER_ADDRESS, LOGIN_NETWORK_BITS, LOGIN_WINDOW_S,
    THROTTLE_ENTRIES_MAX,
};
use crate::util::network::Network;
use crate::util::sync::lock;

/// Counts failed logins in a sliding window: of an account from an address, and of an address over
/// all accounts. No limit applies to an account alone, so that nobody can lock its owner out from
/// elsewhere. In a token login, the token stands for the account.
#[derive(Default)]
pub struct Throttle {
    /// Account names are kept only as a hash with this key.
    account_key: RandomState,
    failures: Mutex<Failures>,
}

/// The source of a login attempt: its network, and the hash of the account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    from: Network,
    account: u64,
}

/// The refusal of a login whose credentials are not checked.
#[derive(Debug)]
pub struct Throttled {
    /// Time until an attempt is accepted again.
    pub retry_after: Duration,
    /// Whether this refusal is the first of its account, address and window.
    pub first: bool,
}

impl Throttle {
    /// The source of an attempt at this account from this peer.
    pub fn source(&self, account: &str, peer: IpAddr) -> Source {
        let account = self.account_key.hash_one(account.to_lowercase());
        Source { from: Network::of(peer, LOGIN_NETWORK_BITS), account }
    }

    /// Refuses an attempt that would exceed a limit. A refusal is not counted, so that retries do
    /// not prolong the wait.
    pub fn check(&self, source: Source, now: Instant) -> Result<(), Throttled> {
        lock(&self.failures).check(source, now)
    }

    /// Checks as [`Throttle::check`] does, and counts a failure in advance, so that concurrent
    /// guesses cannot exceed the limit.
    pub fn attempt(&self, source: Source, now: Instant) -> Result<(), Throttled> {
        let mut failures = lock(&self.failures);
        failures.check(source, now)?;
        add(&mut failures.accounts, source, LOGIN_FAILURES_PER_ACCOUNT, now);
        add(&mut failures.addresses, source.from, LOGIN_FAILURES_PER_ADDRESS, now);
        Ok(())
    }

    /// Records a success: clears the failures of this account from this address. The address gets
    /// only this attempt back, or the owner of one account could guess at others forever.
    pub fn succeeded(&self, source: Source) {
        let mut failures = lock(&self.failures);
        failures.accounts.remove(&source);
        if let Some(entry) = failures.addresses.get_mut(&source.from) {
            entry.failures.pop_back();
        }
    }
}

/// The failures in the window, for a bounded number of sources. A full table evicts the source that
/// has been quiet longest.
///
/// What a flood gains: to evict the counter of one account from their address, an attacker needs
/// 10,000 newer failures, from 100 addresses that may fail 100 times each. The counter of that
/// address is in a table of its own, which takes 10,000 addresses to flood; an attacker who has
/// those may make 100,000 guesses at the account without any flood.
#[derive(Default)]
struct Failures {
    accounts: HashMap<Source, Entry>,
    addresses: HashMap<Network, Entry>,
}

#[derive(Default)]
struct Entry {
    /// The newest failures, at most as many as the limit, oldest first.
    failures: VecDeque<Instant>,
    reported: Option<Instant>,
}

impl Failures {
    fn check(&mut self, source: Source, now: Instant) -> Result<(), Throttled> {
        let of_account = wait(&self.accounts, source, LOGIN_FAILURES_PER_ACCOUNT, now);
        let of_address = wait(&self.addresses, source.from, LOGIN_FAILURES_PER_ADDRESS, now);
        let Some(retry_after) = of_account.max(of_address) else { return Ok(()) };
        // An address over its limit is reported once, whatever accounts the client makes up.
        let entry = match of_account {
            Some(_) => self.accounts.entry(source).or_default(),
            None => self.addresses.entry(source.from).or_default(),
        };
        let reported = &mut entry.reported;
        let first = reported.is_none_or(|at| now.saturating_duration_since(at) >= WINDOW);
        if first {
            *reported = Some(now);
        }
        Err(Throttled { retry_after, first })
    }
}

/// Time until the window holds fewer failures of this source than `max`; None if it does now.
fn wait<S: Eq + Hash>(
    log: &HashMap<S, Entry>, source: S, max: usize, now: Instant,
) -> Option<Duration> {
    let failures = &log.get(&source)?.failures;
    let oldest = failures.front().filter(|_| failures.len() >= max)?;
    let age = now.saturating_duration_since(*oldest);
    WINDOW.checked_sub(age).filter(|wait| !wait.is_zero())
}

fn add<S: Eq + Hash + Copy>(log: &mut HashMap<S, Entry>, source: S, max: usize, now: Instant) {
    if log.len() >= THROTTLE_ENTRIES_MAX && !log.contains_key(&source) {
        let quietest = log.iter().min_by_key(|(_, entry)| entry.failures.back());
        if let Some(quietest) = quietest.map(|(source, _)| *source) {
            log.remove(&quietest);
        }
    }
    let failures = &mut log.entry(source).or_default().failures;
    if failures.len() >= max {
        failures.pop_front();
    }
    failures.push_back(now);
}

const WINDOW: Duration = Duration::from_secs(LOGIN_WINDOW_S);

#[cfg(test)]
mod tests;
