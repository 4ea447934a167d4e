//! The server's interface to the operating system: threads, descriptors, signals, systemd.

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

/// Catches SIGXFSZ, whose default action ends the process, so that a write beyond `ulimit -f` fails
/// with an error instead. Rust ignores SIGPIPE already.
pub fn ignore_file_size_signal() -> std::io::Result<()> {
    // Nothing reads this flag; the handler does nothing but set it.
    register(SIGXFSZ, Arc::new(AtomicBool::new(false))).map(drop)
}

/// Starts as many concurrent threads as a server needs, and ends them again: where the system
/// refuses one, tiny_http would panic, or silently serve nothing.
pub fn probe_threads() -> std::io::Result<()> {
    let gate = Mutex::new(());
    scope(|threads| {
        // The threads wait for this lock until all of them have started.
        let _closed = lock(&gate);
        (0..THREADS_AT_START)
            .try_for_each(|_| Builder::new().spawn_scoped(threads, || drop(lock(&gate))).map(drop))
    })
}

/// Delivers the first stop signal through the iterator; a second one exits at once.
pub fn watch_signals() -> std::io::Result<Signals> {
    let (second, mut stopping) = (Arc::new(AtomicBool::new(false)), vec![SIGTERM, SIGINT]);
    if !hangup_is_ignored() {
        stopping.push(SIGHUP);
    }
    for signal in &stopping {
        // The order matters: the first handler tests the flag before the second one sets it.
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

/// Raises the soft descriptor limit to the hard one; returns how many connections fit into it.
pub fn clamp_to_fd_limit(wanted: usize) -> Result<usize, CliError> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    // If the limit cannot be raised, the current one counts.
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

/// Sends systemd a state such as `READY=1` (sd_notify(3)), as a datagram to the socket that it
/// names. Without a listener, nothing happens.
pub fn notify(state: &str) {
    let Ok(name) = std::env::var("NOTIFY_SOCKET") else { return };
    // A leading @ denotes the abstract namespace.
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&name),
    };
    if let (Ok(address), Ok(socket)) = (address, UnixDatagram::unbound()) {
        let _ = socket.set_nonblocking(true);
        let _ = socket.send_to_addr(state.as_bytes(), &address);
    }
}
