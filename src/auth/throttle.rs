//! The throttle in front of passwords: failed logins are counted, and too many are refused.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasher, Hash};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::util::limits::{
    LOGIN_FAILURES_PER_ACCOUNT, LOGIN_FAILURES_PER_ADDRESS, LOGIN_WINDOW_S, THROTTLE_ENTRIES_MAX,
};
use crate::util::net::Network;
use crate::util::sync::lock;

/// Counts failed logins of an account from an address, and of an address over all accounts, in a
/// sliding window. The account alone is never refused: a stranger elsewhere cannot lock its owner
/// out. What was typed as email is kept as a keyed hash only.
pub struct Throttle {
    account_key: RandomState,
    books: Mutex<Books>,
}

struct Books {
    failures: Book,
    /// Refusals that were reported: one an account and address, and in all as many as would count
    /// as failures, so that made-up accounts cannot fill the audit log.
    reports: Book,
}

/// A login under way. It counts as a failure until it is handed back, so that guesses sent at the
/// same time cannot exceed the limit; dropping it means that it failed.
#[must_use = "an attempt that is dropped counts as a failure"]
#[derive(Debug)]
pub struct Attempt {
    source: Source,
    at: Instant,
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
        Throttle {
            account_key: RandomState::new(),
            books: Mutex::new(Books {
                failures: Book::new(LOGIN_FAILURES_PER_ACCOUNT, LOGIN_FAILURES_PER_ADDRESS),
                reports: Book::new(1, LOGIN_FAILURES_PER_ADDRESS),
            }),
        }
    }
}

impl Throttle {
    /// Before the hash: counts a failure in advance, or refuses. A refusal counts nowhere, so
    /// that trying again does not prolong it.
    pub fn attempt(&self, email: &str, from: Network, now: Instant) -> Result<Attempt, Throttled> {
        let source = Source { account: self.account_key.hash_one(email.to_lowercase()), from };
        let Books { failures, reports } = &mut *lock(&self.books);
        match failures.add(source, now) {
            Ok(()) => Ok(Attempt { source, at: now }),
            Err(retry_after) => {
                let first = reports.add(source, now).is_ok();
                Err(Throttled { retry_after, first })
            }
        }
    }

    /// The password was right: clears this account from this address. Of the address only this
    /// attempt is taken back, or the owner of one account could guess at others for ever.
    pub fn succeeded(&self, attempt: Attempt) {
        let failures = &mut lock(&self.books).failures;
        failures.accounts.take(attempt.source);
        failures.addresses.take_back(attempt.source.from, attempt.at);
    }

    /// The password was never looked at: as if there had been no attempt.
    pub fn withdraw(&self, attempt: Attempt) {
        let failures = &mut lock(&self.books).failures;
        failures.accounts.take_back(attempt.source, attempt.at);
        failures.addresses.take_back(attempt.source.from, attempt.at);
    }
}

/// Who tries to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Source {
    account: u64,
    from: Network,
}

/// What happened within the window, by account and address and by address.
struct Book {
    accounts: Counters<Source>,
    addresses: Counters<Network>,
}

impl Book {
    fn new(per_account: usize, per_address: usize) -> Book {
        Book { accounts: Counters::new(per_account), addresses: Counters::new(per_address) }
    }

    /// Counts once more, or tells how long that is too much.
    fn add(&mut self, source: Source, now: Instant) -> Result<(), Duration> {
        let account_wait = self.accounts.wait(source, now);
        let address_wait = self.addresses.wait(source.from, now);
        if let Some(wait) = account_wait.max(address_wait) {
            return Err(wait);
        }
        self.accounts.add(source, now);
        self.addresses.add(source.from, now);
        Ok(())
    }
}

/// Counts events of the window by key, for a bounded number of keys. When there is no room, the
/// key that has been quiet longest goes, which takes the expired ones first.
///
/// What a flood gains: to push out the counter of one account from his address, somebody needs
/// 10,000 newer failures, each of which costs a hash, and 100 addresses that may fail 100 times.
/// His own address's counter stands in a table of its own, which takes 10,000 addresses to flood;
/// who has those may make 100,000 guesses at the account without any flood.
struct Counters<K> {
    limit: usize,
    /// The newest events of each key, at most `limit`, oldest first. Never empty.
    events: HashMap<K, VecDeque<Instant>>,
    /// Each key with its newest event.
    by_age: BTreeSet<(Instant, K)>,
}

impl<K: Copy + Hash + Ord> Counters<K> {
    fn new(limit: usize) -> Counters<K> {
        Counters { limit, events: HashMap::new(), by_age: BTreeSet::new() }
    }

    /// How long the window still holds as many events of this key as it may.
    fn wait(&self, key: K, now: Instant) -> Option<Duration> {
        let events = self.events.get(&key).filter(|events| events.len() >= self.limit)?;
        let age = now.saturating_duration_since(*events.front()?);
        WINDOW.checked_sub(age).filter(|wait| !wait.is_zero())
    }

