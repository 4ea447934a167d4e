//! What a request head may look like, and what becomes of every other. The unit tests of the parser
//! have more spellings.

use super::{SMUGGLED, assert_refused, assert_seen};
use crate::fixture::ELSEWHERE;
use crate::fixture::http::{get, request};
use crate::fixture::target::serve;

/// A GET with this field line.
fn with(field: &str) -> Vec<u8> {
    format!("GET /healthz HTTP/1.1\r\nHost: t\r\n{field}\r\n\r\n").into_bytes()
}

/// A POST with these field lines and a body that looks like a request.
fn post(fields: &str) -> Vec<u8> {
    format!("POST /api/machines HTTP/1.1\r\nHost: t\r\n{fields}\r\n\r\n").into_bytes()
}

/// A request of this line.
fn line(line: &str) -> Vec<u8> {
    format!("{line}\r\nHost: t\r\n\r\n").into_bytes()
}

/// A request whose only field line is this.
fn only(field: &str) -> Vec<u8> {
    format!("GET /healthz HTTP/1.1\r\n{field}\r\n\r\n").into_bytes()
}

/// Each is answered once with this status and the connection is closed; sent in one write and
/// byte by byte.
fn assert_all_refused(status: u16, vectors: &[Vec<u8>]) {
    let server = serve(&[]);
    let before = server.usage_at_rest();
    let mut seen = 0;
    for bytes in vectors {
        let about = bytes[..bytes.len().min(200)].escape_ascii().to_string();
        let all = [bytes, SMUGGLED.as_bytes()].concat();
        let pieces = if bytes.len() < 1000 { &[all.len(), 1][..] } else { &[all.len()] };
        for piece in pieces {
            assert_refused(&server, &about, status, &all, *piece);
            seen += 1;
            assert_seen(&server, &about, seen, status);
        }
    }
    server.assert_serves(ELSEWHERE);
    assert_seen(&server, "two more", seen + 2, 200);
    server.assert_settles(before);
}

#[test]
fn a_length_that_is_not_one_number_is_refused() {
    let far_above = "9".repeat(400);
    let lengths = [
        "18446744073709551616", &far_above, "-1", "+5", "0x10", "5, 5", "5 5", "", "5.0", "1e3",
        "\"5\"", "4\t0", "\u{664}", "\r\n 40", "5\r\nContent-Length: 5", "0\r\ncontent-length: 40",
    ];
    let posted = lengths.map(|length| post(&format!("Content-Length: {length}")));
    assert_all_refused(400, &[&posted[..], &[with("Content-Length: -1")]].concat());
}

#[test]
fn a_transfer_encoding_is_refused_whatever_it_says() {
    let chunked = "Transfer-Encoding: chunked";
    let body = "\r\n\r\n5\r\nhello\r\n0";
    let posted = [
        &format!("{chunked}{body}"),
        &format!("Authorization: Bearer cs_no\r\n{chunked}{body}"),
        &format!("{chunked}\r\n\r\n0"),
        &format!("{chunked}\r\nTransfer-Encoding: identity"),
        &format!("{chunked}\r\nContent-Length: 3"),
        &format!("Content-Length: 40\r\n{chunked}"),
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity",
        "Transfer-Encoding:",
        "Transfer-Encoding: xchunked",
        "tRANSFER-eNCODING: Chunked",
    ]
    .map(post);
    let old = line(&format!("POST /api/machines HTTP/1.0\r\n{chunked}"));
    assert_all_refused(411, &[&posted[..], &[with(chunked), old]].concat());
}

#[test]
fn a_field_that_two_readers_could_read_differently_is_refused() {
    let fields = [
        "Host: u",
        "HOST: t",
        "X : y",
        "Content-Length : 40",
        "Transfer-Encoding : chunked",
        "X y: z",
        ": y",
        "X",
        "X(: y",
        "X: y\r\n z",
        "X: y\r\n\tz",
        "X: y\nZ: a",
        "X: y\rz",
        "X: y\rContent-Length: 40",
        "X\t: y",
        "X: y\0z",
        "X\0: y",
        "X: \x1b[2J",
        "X: \x7f",
        "X\u{85}: y",
        "\u{e9}: y",
        "Authorization: Bearer \u{e9}",
        "Accept: \u{e9}",
        "Authorization: Bearer a\r\nAuthorization: Bearer b",
        "Content-Type: a/b\r\nContent-Type: application/json",
        "Expect: 100-continue\r\nExpect: 100-continue",
    ];
    let hosts =
        ["Host: a, b", "Host: u@t", "Host: t/x", "Host: t\tu", "Host: \u{e9}", "X: y", " Host: t"];
    let lines = [
        "GET /healthz HTTP/1.1\nHost: t\n\n",
        "GET /healthz HTTP/1.1\r\nHost: t\r\n\n",
        "GET /healthz HTTP/1.1\r\r\nHost: t\r\n\r\n",
    ];
    let lines = lines.map(|text| text.as_bytes().to_vec());
    assert_all_refused(400, &[&fields.map(post)[..], &hosts.map(only), &lines].concat());
}

