//! Serves one connection: head, admission, body, application, response, then the next request.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use super::access_log::AccessRecord;
use super::body::receive;
use super::error::{CLIENT_LEFT, Error};
use super::head::{Head, parse};
use super::min_rate::MinRate;
use super::response::Response;
use super::send::send;
use super::slots::Slot;
use super::{Admission, Service, peer};
use crate::util::limits::{
    HEAD_READ_BYTES, LINGER_BYTES, LINGER_MS, LINGER_USER_BYTES, LINGER_USER_MS, SEND_WAIT_MS,
};
use crate::util::types::RandomId;

struct Connection<'a, A: Admission> {
    slot: &'a Slot,
    service: &'a Service<A>,
    /// Keeps bytes read past the end of one request for the next one.
    incoming: BufReader<MinRate<&'a TcpStream>>,
}

/// Serves a connection until it ends.
pub fn serve<A: Admission>(slot: &Slot, service: &Service<A>) -> io::Result<()> {
    let stream = &*slot.stream;
    stream.set_write_timeout(Some(Duration::from_millis(SEND_WAIT_MS)))?;
    // Nagle's algorithm would hold a response back until the client acknowledges the previous one.
    stream.set_nodelay(true)?;
    let incoming = MinRate::new(stream, Duration::ZERO);
    let incoming = BufReader::with_capacity(HEAD_READ_BYTES, incoming);
    let mut connection = Connection { slot, service, incoming };
    while slot.mark_idle() && connection.exchange().is_some() {}
    Ok(())
}

impl<A: Admission> Connection<'_, A> {
    /// Serves one request. Returns None when the connection is over.
    fn exchange(&mut self) -> Option<()> {
        let (slot, gate) = (self.slot, &self.slot.gate);
        let head = match self.read_head() {
            Err(error) if error.status == CLIENT_LEFT => return None,
            head => head,
        };
        let (id, parsed) = (RandomId::draw().ok()?, head.as_ref().ok());
        let mut record = AccessRecord {
            id,
            head: parsed,
            route: "",
            response: Response::empty(CLIENT_LEFT),
            bytes_in: 0,
            bytes_out: 0,
            started: Instant::now(),
            user: None,
            peer: slot.peer,
            metrics: &gate.metrics,
        };
        let response = head.as_ref().map_err(Error::clone);
        let response = response.and_then(|head| self.respond(head, &mut record));
        // With part of the body unread, the start of the next request is unknown.
        let whole = |head: &Head| head.keep_alive() && record.bytes_in == head.body_bytes();
        let keep = parsed.is_some_and(whole) && !slot.stopping();
        record.response = match response {
            Err(error) if error.status == CLIENT_LEFT => return None,
            response => response.unwrap_or_else(Response::from),
        };
        let response = &record.response;
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

    /// Reads a head: the idle timeout bounds its first byte, the head timeout the rest.
    fn read_head(&mut self) -> Result<Head, Error> {
        let (config, mut head) = (&self.slot.gate.config, Vec::new());
        self.incoming.get_mut().set_deadline(config.idle_timeout);
        loop {
            // An empty line, which some clients send after a body, is not a request.
            let (idle, seen) = (b"\r\n".starts_with(&head), head.len());
            match self.incoming.fill_buf() {
                Ok(arrived) => head.extend_from_slice(arrived),
                Err(_) if idle => return Err(Error::new(CLIENT_LEFT, "client_left", "")),
                Err(e) => return Err(Error::not_received(&e, "request head", "--head-timeout")),
            }
            let parsed = parse(&head)?;
            let end = parsed.as_ref().map_or(head.len(), |(_, end)| *end);
            self.incoming.consume(end.saturating_sub(seen));
            if let Some((head, _)) = parsed {
                return Ok(head);
            }
            if idle && !b"\r\n".starts_with(&head) {
                self.incoming.get_mut().set_deadline(config.head_timeout);
            }
        }
    }

    /// Gets a request admitted, receives its body, and returns the application's response.
    fn respond(&mut self, head: &Head, record: &mut AccessRecord<'_>) -> Result<Response, Error> {
        let (config, admission) = (&self.slot.gate.config, &self.service.admission);
        let client = peer::client(self.slot.peer, &config.trusted_proxies, head);
        record.peer = client.address;
        self.slot.begin_request(client.address)?;
        let (spool, mut ticket) = admission.admit(head, client, record)?;
        let (length, mut body) = (head.body_bytes(), Vec::new());
        if length > 0 {
            // A waiting client is told to send the body (RFC 9110, section 10.1.1).
            if head.expects_continue() && self.incoming.buffer().is_empty() {
                let written = (&*self.slot.stream).write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
                written.map_err(Error::of_body)?;
            }
            let sink = |bytes: &[u8]| admission.receive_piece(&mut ticket, bytes);
            self.incoming.get_mut().set_grace(config.body_grace);
            body = receive(&mut self.incoming, length, spool, sink)?;
        }
        // Set only once the body is complete: it tells `exchange` that nothing of it is unread.
        record.bytes_in = length;
        admission.after_body(&mut ticket, &body)?;
        self.service.upstream.forward(record.id, head, ticket, &body)
    }

    /// Ends a connection after its last response. Reads what is left first: closing with unread
    /// bytes sends a reset, which could overtake the response (RFC 9112, section 9.6).
    fn linger(&mut self, user: bool) {
        let bytes = if user { LINGER_USER_BYTES } else { LINGER_BYTES };
        let (begin, brief) = (Instant::now(), Duration::from_millis(LINGER_MS));
        let _ = self.slot.stream.shutdown(Shutdown::Write);
        let (mut unread, mut piece) = (self.incoming.by_ref().take(bytes), [0; 256]);
        loop {
            let patient = user && !self.slot.stopping();
            let limit = if patient { Duration::from_millis(LINGER_USER_MS) } else { brief };
            // A silent peer gets no more time than an unauthenticated client.
            let left = limit.saturating_sub(begin.elapsed()).min(brief);
            unread.get_mut().get_mut().set_deadline(left);
            if !unread.read(&mut piece).is_ok_and(|n| n > 0) {
                return;
            }
        }
    }
}
