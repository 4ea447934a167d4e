//! One connection: head, decision, body, worker, answer, and again while all is in order.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use super::body::{Broken, receive};
use super::head::{Head, find_end, parse};
use super::send::send;
use super::slots::Slot;
use super::{Vet, peer};
use crate::app::{Body, Response};
use crate::gate::access_log::AccessRecord;
use crate::util::limits::{
    HEAD_READ_BYTES, LINGER_BYTES, LINGER_MS, LINGER_USER_BYTES, LINGER_USER_MS, SEND_WAIT_MS,
};
use crate::util::types::RandomId;

struct Connection<'a> {
    slot: &'a Slot,
    vet: &'a dyn Vet,
    /// What was read with one request and is not part of it waits here for the next.
    incoming: BufReader<&'a TcpStream>,
}

/// Serves a connection until it ends.
pub fn serve(slot: &Slot, vet: &dyn Vet) -> io::Result<()> {
    let stream = &*slot.stream;
    stream.set_write_timeout(Some(Duration::from_millis(SEND_WAIT_MS)))?;
    // An answer must not wait for an acknowledgement of the one before (Nagle's algorithm).
    stream.set_nodelay(true)?;
    let incoming = BufReader::with_capacity(HEAD_READ_BYTES, stream);
    let mut connection = Connection { slot, vet, incoming };
    while slot.wait() && connection.exchange().is_some() {}
    Ok(())
}

impl Connection<'_> {
    /// Serves one request; None once the connection is over.
    fn exchange(&mut self) -> Option<()> {
        let slots = &self.slot.slots;
        let head = self.read_head();
        if matches!(head, Err(Broken::Gone)) {
            return None;
        }
        let mut record = AccessRecord::new(RandomId::draw().ok()?, self.slot.peer, &slots.metrics);
        let (made, keep) = match head {
            Ok(ref head) => (self.request(head, &mut record), head.keep_alive()),
            Err(broken) => (Err(broken), false),
        };
        let (response, keep) = match made {
            Ok(response) => (response, keep && !slots.stopping()),
            Err(Broken::Refused(response)) => (response, false),
            Err(Broken::Gone) => return None,
        };
        record.status = response.status;
        let head = response.head(record.id, !keep);
        let pieces = if record.method == "HEAD" { vec![] } else { response.pieces };
        let sent = send(&self.slot.stream, head, pieces, slots.config.body_grace);
        record.bytes_out = *sent.as_ref().unwrap_or(&0);
        let signed_in = record.user.is_some();
        drop(record);
        sent.ok()?;
        if !keep {
            self.linger(signed_in);
        }
        keep.then_some(())
    }

    /// Waits for a head. It may take its time to begin, and only so long to end.
    fn read_head(&mut self) -> Result<Head, Broken> {
        let Slot { slots, stream, .. } = self.slot;
        stream.set_read_timeout(Some(slots.config.idle_timeout))?;
        let (mut head, mut first) = (Vec::new(), [0]);
        // Nothing was asked: nothing is answered.
        self.incoming.read_exact(&mut first).map_err(|_| Broken::Gone)?;
        let deadline = Instant::now() + slots.config.head_timeout;
        loop {
            let seen = head.len();
            head.extend(first);
            head.extend_from_slice(self.incoming.buffer());
            let end = find_end(&head, seen)?;
            self.incoming.consume(end.unwrap_or(head.len()).saturating_sub(seen + first.len()));
            if let Some(end) = end {
                return Ok(parse(head.get(..end).unwrap_or_default())?);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::from(ErrorKind::TimedOut).into());
            }
            stream.set_read_timeout(Some(left))?;
            self.incoming.read_exact(&mut first)?;
        }
    }

    /// Has the answer made.
    fn request<'h>(
        &mut self, head: &'h Head, record: &mut AccessRecord<'h>,
    ) -> Result<Response, Broken> {
        let config = &self.slot.slots.config;
        (record.method, record.path) = (&head.method, &head.path);
        record.peer = peer::client(self.slot.peer, &config.trusted_proxies, head);
        let vetted = self.slot.serve(record.peer).and_then(|()| self.vet.vet(head, record));
        let length = head.content_length.unwrap_or(0);
        let (sink, answer) = match vetted {
            Ok(admitted) => admitted,
            Err(error) if length == 0 => return Ok(error.into()),
            Err(error) => return Err(error.into()),
        };
        let mut body = Body::Empty;
        if length > 0 {
            // RFC 9110, section 10.1.1: only once the head was found good.
            if head.expects_continue() && self.incoming.buffer().is_empty() {
                let sent = (&*self.slot.stream).write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
                sent.map_err(|_| Broken::Gone)?;
            }
            body = receive(&mut self.incoming, length, sink, config.body_grace)?;
        }
        record.bytes_in = length;
        Ok(answer(body))
    }

    /// Ends an answered connection: closing it with something unread would reset it, and the reset
    /// could overtake the answer (RFC 9112, section 9.6).
    fn linger(&mut self, user: bool) {
        let (bytes, longest) = match user {
            true => (LINGER_USER_BYTES, Duration::from_millis(LINGER_USER_MS)),
            false => (LINGER_BYTES, Duration::from_millis(LINGER_MS)),
        };
        let (begin, brief) = (Instant::now(), Duration::from_millis(LINGER_MS));
        let _ = self.slot.stream.shutdown(Shutdown::Write);
        let _ = self.slot.stream.set_read_timeout(Some(brief));
        let limit = || if self.slot.slots.stopping() { brief } else { longest };
        let (mut unread, mut piece) = (self.incoming.by_ref().take(bytes), [0; 256]);
        let again = |error: io::Error| error.kind() == ErrorKind::Interrupted;
        while begin.elapsed() < limit() && unread.read(&mut piece).map_or_else(again, |n| n > 0) {}
    }
}
