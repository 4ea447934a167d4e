//! One connection: head, admission, body, application, response, and again while all is in order.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use super::access_log::AccessRecord;
use super::error::{CLIENT_LEFT, Error};
use super::head::{Head, parse};
use super::response::Response;
use super::send::send;
use super::slots::Slot;
use super::spool::receive;
use super::{Admission, Service, peer};
use crate::util::limits::{
    HEAD_READ_BYTES, LINGER_BYTES, LINGER_MS, LINGER_USER_BYTES, LINGER_USER_MS, SEND_WAIT_MS,
};
use crate::util::types::RandomId;

struct Connection<'a, A: Admission> {
    slot: &'a Slot,
    service: &'a Service<A>,
    /// What was read with one request and is not part of it waits here for the next.
    incoming: BufReader<&'a TcpStream>,
}

/// Serves a connection until it ends.
pub fn serve<A: Admission>(slot: &Slot, service: &Service<A>) -> io::Result<()> {
    let stream = &*slot.stream;
    stream.set_write_timeout(Some(Duration::from_millis(SEND_WAIT_MS)))?;
    // A response must not wait for the acknowledgement of the one before (Nagle's algorithm).
    stream.set_nodelay(true)?;
    let incoming = BufReader::with_capacity(HEAD_READ_BYTES, stream);
    let mut connection = Connection { slot, service, incoming };
    while slot.mark_idle() && connection.exchange().is_some() {}
    Ok(())
}

impl<A: Admission> Connection<'_, A> {
    /// Serves one request; None once the connection is over.
    fn exchange(&mut self) -> Option<()> {
        let (slot, gate) = (self.slot, &self.slot.gate);
        let head = match self.read_head() {
            Err(error) if error.status == CLIENT_LEFT => return None,
            head => head,
        };
        let (id, parsed) = (RandomId::draw().ok()?, head.as_ref().ok());
        let mut record = AccessRecord::new(id, parsed, slot.peer, &gate.metrics);
        let response = match &head {
            Ok(head) => self.respond(head, &mut record),
            Err(error) => Err(error.clone()),
        };
        // What is unread of a body cannot be told from the next request.
        let whole = |head: &Head| head.keep_alive() && record.bytes_in == head.body_bytes();
        let keep = parsed.is_some_and(whole) && !slot.stopping();
        let response = match response {
            Err(error) if error.status == CLIENT_LEFT => return None,
            response => response.unwrap_or_else(Response::from),
        };
        record.status = response.status;
        record.code = response.code.clone();
        record.reason = response.reason;
        let of_head = parsed.is_some_and(|head| head.method == "HEAD");
        let head_bytes = response.head(id, (gate.config.phrase)(response.status), !keep);
        let grace = gate.config.body_grace;
        let (bytes, sent) = send(&slot.stream, &head_bytes, response, of_head, grace);
        record.bytes_out = bytes;
        let signed_in = record.user.is_some();
        drop(record);
        sent.ok()?;
        if !keep {
            self.linger(signed_in);
        }
        keep.then_some(())
    }

    /// Waits for a head. It may take its time to begin, and only so long to end.
    fn read_head(&mut self) -> Result<Head, Error> {
        let config = &self.slot.gate.config;
        let (mut head, mut deadline) = (Vec::new(), Instant::now() + config.idle_timeout);
        loop {
            // Some clients send an empty line after a body. It is no request and gets no response.
            let idle = b"\r\n".starts_with(&head);
            let arrived = match self.wait_until(deadline) {
                Err(_) if idle => return Err(Error::new(CLIENT_LEFT, "client_left", "")),
                Err(e) => return Err(Error::not_received(&e, "request head", "--head-timeout")),
                Ok(arrived) => arrived,
            };
            let seen = head.len();
            head.extend_from_slice(arrived);
            let parsed = parse(&head)?;
            let end = parsed.as_ref().map_or(head.len(), |(_, end)| *end);
            self.incoming.consume(end.saturating_sub(seen));
            if let Some((head, _)) = parsed {
                return Ok(head);
            }
            if idle && !b"\r\n".starts_with(&head) {
                deadline = Instant::now() + config.head_timeout;
            }
        }
    }

    /// Waits for bytes, at least one, and leaves them where they are.
    fn wait_until(&mut self, deadline: Instant) -> io::Result<&[u8]> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            self.slot.stream.set_read_timeout(Some(left))?;
            match self.incoming.fill_buf() {
                Ok([]) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => return Ok(self.incoming.buffer()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Has a request admitted, receives its body, and gets the application's response.
    fn respond(&mut self, head: &Head, record: &mut AccessRecord<'_>) -> Result<Response, Error> {
        let (config, admission) = (&self.slot.gate.config, &self.service.admission);
        let client = peer::client(self.slot.peer, &config.trusted_proxies, head);
        record.peer = client.address;
        self.slot.begin_request(client.address)?;
        let (spool, mut ticket) = admission.admit(head, client, record)?;
        let (length, mut body) = (head.body_bytes(), Vec::new());
        if length > 0 {
            // Who waits for it is told that the body may come (RFC 9110, section 10.1.1).
            if head.expects_continue() && self.incoming.buffer().is_empty() {
                let written = (&*self.slot.stream).write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
                written.map_err(Error::of_body)?;
            }
            let store = |bytes: &[u8]| admission.store(&mut ticket, bytes);
            body = receive(&mut self.incoming, length, spool, config.body_grace, store)?;
        }
        record.bytes_in = length;
        admission.prepare(&mut ticket, &body)?;
        self.service.upstream.forward(record.id, head, ticket, &body)
    }

    /// Ends a connection after its last response: closing it with something unread would reset it, and the reset
    /// could overtake the response (RFC 9112, section 9.6).
    fn linger(&mut self, user: bool) {
        let (bytes, timeout) = match user {
            true => (LINGER_USER_BYTES, Duration::from_millis(LINGER_USER_MS)),
            false => (LINGER_BYTES, Duration::from_millis(LINGER_MS)),
        };
        let (begin, brief) = (Instant::now(), Duration::from_millis(LINGER_MS));
        let _ = self.slot.stream.shutdown(Shutdown::Write);
        let _ = self.slot.stream.set_read_timeout(Some(brief));
        let limit = || if self.slot.stopping() { brief } else { timeout };
        let (mut unread, mut piece) = (self.incoming.by_ref().take(bytes), [0; 256]);
        let again = |error: io::Error| error.kind() == ErrorKind::Interrupted;
        while begin.elapsed() < limit() && unread.read(&mut piece).map_or_else(again, |n| n > 0) {}
    }
}