#[test]
fn a_request_line_of_any_other_shape_is_refused() {
    let lines = [
        "GET http://169.254.169.254/ HTTP/1.1", "GET http://t:80/healthz HTTP/1.1",
        "GET http://u@t/healthz HTTP/1.1", "GET http:///healthz HTTP/1.1",
        "GET ftp://t/healthz HTTP/1.1", "OPTIONS * HTTP/1.1", "CONNECT t:443 HTTP/1.1",
        "GET healthz HTTP/1.1", "GET /healthz#x HTTP/1.1", "GET /healthz\r\n", "GET /healthz",
        "GET /healthz ", "GET /healthz http/1.1", "GET /healthz HTTP/11", "GET /healthz HTTP/1.10",
        "GET /healthz RTSP/1.0", "GET /healthz HTTP/1.1 ", "GET  /healthz HTTP/1.1",
        "GET /health z HTTP/1.1", "GET\t/healthz HTTP/1.1", " GET /healthz HTTP/1.1",
        "/healthz HTTP/1.1", "GET: /healthz HTTP/1.1", "ABCDEFGHIJKLMNOPQ /healthz HTTP/1.1",
        "GET /health\0z HTTP/1.1", "GET /h\u{e9} HTTP/1.1", "\r\n\r\nGET /healthz HTTP/1.1",
    ];
    // A TLS 1.2 ClientHello as far as matters, with bytes that never end a line.
    let hello = [&[0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3], &[0x80; 194][..]].concat();
    let others = [hello, b"\r\n".repeat(64 * 1024), b"\n\n\n".to_vec(), vec![0; 600]];
    assert_all_refused(400, &[&lines.map(line)[..], &others].concat());
}

#[test]
fn every_other_version_of_http_is_refused() {
    let versions = ["HTTP/2.0", "HTTP/9.9", "HTTP/0.9", "HTTP/1.2", "HTTP/3.0"];
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    let lines = versions.map(|version| line(&format!("GET / {version}")));
    assert_all_refused(505, &[&lines[..], &[preface]].concat());
}

#[test]
fn an_expectation_that_nobody_knows_is_refused() {
    assert_all_refused(
        417,
        &["Expect: 200-ok", "Expect: 100-continue, 200-ok", "Expect:"].map(with),
    );
}

#[test]
fn a_head_of_more_bytes_or_fields_than_allowed_is_refused() {
    let long = |length| "x".repeat(length);
    let heads = [
        sized(16 * 1024 + 1),
        with(&format!("X: {}", long(20_000))),
        with(&format!("{}: x", long(20_000))),
        line(&format!("GET /{} HTTP/1.1", long(17_000))),
        with(&["X: y"; 64].join("\r\n")),
        with(&["X: y"; 1000].join("\r\n")),
    ];
    assert_all_refused(431, &heads);
}

/// A good head of exactly so many bytes.
fn sized(bytes: usize) -> Vec<u8> {
    let around = with("X: ").len();
    with(&format!("X: {}", "x".repeat(bytes - around)))
}

