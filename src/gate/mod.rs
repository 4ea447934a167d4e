//! The gate: a hardening reverse proxy in front of the application, and the only code that reads
//! client sockets.
//!
//! It bounds the number of connections, parses request heads strictly, asks the application for
//! admission before it reads any byte of a body, spools the body, forwards one canonical request to
//! tiny_http, and sends the response. It knows HTTP, but nothing of users, machines or snapshots.

pub mod access_log;
pub mod body;
mod connection;
pub mod error;
pub mod head;
mod min_rate;
mod peer;
pub mod response;
mod send;
mod slots;
pub mod upload_json;
pub mod upstream;

use std::collections::HashMap;
use std::io::{self, Read};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{Builder, sleep};
use std::time::Duration;

use crate::util::limits::{ACCEPT_PAUSE_MS, BACKLOG, CONNECTION_STACK_BYTES};
use crate::util::log;
use crate::util::metrics::Metrics;
use crate::util::network::Network;
use crate::util::sync::lock;
use crate::util::types::RandomId;
use access_log::AccessRecord;
use body::Spool;
use error::Error;
use head::Head;
use response::Response;
use slots::Open;
use upstream::Upstream;

pub use peer::{Client, client};

/// The gate's interface to the application.
pub trait Admission: Send + Sync + 'static {
    /// State of an admitted request that no header field can carry.
    type Ticket: Send + 'static;

    /// Admits or refuses a request by its head alone, before any byte of its body is read. Returns
    /// where the body goes and the request's ticket. Adds its route and user to the access record.
    fn admit(
        &self, head: &Head, client: Client, record: &mut AccessRecord<'_>,
    ) -> Result<(Spool, Self::Ticket), Error>;

    /// Writes the next bytes of the body to the upload.
    fn receive_piece(&self, ticket: &mut Self::Ticket, bytes: &[u8]) -> Result<(), Error>;

    /// Called once the whole body has arrived, on the connection's own thread: any wait that must
    /// not block a worker happens here.
    fn after_body(&self, ticket: &mut Self::Ticket, body: &[u8]) -> Result<(), Error>;
}

/// The application as a connection sees it.
pub struct Service<A: Admission> {
    /// Admits or refuses each request.
    pub admission: A,
    /// The links to the application's workers.
    pub upstream: Arc<Upstream<A::Ticket>>,
}

/// Connection settings from the flags of `serve`.
#[derive(Debug, Clone)]
pub struct Config {
    /// Maximum number of open connections.
    pub connections_max: usize,
    /// Maximum number of open connections from one network.
    pub connections_per_peer_max: usize,
    /// Time from the first byte of a head to its last.
    pub head_timeout: Duration,
    /// Time that a connection may wait for its next request.
    pub idle_timeout: Duration,
    /// Time that a body or a response may take before the minimum rate applies.
    pub body_grace: Duration,
    /// Peers whose `X-Forwarded-For` is trusted.
    pub trusted_proxies: Vec<Network>,
    /// Returns the standard reason phrase of a status code.
    pub phrase: fn(u16) -> &'static str,
}

/// A running gate: its listener and its open connections.
pub struct Gate {
    listener: TcpListener,
    config: Config,
    metrics: Arc<Metrics>,
    /// Keyed by descriptor, which is unique while the connection is open.
    open: Mutex<HashMap<RawFd, Open>>,
    closed: Condvar,
    stopping: AtomicBool,
}

impl Gate {
    /// Starts accepting on `listener`. Fails if the system has no thread for a connection.
    pub fn start<A: Admission>(
        listener: TcpListener, service: Service<A>, metrics: Arc<Metrics>, config: Config,
    ) -> io::Result<Arc<Gate>> {
        // std sets a backlog of 128; a second listen on the same socket only changes the backlog.
        rustix::net::listen(&listener, BACKLOG)?;
        let gate = Arc::new(Gate::new(listener, config, metrics));
        let (accepting, service) = (Arc::clone(&gate), Arc::new(service));
        Builder::new().name("accept".into()).spawn(move || accepting.accept_all(&service))?;
        // Comes last: the threads started before must leave one for the first client.
        let _ = connection_thread().spawn(|| {})?.join();
        Ok(gate)
    }

    fn new(listener: TcpListener, config: Config, metrics: Arc<Metrics>) -> Gate {
        let (open, closed, stopping) = (Mutex::default(), Condvar::new(), AtomicBool::new(false));
        Gate { listener, config, metrics, open, closed, stopping }
    }

    /// Stops accepting, closes idle connections, and lets requests in flight finish within `wait`.
    /// Returns true if all of them finished.
    pub fn stop(&self, wait: Duration) -> bool {
        self.stopping.store(true, Ordering::SeqCst);
        // Makes the blocked accept return an error.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        let open = lock(&self.open);
        for idle in open.values().filter(|open| open.client.is_none()) {
            let _ = idle.stream.shutdown(Shutdown::Read);
        }
        let waited = self.closed.wait_timeout_while(open, wait, |open| !open.is_empty());
        waited.unwrap_or_else(PoisonError::into_inner).0.is_empty()
    }

    /// Runs until a stop: after an error, such as no free descriptor, it pauses and goes on.
    fn accept_all<A: Admission>(self: &Arc<Gate>, service: &Arc<Service<A>>) {
        loop {
            match self.listener.accept() {
                _ if self.stopping.load(Ordering::SeqCst) => return,
                Ok((stream, address)) => self.take_in(service, stream, address.ip().to_canonical()),
                Err(_) => sleep(Duration::from_millis(ACCEPT_PAUSE_MS)),
            }
        }
    }

    fn take_in<A: Admission>(
        self: &Arc<Gate>, service: &Arc<Service<A>>, stream: TcpStream, peer: IpAddr,
    ) {
        let stream = Arc::new(stream);
        let Some(slot) = self.take(&stream, peer) else { return self.refuse(&stream) };
        let service = Arc::clone(service);
        // If no thread starts, the closure is dropped, and with it the connection and its slot.
        if let Err(error) = connection_thread().spawn(move || connection::serve(&slot, &*service)) {
            log::error(&format!("no thread for a connection: {error}"));
        }
    }

    /// Sends a 503 without blocking, since the accept loop calls it.
    fn refuse(&self, mut stream: &TcpStream) {
        let Ok(id) = RandomId::draw() else { return };
        let response = Response::from(Error::overloaded("too many connections; try again"));
        let _ = stream.set_nonblocking(true);
        let head = response.head(id, (self.config.phrase)(response.status), true);
        let _ = send::send(stream, &head, &response, false, Duration::from_millis(1));
        let _ = stream.shutdown(Shutdown::Write);
        // Closing with unread bytes would send a reset, which can overtake the response.
        let _ = stream.read(&mut [0; 4096]);
    }
}

fn connection_thread() -> Builder {
    Builder::new().stack_size(CONNECTION_STACK_BYTES)
}
