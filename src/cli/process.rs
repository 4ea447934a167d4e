//! What the system gives a server, tells it and is told by it: threads, descriptors, signals,
//! systemd.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::thread::{Builder, scope};

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
    let gate = Mutex::new(());
    scope(|threads| {
        // They wait for it until all of them are there.
        let _closed = lock(&gate);
        (0..THREADS_AT_START)
            .try_for_each(|_| Builder::new().spawn_scoped(threads, || drop(lock(&gate))).map(drop))
    })
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
pub fn clamp_to_fd_limit(wanted: usize) -> Result<usize, CliError> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    // One that the system does not let it raise counts as it is.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
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

/// Tells systemd a state such as `READY=1` (sd_notify(3)): a datagram to the socket that it names.
/// Where nobody listens, nothing happens.
pub fn notify(state: &str) {
    let Ok(name) = std::env::var("NOTIFY_SOCKET") else { return };
    // A name that begins with @ stands for the abstract namespace.
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&name),
    };
    if let (Ok(address), Ok(socket)) = (address, UnixDatagram::unbound()) {
        let _ = socket.set_nonblocking(true);
        let _ = socket.send_to_addr(state.as_bytes(), &address);
    }
}
