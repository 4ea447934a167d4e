//! The gate: the only code that reads what strangers send. It accepts connections within fixed
//! bounds, parses heads strictly, lets `vet` refuse before a byte of body is read, streams
//! bodies to where their route wants them, and sends answers; workers never wait for a network.

mod body;
mod connection;
pub mod head;
pub mod json;
mod pace;
mod peer;
mod send;
mod slots;

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::http::workers::{Job, Workers};
use crate::http::{ApiError, Body, Response};
use crate::limits::{
    ACCEPT_PAUSE_MS, BACKLOG, CONNECTION_STACK_BYTES, DESCRIPTORS_PER_CONNECTION,
    DESCRIPTORS_RESERVED,
};
use crate::log;
use crate::sync::{lock, wait_for};
use crate::types::RandomId;
use head::Head;
use slots::{Slot, Slots};

pub use body::Sink;

/// What the program behind the gate decides and is told.
pub trait Service: Send + Sync + 'static {
    /// Decides on a head alone, before a byte of its body is read.
    fn vet(&self, head: &Head, peer: IpAddr) -> Verdict;
    /// A request was answered, or its connection given up.
    fn done(&self, record: &Record<'_>);
    /// A connection opened (true) or closed (false).
    fn connection(&self, opened: bool);
    /// A connection or forwarded request found no free slot.
    fn refused(&self);
}

/// The decision on a head.
pub struct Verdict {
    /// The route's pattern; empty if there is none.
    pub route: &'static str,
    /// Who asks, if known.
    pub user: Option<i64>,
    /// How to go on, or the answer.
    pub outcome: Result<Admission, Response>,
}

/// How to go on with an admitted request.
pub struct Admission {
    /// Where its body goes.
    pub sink: Sink,
    /// Makes the work for a worker once the body is there; may wait, since it runs on the
    /// connection's own thread.
    pub prepare: Box<dyn FnOnce(Body) -> Result<Job, Response> + Send>,
}

/// What is known of a request when it is over.
pub struct Record<'a> {
    /// Id that the answer carries.
    pub id: RandomId,
    /// Method, or `-` for a head that was none.
    pub method: &'a str,
    /// Path without the query, or `-`.
    pub path: &'a str,
    /// The route's pattern; empty if there is none.
    pub route: &'static str,
    /// Status of the answer.
    pub status: u16,
    /// Bytes of body received.
    pub bytes_in: u64,
    /// Bytes of body sent.
    pub bytes_out: u64,
    /// From the end of the head to the end of the answer.
    pub took: Duration,
    /// Who asked, if known.
    pub user: Option<i64>,
    /// The client's address.
    pub peer: IpAddr,
}

impl Record<'_> {
    /// Of a request that nothing is known of yet.
    fn new(id: RandomId, peer: IpAddr) -> Self {
        let (status, bytes_in, bytes_out, took, user) = (0, 0, 0, Duration::ZERO, None);
        let (method, path, route) = ("-", "-", "");
        Record { id, method, path, route, status, bytes_in, bytes_out, took, user, peer }
    }
}

/// What `serve` was told about connections.
#[derive(Debug, Clone)]
pub struct Config {
    /// Connections at once.
    pub connections_max: usize,
    /// Connections at once from one network.
    pub connections_per_peer_max: usize,
    /// First byte of a head to its last.
    pub head_timeout: Duration,
    /// Wait for the next request.
    pub idle_timeout: Duration,
    /// Before the minimum rate counts.
    pub body_grace: Duration,
    /// Peers whose `X-Forwarded-For` counts.
    pub trusted_proxies: Vec<IpAddr>,
}

impl Config {
    /// The same, with no more connections than the descriptor limit of this process carries.
    pub fn clamped(mut self) -> Config {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let fits = limit.unwrap_or(u64::MAX).saturating_sub(DESCRIPTORS_RESERVED)
            / DESCRIPTORS_PER_CONNECTION;
        let fits = usize::try_from(fits).unwrap_or(usize::MAX).max(1);
        if fits < self.connections_max {
            log::warn(&format!(
                "--max-connections {} lowered to {fits}: the descriptor limit is {}",
                self.connections_max,
                limit.unwrap_or_default()
            ));
            self.connections_max = fits;
        }
        self
    }
}

/// The running gate.
pub struct Gate {
    shared: Arc<Shared>,
    listener: Arc<TcpListener>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    service: Arc<dyn Service>,
    workers: Arc<Workers>,
    config: Config,
    slots: Arc<Slots>,
    stopping: AtomicBool,
    next: AtomicU64,
    open: Mutex<HashMap<u64, Arc<Open>>>,
    closed: Condvar,
    hinted: AtomicBool,
}

