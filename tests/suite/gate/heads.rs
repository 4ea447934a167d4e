//! What becomes of a request head, good or bad.

use super::{SMUGGLED, assert_refused, assert_seen};
use crate::fixture::{ELSEWHERE, get, request, serve, with_machine};

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

/// Sent in one write and byte by byte. The unit tests of the parser have every other spelling.
#[test]
fn a_head_that_breaks_a_rule_is_refused_once_and_the_connection_is_closed() {
    let server = serve(&[]);
    let before = server.usage_at_rest();
    let chunked = "Transfer-Encoding: chunked";
    let chunks = format!("{chunked}\r\n\r\n5\r\nhello\r\n0");
    let no_token = format!("Authorization: Bearer cs_no\r\n{chunks}");
    let long = "x".repeat(17_000);
    // A TLS 1.2 ClientHello as far as matters, with bytes that never end a line.
    let hello = [&[0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3], &[0x80; 194][..]].concat();
    let mut seen = 0;
    for (status, bytes) in [
        (400, post("Content-Length: 5\r\nContent-Length: 5")),
        (400, post("Content-Length: 0\r\ncontent-length: 40")),
        (400, post("Content-Length: 18446744073709551616")),
        (400, post("Content-Length: 5, 5")),
        (400, post("Content-Length : 40")),
        (400, post("Content-Length:\r\n 40")),
        (400, post("Transfer-Encoding : chunked")),
        (400, post("X: y\rContent-Length: 40")),
        (400, post("X: y\nContent-Length: 40")),
        (400, post("X: y\0")),
        (400, with("Content-Length: -1")),
        (400, with("Host: u")),
        (400, line("GET http://169.254.169.254/ HTTP/1.1")),
        (400, line("GET /healthz")),
        (400, line("\r\n\r\nGET /healthz HTTP/1.1")),
        (400, b"GET /healthz HTTP/1.1\r\n\r\n".to_vec()),
        (400, b"GET /healthz HTTP/1.1\nHost: t\n\n".to_vec()),
        (400, hello),
        (400, vec![0; 600]),
        (400, b"\r\n".repeat(64 * 1024)),
        (411, post(&chunks)),
        (411, post(&no_token)),
        (411, post(&format!("{chunked}\r\nContent-Length: 3"))),
        (411, post(&format!("Content-Length: 40\r\n{chunked}"))),
        (411, post("Transfer-Encoding:")),
        (411, with(chunked)),
        (417, with("Expect: 200-ok")),
        (431, sized(16 * 1024 + 1)),
        (431, line(&format!("GET /{long} HTTP/1.1"))),
        (431, with(&format!("{long}: x"))),
        (431, with(&["X: y"; 64].join("\r\n"))),
        (431, with(&["X: y"; 1000].join("\r\n"))),
        (505, line("GET / HTTP/0.9")),
        (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec()),
    ] {
        let about = bytes[..bytes.len().min(200)].escape_ascii().to_string();
        let all = [&bytes, SMUGGLED.as_bytes()].concat();
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

/// A good head of exactly so many bytes.
fn sized(bytes: usize) -> Vec<u8> {
    let around = with("X: ").len();
    with(&format!("X: {}", "x".repeat(bytes - around)))
}

#[test]
fn a_head_in_good_order_is_answered_and_the_connection_lives_on_unless_it_asks_for_the_end() {
    let server = serve(&[]);
    let body = format!("Content-Length: {}\r\n\r\n{SMUGGLED}", SMUGGLED.len());
    let body = body.trim_end();
    // The unit tests of the parser have every other spelling.
    let good = [
        "Content-Length: 0",
        body,
        &format!("Connection: upgrade\r\n{body}"),
        &["X: y"; 63].join("\r\n"),
        "Connection:\tkeep-alive \t",
        "CF-IPCity: S\u{e3}o Paulo",
        "Content-Length: 000",
        "X:   y   ",
        "X: y\tz",
        "X-Request-Id: 0\r\nX-Evil: 1",
        // tiny_http would compare what is not a number, and panic.
        "TE: chunked;q=NaN",
        "TE: identity;q=nan, chunked;q=-NaN",
        // It would answer in chunks, with a body of no length, or as another protocol.
        "TE: chunked",
        "Connection: upgrade\r\nUpgrade: websocket",
        "Connection: upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk",
        "Trailer: x",
        "Connection: te, keep-alive",
        "Proxy-Connection: close",
    ];
    let old = "GET /healthz HTTP/1.0\r\n";
    let last = [
        with("Connection: close"),
        with("Connection: keep-alive\r\nConnection: close"),
        format!("{old}\r\n").into_bytes(),
        format!("{old}Connection: keep-alive\r\n\r\n").into_bytes(),
    ];
    let lines = [
        "\r\nGET /healthz HTTP/1.1", "GET http://t/healthz HTTP/1.1",
        "GET HTTPS://T/healthz?x=y HTTP/1.1",
    ];
    let nowhere = [
        "http://t/api/../healthz", "/api/../healthz", "/api/%2e%2e/healthz", "/api%2fmachines",
        "/%2e%2e/%2e%2e/etc/passwd", "//healthz", "/healthz/", "/HEALTHZ", "/a%0d%0aX-Evil:%201",
        "/api/api/machines", "/machines", "/v1/api/machines", "/api", "/api/", "/api/machines/",
        "//api/machines", "/API/machines",
    ];
    let bad =
        ["/healthz%00", "/%zz", "/%2", "/%", "/%c0%ae%c0%ae/", "/healthz?x=%zz", "/healthz?x=%00"];
    let target = |path: &str| get(path).into_bytes();
    let method = |method: &str| request(method, "/healthz", "").into_bytes();
    let vectors = [(200, sized(16 * 1024)), (401, target("/api/machines"))]
        .into_iter()
        .chain(good.map(|fields| (200, with(fields))))
        .chain(lines.map(|text| (200, line(text))))
        .chain(last.iter().map(|bytes| (200, bytes.clone())))
        .chain(nowhere.map(|path| (404, target(path))))
        .chain(bad.map(|path| (400, target(path))))
        .chain(["BREW", "get", "CONNECT", "TRACE", "OPTIONS"].map(|name| (405, method(name))));
    let mut seen = 0;
    for (status, bytes) in vectors {
        let (about, closes) = (bytes.escape_ascii().to_string(), last.contains(&bytes));
        let mut client = server.connect();
        let more = if closes { SMUGGLED } else { "" };
        client.send([&bytes, more.as_bytes()].concat());
        let response = client.response();
        assert_eq!((response.status, response.closes()), (status, closes), "{about}: {response:?}");
        // A path that is not a route shows the base URL.
        let shown = response.json()["error"].to_string();
        assert_eq!(shown.contains("http://t"), status == 404, "{about}: {shown}");
        let bad = ["x-evil", "upgrade", "transfer-encoding"].map(|name| response.field(name));
        assert_eq!(bad, [None; 3], "{about}");
        if closes {
            client.assert_closed(&about);
        } else {
            client.assert_reusable(&about);
        }
        seen += if closes { 1 } else { 2 };
        assert_seen(&server, &about, seen, 200);
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let (server, user) = with_machine(&[]);
    // A body ends where the next request begins.
    let push = user.push_head(SMUGGLED.len() as u64, "") + SMUGGLED;
    let login = user.post_request("/api/auth/login", "{}");
    let requests =
        [get("/healthz"), get("/nowhere"), push, login, get("/api/machines"), get("/healthz")];
    let mut client = server.connect();
    client.send(requests.concat());
    let statuses = requests.each_ref().map(|_| client.response().status);
    assert_eq!(statuses, [200, 404, 201, 400, 401, 200]);
    assert_seen(&server, "six in a row", 1 + 6, 200);
    assert_eq!(user.pull("").body, SMUGGLED.as_bytes());
}
