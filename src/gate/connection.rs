//! One connection: head, decision, body, worker, answer, and again while all is in order.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, TcpStream};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::body::{BodyError, receive};
use super::head::{Head, HeadError, find_end, parse};
use super::slots::Slot;
use super::{Admission, Open, Record, Shared, Verdict, peer, send};
use crate::http::{ApiError, Response};
use crate::limits::{
    HEAD_READ_BYTES, LINGER_BYTES, LINGER_MS, LINGER_USER_BYTES, LINGER_USER_MS, PIECE_BYTES,
    SEND_WAIT_MS,
};
use crate::log;
use crate::types::RandomId;

/// Serves a connection until it ends.
pub fn serve(shared: &Shared, open: &Open, peer: IpAddr) {
    let stream = &open.stream;
    // An answer must not wait for an acknowledgement of the one before (Nagle's algorithm).
    if stream.set_nodelay(true).is_err()
        || stream.set_write_timeout(Some(Duration::from_millis(SEND_WAIT_MS))).is_err()
    {
        return;
    }
    let mut incoming = Incoming { stream, ahead: Vec::new(), timeout: None };
    while let Some(exchange) = next(shared, open, &mut incoming, peer) {
        match exchange {
            Exchange::Reusable => {}
            Exchange::Close => return,
            Exchange::CloseAnswered { user, slot: _slot } => return linger(shared, stream, user),
        }
    }
}

/// How a connection is left after a request.
enum Exchange {
    Reusable,
    Close,
    /// There may be more to come that nobody will read, a body or another request.
    CloseAnswered {
        /// From a signed-in user.
        user: bool,
        /// Held until the end.
        slot: Option<Slot>,
    },
}

/// Bytes from the socket, those read ahead first.
pub struct Incoming<'a> {
    stream: &'a TcpStream,
    /// Read with an earlier head and not part of it.
    ahead: Vec<u8>,
    /// What the socket's read timeout is set to.
    timeout: Option<Duration>,
}

impl Incoming<'_> {
    /// Sets the longest wait of one read; a system call only where it changes.
    pub fn set_read_timeout(&mut self, timeout: Duration) -> io::Result<()> {
        if self.timeout != Some(timeout) {
            self.stream.set_read_timeout(Some(timeout.max(Duration::from_millis(1))))?;
            self.timeout = Some(timeout);
        }
        Ok(())
    }

    /// Reads what is there; 0 at the end.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ahead.is_empty() {
            return retry_interrupted(|| self.stream.read(buffer));
        }
        let n = self.ahead.len().min(buffer.len());
        let (now, later) = self.ahead.split_at(n);
        buffer.get_mut(..n).unwrap_or_default().copy_from_slice(now);
        self.ahead = later.to_vec();
        Ok(n)
    }
}

/// Why there is no head.
enum NoHead {
    /// Closed, idle for too long, or stopping: nothing to answer.
    Gone,
    /// It began and did not end in time.
    Slow,
    Refused(HeadError),
}

/// Waits for a head and serves its request; None once there is none.
fn next(
    shared: &Shared, open: &Open, incoming: &mut Incoming<'_>, peer: IpAddr,
) -> Option<Exchange> {
    open.idle.store(true, Ordering::SeqCst);
    let found = match shared.stopping.load(Ordering::SeqCst) {
        true => Err(NoHead::Gone),
        false => read_head(shared, incoming),
    };
    open.idle.store(false, Ordering::SeqCst);
    let error = match found {
        Ok(head) => return Some(request(shared, incoming, &head, peer)),
        Err(NoHead::Gone) => return None,
        Err(NoHead::Slow) => {
            ApiError::new(408, "too_slow", "the request head came too slowly; try again")
        }
        Err(NoHead::Refused(error)) => error.into(),
    };
    // Parsing failed, so what follows cannot be told from a second request: answer and close.
    let Ok(id) = RandomId::draw() else { return None };
    let mut record = Record::new(id, peer);
    answer(shared, incoming.stream, error.into(), &mut record, Instant::now(), (false, true));
    Some(Exchange::CloseAnswered { user: false, slot: None })
}

fn read_head(shared: &Shared, incoming: &mut Incoming<'_>) -> Result<Head, NoHead> {
    let mut bytes = std::mem::take(&mut incoming.ahead);
    let mut seen = 0;
    let mut deadline = None;
    if bytes.is_empty() {
        let idle = incoming.set_read_timeout(shared.config.idle_timeout);
        idle.map_err(|_| NoHead::Gone)?;
    } else {
        deadline = Some(Instant::now() + shared.config.head_timeout);
    }
    loop {
        if let Some(end) = find_end(&bytes, seen).map_err(NoHead::Refused)? {
            let head = parse(bytes.get(..end).unwrap_or_default()).map_err(NoHead::Refused)?;
            incoming.ahead = bytes.get(end..).unwrap_or_default().to_vec();
            return Ok(head);
        }
        seen = bytes.len();
        if let Some(deadline) = deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(NoHead::Slow);
            }
            incoming.set_read_timeout(left).map_err(|_| NoHead::Gone)?;
        }
        let mut piece = [0; HEAD_READ_BYTES];
        let n = match retry_interrupted(|| incoming.stream.read(&mut piece)) {
            Ok(0) => return Err(NoHead::Gone),
            Ok(n) => n,
            Err(_) if seen == 0 => return Err(NoHead::Gone),
            Err(error) => return Err(if timed_out(&error) { NoHead::Slow } else { NoHead::Gone }),
        };
        // The first byte starts the clock.
        deadline = deadline.or_else(|| Some(Instant::now() + shared.config.head_timeout));
        bytes.extend_from_slice(piece.get(..n).unwrap_or_default());
    }
}

