//! Password hashing, and the limit on concurrent hashes.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use argon2::PasswordHasher;
use argon2::password_hash::phc::Output;
use argon2::{Algorithm, Argon2, Block, Params, PasswordHash, Version};

use crate::util::limits::{
    ARGON2_LANES, ARGON2_MEMORY_KIB, ARGON2_PASSES, HASH_WAIT_S, HASHES_AT_ONCE,
    HASHES_WAITING_MAX, STORED_HASH_MEMORY_MAX_KIB, STORED_HASH_PASSES_MAX,
};
use crate::util::sync::{Pool, PoolGuard};

/// Hashes a new password with argon2id at the costs of the OWASP Password Storage Cheat Sheet,
/// and a salt of 16 random bytes. Returns a PHC string.
pub fn hash(password: &[u8]) -> Result<String, HashError> {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(|_| "the operating system gave no random bytes")?;
    let params = Params::new(ARGON2_MEMORY_KIB, ARGON2_PASSES, ARGON2_LANES, None);
    let params = params.map_err(|_| UNUSABLE)?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let phc = argon2.hash_password_with_salt(password, &salt).map_err(|_| NO_MEMORY)?;
    Ok(phc.to_string())
}

/// Returns whether a password matches a PHC string. None stands for a user who is unknown, disabled
/// or without a password: it returns false after the same work, so that timing reveals nothing.
pub fn verify_with(_: &Permit, password: &[u8], phc: Option<&str>) -> Result<bool, HashError> {
    let stored = PasswordHash::new(phc.unwrap_or(NOBODY)).map_err(|_| UNUSABLE)?;
    let params = Params::try_from(&stored).map_err(|_| UNUSABLE)?;
    let (Some(salt), Some(expected)) = (stored.salt, stored.hash) else {
        return Err(UNUSABLE);
    };
    let known = stored.algorithm == Algorithm::Argon2id.ident()
        && stored.version == Some(Version::V0x13.into());
    let affordable =
        params.m_cost() <= STORED_HASH_MEMORY_MAX_KIB && params.t_cost() <= STORED_HASH_PASSES_MAX;
    if !(known && affordable) {
        return Err(UNUSABLE);
    }
    let output = derive(password, &salt, &params, expected.len())?;
    // `Output` compares in constant time.
    Ok((output == expected) & phc.is_some())
}

fn derive(
    password: &[u8], salt: &[u8], params: &Params, output_bytes: usize,
) -> Result<Output, HashError> {
    // glibc keeps freed memory in per-thread arenas: many connection threads would hold 19 MiB each
    // forever. A buffer above its largest mmap threshold (32 MiB) is mapped and unmapped every
    // time; pages that are never touched cost only address space.
    let (mut memory, blocks) = (Vec::new(), params.block_count());
    memory.try_reserve_exact(blocks.max(MAPPED_BLOCKS)).map_err(|_| NO_MEMORY)?;
    memory.resize(blocks, Block::new());
    let mut buffer = [0; Output::MAX_LENGTH];
    let output = buffer.get_mut(..output_bytes).ok_or(UNUSABLE)?;
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone())
        .hash_password_into_with_memory(password, salt, output, &mut memory)
        .map_err(|_| UNUSABLE)?;
    Output::new(output).map_err(|_| UNUSABLE)
}

/// The reason why a password could not be hashed or verified, as a sentence.
pub type HashError = &'static str;

/// The stored hash is malformed, of another algorithm or version, or above the cost limits.
const UNUSABLE: HashError = "the stored hash is unusable: set the password again";
const NO_MEMORY: HashError = "not enough memory for a password hash";

/// The right to run one hash; dropping the permit releases it.
pub struct Permit {
    _place: PoolGuard<()>,
}

/// Waits for a permit; returns None if the queue is full or no permit comes free in time. Each hash
/// takes tens of milliseconds of a core and 19 MiB, so few run at once.
pub fn permit() -> Option<Permit> {
    let _in_line = LINE.take(Duration::ZERO)?;
    PERMITS.take(Duration::from_secs(HASH_WAIT_S)).map(|place| Permit { _place: place })
}

static LINE: LazyLock<Arc<Pool<()>>> = LazyLock::new(|| Pool::new([None; HASHES_WAITING_MAX]));
static PERMITS: LazyLock<Arc<Pool<()>>> = LazyLock::new(|| Pool::new([None; HASHES_AT_ONCE]));
/// A dummy hash at the cost of a real one.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA\
    $AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
/// Blocks of 1 KiB: 33 MiB.
const MAPPED_BLOCKS: usize = 33 * 1024;

#[cfg(test)]
mod tests {
    #[cfg(target_os = "linux")]
    use std::sync::Barrier;
    use std::thread;
    use std::time::Instant;

    use argon2::password_hash::phc::Salt;

    use super::*;

    /// Verifies with a permit of its own, so that tests do not wait for each other.
    fn verify(password: &[u8], phc: Option<&str>) -> Result<bool, HashError> {
        let place = Pool::new([None]).take(Duration::ZERO).unwrap();
        verify_with(&Permit { _place: place }, password, phc)
    }

