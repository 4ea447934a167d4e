use std::net::Ipv4Addr;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn address(n: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + n))
}

impl Throttle {
    fn guess(&self, account: &str, from: u32, now: Instant) -> Result<(), Throttled> {
        self.attempt(self.source(account, address(from)), now)
    }

    /// Fails until an attempt is refused, at most `max` times; returns how many were accepted.
    fn fail(&self, account: &str, from: u32, now: Instant, max: usize) -> usize {
        (0..max).take_while(|_| self.guess(account, from, now).is_ok()).count()
    }

    /// The number of entries of accounts and of addresses.
    fn entries(&self) -> [usize; 2] {
        let failures = lock(&self.failures);
        [failures.accounts.len(), failures.addresses.len()]
    }
}

fn fresh() -> (Throttle, Instant) {
    (Throttle::default(), Instant::now())
}

#[test]
fn the_eleventh_failure_of_an_account_from_an_address_is_refused() {
    let (throttle, now) = fresh();
    assert_eq!(throttle.fail("ada@x.org", 1, now, 50), 10);
    let refused = throttle.guess("ADA@X.ORG", 1, now + SECOND).unwrap_err();
    assert_eq!(refused.retry_after, WINDOW - SECOND);
    assert!(throttle.guess("bob@x.org", 1, now).is_ok());
    assert!(throttle.guess("ada@x.org", 2, now).is_ok());
}

#[test]
fn the_101st_failure_of_an_address_is_refused_for_every_account() {
    let (throttle, now) = fresh();
    for i in 0..100 {
        assert!(throttle.guess(&format!("{i}@x.org"), 1, now).is_ok(), "{i}");
    }
    assert!(throttle.guess("new@x.org", 1, now).is_err());
    assert!(throttle.guess("new@x.org", 2, now).is_ok());
    assert!(throttle.guess("new@x.org", 1, now + WINDOW).is_ok());
}

#[test]
fn the_addresses_of_an_ipv6_56_count_as_one() {
    let (throttle, now) = fresh();
    let guess = |address: &str| {
        let source = throttle.source("a", address.parse().unwrap());
        throttle.attempt(source, now)
    };
    for i in 0..10 {
        assert!(guess(&format!("2001:db8:0:{i:x}::1")).is_ok(), "{i}");
    }
    assert!(guess("2001:db8:0:ff::1").is_err());
    assert!(guess("2001:db8:0:100::1").is_ok(), "the next /56");
}

#[test]
fn the_window_slides() {
    let (throttle, start) = fresh();
    for i in 0..10 {
        assert!(throttle.guess("a", 1, start + SECOND * i).is_ok());
    }
    let late = start + WINDOW - SECOND;
    assert_eq!(throttle.guess("a", 1, late).unwrap_err().retry_after, SECOND);
    // The first failure leaves the window, which allows one more attempt.
    assert_eq!(throttle.fail("a", 1, start + WINDOW, 5), 1);
    assert_eq!(throttle.fail("a", 1, start + WINDOW + SECOND, 5), 1);
    assert_eq!(throttle.fail("a", 1, start + WINDOW * 3, 50), 10);
}

#[test]
fn refused_attempts_do_not_prolong_the_wait() {
    let (throttle, now) = fresh();
    throttle.fail("a", 1, now, 10);
    for i in 1..LOGIN_WINDOW_S as u32 {
        let refused = throttle.guess("a", 1, now + SECOND * i).unwrap_err();
        assert_eq!(refused.retry_after, WINDOW - SECOND * i);
    }
    assert!(throttle.guess("a", 1, now + WINDOW).is_ok());
}

#[test]
fn an_attempt_counts_before_anybody_knows_how_it_ends_and_a_look_counts_nowhere() {
    let (throttle, now) = fresh();
    let source = throttle.source("a", address(1));
    assert!((0..50).all(|_| throttle.check(source, now).is_ok()));
    assert_eq!(throttle.fail("a", 1, now, 10), 10);
    assert!(throttle.check(source, now).is_err());
}

#[test]
fn a_success_clears_the_account_from_that_address_only() {
    let (throttle, now) = fresh();
    throttle.fail("a", 2, now, 10);
    throttle.fail("a", 1, now, 9);
    assert!(throttle.guess("a", 1, now).is_ok());
    throttle.succeeded(throttle.source("a", address(1)));
    assert_eq!(throttle.fail("a", 1, now, 50), 10);
    assert!(throttle.guess("a", 2, now).is_err());
}

