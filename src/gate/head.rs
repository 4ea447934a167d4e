//! Reads a request head strictly: only the one spelling that every parser reads the same way
//! passes (RFC 9110, RFC 9112), so that nothing before or behind this server can disagree on
//! where a request ends or what it asks for.

use super::error::Error;
use crate::util::limits::{HEAD_BYTES_MAX, HEAD_FIELDS_MAX};

/// One request head that passed every rule. It may hold credentials and is not `Debug`.
pub struct Head {
    /// As sent: methods are case-sensitive (RFC 9110, section 9.1).
    pub method: String,
    /// The target's path, not decoded.
    pub path: String,
    /// The target's query, what follows the first `?`, not decoded.
    pub query: Option<String>,
    /// True for HTTP/1.1, false for HTTP/1.0.
    pub http11: bool,
    /// Name and value of each field line, in order, without the spaces around the value.
    pub lines: Vec<(String, String)>,
    /// Bytes of body that follow; none declared means none (RFC 9112, section 6.3).
    pub content_length: Option<u64>,
}

/// Characters of a method at most; the longest registered one has 17 and belongs to WebDAV.
const METHOD_CHARS_MAX: usize = 16;

/// Fields that no two lines may carry. A list cannot be told from a second opinion, and two
/// readers that pick different lines serve two different requests.
const SINGLETONS: [&str; 5] = ["host", "content-length", "content-type", "authorization", "expect"];

/// Looks for the end of the head at the front of `buf`, whose first `seen` bytes passed an
/// earlier call.
///
/// `Some(len)`: the head is complete and takes `len` bytes, its empty line included; what follows
/// was not looked at. `None`: it needs more. An error names the first byte that can never be part
/// of a good head, without waiting for the end: a stranger who speaks another protocol is told at
/// once. Lines end with CR LF and hold nothing but 0x20 to 0x7e (RFC 9112, section 2.2, and RFC
/// 9110, section 5.5, let a server refuse more lenient spellings).
pub fn find_end(buf: &[u8], seen: usize) -> Result<Option<usize>, Error> {
    if buf.first().is_some_and(|&first| !is_token(first)) {
        return Err(Error::malformed("the request does not begin with a method"));
    }
    let head = buf.get(..HEAD_BYTES_MAX).unwrap_or(buf);
    let mut after_cr = seen.checked_sub(1).and_then(|last| head.get(last)) == Some(&b'\r');
    for (at, &byte) in head.iter().enumerate().skip(seen) {
        let fits = if after_cr { byte == b'\n' } else { matches!(byte, b'\r' | b' '..=b'~') };
        if !fits {
            let rule = "the request head must be lines of printable ASCII that end with CR LF";
            return Err(Error::malformed(rule));
        }
        if byte == b'\n' && head.get(..=at).is_some_and(|read| read.ends_with(b"\r\n\r\n")) {
            return Ok(Some(at.saturating_add(1)));
        }
        after_cr = byte == b'\r';
    }
    if head.len() >= HEAD_BYTES_MAX { Err(too_large()) } else { Ok(None) }
}

/// Parses a head that `find_end` found complete.
///
/// Errors of syntax, wherever they stand, come before those of meaning: only a head that every
/// reader understands alike is judged by what it asks for.
pub fn parse(head: &[u8]) -> Result<Head, Error> {
    // Looked at again, so that this function alone decides what a `Head` may hold.
    let ended = find_end(head, 0)? == Some(head.len());
    let text = std::str::from_utf8(head).ok().filter(|_| ended);
    let mut lines = text.ok_or_else(|| Error::malformed("the request head is cut short"))?.lines();
    let mut head = request_line(lines.next().unwrap_or_default())?;
    for line in lines.filter(|line| !line.is_empty()) {
        if head.lines.len() == HEAD_FIELDS_MAX {
            return Err(too_large());
        }
        head.lines.push(field_line(line)?);
    }
    head.check()
}

