//! The throttle in front of logins: failures are counted, and too many are refused.

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
use crate::util::net::Network;
use crate::util::sync::lock;

/// Counts failed logins of an account from an address, and of an address over all accounts, in a
/// sliding window. The account alone is never refused: nobody elsewhere can lock its owner out.
/// An API token stands for its account.
#[derive(Default)]
pub struct Throttle {
    /// What was typed as an account is kept as a keyed hash only.
    account_key: RandomState,
    failures: Mutex<Failures>,
}

/// Who tries to sign in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    from: Network,
    account: u64,
}

/// A login that is not even tried.
#[derive(Debug)]
pub struct Throttled {
    /// How long until an attempt is accepted again.
    pub retry_after: Duration,
    /// Whether this refusal is the first of its account, address and window.
    pub first: bool,
}

impl Throttle {
    /// Who tries this account from there.
    pub fn source(&self, account: &str, peer: IpAddr) -> Source {
        let account = self.account_key.hash_one(account.to_lowercase());
        Source { from: Network::of(peer, LOGIN_NETWORK_BITS), account }
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
        add(&mut failures.accounts, source, LOGIN_FAILURES_PER_ACCOUNT, now);
        add(&mut failures.addresses, source.from, LOGIN_FAILURES_PER_ADDRESS, now);
        Ok(())
    }

    /// The attempt was no failure: clears this account from this address. Of the address only one
    /// is taken back, or the owner of one account could guess at others for ever.
    pub fn succeeded(&self, source: Source) {
        let mut failures = lock(&self.failures);
        failures.accounts.remove(&source);
        if let Some(entry) = failures.addresses.get_mut(&source.from) {
            entry.failures.pop_back();
        }
    }
}

/// The failures of the window, for a bounded number of sources. When there is no room, the source
/// that has been quiet longest goes.
///
/// What a flood gains: to push out the counter of one account from his address, somebody needs
/// 10,000 newer failures, from 100 addresses that may fail 100 times each. His own address's
/// counter stands in a table of its own, which takes 10,000 addresses to flood; who has those may
/// make 100,000 guesses at the account without any flood.
#[derive(Default)]
struct Failures {
    accounts: HashMap<Source, Entry>,
    addresses: HashMap<Network, Entry>,
}

#[derive(Default)]
struct Entry {
    /// The newest, as many as may be in a window, oldest first.
    failures: VecDeque<Instant>,
    reported: Option<Instant>,
}

impl Failures {
    fn check(&mut self, source: Source, now: Instant) -> Result<(), Throttled> {
        let of_account = wait(&self.accounts, source, LOGIN_FAILURES_PER_ACCOUNT, now);
        let of_address = wait(&self.addresses, source.from, LOGIN_FAILURES_PER_ADDRESS, now);
        let Some(retry_after) = of_account.max(of_address) else { return Ok(()) };
        // An address that is refused as a whole is reported once, whatever accounts it makes up.
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

/// How long the window still holds as many failures of this source as it may.
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
