//! A client that speaks raw bytes.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddrV4, TcpStream};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

/// Longest wait for anything that must come: far above what it takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// One end of a connection to the server.
pub struct Client {
    pub stream: TcpStream,
    /// Received and not yet taken.
    ahead: Vec<u8>,
}

/// One answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// Connects from an address of the loopback network; a small receive buffer makes a reader that
/// does not read one that cannot be written to.
pub fn connect(from: [u8; 4], to: SocketAddrV4, receive_bytes: Option<usize>) -> Client {
    let kind = (AddressFamily::INET, SocketType::STREAM);
    let socket = rustix::net::socket_with(kind.0, kind.1, SocketFlags::CLOEXEC, None).unwrap();
    if let Some(bytes) = receive_bytes {
        sockopt::set_socket_recv_buffer_size(&socket, bytes).unwrap();
    }
    rustix::net::bind(&socket, &SocketAddrV4::new(from.into(), 0)).unwrap();
    rustix::net::connect(&socket, &to).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    Client { stream, ahead: Vec::new() }
}

impl Client {
    /// Sends all of it.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// Sends what the server takes; it may have closed already.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Says that no more will be sent.
    pub fn finish(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Closes with a reset instead of a farewell.
    pub fn reset(self) {
        sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO)).unwrap();
    }

    /// The next answer.
    pub fn answer(&mut self) -> Answer {
        self.answer_or_end(false).expect("an answer, not the end")
    }

    /// The next answer to a HEAD request.
    pub fn answer_to_head(&mut self) -> Answer {
        self.answer_or_end(true).expect("an answer, not the end")
    }

    /// The next answer, or None if the server closed before a byte of one.
    pub fn answer_or_end(&mut self, no_body: bool) -> Option<Answer> {
        let (answer, end) = loop {
            if let Some(found) = parse(&self.ahead, no_body) {
                break found;
            }
            let mut piece = [0; 64 * 1024];
            match self.stream.read(&mut piece) {
                Ok(0) if self.ahead.is_empty() => return None,
                Err(e) if e.kind() == ErrorKind::ConnectionReset && self.ahead.is_empty() => {
                    return None;
                }
                Ok(n) if n > 0 => self.ahead.extend_from_slice(&piece[..n]),
                other => panic!("{other:?} after {}", self.ahead.escape_ascii()),
            }
        };
        self.ahead.drain(..end);
        Some(answer)
    }

    /// Everything until the server closes, which it must.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut piece = vec![0; 64 * 1024];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => break,
                Ok(n) => self.ahead.extend_from_slice(&piece[..n]),
                Err(e) if e.kind() == ErrorKind::ConnectionReset => break,
                Err(e) => panic!("not closed: {e} after {}", self.ahead.escape_ascii()),
            }
        }
        std::mem::take(&mut self.ahead)
    }

    /// Asserts that the server closes and sends nothing more.
    pub fn assert_closed(&mut self, about: &str) {
        let rest = self.rest();
        assert!(rest.is_empty(), "{about}: then came {}", rest.escape_ascii());
    }

    /// Asserts that the connection serves another request.
    pub fn assert_reusable(&mut self, about: &str) {
        self.send(get("/healthz"));
        assert_eq!(self.answer().status, 200, "{about}: not reusable");
    }
}

impl Answer {
    /// The one field of this name.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut found = self.fields.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        let first = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} stands twice: {self:?}");
        first
    }

    /// True if the server says that it will close.
    pub fn closes(&self) -> bool {
        self.field("connection") == Some("close")
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// A complete answer at the front, and where it ends.
fn parse(bytes: &[u8], no_body: bool) -> Option<(Answer, usize)> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(head) = response.parse(bytes).unwrap() else { return None };
    let status = response.code.unwrap();
    let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
    let fields: Vec<_> =
        response.headers.iter().map(|f| (f.name.to_owned(), text(f.value))).collect();
    let mut answer = Answer { status, fields, body: Vec::new() };
    let length = match answer.field("content-length") {
        _ if no_body || status < 200 || matches!(status, 204 | 304) => 0,
        length => length.expect("every answer has a length").parse().unwrap(),
    };
    answer.body = bytes.get(head..head + length)?.to_vec();
    Some((answer, head + length))
}

/// All answers in what a server sent until it closed; an error if the last is not complete.
pub fn answers(mut bytes: &[u8]) -> Result<Vec<Answer>, String> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let Some((answer, end)) = parse(bytes, false) else {
            return Err(format!("incomplete: {}", bytes.escape_ascii()));
        };
        found.push(answer);
        bytes = &bytes[end..];
    }
    Ok(found)
}

/// A request without a body.
pub fn get(path: &str) -> String {
    request("GET", path, "")
}

/// A request with these field lines, each with its CR LF.
pub fn request(method: &str, path: &str, fields: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: t\r\n{fields}\r\n")
}
