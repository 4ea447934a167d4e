//! Parses request heads strictly (RFC 9110, RFC 9112): accepts what the grammar allows, but refuses
//! a head if two parsers could disagree on where the request ends or what it asks for.

use super::error::Error;
use crate::util::limits::{HEAD_BYTES_MAX, HEAD_FIELDS_MAX, METHOD_CHARS_MAX};
use crate::util::types::digits;

/// A request head that passed every check. It may hold credentials, so it is not `Debug`.
pub struct Head {
    /// As sent: methods are case-sensitive (RFC 9110, section 9.1).
    pub method: String,
    /// Path and query in origin form, not percent-decoded.
    pub target: String,
    /// True for HTTP/1.1, false for HTTP/1.0.
    pub http11: bool,
    /// The lines of the fields that this program reads, in order: the name as spelled in the tables
    /// below, and the value as printable ASCII without surrounding white space.
    pub lines: Vec<(&'static str, String)>,
    /// The declared length of the body in bytes.
    pub content_length: Option<u64>,
}

/// Fields that this program reads and that may appear only once. Repeated lines cannot be told from
/// conflicting ones, and two parsers that pick different lines serve two different requests.
const SINGLETONS: [&str; 8] = [
    "Host", "Content-Length", "Content-Type", "Content-Range", "Authorization", "Expect", "Origin",
    "Sec-Fetch-Site",
];
/// The other fields that this program reads. Every field that is in neither table is skipped, and
/// nothing of its value is kept.
const LISTS: [&str; 8] = [
    "Transfer-Encoding", "Connection", "Content-Encoding", "Accept", "If-Match", "If-None-Match",
    "X-Forwarded-For", "X-Forwarded-Host",
];

/// Parses the head at the front of `buf`. Returns it with its length, which includes the empty line
/// at its end and an optional one before it (RFC 9112, section 2.2), and ignores what follows.
/// Returns `None` if the head is incomplete.
///
/// A byte that no valid head can contain is refused as soon as it arrives: a client that speaks
/// another protocol gets its error at once.
pub fn parse(buf: &[u8]) -> Result<Option<(Head, usize)>, Error> {
    let buf = buf.get(..HEAD_BYTES_MAX).unwrap_or(buf);
    let begin = if buf.starts_with(b"\r\n") { 2 } else { 0 };
    // A lone CR may still become the empty line.
    if let Some(first) = buf.get(begin).filter(|first| !is_token(first) && buf != b"\r") {
        let rule =
            "the request does not begin with a method: use http:// here, https:// at a proxy";
        let reason = (*first == TLS_HANDSHAKE).then_some("tls");
        return Err(Error { reason, ..Error::malformed(rule) });
    }
    let end = buf.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at.saturating_add(4));
    let head = buf.get(..end.unwrap_or(buf.len())).unwrap_or_default();
    let fits = |pair: &[u8]| match pair {
        [b'\r', byte] => *byte == b'\n',
        [_, byte] => matches!(byte, b'\r' | b'\t' | b' '..=b'~' | 0x80..),
        _ => true,
    };
    if !head.windows(2).all(fits) {
        let rule =
            "the request head must be lines that end with CR LF and hold no control character";
        return Err(Error::malformed(rule));
    }
    match end {
        Some(end) => Ok(Some((parse_lines(head)?, end))),
        None if buf.len() >= HEAD_BYTES_MAX => Err(too_large()),
        None => Ok(None),
    }
}

/// Reports syntax errors before semantic ones, wherever they are: only a head that every parser
/// reads alike is judged by what it asks for.
fn parse_lines(head: &[u8]) -> Result<Head, Error> {
    let lines = head.split(|byte| b"\r\n".contains(byte));
    let mut lines = lines.filter(|line| !line.is_empty());
    let (mut head, authority) = request_line(lines.next().unwrap_or_default())?;
    for (n, line) in lines.enumerate() {
        if n == HEAD_FIELDS_MAX {
            return Err(too_large());
        }
        if let Some((name, value)) = field_line(line)? {
            if SINGLETONS.contains(&name) && head.field(name).is_some() {
                return Err(Error::malformed(format!("the {name} header appears twice")));
            }
            head.lines.push((name, value));
        }
    }
    head.check(authority)
}

impl Head {
    /// The target without its query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// Length of the body in bytes; no declared length means no body (RFC 9112, section 6.3).
    pub fn body_bytes(&self) -> u64 {
        self.content_length.unwrap_or(0)
    }

    /// The values of all lines of a field that this program reads, in order.
    pub fn fields(&self, name: &'static str) -> impl DoubleEndedIterator<Item = &str> {
        let named = self.lines.iter().filter(move |(found, _)| found.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str())
    }

    /// The first of these values.
    pub fn field(&self, name: &'static str) -> Option<&str> {
        self.fields(name).next()
    }

    /// True if the client may send another request on this connection: HTTP/1.1 without
    /// `Connection: close` (RFC 9112, section 9.3). Keep-alive of HTTP/1.0 is not supported.
    pub fn keep_alive(&self) -> bool {
        let mut options = self.fields("Connection").flat_map(|line| line.split(','));
        self.http11 && !options.any(|option| option.trim().eq_ignore_ascii_case("close"))
    }