impl Head {
    /// The values of the field lines of this name in any case, in order.
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
        let mut options = self.fields("connection").flat_map(|line| line.split(','));
        self.http11 && !options.any(|option| option.trim().eq_ignore_ascii_case("close"))
    }

    /// True if the client waits for `100 Continue` before it sends its body. On 1.0 the field is
    /// ignored (RFC 9110, section 10.1.1).
    pub fn expects_continue(&self) -> bool {
        self.http11 && self.field("expect").is_some()
    }

    /// Checks the fields that frame and route a request.
    fn check(mut self) -> Result<Head, Error> {
        if SINGLETONS.iter().any(|name| self.fields(name).count() > 1) {
            return Err(Error::malformed("a field that may appear once appears twice"));
        }
        match self.field("host") {
            None if self.http11 => return Err(Error::malformed("the Host field is missing")),
            // What belongs to other parts of a URI, or makes a list (RFC 9112, section 3.2).
            Some(host) if host.contains([' ', '/', '@', ',', '?', '#', '\\']) => {
                return Err(Error::malformed("the Host field is not a host"));
            }
            _ => {}
        }
        self.content_length = self.field("content-length").map(length).transpose()?;
        if self.field("transfer-encoding").is_some() {
            let only = "send the body with a Content-Length; Transfer-Encoding is not accepted";
            return Err(Error::new(411, "length_required", only));
        }
        let met = |value: &str| value.eq_ignore_ascii_case("100-continue");
        if self.http11 && !self.field("expect").is_none_or(met) {
            return Err(Error::new(417, "expectation_failed", "only 100-continue may be expected"));
        }
        Ok(self)
    }
}

/// `METHOD SP origin-form SP HTTP-version` (RFC 9112, section 3), into a head without fields.
fn request_line(line: &str) -> Result<Head, Error> {
    let malformed = || Error::malformed("the request line must be METHOD /path HTTP/1.1");
    let words: Vec<&str> = line.splitn(4, ' ').collect();
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
    let method_fits = (1..=METHOD_CHARS_MAX).contains(&method.len());
    // A fragment never leaves a client, and who sees one may cut the path at another place.
    let target_fits = target.starts_with('/') && !target.contains('#');
    if !method_fits || !method.bytes().all(is_token) || !target_fits {
        return Err(malformed());
    }
    let mut parts = target.splitn(2, '?').map(str::to_owned);
    let (method, path, query) = (method.to_owned(), parts.next().unwrap_or_default(), parts.next());
    Ok(Head { method, path, query, http11, lines: Vec::new(), content_length: None })
}

/// `token ":" OWS value OWS` (RFC 9112, section 5). A space before the colon and a folded line,
/// which begins with one, have led to smuggled requests: both are refused.
fn field_line(line: &str) -> Result<(String, String), Error> {
    match line.split_once(':') {
        Some((name, value)) if !name.is_empty() && name.bytes().all(is_token) => {
            Ok((name.to_owned(), value.trim_matches(' ').to_owned()))
        }
        _ => Err(Error::malformed("a field line does not begin with a token and a colon")),
    }
}

/// Digits only: `parse` alone would take a sign (RFC 9110, section 8.6).
fn length(value: &str) -> Result<u64, Error> {
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    let length = value.parse().ok().filter(|_| digits);
    length.ok_or_else(|| Error::malformed("Content-Length is not a number of bytes"))
}

fn too_large() -> Error {
    Error::new(431, "head_too_large", "the request head is too large")
}