#[test]
fn a_head_in_good_order_is_answered_and_the_connection_lives_on() {
    let server = serve(&[]);
    let body = format!("Content-Length: {}\r\n\r\n{SMUGGLED}", SMUGGLED.len());
    let body = body.trim_end();
    let good = [
        "TE: trailers;q=NaN, deflate;q=NaN, gzip;q=NaN, chunked;q=nan, x;q=-NaN, y;q=inf",
        "Connection: upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk",
        "Connection: Upgrade\r\nUpgrade: websocket",
        "Content-Length: 0",
        "Content-Length: 000",
        body,
        &format!("Connection: upgrade\r\n{body}"),
        &["X: y"; 63].join("\r\n"),
        "X:   y   ",
        "Connection:\tkeep-alive \t",
        "X: y\tz",
        "CF-IPCity: S\u{e3}o Paulo",
        "X-Request-Id: 0\r\nX-Evil: 1",
    ];
    let lines = [
        "\r\nGET /healthz HTTP/1.1", "GET http://t/healthz HTTP/1.1",
        "GET HTTPS://T/healthz?x=y HTTP/1.1",
    ];
    let latin1 =
        [&b"GET /healthz HTTP/1.1\r\nHost: t\r\nX: "[..], b"\xe9\xff\x80\r\n\r\n"].concat();
    let nowhere = [
        "http://t/api/../healthz", "/api/../healthz", "/api/%2e%2e/healthz", "/api%2fmachines",
        "/%2e%2e/%2e%2e/etc/passwd", "//healthz", "/healthz/", "/HEALTHZ", "/a%0d%0aX-Evil:%201",
    ];
    let bad =
        ["/healthz%00", "/%zz", "/%2", "/%", "/%c0%ae%c0%ae/", "/healthz?x=%zz", "/healthz?x=%00"];
    let signed = [
        "/api/machines/snapshot?machine_id=a%0d%0aX-Evil:+1",
        "/api/machines/snapshot?id=1%0d%0aX-Evil:+1",
    ];
    let signed = signed.map(|path| request("GET", path, &server.auth()).into_bytes());
    let targets = |paths: &[&str]| paths.iter().map(|path| get(path).into_bytes()).collect();
    let methods = ["BREW", "get", "CONNECT", "TRACE", "OPTIONS"];
    let methods = methods.map(|method| request(method, "/healthz", "").into_bytes());
    let groups: [(u16, Vec<Vec<u8>>); 6] = [
        (200, [&good.map(with)[..], &lines.map(line), &[sized(16 * 1024), latin1]].concat()),
        (404, targets(&nowhere)),
        (400, targets(&bad)),
        (400, signed.to_vec()),
        (405, methods.to_vec()),
        (401, targets(&["/api/machines"])),
    ];
    let mut seen = 0;
    for (status, bytes) in
        groups.iter().flat_map(|(status, all)| all.iter().map(move |b| (status, b)))
    {
        let about = bytes.escape_ascii().to_string();
        let mut client = server.connect();
        client.send(bytes);
        let response = client.response();
        assert_eq!(response.status, *status, "{about}: {response:?}");
        assert!(!response.closes(), "{about}: {response:?}");
        assert_eq!((response.field("x-evil"), response.field("upgrade")), (None, None), "{about}");
        client.assert_reusable(&about);
        seen += 2;
        assert_seen(&server, &about, seen, 200);
    }
}

#[test]
fn a_client_that_wants_the_connection_closed_gets_its_response_and_the_end() {
    let server = serve(&[]);
    for (n, bytes) in (1..).zip([
        with("Connection: close"),
        with("Connection: keep-alive, Close"),
        with("Connection: keep-alive\r\nConnection: close"),
        b"GET /healthz HTTP/1.0\r\n\r\n".to_vec(),
        b"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".to_vec(),
    ]) {
        let about = bytes.escape_ascii().to_string();
        let mut client = server.connect();
        client.send([&bytes, SMUGGLED.as_bytes()].concat());
        let response = client.response();
        assert!(response.status == 200 && response.closes(), "{about}: {response:?}");
        client.assert_closed(&about);
        assert_seen(&server, &about, n, 200);
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = serve(&[]);
    let login = server.post("/api/auth/login", "{}");
    let requests = [get("/healthz"), get("/nowhere"), login, get("/api/machines"), get("/healthz")];
    let mut client = server.connect();
    client.send(requests.concat());
    let statuses = requests.each_ref().map(|_| client.response().status);
    assert_eq!(statuses, [200, 404, 400, 401, 200]);
    assert_seen(&server, "five in a row", 5, 200);
}

#[test]
fn head_requests_and_unchanged_pulls_have_no_body() {
    let server = serve(&[]);
    server.store(b"state");
    let mut client = server.connect();
    client.send(server.pull(true));
    let whole = client.response();
    let etag = whole.field("etag").unwrap();
    client.send(server.pull(true).replacen("GET", "HEAD", 1));
    let head = client.response_to_head();
    assert_eq!((head.status, head.field("content-length")), (200, Some("5")));
    assert_eq!(head.field("etag"), Some(etag));
    let unchanged = format!("If-None-Match: {etag}\r\nAccept");
    client.send(server.pull(true).replacen("Accept", &unchanged, 1));
    assert_eq!(client.response().status, 304);
    for path in ["/nowhere", "/api/machines", "/healthz"] {
        client.send(request("HEAD", path, ""));
        let response = client.response_to_head();
        assert_ne!(response.field("content-length"), Some("0"), "{path}");
        client.assert_reusable(path);
    }
}