    #[test]
    fn one_more_than_may_wait_is_refused_at_once_and_the_others_get_their_turn() {
        let held = [(); HASHES_AT_ONCE].map(|()| permit().unwrap());
        thread::scope(|scope| {
            // A waiter retries when the probe below holds the last place in the queue.
            let waits = || while permit().is_none() {};
            let waiters = [(); HASHES_WAITING_MAX].map(|()| scope.spawn(waits));
            while LINE.take(Duration::ZERO).is_some() {
                thread::yield_now();
            }
            let begin = Instant::now();
            assert!(permit().is_none() && begin.elapsed() < Duration::from_secs(HASH_WAIT_S) / 2);
            drop(held);
            waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
        });
    }

    /// A hash at low cost.
    fn cheap(password: &[u8]) -> String {
        let params = Params::new(64, 1, 1, None).unwrap();
        let output = derive(password, &[1; 16], &params, 32).unwrap();
        let salt = Salt::new(&[1; 16]).unwrap();
        format!("$argon2id$v=19$m=64,t=1,p=1${salt}${output}")
    }

    #[test]
    fn a_password_is_verified_against_its_hash_alone() {
        let phc = hash(b"correct horse").unwrap();
        assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{phc}");
        assert_eq!(verify(b"correct horse", Some(&phc)), Ok(true));
        assert_eq!(verify(b"correct horsf", Some(&phc)), Ok(false));
        assert_ne!(hash(b"correct horse").unwrap(), phc);
    }

    #[test]
    fn a_hash_of_the_reference_implementation_is_verified() {
        // phc-winner-argon2, src/test.c: version 0x13, argon2id, m=256, t=2, p=1 and p=2.
        let one = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ\
            $nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
        let two = "$argon2id$v=19$m=256,t=2,p=2$c29tZXNhbHQ\
            $bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc";
        for phc in [one, two] {
            assert_eq!(verify(b"password", Some(phc)), Ok(true), "{phc}");
            assert_eq!(verify(b"passwore", Some(phc)), Ok(false), "{phc}");
        }
    }

    #[test]
    fn any_bytes_are_a_password() {
        for password in [&b""[..], b"\0", b"a\0b", &[0xff; 1024]] {
            let phc = cheap(password);
            assert_eq!(verify(password, Some(&phc)), Ok(true));
            assert_eq!(verify(b"other", Some(&phc)), Ok(false));
        }
        assert_eq!(verify(b"a", Some(&cheap(b"a\0"))), Ok(false));
    }

    #[test]
    fn nobody_has_a_password_but_costs_the_same() {
        let nobody = Params::try_from(&PasswordHash::new(NOBODY).unwrap()).unwrap();
        let costs = (nobody.m_cost(), nobody.t_cost(), nobody.p_cost(), nobody.output_len());
        assert_eq!(costs, (ARGON2_MEMORY_KIB, ARGON2_PASSES, ARGON2_LANES, Some(32)));
        assert_eq!(verify(b"", None), Ok(false));
    }

    #[test]
    fn a_stored_hash_that_is_malformed_or_too_expensive_is_refused() {
        let good = cheap(b"x");
        let (head, _) = good.rsplit_once('$').unwrap();
        for bad in [
            "",
            "x",
            "$",
            "plain text",
            head,
            "$argon2id$v=19$m=64,t=1,p=1",
            &good.replace("argon2id", "argon2i"),
            &good.replace("argon2id", "argon2d"),
            &good.replace("argon2id", "bcrypt"),
            &good.replace("v=19", "v=16"),
            &good.replace("$v=19", ""),
            &good.replace("m=64", "m=65537"),
            &good.replace("m=64", "m=4294967295"),
            &good.replace("m=64", "m=1"),
            &good.replace("t=1", "t=11"),
            &good.replace("t=1", "t=0"),
            &good.replace("p=1", "p=9"),
            &good.replace("p=1", "p=16777216"),
            &good.replace("p=1", "é=1"),
            &format!("{good}$x"),
        ] {
            assert_eq!(verify(b"x", Some(bad)), Err(UNUSABLE), "{bad}");
        }
    }

    /// Resident memory of this process in KiB.
    #[cfg(target_os = "linux")]
    fn resident_kib() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn hashing_on_many_threads_leaves_no_memory_behind() {
        // Runs in a child process, where other tests do not disturb the measurement.
        const ALONE: &str = "PASSWORD_TEST_ALONE";
        const NAME: &str = "auth::password::tests::hashing_on_many_threads_leaves_no_memory_behind";
        if std::env::var_os(ALONE).is_none() {
            let mut child = std::process::Command::new(std::env::current_exe().unwrap());
            let output = child.args(["--exact", NAME, "--nocapture"]).env(ALONE, "1").output();
            let output = output.unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && text.contains("grew by"), "{output:?}");
            return;
        }
        verify(b"first", None).unwrap();
        let before_kib = resident_kib();
        let together = Barrier::new(9);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let right = verify(b"x", None);
                    together.wait();
                    // Keeps the thread and its arena alive during the measurement.
                    together.wait();
                    assert_eq!(right, Ok(false));
                });
            }
            together.wait();
            let grown_kib = resident_kib().saturating_sub(before_kib);
            together.wait();
            println!("grew by {grown_kib} KiB");
            assert!(grown_kib < 8 * 1024, "{grown_kib} KiB stayed");
        });
    }
}