#[test]
fn a_success_takes_back_only_its_own_attempt_from_the_address() {
    let (throttle, now) = fresh();
    for i in 0..99 {
        assert!(throttle.guess(&format!("x{i}"), 1, now).is_ok());
    }
    for _ in 0..5 {
        assert!(throttle.guess("own", 1, now).is_ok());
        throttle.succeeded(throttle.source("own", address(1)));
    }
    assert!(throttle.guess("y", 1, now).is_ok());
    assert!(throttle.guess("z", 1, now).is_err());
}

#[test]
fn only_the_first_refusal_of_account_address_and_window_says_so() {
    let (throttle, now) = fresh();
    for (account, from) in [("a", 1), ("b", 1), ("a", 2)] {
        throttle.fail(account, from, now, 10);
        let first = |now| throttle.guess(account, from, now).unwrap_err().first;
        assert!(first(now));
        assert!(!first(now));
        assert!(!first(now + WINDOW - SECOND));
    }
    let next = now + WINDOW;
    throttle.fail("a", 1, next, 10);
    assert!(throttle.guess("a", 1, next).unwrap_err().first);
}

#[test]
fn an_address_that_makes_up_accounts_is_reported_once() {
    let (throttle, now) = fresh();
    for i in 0..100 {
        assert!(throttle.guess(&i.to_string(), 1, now).is_ok());
    }
    let refusals = (0..5000).map(|i| throttle.guess(&format!("x{i}"), 1, now));
    assert_eq!(refusals.filter(|r| r.as_ref().is_err_and(|r| r.first)).count(), 1);
}

#[test]
fn the_memory_of_a_flood_is_bounded_and_the_newest_stay() {
    let (throttle, start) = fresh();
    let many = THROTTLE_ENTRIES_MAX as u32 + 100;
    for i in 0..many {
        assert!(throttle.guess("a", i, start + Duration::from_millis(i.into())).is_ok());
    }
    assert_eq!(throttle.entries(), [THROTTLE_ENTRIES_MAX; 2]);
    let now = start + Duration::from_millis(many.into());
    assert_eq!(throttle.fail("a", many - 1, now, 50), 9);
    assert_eq!(throttle.fail("a", 0, now, 50), 10);
}

#[test]
fn an_address_that_goes_on_failing_is_not_pushed_out_by_made_up_accounts() {
    let (throttle, now) = fresh();
    throttle.fail("victim", 0, now, 10);
    for i in 0..THROTTLE_ENTRIES_MAX as u32 {
        assert!(throttle.guess(&i.to_string(), 1 + i / 100, now + SECOND).is_ok());
    }
    // The account's counter was evicted, the address's was not.
    let guesses = (0..1000).filter(|i| {
        let account = if i % 2 == 0 { "victim".to_owned() } else { format!("x{i}") };
        throttle.guess(&account, 0, now + SECOND * 2).is_ok()
    });
    assert_eq!(guesses.count(), 90);
}

#[test]
fn expired_entries_make_room_first() {
    let (throttle, now) = fresh();
    throttle.fail("a", 0, now + WINDOW, 10);
    for i in 1..THROTTLE_ENTRIES_MAX as u32 * 2 {
        let at = if i == 1 { now + WINDOW } else { now };
        assert!(throttle.guess("a", i, at).is_ok());
    }
    assert_eq!(throttle.entries(), [THROTTLE_ENTRIES_MAX; 2]);
    assert_eq!(throttle.fail("a", 1, now + WINDOW, 50), 9);
    assert!(throttle.guess("a", 0, now + WINDOW).is_err());
}

#[test]
fn a_clock_read_out_of_order_does_no_harm() {
    let (throttle, now) = (Throttle::default(), Instant::now() + WINDOW);
    assert!(throttle.guess("a", 1, now).is_ok());
    assert!(throttle.guess("a", 1, now - SECOND).is_ok());
    assert_eq!(throttle.fail("a", 1, now, 50), 8);
}

#[test]
fn nothing_typed_is_kept_in_clear() {
    let (throttle, _) = fresh();
    let source = throttle.source("ada@x.org", address(1));
    assert!(!format!("{source:?}").contains("ada"));
}
