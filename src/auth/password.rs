//! Passwords: argon2id as PHC strings (OWASP Password Storage Cheat Sheet), few at once.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{ARGON2ID_IDENT, Algorithm, Argon2, Block, Params, Version};

use crate::limits::{
    ARGON2_LANES, ARGON2_MEMORY_KIB, ARGON2_PASSES, HASHES_AT_ONCE, HASHES_WAITING_MAX,
};
use crate::sync::{lock, wait_for};

/// A hash could not be made or read.
#[derive(Debug)]
pub struct HashError(String);

impl fmt::Display for HashError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "password hashing failed: {}", self.0)
    }
}

fn failed(error: impl fmt::Display) -> HashError {
    HashError(error.to_string())
}

const OUTPUT_BYTES: usize = 32;
const SALT_BYTES: usize = 16;
/// A stored hash may ask for no more than this, whatever the database says.
const MEMORY_KIB_MAX: u32 = 64 * 1024;
const PASSES_MAX: u32 = 16;

/// glibc keeps freed memory of a thread's arena; a buffer above its largest mmap threshold
/// (32 MiB) is mapped and unmapped each time instead. Only what the hash uses is ever touched.
const MAPPED_BLOCKS: usize = 33 * 1024;

/// The PHC string of a password, with a fresh salt.
pub fn hash(password: &[u8]) -> Result<String, HashError> {
    let mut salt = [0; SALT_BYTES];
    getrandom::fill(&mut salt).map_err(failed)?;
    let params = params()?;
    let output = compute(password, &salt, params.clone())?;
    Ok(PasswordHash {
        algorithm: ARGON2ID_IDENT,
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(&params).map_err(failed)?,
        salt: Some(Salt::new(&salt).map_err(failed)?),
        hash: Some(output),
    }
    .to_string())
}

/// True if the password is that of the PHC string. Without one (an unknown user, or one without
/// a password) the same work is done and the answer is false, so that its time tells nothing.
pub fn verify(password: &[u8], phc: Option<&str>) -> Result<bool, HashError> {
    let Some(phc) = phc else {
        compute(password, &[0; SALT_BYTES], params()?)?;
        return Ok(false);
    };
    let stored = PasswordHash::new(phc).map_err(failed)?;
    let params = Params::try_from(&stored).map_err(failed)?;
    let known = stored.algorithm == ARGON2ID_IDENT && stored.version == Some(Version::V0x13.into());
    if !known || params.m_cost() > MEMORY_KIB_MAX || params.t_cost() > PASSES_MAX {
        return Err(failed("the stored hash has unknown or excessive parameters"));
    }
    let (Some(salt), Some(expected)) = (stored.salt, stored.hash) else {
        return Err(failed("the stored hash is incomplete"));
    };
    // Output compares in constant time.
    Ok(compute(password, salt.as_ref(), params)? == expected)
}

fn params() -> Result<Params, HashError> {
    Params::new(ARGON2_MEMORY_KIB, ARGON2_PASSES, ARGON2_LANES, Some(OUTPUT_BYTES)).map_err(failed)
}

fn compute(password: &[u8], salt: &[u8], params: Params) -> Result<Output, HashError> {
    let needed = params.block_count();
    let mut memory: Vec<Block> = Vec::new();
    memory.try_reserve_exact(needed.max(MAPPED_BLOCKS)).map_err(failed)?;
    memory.resize(needed, Block::default());
    let mut out = [0; OUTPUT_BYTES];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into_with_memory(password, salt, &mut out, &mut memory)
        .map_err(failed)?;
    Output::new(&out).map_err(failed)
}

/// Bounds the hashes that run at once, and the logins that wait for one.
#[derive(Default)]
pub struct Permits {
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Default)]
struct State {
    running: usize,
    waiting: usize,
}

/// The right to run one hash; given back when it goes.
pub struct Permit(Arc<Permits>);

impl Permits {
    /// Waits for a permit, at most `wait`; None then, or at once if too many wait already.
    pub fn acquire(self: &Arc<Self>, wait: Duration) -> Option<Permit> {
        let mut queued = false;
        let got = wait_for(&self.state, &self.freed, wait, |state| {
            if state.running < HASHES_AT_ONCE {
                state.running += 1;
                state.waiting -= usize::from(queued);
                return Some(true);
            }
            if !queued && state.waiting >= HASHES_WAITING_MAX {
                return Some(false);
            }
            state.waiting += usize::from(!queued);
            queued = true;
            None
        });
        if got.is_none() && queued {
            lock(&self.state).waiting -= 1;
        }
        got.unwrap_or(false).then(|| Permit(Arc::clone(self)))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        lock(&self.0.state).running -= 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_a_phc_string_of_the_stated_parameters_and_verifies() {
        let phc = hash(b"correct horse").unwrap();
        assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{phc}");
        assert!(verify(b"correct horse", Some(&phc)).unwrap());
        assert!(!verify(b"correct hors", Some(&phc)).unwrap());
        assert_ne!(phc, hash(b"correct horse").unwrap(), "the salt is fresh");
    }

    #[test]
    fn without_a_hash_the_answer_is_no() {
        assert!(!verify(b"", None).unwrap());
    }

    #[test]
    fn a_stored_hash_cannot_ask_for_much_memory() {
        let phc = hash(b"x").unwrap();
        for bad in ["m=4194304", "m=65537"] {
            assert!(verify(b"x", Some(&phc.replace("m=19456", bad))).is_err());
        }
        for bad in ["", "$argon2id$", "plain", &phc.replace("argon2id", "argon2i")] {
            assert!(verify(b"x", Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn no_more_than_the_limit_hold_a_permit_and_no_more_than_the_limit_wait() {
        let permits = Arc::new(Permits::default());
        let held: Vec<_> =
            (0..HASHES_AT_ONCE).map(|_| permits.acquire(Duration::ZERO).unwrap()).collect();
        assert!(permits.acquire(Duration::from_millis(5)).is_none());
        let waiters: Vec<_> = (0..HASHES_WAITING_MAX)
            .map(|_| {
                let permits = Arc::clone(&permits);
                std::thread::spawn(move || permits.acquire(Duration::from_secs(20)).is_some())
            })
            .collect();
        while lock(&permits.state).waiting < HASHES_WAITING_MAX {
            std::thread::yield_now();
        }
        let began = std::time::Instant::now();
        assert!(permits.acquire(Duration::from_secs(20)).is_none(), "one too many");
        assert!(began.elapsed() < Duration::from_secs(10), "refused at once");
        drop(held);
        assert!(waiters.into_iter().all(|waiter| waiter.join().unwrap()));
        let state = lock(&permits.state);
        assert_eq!((state.running, state.waiting), (0, 0));
    }
}
