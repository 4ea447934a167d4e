use super::*;

const GOOD: &[u8] = b"GET /a?b HTTP/1.1\r\nHost: h\r\n\r\n";

/// Returns the length of a head that is accepted.
fn end(bytes: &[u8]) -> Result<Option<usize>, Error> {
    parse(bytes).map(|found| found.map(|(_, end)| end))
}

/// Parses at once and byte by byte, which must agree. An incomplete head gets the status 0.
fn read(bytes: &[u8]) -> Result<Head, Error> {
    let slowly = (1..=bytes.len()).map(|n| end(&bytes[..n]));
    let slowly = slowly.into_iter().find(|found| *found != Ok(None));
    assert_eq!(slowly.unwrap_or(Ok(None)), end(bytes));
    let found = parse(bytes)?;
    found.map(|(head, _)| head).ok_or_else(|| Error::new(0, "", ""))
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
    let text = b"POST /a/b?c=d?e HTTP/1.1\r\nHOST:h:80\r\nAccept:  a  b \r\n\
        Content-Length: 5\r\nX: y\r\naccept:\r\n\r\n";
    let with_body = [text, "\0body\r\n\r\n".as_bytes()].concat();
    assert_eq!(end(&with_body), Ok(Some(text.len())));
    let head = read(text).ok().unwrap();
    assert_eq!((&*head.method, head.path(), &*head.target), ("POST", "/a/b", "/a/b?c=d?e"));
    assert_eq!((head.field("host"), head.field("If-Match")), (Some("h:80"), None));
    assert_eq!(head.fields("Accept").collect::<Vec<_>>(), ["a  b", ""]);
    assert!(!head.lines.iter().any(|(name, _)| name.eq_ignore_ascii_case("x")), "passed over");
    assert_eq!(head.content_length, Some(5));
    assert!(head.http11 && head.keep_alive() && !head.expects_continue());
    assert_eq!(line("GET / HTTP/1.1").ok().unwrap().path(), "/");
}

#[test]
fn other_protocols_are_refused_at_their_first_byte() {
    for first in [0x16, b'\n', b' ', 0, 0x80, b':', b'/', b'"'] {
        assert!(is_malformed(&end(&[first])), "{first}");
    }
    assert_eq!(end(b""), Ok(None));
    assert_eq!(end(b"G"), Ok(None));
}

#[test]
fn one_empty_line_before_the_request_line_is_passed_over() {
    let with_empty = [b"\r\n", GOOD].concat();
    assert_eq!(end(&with_empty), Ok(Some(GOOD.len() + 2)));
    assert!(read(&with_empty).is_ok_and(|head| head.target == "/a?b"));
    for more in ["\r\n", "\n", " ", "\r", "\0", ":"] {
        assert!(is_malformed(&end(format!("\r\n{more}").as_bytes())), "{more:?}");
    }
    assert_eq!(end(b"\r"), Ok(None));
    assert_eq!(end(b"\r\n"), Ok(None));
    assert!(is_malformed(&end(b"\rG")));
}

#[test]
fn every_control_character_but_tab_is_refused_where_it_stands() {
    for byte in (0..0x20).chain([0x7f]).filter(|byte| *byte != b'\t') {
        for at in 1..GOOD.len() {
            let mut bytes = GOOD[..at].to_vec();
            bytes.push(byte);
            let fits = GOOD[at] == byte || byte == b'\r' && GOOD[at - 1] != b'\r';
            assert_eq!(end(&bytes).is_ok(), fits, "{byte} {at}");
        }
    }
}

#[test]
fn tabs_and_bytes_above_ascii_may_stand_in_the_values_of_fields_that_nothing_reads() {
    for byte in (0x80..=0xff_u8).chain([b'\t']) {
        let head = |before: &str, after: &str| {
            read(&[b"GET /", before.as_bytes(), &[byte], after.as_bytes()].concat())
        };
        let good =
            head(" HTTP/1.1\r\nHost: h\r\nCF-IPCity: S", "o\r\nIf-Match: v\r\n\r\n").ok().unwrap();
        assert_eq!(good.lines, [("Host", "h".to_owned()), ("If-Match", "v".to_owned())]);
        assert!(is_malformed(&head("", " HTTP/1.1\r\nHost: h\r\n\r\n")), "target {byte}");
        assert!(is_malformed(&head(" HTTP/1.1", "\r\nHost: h\r\n\r\n")), "version {byte}");
        assert!(is_malformed(&head(" HTTP/1.1\r\nHost: h\r\nX", ": y\r\n\r\n")), "name {byte}");
        assert!(is_malformed(&head(" HTTP/1.1\r\nHost: h", "h\r\n\r\n")), "host {byte}");
    }
}

#[test]
fn a_field_that_is_read_must_be_ascii_and_the_refusal_names_it() {
    for name in SINGLETONS.into_iter().chain(LISTS) {
        let text = format!("GET / HTTP/1.0\r\n{}: h\u{e9}\r\n\r\n", name.to_lowercase());
        let rule = Error::malformed(format!("the {name} header must be ASCII"));
        assert_eq!(read(text.as_bytes()).err(), Some(rule));
    }
    let tabs = get("Accept:\ta,\tb \t\r\n").ok().unwrap();
    assert_eq!(tabs.field("Accept"), Some("a, b"), "a tab is white space");
    assert!(is_malformed(&get("Content-Length: 4\t0\r\n")));
}