/// An open connection, as a stop sees it.
struct Open {
    stream: TcpStream,
    /// No request of it is in flight.
    idle: AtomicBool,
}

impl Gate {
    /// Starts to accept on `listener`.
    pub fn start(
        listener: TcpListener, service: Arc<dyn Service>, workers: Arc<Workers>, config: Config,
    ) -> io::Result<Gate> {
        let slots = Slots::new(config.connections_max, config.connections_per_peer_max);
        let shared = Arc::new(Shared {
            service,
            workers,
            config,
            slots: Arc::new(slots),
            stopping: AtomicBool::new(false),
            next: AtomicU64::new(0),
            open: Mutex::default(),
            closed: Condvar::new(),
            hinted: AtomicBool::new(false),
        });
        // A second listen on the same socket only sets its backlog; std's is 128.
        rustix::net::listen(&listener, BACKLOG)?;
        let listener = Arc::new(listener);
        let (accepts, accepts_on) = (Arc::clone(&shared), Arc::clone(&listener));
        let accepting = std::thread::Builder::new()
            .name("accept".into())
            .spawn(move || accept_all(&accepts, &accepts_on))?;
        Ok(Gate { shared, listener, accepting: Some(accepting) })
    }

    /// Stops: accepts nothing more, closes idle connections, lets requests in flight end within
    /// `wait`. True if all ended.
    pub fn stop(&mut self, wait: Duration) -> bool {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes accept with an error.
        let _ = rustix::net::shutdown(&*self.listener, rustix::net::Shutdown::Both);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        for open in lock(&self.shared.open).values() {
            if open.idle.load(Ordering::SeqCst) {
                let _ = open.stream.shutdown(Shutdown::Read);
            }
        }
        let ended = |open: &mut HashMap<u64, Arc<Open>>| open.is_empty().then_some(());
        wait_for(&self.shared.open, &self.shared.closed, wait, ended).is_some()
    }
}

/// Never ends before a stop: on any error, such as no free descriptor, it waits and goes on.
fn accept_all(shared: &Arc<Shared>, listener: &TcpListener) {
    while !shared.stopping.load(Ordering::SeqCst) {
        match listener.accept() {
            Ok((stream, address)) => admit(shared, stream, address),
            Err(_) if shared.stopping.load(Ordering::SeqCst) => return,
            Err(_) => std::thread::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)),
        }
    }
}

fn admit(shared: &Arc<Shared>, stream: TcpStream, address: SocketAddr) {
    let peer = address.ip().to_canonical();
    let trusted = shared.config.trusted_proxies.contains(&peer);
    // A proxy's connection carries many clients: it counts against the total only.
    match shared.slots.connection((!trusted).then_some(peer.into())) {
        Some(slot) => spawn(shared, stream, peer, slot),
        None => {
            shared.service.refused();
            refuse(stream);
        }
    }
}

fn spawn(shared: &Arc<Shared>, stream: TcpStream, peer: IpAddr, slot: Slot) {
    let key = shared.next.fetch_add(1, Ordering::Relaxed);
    let open = Arc::new(Open { stream, idle: AtomicBool::new(true) });
    lock(&shared.open).insert(key, Arc::clone(&open));
    let registered = Registered { shared: Arc::clone(shared), key, _slot: slot };
    shared.service.connection(true);
    let thread = std::thread::Builder::new().stack_size(CONNECTION_STACK_BYTES);
    // Without a thread the closure is dropped, and with it the connection and its slot.
    let spawned = thread.spawn(move || {
        let registered = registered;
        connection::serve(&registered.shared, &open, peer);
    });
    if let Err(error) = spawned {
        log::error(&format!("no thread for a connection: {error}"));
    }
}

/// Gives up the place of a connection on every way out, a panic included.
struct Registered {
    shared: Arc<Shared>,
    key: u64,
    _slot: Slot,
}

impl Drop for Registered {
    fn drop(&mut self) {
        lock(&self.shared.open).remove(&self.key);
        self.shared.service.connection(false);
        self.shared.closed.notify_all();
    }
}

/// Answers 503 without waiting for anything: the accept loop calls it.
fn refuse(mut stream: TcpStream) {
    let error = ApiError::overloaded("too many connections; try again");
    let response = Response::from(error);
    let Ok(id) = RandomId::draw() else { return };
    let mut answer = response.head(id, true).into_bytes();
    for piece in &response.pieces {
        if let crate::http::Piece::Bytes(bytes) = piece {
            answer.extend_from_slice(bytes);
        }
    }
    let _ = stream.set_nonblocking(true);
    let _ = stream.write(&answer);
    let _ = stream.shutdown(Shutdown::Write);
    // What has arrived is read, or the close would be a reset that can overtake the answer.
    let _ = stream.read(&mut [0; 4096]);
}
