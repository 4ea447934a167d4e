//! What the system gives a server and tells it: descriptors and signals.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::thread::Builder;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag::{register, register_conditional_shutdown};
use signal_hook::iterator::Signals;

use super::CliError;
use crate::util::limits::{DESCRIPTORS_PER_CONNECTION, DESCRIPTORS_RESERVED, THREADS_AT_START};
use crate::util::log;
use crate::util::sync::lock;

/// A write beyond `ulimit -f` must be an error, not the end of the process: the default action of
/// SIGXFSZ. Rust ignores SIGPIPE already.
pub fn ignore_file_size_signal() -> std::io::Result<()> {
    // Nobody reads this flag; a signal that is caught does nothing else.
    register(SIGXFSZ, Arc::new(AtomicBool::new(false))).map(drop)
}

/// Starts as many threads as a server needs at once, and ends them again: where the system refuses
/// one, tiny_http would panic, or serve nothing without a word.
pub fn probe_threads() -> std::io::Result<()> {
    let gate = Arc::new(Mutex::new(()));
    let closed = lock(&gate);
    let wait = |_| {
        let gate = Arc::clone(&gate);
        Builder::new().spawn(move || drop(lock(&gate)))
    };
    let started: std::io::Result<Vec<_>> = (0..THREADS_AT_START).map(wait).collect();
    drop(closed);
    started?.into_iter().for_each(|thread| drop(thread.join()));
    Ok(())
}

/// The first signal that stops the server is delivered through the iterator; a second one exits.
pub fn watch_signals() -> std::io::Result<Signals> {
    let (second, mut stopping) = (Arc::new(AtomicBool::new(false)), vec![SIGTERM, SIGINT]);
    if !hangup_is_ignored() {
        stopping.push(SIGHUP);
    }
    for signal in &stopping {
        // In this order: the exit looks at the flag before the same signal sets it.
        register_conditional_shutdown(*signal, 1, Arc::clone(&second))?;
        register(*signal, Arc::clone(&second))?;
    }
    Signals::new(stopping)
}

/// True under nohup(1), which starts a program with SIGHUP ignored.
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (SIGHUP - 1)) != 0)
}

/// Raises the soft descriptor limit to the hard one; returns how many connections it carries.
pub fn connections_carried(wanted: usize) -> Result<usize, CliError> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        log::warn(&format!("the descriptor limit could not be raised: {error}"));
    }
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let fits = limit.saturating_sub(DESCRIPTORS_RESERVED) / DESCRIPTORS_PER_CONNECTION;
    let fits = usize::try_from(fits).unwrap_or(usize::MAX);
    if fits == 0 {
        let least = DESCRIPTORS_RESERVED + DESCRIPTORS_PER_CONNECTION;
        let why = format!("the descriptor limit is {limit}: a server needs {least} at least");
        return Err(CliError::Failed(why));
    }
    if fits < wanted {
        log::warn(&format!(
            "--max-connections {wanted} lowered to {fits}: the descriptor limit is {limit}"
        ));
    }
    Ok(wanted.min(fits))
}