fn request(
    shared: &Shared, incoming: &mut Incoming<'_>, head: &Head, socket_peer: IpAddr,
) -> Exchange {
    let started = Instant::now();
    let Ok(id) = RandomId::draw() else { return Exchange::Close };
    let peer = peer::client(socket_peer, &shared.config.trusted_proxies, head);
    hint_at_proxy(shared, head, socket_peer);
    // A forwarded request takes a slot of its own client until it is answered; where the proxy does
    // not say whose it is, one of the proxy.
    let slot = match shared.config.trusted_proxies.contains(&socket_peer) {
        true => Some(shared.slots.forwarded(peer.into())),
        false => None,
    };
    let verdict = match &slot {
        Some(None) => {
            shared.service.refused();
            let error = ApiError::overloaded("too many requests at once; try again");
            Verdict { route: "", user: None, outcome: Err(error.into()) }
        }
        _ => shared.service.vet(head, peer),
    };
    let mut record = Record {
        method: head.method(),
        path: head.path(),
        route: verdict.route,
        user: verdict.user,
        ..Record::new(id, peer)
    };
    let length = head.content_length().unwrap_or(0);
    let (response, unread) = match verdict.outcome {
        Err(response) => (response, length > 0),
        Ok(admission) => match admitted(shared, incoming, head, admission, &mut record) {
            Ok(done) => done,
            Err(BodyGone) => {
                // Nobody is told; the log and the counters know it as nginx writes it.
                record.status = 499;
                record.took = started.elapsed();
                shared.service.done(&record);
                return Exchange::Close;
            }
        },
    };
    let close = unread || !head.keep_alive() || shared.stopping.load(Ordering::SeqCst);
    let form = (head.method() == "HEAD", close);
    let sent = answer(shared, incoming.stream, response, &mut record, started, form);
    match (sent, close) {
        (false, _) => Exchange::Close,
        (true, true) => {
            Exchange::CloseAnswered { user: verdict.user.is_some(), slot: slot.flatten() }
        }
        (true, false) => Exchange::Reusable,
    }
}

/// The client left in the middle of its body.
struct BodyGone;

/// Receives the body and has a worker make the answer; true if a part of the body is unread.
fn admitted(
    shared: &Shared, incoming: &mut Incoming<'_>, head: &Head, admission: Admission,
    record: &mut Record<'_>,
) -> Result<(Response, bool), BodyGone> {
    let Admission { sink, prepare } = admission;
    let length = head.content_length().unwrap_or(0);
    let body = if length == 0 {
        drop(sink);
        crate::http::Body::Empty
    } else {
        // RFC 9110, section 10.1.1: only once the head was found good.
        if head.expects_continue() && incoming.ahead.is_empty() {
            let line = b"HTTP/1.1 100 Continue\r\n\r\n";
            incoming.stream.write_all(line).map_err(|_| BodyGone)?;
        }
        match receive(incoming, length, sink, shared.config.body_grace) {
            Ok(body) => body,
            Err(BodyError::Refused(response)) => return Ok((response, true)),
            Err(BodyError::Gone) => return Err(BodyGone),
        }
    };
    record.bytes_in = length;
    Ok((
        prepare(body).map_or_else(|r| r, |job| shared.workers.run(record.id, record.route, job)),
        false,
    ))
}

/// Sends the answer and reports the request; true if all of it went.
fn answer(
    shared: &Shared, stream: &TcpStream, response: Response, record: &mut Record<'_>,
    started: Instant, (no_body, close): (bool, bool),
) -> bool {
    record.status = response.status;
    let head = response.head(record.id, close);
    let sent = send::send(stream, head, response, no_body, shared.config.body_grace);
    record.bytes_out = *sent.as_ref().unwrap_or(&0);
    record.took = started.elapsed();
    shared.service.done(record);
    sent.is_ok()
}

/// A proxy on this host whose header is not trusted makes every client look like one.
fn hint_at_proxy(shared: &Shared, head: &Head, peer: IpAddr) {
    if peer.is_loopback()
        && head.field("x-forwarded-for").is_some()
        && !shared.config.trusted_proxies.contains(&peer)
        && !shared.hinted.swap(true, Ordering::Relaxed)
    {
        log::warn(&format!(
            "X-Forwarded-For from {peer} is ignored: if that is your reverse proxy, start with \
             --trusted-proxy {peer}, else all its clients share one address"
        ));
    }
}

/// Ends an answered connection: closing it with something unread would reset it, and the reset
/// could overtake the answer (RFC 9112, section 9.6).
fn linger(shared: &Shared, mut stream: &TcpStream, user: bool) {
    let (bytes, ms) = match user {
        true => (LINGER_USER_BYTES, LINGER_USER_MS),
        false => (LINGER_BYTES, LINGER_MS),
    };
    let (begin, brief) = (Instant::now(), Duration::from_millis(LINGER_MS));
    let end = begin + Duration::from_millis(ms);
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.set_read_timeout(Some(brief));
    let mut dropped = 0;
    let mut piece = vec![0; if user { PIECE_BYTES } else { HEAD_READ_BYTES }];
    while dropped < bytes && Instant::now() < end {
        if shared.stopping.load(Ordering::SeqCst) && Instant::now() > begin + brief {
            return;
        }
        match retry_interrupted(|| stream.read(&mut piece)) {
            Ok(n) if n > 0 => dropped += n,
            _ => return,
        }
    }
}

fn timed_out(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn retry_interrupted(mut read: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match read() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}
