//! The connection to the application: a fixed set of links to tiny_http on a private socket.
//!
//! A link carries one canonical request at a time: printable ASCII that the gate wrote itself, a
//! whole body of at most 1 MiB, and one unguessable id. State that no header field can carry waits
//! in a table under that id: the ticket of an admitted request, and on the way back a refusal or a
//! file of the response (as with X-Accel-Redirect of nginx). Each is claimed once.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::error::Error;
use super::head::Head;
use super::response::{Attachment, Response};
use crate::util::limits::{
    LINK_START_MS, UPSTREAM_HEAD_BYTES_MAX, WORKER_RESPONSE_S, WORKER_WAIT_S, WORKERS,
};
use crate::util::sync::{Pool, lock};
use crate::util::types::RandomId;

/// The field that carries a request's id to the application, and in the end to the client.
pub const ID_FIELD: &str = "X-Request-Id";

/// The request fields that the application reads.
const FORWARDED: [&str; 3] = ["Accept", "If-Match", "If-None-Match"];

/// State that one side leaves for the other: an entry for each request in flight, by its id.
pub type Handoff<T> = Mutex<HashMap<RandomId, Waiting<T>>>;

pub struct Waiting<T> {
    /// None once a worker has claimed it, which then drops what is in it before it responds; the
    /// gate drops a ticket that no worker claimed.
    pub ticket: Option<T>,
    /// Set by the worker: why the request is refused.
    pub refusal: Option<Error>,
    /// Set by the worker: the file of the response.
    pub file: Option<Attachment>,
}

/// The links to tiny_http.
pub struct Upstream<T> {
    socket: PathBuf,
    handoff: Arc<Handoff<T>>,
    links: Arc<Pool<BufReader<UnixStream>>>,
    /// Called when the application no longer listens.
    on_lost: Box<dyn Fn() + Send + Sync>,
}

impl<T> Upstream<T> {
    /// Opens the links one after the other: if several connections arrive at once, tiny_http's task
    /// pool can leave one of them without a thread. Each link must carry one request and its
    /// response in time, so that a server that lacks a thread does not start.
    pub fn connect(
        socket: &Path, handoff: Arc<Handoff<T>>, on_lost: Box<dyn Fn() + Send + Sync>,
    ) -> io::Result<Upstream<T>> {
        let mut links = Vec::new();
        for _ in 0..WORKERS {
            let mut link = open(socket, Duration::from_millis(LINK_START_MS))?;
            let id = RandomId::draw()?;
            let probe = format!("GET / HTTP/1.1\r\nTE: identity\r\n{ID_FIELD}: {id}\r\n\r\n");
            exchange(&mut link, probe.as_bytes(), false)?;
            link.get_ref().set_read_timeout(Some(Duration::from_secs(WORKER_RESPONSE_S)))?;
            links.push(Some(link));
        }
        Ok(Upstream { socket: socket.to_owned(), handoff, links: Pool::new(links), on_lost })
    }

    /// Forwards a request with its received body, and returns the application's response.
    pub fn forward(
        &self, id: RandomId, head: &Head, ticket: T, body: &[u8],
    ) -> Result<Response, Error> {
        let busy = || Error::overloaded("all workers are busy; try again");
        let mut place = self.links.take(Duration::from_secs(WORKER_WAIT_S)).ok_or_else(busy)?;
        let waiting = Waiting { ticket: Some(ticket), refusal: None, file: None };
        lock(&self.handoff).insert(id, waiting);
        let request = [canonical(id, head, body.len()).as_bytes(), body].concat();
        let reopen = || open(&self.socket, Duration::from_secs(WORKER_RESPONSE_S));
        let response = place.value.take().map_or_else(reopen, Ok).and_then(|mut link| {
            let response = exchange(&mut link, &request, head.method == "HEAD")?;
            // A failed link is dropped: another request must not get a response left on it.
            place.value = Some(link);
            Ok(response)
        });
        // Drops a ticket that no worker claimed; its guards release what it held.
        let left = lock(&self.handoff).remove(&id);
        let (refusal, attachment) = left.map_or((None, None), |left| (left.refusal, left.file));
        response.map(|response| Response { refusal, attachment, ..response }).map_err(|error| {
            // Only `open` fails with these kinds: nothing listens on the socket.
            if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) {
                (self.on_lost)();
            }
            Error::caused_by(format_args!("a worker sent no response: {error}"))
        })
    }
}

fn open(socket: &Path, timeout: Duration) -> io::Result<BufReader<UnixStream>> {
    let link = UnixStream::connect(socket)?;
    link.set_read_timeout(Some(timeout))?;
    link.set_write_timeout(Some(timeout))?;
    Ok(BufReader::new(link))
}

/// The request head that tiny_http sees. `TE: identity` makes tiny_http declare a length. Several
/// lines of a list field become one (RFC 9110, section 5.3).
fn canonical(id: RandomId, head: &Head, length: usize) -> String {
    let mut text = format!(
        "{} {} HTTP/1.1\r\nHost: application\r\nTE: identity\r\n",
        head.method, head.target
    );
    for name in FORWARDED {
        let lines: Vec<&str> = head.fields(name).collect();
        if !lines.is_empty() {
            text.push_str(&format!("{name}: {}\r\n", lines.join(", ")));
        }
    }
    text.push_str(&format!("{ID_FIELD}: {id}\r\nContent-Length: {length}\r\n\r\n"));
    text
}

/// Writes a request and reads the whole response.
fn exchange(
    link: &mut BufReader<UnixStream>, request: &[u8], of_head: bool,
) -> io::Result<Response> {
    link.get_mut().write_all(request)?;
    let mut lines = link.by_ref().take(UPSTREAM_HEAD_BYTES_MAX).lines();
    let mut line = || lines.next().unwrap_or_else(|| Err(ErrorKind::UnexpectedEof.into()));
    let status_line = line()?;
    let status = status_line.split(' ').nth(1).and_then(|word| word.parse().ok());
    let mut response = Response::empty(status.ok_or_else(|| malformed("status line"))?);
    loop {
        let line = line()?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(": ").ok_or_else(|| malformed("field"))?;
        match name {
            "Content-Length" => response.declared = value.parse().ok(),
            // The gate writes its own `Date` and sends no `Server`.
            "Server" | "Date" => {}
            _ => response.fields.push((name.to_owned(), value.to_owned())),
        }
    }
    let length = response.declared.ok_or_else(|| malformed("length"))?;
    if !(of_head || matches!(status, Some(204 | 304))) {
        response.body = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        link.read_exact(&mut response.body)?;
    }
    Ok(response)
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("its response has no {what}"))
}
