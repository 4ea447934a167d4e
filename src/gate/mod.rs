//! The gate: the only code that reads what strangers send. It accepts connections within fixed
//! bounds, parses heads strictly, lets `vet` refuse before a byte of body is read, streams
//! bodies to where their route wants them, and sends answers; workers never wait for a network.

pub mod access_log;
mod body;
mod connection;
pub mod head;
pub mod json;
mod pace;
mod peer;
mod send;
mod slots;

use std::io::{self, Read};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle, sleep};
use std::time::Duration;

use crate::app::{Body, Error, Response};
use crate::gate::access_log::AccessRecord;
use crate::util::limits::{ACCEPT_PAUSE_MS, BACKLOG, CONNECTION_STACK_BYTES};
use crate::util::log;
use crate::util::metrics::Metrics;
use crate::util::types::RandomId;
use head::Head;
use slots::Slots;

pub use body::{Broken, Sink};

/// The program behind the gate.
pub trait Vet: Send + Sync + 'static {
    /// Decides on a head alone, before a byte of its body is read, and notes what it finds out.
    /// Of an admitted request it says where the body goes and what answers it then.
    fn vet(&self, head: &Head, record: &mut AccessRecord<'_>) -> Result<(Sink, Answer), Error>;
}

/// Makes the answer once the body is there. It runs on the connection's own thread and may wait.
pub type Answer = Box<dyn FnOnce(Body) -> Response>;

/// What `serve` was told about connections.
#[derive(Debug, Clone, Default)]
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

/// The running gate.
pub struct Gate {
    listener: TcpListener,
    slots: Arc<Slots>,
    accepting: JoinHandle<()>,
}

impl Gate {
    /// Starts to accept on `listener`.
    pub fn start(
        listener: TcpListener, vet: Arc<dyn Vet>, metrics: Arc<Metrics>, config: Config,
    ) -> io::Result<Gate> {
        // A second listen on the same socket only sets its backlog; std's is 128.
        rustix::net::listen(&listener, BACKLOG)?;
        let slots = Arc::new(Slots::new(config, metrics));
        let (accepts_on, of_thread) = (listener.try_clone()?, Arc::clone(&slots));
        let thread = Builder::new().name("accept".into());
        let accepting = thread.spawn(move || accept_all(&accepts_on, &of_thread, &vet))?;
        Ok(Gate { listener, slots, accepting })
    }

    /// Stops: accepts nothing more, closes idle connections, lets requests in flight end within
    /// `wait`. True if all ended.
    pub fn stop(self, wait: Duration) -> bool {
        self.slots.stop();
        // Wakes accept with an error.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        let _ = self.accepting.join();
        self.slots.all_ended(wait)
    }
}

/// Never ends before a stop: on any error, such as no free descriptor, it waits and goes on.
fn accept_all(listener: &TcpListener, slots: &Arc<Slots>, vet: &Arc<dyn Vet>) {
    while !slots.stopping() {
        match listener.accept() {
            Ok((stream, address)) => admit(slots, vet, stream, address.ip().to_canonical()),
            Err(_) if slots.stopping() => return,
            Err(_) => sleep(Duration::from_millis(ACCEPT_PAUSE_MS)),
        }
    }
}

fn admit(slots: &Arc<Slots>, vet: &Arc<dyn Vet>, stream: TcpStream, peer: IpAddr) {
    let stream = Arc::new(stream);
    let Some(slot) = slots.take(&stream, peer) else { return refuse(&stream) };
    let (vet, thread) = (Arc::clone(vet), Builder::new().stack_size(CONNECTION_STACK_BYTES));
    // Without a thread the closure is dropped, and with it the connection and its slot.
    if let Err(error) = thread.spawn(move || connection::serve(&slot, &*vet)) {
        log::error(&format!("no thread for a connection: {error}"));
    }
}

/// Answers 503 without waiting for anything: the accept loop calls it.
fn refuse(mut stream: &TcpStream) {
    let Ok(id) = RandomId::draw() else { return };
    let response = Response::from(Error::overloaded("too many connections; try again"));
    let _ = stream.set_nonblocking(true);
    let head = response.head(id, true);
    let _ = send::send(stream, head, response.pieces, Duration::from_millis(1));
    let _ = stream.shutdown(Shutdown::Write);
    // What has arrived is read, or the close would be a reset that can overtake the answer.
    let _ = stream.read(&mut [0; 4096]);
}