    /// True if the client waits for `100 Continue` before it sends its body. On HTTP/1.0 the field
    /// is ignored (RFC 9110, section 10.1.1).
    pub fn expects_continue(&self) -> bool {
        self.http11 && self.field("Expect").is_some()
    }

    /// Checks the fields that frame and route a request; `authority` is the one in its target.
    fn check(mut self, authority: Option<&str>) -> Result<Head, Error> {
        let host = self.field("Host");
        if self.http11 && host.is_none() {
            return Err(Error::malformed("the Host header is missing"));
        }
        // If they differ, RFC 9112, section 3.2.2, prefers the target, but older parsers do not.
        let same = |host: &str| authority.is_none_or(|target| target.eq_ignore_ascii_case(host));
        if !host.is_none_or(|host| is_host(host) && same(host)) {
            let rule = "the Host header must be one host, and that of an absolute target";
            return Err(Error::malformed(rule));
        }
        let bad = || Error::malformed("the Content-Length header is not a number of bytes");
        let length = self.field("Content-Length").map(|value| digits(value).ok_or_else(bad));
        self.content_length = length.transpose()?;
        if self.field("Transfer-Encoding").is_some() {
            let only = "send the body with a Content-Length; Transfer-Encoding is not accepted";
            return Err(Error::new(411, "length_required", only));
        }
        let met = |value: &str| value.eq_ignore_ascii_case("100-continue");
        if self.http11 && !self.field("Expect").is_none_or(met) {
            let only = "the Expect header may be 100-continue and nothing else";
            return Err(Error::new(417, "expectation_failed", only));
        }
        Ok(self)
    }
}

/// Parses `METHOD SP target SP HTTP-version` (RFC 9112, section 3). Returns a head without fields,
/// and the authority of a target in absolute form.
fn request_line(line: &[u8]) -> Result<(Head, Option<&str>), Error> {
    let malformed = || Error::malformed("the request line must be METHOD /path HTTP/1.1");
    let words: Vec<&str> = std::str::from_utf8(line).unwrap_or_default().splitn(4, ' ').collect();
    let &[method, target, version] = words.as_slice() else { return Err(malformed()) };
    // Checked before the target, which other versions may write differently (HTTP/2's preface).
    let http11 = match version.strip_prefix("HTTP/").map(str::as_bytes) {
        Some(b"1.1") => true,
        Some(b"1.0") => false,
        Some([b'0'..=b'9', b'.', b'0'..=b'9']) => {
            return Err(Error::new(505, "http_version", "this server speaks HTTP/1.1 and 1.0"));
        }
        _ => return Err(malformed()),
    };
    let method_fits = method.len() <= METHOD_CHARS_MAX && method.bytes().all(|b| is_token(&b));
    // Clients never send a fragment, and another parser that gets one may end the path elsewhere.
    if !method_fits || !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return Err(malformed());
    }
    let (authority, target) = split_target(target).ok_or_else(malformed)?;
    let slash = if target.starts_with('/') { "" } else { "/" };
    let (method, target, lines) = (method.to_owned(), format!("{slash}{target}"), Vec::new());
    Ok((Head { method, target, http11, lines, content_length: None }, authority))
}

/// Splits a target into the authority, if it is in absolute form, and its path and query.
fn split_target(target: &str) -> Option<(Option<&str>, &str)> {
    if target.starts_with('/') {
        return Some((None, target));
    }
    let (scheme, rest) = target.split_once("://")?;
    let is_http = ["http", "https"].iter().any(|http| scheme.eq_ignore_ascii_case(http));
    let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    (is_http && !authority.is_empty() && is_host(authority)).then_some((Some(authority), target))
}

/// Parses `token ":" OWS value OWS` (RFC 9112, section 5). Returns None for a field that this
/// program does not read. A space before the colon and a folded line, which begins with a space,
/// have enabled request smuggling: both are refused.
fn field_line(line: &[u8]) -> Result<Option<(&'static str, String)>, Error> {
    let mut parts = line.splitn(2, |byte| *byte == b':');
    let name = parts.next().filter(|name| !name.is_empty() && name.iter().all(is_token));
    let (Some(name), Some(value)) = (name, parts.next()) else {
        return Err(Error::malformed("a header line must begin with a name and a colon"));
    };
    let mut known = SINGLETONS.into_iter().chain(LISTS);
    let Some(name) = known.find(|known| known.as_bytes().eq_ignore_ascii_case(name)) else {
        return Ok(None);
    };
    match std::str::from_utf8(value.trim_ascii()) {
        Ok(value) if value.is_ascii() => Ok(Some((name, value.replace('\t', " ")))),
        _ => Err(Error::malformed(format!("the {name} header must be ASCII"))),
    }
}

/// True for characters of a host and port (RFC 3986, section 3.2.2), but not the list comma.
fn is_host(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(&byte))
}

/// True for a character of a token (RFC 9110, section 5.6.2).
fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

/// The first byte of a TLS connection (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

fn too_large() -> Error {
    Error::new(431, "head_too_large", "the request head is too large")
}

#[cfg(test)]
mod tests;