#[test]
fn a_cr_without_lf_and_an_lf_without_cr_are_refused() {
    for bad in ["G\n", "G\r\n\n", "G\rE", "G\r\r", "G\r\n\r ", "G\r\n\r\r"] {
        assert!(is_malformed(&read(bad.as_bytes())), "{bad:?}");
    }
}

#[test]
fn a_head_may_have_so_many_bytes_and_no_more() {
    let head =
        |n: usize| format!("GET / HTTP/1.0\r\na: {}\r\n\r\n", "b".repeat(n - 23)).into_bytes();
    let most = head(HEAD_BYTES_MAX);
    assert_eq!(end(&most), Ok(Some(HEAD_BYTES_MAX)));
    assert_eq!(end(&most[..HEAD_BYTES_MAX - 1]), Ok(None));
    let over = head(HEAD_BYTES_MAX + 1);
    assert_eq!(end(&over[..HEAD_BYTES_MAX]), Err(too_large()));
    assert_eq!(end(&over), Err(too_large()));
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
        "GET / x HTTP/1.1", "OPTIONS * HTTP/1.1", "GET /a#b HTTP/1.1", "CONNECT h:443 HTTP/1.1",
        "GET ?a HTTP/1.1", "GET / http/1.1", "GET / HTTP/1", "GET / HTTP/1.10", "GET / HTTP/11.1",
        "GET / HTTPS/1.1", "GET / HTTP/1,1", "GET / HTTP/ 1.1", "G(T / HTTP/1.1",
        "ABCDEFGHIJKLMNOPQ / HTTP/1.1", "GET a HTTP/1.1", "GET: / HTTP/1.1", "GET\t/ HTTP/1.1",
        "GET / RTSP/1.0",
    ] {
        assert!(is_malformed(&line(bad)), "{bad}");
    }
    assert!(line("ABCDEFGHIJKLMNOP / HTTP/1.1").is_ok());
}

#[test]
fn an_absolute_target_is_taken_like_its_path() {
    for (target, origin) in [
        ("http://h/a/../b?c=http://d/", "/a/../b?c=http://d/"),
        ("HTTPS://H/", "/"),
        ("http://h", "/"),
        ("http://h?a", "/?a"),
        ("http://h//x", "//x"),
    ] {
        let head = line(&format!("GET {target} HTTP/1.1")).ok().unwrap();
        assert_eq!(head.target, origin, "{target}");
    }
    for bad in [
        "ftp://h/", "http:///", "http://", "http:/h", "http:h", "h:80/a", "://h/", "http://u@h/",
        "http://h,g/", "http://h\\/", "http://h#f", "ws://h/", "http//h/", " http://h/",
    ] {
        assert!(is_malformed(&line(&format!("GET {bad} HTTP/1.1"))), "{bad}");
    }
}

#[test]
fn an_absolute_target_has_the_host_of_the_host_header() {
    for other in ["g", "h:80", "h.", "", "h h"] {
        let text = format!("GET http://h/ HTTP/1.1\r\nHost: {other}\r\n\r\n");
        assert!(is_malformed(&read(text.as_bytes())), "{other}");
    }
    assert!(is_malformed(&read(b"GET http://h/ HTTP/1.1\r\n\r\n")));
    assert!(read(b"GET http://h/ HTTP/1.0\r\n\r\n").is_ok_and(|head| head.target == "/"));
    assert!(read(b"GET http://[::1]:80/ HTTP/1.1\r\nHost: [::1]:80\r\n\r\n").is_ok());
}

#[test]
fn another_version_is_named_before_its_target_is_looked_at() {
    for other in [
        "PRI * HTTP/2.0", "GET / HTTP/0.9", "GET http://h HTTP/3.0", "GET / HTTP/1.2",
        "GET / HTTP/9.9",
    ] {
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
    let bad = ["", "-1", "+1", "1 2", "5, 5", "5,5", "0x5", "5.0", "a", "1e3", "\"5\""];
    for bad in bad.iter().chain(&over) {
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
        "Transfer-Encoding: chunked, identity\r\n",
        "tRANSFER-eNCODING: Chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
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
    for bad in
        ["a b", "a/b", "http://a", "u@a", "a,b", "a, b", "a?b", "a#b", "a\\b", "<a>", "\"a\""]
    {
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
        ("Origin", "http://h"),
        ("Sec-Fetch-Site", "none"),
    ] {
        let lower = name.to_ascii_lowercase();
        assert!(get10(&format!("{name}: {value}\r\n")).is_ok(), "{name}");
        let twice = get10(&format!("{name}: {value}\r\nx: y\r\n{lower}: {value}\r\n"));
        let rule = Error::malformed(format!("the {name} header appears twice"));
        assert_eq!(twice.err(), Some(rule));
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
    assert_eq!(end(b""), Ok(None));
    assert_eq!(end(b"GET / HTTP/1.0\r\n"), Ok(None));
    assert_eq!(end(b"GET / HTTP/1.0\r\n\r\nx"), Ok(Some(18)));
    for bad in ["\r\n\r\n", "G\u{e9}\r\n\r\n"] {
        assert!(is_malformed(&read(bad.as_bytes())), "{bad}");
    }
}