/// A character of a token (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

    use super::*;

    const GOOD: &[u8] = b"GET /a?b HTTP/1.1\r\nHost: h\r\n\r\n";

    /// Finds the end at once and byte by byte, which must agree, then parses.
    fn read(bytes: &[u8]) -> Result<Head, Error> {
        let end = find_end(bytes, 0);
        let slowly = (1..=bytes.len()).map(|n| find_end(&bytes[..n], n - 1));
        let slowly = slowly.into_iter().find(|found| *found != Ok(None));
        assert_eq!(slowly.unwrap_or(Ok(None)), end);
        match end? {
            Some(end) => parse(&bytes[..end]),
            None => parse(bytes),
        }
    }

    fn get(fields: &str) -> Result<Head, Error> {
        read(format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n").as_bytes())
    }

    fn get10(fields: &str) -> Result<Head, Error> {
        read(format!("GET / HTTP/1.0\r\n{fields}\r\n").as_bytes())
    }

    fn line(line: &str) -> Result<Head, Error> {
        read(format!("{line}\r\nHost: h\r\n\r\n").as_bytes())
    }

    /// The status of a refusal.
    fn status<T>(result: &Result<T, Error>) -> Option<u16> {
        result.as_ref().err().map(|error| error.status)
    }

    fn is_malformed<T>(result: &Result<T, Error>) -> bool {
        status(result) == Some(400)
    }

    #[test]
    fn a_good_head_comes_back_in_its_parts() {
        let text = b"POST /a/b?c=d?e HTTP/1.1\r\nHOST:h:80\r\nX:  a  b \r\n\
            Content-Length: 5\r\nx:\r\n\r\n";
        let with_body = [text, "\0body\r\n\r\n".as_bytes()].concat();
        assert_eq!(find_end(&with_body, 0), Ok(Some(text.len())));
        let head = parse(text).ok().unwrap();
        assert_eq!(
            (&*head.method, &*head.path, head.query.as_deref()),
            ("POST", "/a/b", Some("c=d?e"))
        );
        assert_eq!((head.field("host"), head.field("y")), (Some("h:80"), None));
        assert_eq!(head.fields("X").collect::<Vec<_>>(), ["a  b", ""]);
        assert_eq!(head.content_length, Some(5));
        assert!(head.http11 && head.keep_alive() && !head.expects_continue());
        assert_eq!(line("GET / HTTP/1.1").ok().unwrap().query, None);
    }

    #[test]
    fn other_protocols_are_refused_at_their_first_byte() {
        for first in [0x16, b'\r', b'\n', b' ', 0, 0x80, b':', b'/', b'"'] {
            assert!(is_malformed(&find_end(&[first], 0)), "{first}");
        }
        assert_eq!(find_end(b"", 0), Ok(None));
        assert_eq!(find_end(b"G", 0), Ok(None));
    }

    #[test]
    fn every_byte_that_is_no_printable_ascii_is_refused_where_it_stands() {
        for byte in (0..=255_u8).filter(|byte| !(b' '..=b'~').contains(byte)) {
            for at in 1..GOOD.len() {
                let mut bytes = GOOD[..at].to_vec();
                bytes.push(byte);
                let fits = GOOD[at] == byte || byte == b'\r' && GOOD[at - 1] != b'\r';
                assert_eq!(find_end(&bytes, 0).is_ok(), fits, "{byte} {at}");
                assert_eq!(find_end(&bytes, at).is_ok(), fits, "{byte} {at}");
            }
        }
    }

    #[test]
    fn a_cr_without_lf_and_an_lf_without_cr_are_refused() {
        for bad in ["G\n", "G\r\n\n", "G\rE", "G\r\r", "G\r\n\r ", "G\r\n\r\r"] {
            assert!(is_malformed(&read(bad.as_bytes())), "{bad:?}");
            assert!(is_malformed(&find_end(bad.as_bytes(), bad.len() - 1)));
        }
    }

    #[test]
    fn a_head_may_have_so_many_bytes_and_no_more() {
        let head = |n: usize| [&b"A"[..], &vec![b'b'; n - 5], b"\r\n\r\n"].concat();
        let most = head(HEAD_BYTES_MAX);
        assert_eq!(find_end(&most, 0), Ok(Some(HEAD_BYTES_MAX)));
        assert_eq!(find_end(&most[..HEAD_BYTES_MAX - 1], 0), Ok(None));
        let over = head(HEAD_BYTES_MAX + 1);
        assert_eq!(find_end(&over[..HEAD_BYTES_MAX], 0), Err(too_large()));
        assert_eq!(find_end(&over, 0), Err(too_large()));
    }

    #[test]
    fn a_head_may_have_so_many_fields_and_no_more() {
        assert!(get(&"a: b\r\n".repeat(HEAD_FIELDS_MAX - 1)).is_ok());
        let over = get(&"a: b\r\n".repeat(HEAD_FIELDS_MAX));
        assert_eq!(status(&over), Some(431));
    }

    #[test]
    fn a_request_line_has_one_spelling() {
        for good in ["GET / HTTP/1.1", "A!#$%&'*+-.^_`|~ //x?y HTTP/1.1", "get /%00\"{} HTTP/1.0"] {
            assert!(line(good).is_ok(), "{good}");
        }
        for bad in [
            "GET /", "GET / ", "GET", "GET  / HTTP/1.1", "GET /  HTTP/1.1", "GET / HTTP/1.1 ",
            "GET / x HTTP/1.1", "GET http://h/ HTTP/1.1", "OPTIONS * HTTP/1.1",
            "GET /a#b HTTP/1.1", "CONNECT h:443 HTTP/1.1", "GET ?a HTTP/1.1", "GET / http/1.1",
            "GET / HTTP/1", "GET / HTTP/1.10", "GET / HTTP/11.1", "GET / HTTPS/1.1",
            "GET / HTTP/1,1", "GET / HTTP/ 1.1", "G(T / HTTP/1.1", "ABCDEFGHIJKLMNOPQ / HTTP/1.1",
        ] {
            assert!(is_malformed(&line(bad)), "{bad}");
        }
        assert!(line("ABCDEFGHIJKLMNOP / HTTP/1.1").is_ok());
    }

    #[test]
    fn another_version_is_named_before_its_target_is_looked_at() {
        for other in ["PRI * HTTP/2.0", "GET / HTTP/0.9", "GET http://h HTTP/3.0", "GET / HTTP/1.2"]
        {
            assert_eq!(status(&line(other)), Some(505), "{other}");
        }
        assert_eq!(status(&read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")), Some(505));
    }

    #[test]
    fn a_field_line_has_one_spelling() {
        for good in ["a:b", "a: b", "a:   b  ", "a:", "a: ", "a:b:c", "!#$%&'*+-.^_`|~0: b"] {
            assert!(get(&format!("{good}\r\n")).is_ok(), "{good}");
        }
        for bad in ["a : b", " a: b", " b", "a", ":b", "a b: c", "a(b): c", "a/b: c", "\"a\": b"] {
            assert!(is_malformed(&get(&format!("{bad}\r\n"))), "{bad}");
        }
    }

    #[test]
    fn a_content_length_is_one_line_of_digits() {
        for (text, length) in [("0", 0), ("007", 7), ("18446744073709551615", u64::MAX)] {
            let head = get(&format!("content-length: {text} \r\n")).ok().unwrap();
            assert_eq!(head.content_length, Some(length));
        }
        let over = ["18446744073709551616", "9999999999999999999999999"];
        for bad in ["", "-1", "+1", "1 2", "5, 5", "5,5", "0x5", "5.0", "a"].iter().chain(&over) {
            assert!(is_malformed(&get(&format!("Content-Length: {bad}\r\n"))), "{bad}");
        }
        assert!(is_malformed(&get("Content-Length: 5\r\ncontent-length: 5\r\n")));
    }

    #[test]
    fn every_transfer_encoding_is_refused_with_411() {
        for fields in [
            "Transfer-Encoding: chunked\r\n",
            "transfer-encoding:\r\n",
            "Transfer-Encoding: identity\r\nTransfer-Encoding: gzip, chunked\r\n",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Expect: other\r\nTransfer-Encoding: x\r\n",
        ] {
            assert_eq!(status(&get(fields)), Some(411), "{fields}");
            assert_eq!(status(&get10(fields)), Some(411), "{fields}");
        }
    }

    #[test]
    fn there_is_one_host_and_on_1_0_there_may_be_none() {
        assert!(is_malformed(&read(b"GET / HTTP/1.1\r\n\r\n")));
        assert!(is_malformed(&get("host: h\r\n")));
        assert!(get10("").is_ok() && get10("Host: h\r\n").is_ok());
        assert!(is_malformed(&get10("Host: h\r\nHost: h\r\n")));
        for good in ["", "h", "h:80", "[::1]:80", "a.example"] {
            assert!(get10(&format!("Host: {good}\r\n")).is_ok(), "{good}");
        }
        for bad in ["a b", "a/b", "http://a", "u@a", "a,b", "a, b", "a?b", "a#b", "a\\b"] {
            assert!(is_malformed(&get10(&format!("Host: {bad}\r\n"))), "{bad}");
        }
    }

    #[test]
    fn fields_that_may_appear_once_are_refused_twice() {
        for (name, value) in [
            ("Authorization", "Bearer a"),
            ("Content-Type", "a/b"),
            ("Expect", "100-continue"),
            ("Content-Length", "1"),
            ("Host", "h"),
        ] {
            let lower = name.to_ascii_lowercase();
            assert!(get10(&format!("{name}: {value}\r\n")).is_ok(), "{name}");
            let twice = get10(&format!("{name}: {value}\r\nx: y\r\n{lower}: {value}\r\n"));
            assert!(is_malformed(&twice), "{name}");
        }
        assert!(get("Accept: a/b\r\nAccept: c/d\r\n").is_ok());
    }

    #[test]
    fn only_100_continue_may_be_expected_and_1_0_expects_nothing() {
        assert!(get("Expect: 100-Continue\r\n").is_ok_and(|head| head.expects_continue()));
        for other in ["", "200-ok", "100-continue, x"] {
            let fields = format!("Expect: {other}\r\n");
            assert_eq!(status(&get(&fields)), Some(417));
            assert!(get10(&fields).is_ok_and(|head| !head.expects_continue()));
        }
        assert!(get10("Expect: 100-continue\r\n").is_ok_and(|head| !head.expects_continue()));
    }

    #[test]
    fn a_connection_is_kept_on_1_1_unless_close_is_among_its_options() {
        for kept in
            ["", "Connection: keep-alive\r\n", "Connection: upgrade\r\n", "Connection: xclose\r\n"]
        {
            assert!(get(kept).is_ok_and(|head| head.keep_alive()), "{kept}");
        }
        for closed in [
            "Connection: CLOSE\r\n", "connection: a ,close\r\n",
            "Connection: a\r\nConnection: close\r\n",
        ] {
            assert!(get(closed).is_ok_and(|head| !head.keep_alive()), "{closed}");
        }
        assert!(get10("Connection: keep-alive\r\n").is_ok_and(|head| !head.keep_alive()));
    }

    #[test]
    fn broken_syntax_is_named_before_what_the_head_asks_for() {
        for broken in ["Content-Length: x\r\n", "a\r\n", "Host: h\r\n"] {
            let head = get(&format!("Transfer-Encoding: chunked\r\nExpect: x\r\n{broken}"));
            assert!(is_malformed(&head), "{broken}");
        }
    }

    #[test]
    fn only_one_whole_head_is_parsed() {
        for bad in
            ["", "\r\n\r\n", "GET / HTTP/1.0\r\n", "GET / HTTP/1.0\r\n\r\nx", "G\u{e9}\r\n\r\n"]
        {
            assert!(is_malformed(&parse(bad.as_bytes())), "{bad}");
        }
    }

    /// Whatever passes here, httparse reads the same way. True if it passed.
    fn agrees(bytes: &[u8]) -> bool {
        let Ok(head) = read(bytes) else { return false };
        let mut fields = [httparse::EMPTY_HEADER; HEAD_FIELDS_MAX];
        let mut theirs = httparse::Request::new(&mut fields);
        let end = theirs.parse(bytes).unwrap();
        assert_eq!(find_end(bytes, 0), Ok(Some(end.unwrap())));
        assert_eq!(theirs.method, Some(&*head.method));
        let query = head.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
        assert_eq!(theirs.path, Some(&*format!("{}{query}", head.path)));
        assert_eq!(theirs.version, Some(u8::from(head.http11)));
        let ours = head.lines.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        let theirs = theirs.headers.iter().map(|field| (field.name, field.value.trim_ascii()));
        assert_eq!(ours.collect::<Vec<_>>(), theirs.collect::<Vec<_>>());
        true
    }

    fn heads() -> impl Strategy<Value = Vec<u8>> {
        let name = select(vec![
            "Host", "Content-Length", "Transfer-Encoding", "Expect", "Connection", "X", "accept",
        ]);
        let value = select(vec!["h", "5", "chunked", "100-continue", "close", "a b", "", " c  "]);
        let line = (name, value).prop_map(|(name, value)| format!("{name}: {value}\r\n"));
        let first = select(vec!["GET / HTTP/1.1", "POST /a?b HTTP/1.0", "PUT //c HTTP/1.1"]);
        let head = (first, vec(line, 0..5)).prop_map(|(first, lines)| {
            format!("{first}\r\nHost: h\r\n{}\r\n", lines.concat()).into_bytes()
        });
        let edits = vec((0..5_u8, any::<usize>(), any::<usize>(), any::<u8>()), 0..4);
        (head, edits).prop_map(|(mut bytes, edits)| {
            edits.into_iter().for_each(|edit| mutate(&mut bytes, edit));
            bytes
        })
    }

    /// Flips, inserts, deletes, or copies a piece of the head to another place.
    fn mutate(bytes: &mut Vec<u8>, (kind, at, other, byte): (u8, usize, usize, u8)) {
        let special = b" \r\n:\t/,\0#@\x7f\xffHA0";
        let (at, other) = (at % (bytes.len() + 1), other % (bytes.len() + 1));
        let piece = at.min(other)..at.max(other).min(at.min(other) + usize::from(byte % 24));
        match kind {
            0 if at < bytes.len() => bytes[at] ^= 1 << (byte % 8),
            1 => bytes.insert(at, special[other % special.len()]),
            2 => drop(bytes.drain(piece)),
            3 => bytes.insert(at, byte),
            _ => {
                let copy = bytes[piece].to_vec();
                drop(bytes.splice(at..at, copy));
            }
        }
    }

    #[test]
    fn what_passes_reads_the_same_in_httparse() {
        let config = Config { cases: 5000, failure_persistence: None, ..Config::default() };
        let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let passed = std::cell::Cell::new(0);
        let check = |bytes: Vec<u8>| {
            passed.set(passed.get() + u32::from(agrees(&bytes)));
            Ok(())
        };
        TestRunner::new_with_rng(config, rng).run(&heads(), check).unwrap();
        assert!(passed.get() > 500, "{} passed: this test compares too little", passed.get());
    }

    #[test]
    fn the_end_is_found_the_same_in_any_pieces() {
        let config = Config { cases: 1000, failure_persistence: None, ..Config::default() };
        let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let check = |(bytes, mut cuts): (Vec<u8>, Vec<usize>)| {
            cuts.iter_mut().for_each(|cut| *cut %= bytes.len() + 1);
            cuts.sort_unstable();
            cuts.push(bytes.len());
            let mut seen = 0;
            let mut found = Ok(None);
            for cut in cuts {
                found = find_end(&bytes[..cut], seen);
                if found != Ok(None) {
                    break;
                }
                seen = cut;
            }
            assert_eq!(found, find_end(&bytes, 0));
            Ok(())
        };
        let input = (heads(), vec(any::<usize>(), 0..6));
        TestRunner::new_with_rng(config, rng).run(&input, check).unwrap();
    }
}
