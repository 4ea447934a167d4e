//! Reads a request head strictly (RFC 9110, RFC 9112): what the grammar has is taken, but where
//! two readers could disagree on where a request ends or what it asks for, it is refused.

use super::error::Error;
use crate::util::limits::{HEAD_BYTES_MAX, HEAD_FIELDS_MAX, METHOD_CHARS_MAX};
use crate::util::types::digits;

/// One request head that passed every rule. It may hold credentials and is not `Debug`.
pub struct Head {
    /// As sent: methods are case-sensitive (RFC 9110, section 9.1).
    pub method: String,
    /// Path and query in origin form, not decoded.
    pub target: String,
    /// True for HTTP/1.1, false for HTTP/1.0.
    pub http11: bool,
    /// The lines of the fields that this program reads, in order: the field's name as it is spelled
    /// here, and a value of printable ASCII without spaces around it.
    pub lines: Vec<(&'static str, String)>,
    /// The bytes of body that are declared.
    pub content_length: Option<u64>,
}

/// Fields that this program reads and that no two lines may carry. A list cannot be told from a
/// second opinion, and two readers that pick different lines serve two different requests.
const SINGLETONS: [&str; 8] = [
    "Host", "Content-Length", "Content-Type", "Content-Range", "Authorization", "Expect", "Origin",
    "Sec-Fetch-Site",
];
/// The other fields that this program reads. Every field that is not named here or above is passed
/// over, and what it holds goes nowhere.
const LISTS: [&str; 8] = [
    "Transfer-Encoding", "Connection", "Content-Encoding", "Accept", "If-Match", "If-None-Match",
    "X-Forwarded-For", "X-Forwarded-Host",
];

/// Parses the head at the front of `buf`, and returns it with its length, including the empty line
/// that ends it and the one that may stand before it (RFC 9112, section 2.2); what follows is not
/// looked at. `None`: it needs more.
///
/// An error names the first byte that can never be part of a good head, without waiting for the
/// end: a client that speaks another protocol is told at once.
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

/// Errors of syntax, wherever they stand, come before those of meaning: only a head that every
/// reader understands alike is judged by what it asks for.
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

    /// Bytes of body that follow; none declared means none (RFC 9112, section 6.3).
    pub fn body_bytes(&self) -> u64 {
        self.content_length.unwrap_or(0)
    }

    /// The values of the lines of a field that this program reads, in order.
    pub fn fields(&self, name: &'static str) -> impl DoubleEndedIterator<Item = &str> {
        let named = self.lines.iter().filter(move |(found, _)| found.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str())
    }

    /// The first of them.
    pub fn field(&self, name: &'static str) -> Option<&str> {
        self.fields(name).next()
    }

    /// True if the client may send another request on this connection: HTTP/1.1 without
    /// `Connection: close` (RFC 9112, section 9.3). The keep-alive of 1.0 is never offered.
    pub fn keep_alive(&self) -> bool {
        let mut options = self.fields("Connection").flat_map(|line| line.split(','));
        self.http11 && !options.any(|option| option.trim().eq_ignore_ascii_case("close"))
    }

    /// True if the client waits for `100 Continue` before it sends its body. On 1.0 the field is
    /// ignored (RFC 9110, section 10.1.1).
    pub fn expects_continue(&self) -> bool {
        self.http11 && self.field("Expect").is_some()
    }

    /// Checks the fields that frame and route a request; `authority` is that of its target.
    fn check(mut self, authority: Option<&str>) -> Result<Head, Error> {
        let host = self.field("Host");
        if self.http11 && host.is_none() {
            return Err(Error::malformed("the Host header is missing"));
        }
        // Where they differ, RFC 9112, section 3.2.2, has the target win; older readers do not.
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

/// `METHOD SP target SP HTTP-version` (RFC 9112, section 3), into a head without fields and the
/// authority that an absolute target has.
fn request_line(line: &[u8]) -> Result<(Head, Option<&str>), Error> {
    let malformed = || Error::malformed("the request line must be METHOD /path HTTP/1.1");
    let words: Vec<&str> = std::str::from_utf8(line).unwrap_or_default().splitn(4, ' ').collect();
    let &[method, target, version] = words.as_slice() else { return Err(malformed()) };
    // Before the target: other versions may have other forms of it, as HTTP/2's preface has.
    let http11 = match version.strip_prefix("HTTP/").map(str::as_bytes) {
        Some(b"1.1") => true,
        Some(b"1.0") => false,
        Some([b'0'..=b'9', b'.', b'0'..=b'9']) => {
            return Err(Error::new(505, "http_version", "this server speaks HTTP/1.1 and 1.0"));
        }
        _ => return Err(malformed()),
    };
    let method_fits = method.len() <= METHOD_CHARS_MAX && method.bytes().all(|b| is_token(&b));
    // A fragment never leaves a client, and a reader that gets one may cut the path at another
    // place.
    if !method_fits || !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return Err(malformed());
    }
    let (authority, target) = split_target(target).ok_or_else(malformed)?;
    let slash = if target.starts_with('/') { "" } else { "/" };
    let (method, target, lines) = (method.to_owned(), format!("{slash}{target}"), Vec::new());
    Ok((Head { method, target, http11, lines, content_length: None }, authority))
}

/// The authority of a target in absolute form, and its path and query.
fn split_target(target: &str) -> Option<(Option<&str>, &str)> {
    if target.starts_with('/') {
        return Some((None, target));
    }
    let (scheme, rest) = target.split_once("://")?;
    let is_http = ["http", "https"].iter().any(|http| scheme.eq_ignore_ascii_case(http));
    let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    (is_http && !authority.is_empty() && is_host(authority)).then_some((Some(authority), target))
}

/// `token ":" OWS value OWS` (RFC 9112, section 5); None for a field that nothing here reads. A
/// space before the colon and a folded line, which begins with one, have led to smuggled requests:
/// both are refused.
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

/// The characters of a host and port (RFC 3986, section 3.2.2) but the comma, which makes a list.
fn is_host(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(&byte))
}

/// A character of a token (RFC 9110, section 5.6.2).
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