    fn add(&mut self, key: K, now: Instant) {
        let mut events = self.take(key);
        while let Some(&(newest, quiet)) = self.by_age.first()
            && (self.events.len() >= THROTTLE_ENTRIES_MAX
                || now.saturating_duration_since(newest) >= WINDOW)
        {
            self.take(quiet);
        }
        if events.len() >= self.limit {
            events.pop_front();
        }
        events.push_back(now);
        self.put(key, events);
    }

    fn take_back(&mut self, key: K, at: Instant) {
        let mut events = self.take(key);
        if let Some(index) = events.iter().rposition(|event| *event == at) {
            events.remove(index);
        }
        self.put(key, events);
    }

    fn take(&mut self, key: K) -> VecDeque<Instant> {
        let events = self.events.remove(&key).unwrap_or_default();
        if let Some(newest) = events.back() {
            self.by_age.remove(&(*newest, key));
        }
        events
    }

    fn put(&mut self, key: K, events: VecDeque<Instant>) {
        if let Some(newest) = events.back() {
            self.by_age.insert((*newest, key));
            self.events.insert(key, events);
        }
    }
}

const WINDOW: Duration = Duration::from_secs(LOGIN_WINDOW_S);

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn address(n: u32) -> Network {
        Network::of_login(IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + n)))
    }

    /// Makes one failed attempt after another until one is refused, at most `max`.
    fn fail(throttle: &Throttle, email: &str, from: Network, now: Instant, max: usize) -> usize {
        (0..max).take_while(|_| throttle.attempt(email, from, now).is_ok()).count()
    }

    /// Entries of accounts and of addresses: failures, then reports.
    fn entries(throttle: &Throttle) -> [usize; 4] {
        fn count<K>(counters: &Counters<K>) -> usize {
            assert_eq!(counters.events.len(), counters.by_age.len());
            counters.events.len()
        }
        let Books { failures: f, reports: r } = &*lock(&throttle.books);
        [count(&f.accounts), count(&f.addresses), count(&r.accounts), count(&r.addresses)]
    }

    #[test]
    fn the_eleventh_failure_of_an_account_from_an_address_is_refused() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        assert_eq!(fail(&throttle, "ada@x.org", address(1), now, 50), 10);
        let refused = throttle.attempt("ADA@X.ORG", address(1), now + SECOND).unwrap_err();
        assert_eq!(refused.retry_after, WINDOW - SECOND);
        assert!(throttle.attempt("bob@x.org", address(1), now).is_ok());
        assert!(throttle.attempt("ada@x.org", address(2), now).is_ok());
    }

    #[test]
    fn the_101st_failure_of_an_address_is_refused_for_every_account() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        for i in 0..100 {
            assert!(throttle.attempt(&format!("{i}@x.org"), address(1), now).is_ok(), "{i}");
        }
        assert!(throttle.attempt("new@x.org", address(1), now).is_err());
        assert!(throttle.attempt("new@x.org", address(2), now).is_ok());
        assert!(throttle.attempt("new@x.org", address(1), now + WINDOW).is_ok());
    }

    #[test]
    fn the_window_slides() {
        let (throttle, start) = (Throttle::default(), Instant::now());
        for i in 0..10 {
            assert!(throttle.attempt("a", address(1), start + SECOND * i).is_ok());
        }
        let late = start + WINDOW - SECOND;
        assert_eq!(throttle.attempt("a", address(1), late).unwrap_err().retry_after, SECOND);
        // The first failure leaves the window, and with it one attempt comes free.
        assert_eq!(fail(&throttle, "a", address(1), start + WINDOW, 5), 1);
        assert_eq!(fail(&throttle, "a", address(1), start + WINDOW + SECOND, 5), 1);
        assert_eq!(fail(&throttle, "a", address(1), start + WINDOW * 3, 50), 10);
    }

    #[test]
    fn refused_attempts_do_not_prolong_the_wait() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        fail(&throttle, "a", address(1), now, 10);
        for i in 1..LOGIN_WINDOW_S as u32 {
            let refused = throttle.attempt("a", address(1), now + SECOND * i).unwrap_err();
            assert_eq!(refused.retry_after, WINDOW - SECOND * i);
        }
        assert!(throttle.attempt("a", address(1), now + WINDOW).is_ok());
    }

    #[test]
    fn attempts_under_way_count_already() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        let under_way: Vec<_> =
            (0..20).filter_map(|_| throttle.attempt("a", address(1), now).ok()).collect();
        assert_eq!(under_way.len(), 10);
    }

    #[test]
    fn a_success_clears_the_account_from_that_address_only() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        fail(&throttle, "a", address(1), now, 9);
        fail(&throttle, "a", address(2), now, 10);
        fail(&throttle, "b", address(1), now, 10);
        throttle.succeeded(throttle.attempt("a", address(1), now).unwrap());
        assert_eq!(fail(&throttle, "a", address(1), now, 50), 10);
        assert_eq!(fail(&throttle, "a", address(2), now, 50), 0);
        assert_eq!(fail(&throttle, "b", address(1), now, 50), 0);
    }

    #[test]
    fn a_success_takes_back_only_its_own_attempt_from_the_address() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        for i in 0..99 {
            assert!(throttle.attempt(&i.to_string(), address(1), now).is_ok());
        }
        for _ in 0..500 {
            throttle.succeeded(throttle.attempt("mine", address(1), now).unwrap());
        }
        assert_eq!(fail(&throttle, "other", address(1), now, 50), 1);
    }

    #[test]
    fn an_attempt_withdrawn_never_was() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        fail(&throttle, "a", address(1), now, 9);
        for _ in 0..500 {
            throttle.withdraw(throttle.attempt("a", address(1), now + SECOND).unwrap());
        }
        assert_eq!(fail(&throttle, "a", address(1), now, 50), 1);
        let alone = Throttle::default();
        alone.withdraw(alone.attempt("a", address(1), now).unwrap());
        assert_eq!(entries(&alone), [0; 4]);
    }

    #[test]
    fn only_the_first_refusal_of_account_address_and_window_says_so() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        for (account, from) in [("a", 1), ("b", 1), ("a", 2)] {
            fail(&throttle, account, address(from), now, 10);
            let first = |now| throttle.attempt(account, address(from), now).unwrap_err().first;
            assert!(first(now));
            assert!(!first(now));
            assert!(!first(now + WINDOW - SECOND));
        }
        let next = now + WINDOW;
        fail(&throttle, "a", address(1), next, 10);
        assert!(throttle.attempt("a", address(1), next).unwrap_err().first);
    }

    #[test]
    fn made_up_accounts_cannot_fill_the_audit_log() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        for i in 0..100 {
            assert!(throttle.attempt(&i.to_string(), address(1), now).is_ok());
        }
        let refusals = (0..5000).map(|i| throttle.attempt(&format!("x{i}"), address(1), now));
        assert_eq!(refusals.filter(|r| r.as_ref().is_err_and(|r| r.first)).count(), 100);
    }

    #[test]
    fn the_memory_of_a_flood_is_bounded_and_the_newest_stay() {
        let (throttle, start) = (Throttle::default(), Instant::now());
        let many = THROTTLE_ENTRIES_MAX as u32 * 3;
        for i in 0..many {
            let now = start + Duration::from_millis(i.into());
            assert!(throttle.attempt("a", address(i), now).is_ok());
        }
        assert_eq!(entries(&throttle), [THROTTLE_ENTRIES_MAX, THROTTLE_ENTRIES_MAX, 0, 0]);
        let now = start + Duration::from_millis(many.into());
        assert_eq!(fail(&throttle, "a", address(many - 1), now, 50), 9);
        assert_eq!(fail(&throttle, "a", address(0), now, 50), 10);
    }

    #[test]
    fn an_address_that_goes_on_failing_is_not_pushed_out_by_made_up_accounts() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        fail(&throttle, "victim", address(0), now, 10);
        for i in 0..THROTTLE_ENTRIES_MAX as u32 {
            let from = address(1 + i / 100);
            assert!(throttle.attempt(&i.to_string(), from, now + SECOND).is_ok());
        }
        // The account's counter went, the address's stayed.
        let guesses = (0..1000).filter(|i| {
            let account = if i % 2 == 0 { "victim".to_owned() } else { format!("x{i}") };
            throttle.attempt(&account, address(0), now + SECOND * 2).is_ok()
        });
        assert_eq!(guesses.count(), 90);
    }

    #[test]
    fn expired_entries_leave_with_the_next_attempt() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        for i in 0..500 {
            assert!(throttle.attempt("a", address(i), now).is_ok());
        }
        assert!(throttle.attempt("a", address(1000), now + WINDOW).is_ok());
        assert_eq!(entries(&throttle), [1, 1, 0, 0]);
    }

    #[test]
    fn a_clock_read_out_of_order_does_no_harm() {
        let (throttle, now) = (Throttle::default(), Instant::now() + WINDOW);
        assert!(throttle.attempt("a", address(1), now).is_ok());
        let earlier = throttle.attempt("a", address(1), now - SECOND).unwrap();
        throttle.withdraw(earlier);
        assert_eq!(fail(&throttle, "a", address(1), now, 50), 9);
        assert_eq!(entries(&throttle), [1, 1, 1, 1]);
    }

    #[test]
    fn nothing_typed_is_kept_in_clear() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        let attempt = throttle.attempt("ada@x.org", address(1), now).unwrap();
        assert!(!format!("{attempt:?}").contains("ada"));
    }
}
