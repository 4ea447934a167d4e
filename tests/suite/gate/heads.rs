//! What a request head may look like, and what becomes of every other.

use crate::fixture::http::{get, request};
use crate::fixture::target::{Target, serve};

/// Must never be served: it stands where a body or garbage stands.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: t\r\n\r\n";

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

/// Each is answered once with this status and the connection is closed; sent in one write and
/// byte by byte.
fn assert_refused(server: &Target, status: u16, vectors: &[(&str, Vec<u8>)]) {
    let before = server.requests().len();
    let mut sent = 0;
    for (name, bytes) in vectors {
        let ways = if bytes.len() < 1000 { 2 } else { 1 };
        for way in 0..ways {
            let mut client = server.connect();
            let all = [bytes, SMUGGLED.as_bytes()].concat();
            let piece = if way == 0 { all.len() } else { 1 };
            let _ = all.chunks(piece).all(|piece| client.try_send(piece));
            let response = client.response();
            assert_eq!(response.status, status, "{name}: {response:?}");
            assert!(response.closes(), "{name}: {response:?}");
            assert!(response.json()["error"].is_string(), "{name}: {response:?}");
            client.assert_closed(name);
            sent += 1;
            let logged = server.wait_for_requests(before + sent);
            assert_eq!(logged.len(), before + sent, "{name}: a second request was seen");
            assert_eq!(logged[before + sent - 1].status, u64::from(status), "{name}");
        }
    }
    server.assert_serves(crate::fixture::ELSEWHERE);
    let logged = server.wait_for_requests(before + sent + 2);
    assert_eq!(logged.len(), before + sent + 2);
    assert!(!logged.iter().any(|request| request.path.contains("smuggled")));
}

#[test]
fn a_length_that_is_not_one_number_is_refused() {
    let server = serve(&[]);
    assert_refused(
        &server,
        400,
        &[
            ("above_u64", post("Content-Length: 18446744073709551616")),
            ("far_above_u64", post(&format!("Content-Length: {}", "9".repeat(400)))),
            ("negative", post("Content-Length: -1")),
            ("plus", post("Content-Length: +5")),
            ("hexadecimal", post("Content-Length: 0x10")),
            ("list", post("Content-Length: 5, 5")),
            ("two_words", post("Content-Length: 5 5")),
            ("empty", post("Content-Length: ")),
            ("fraction", post("Content-Length: 5.0")),
            ("exponent", post("Content-Length: 1e3")),
            ("quoted", post("Content-Length: \"5\"")),
            ("twice_the_same", post("Content-Length: 5\r\nContent-Length: 5")),
            ("twice_not_the_same", post("Content-Length: 0\r\ncontent-length: 40")),
            ("on_get", with("Content-Length: -1")),
        ],
    );
}

#[test]
fn a_transfer_encoding_is_refused_whatever_it_says() {
    let server = serve(&[]);
    let chunked = "Transfer-Encoding: chunked";
    let body = "\r\n\r\n5\r\nhello\r\n0";
    assert_refused(
        &server,
        411,
        &[
            ("chunked", post(&format!("{chunked}{body}"))),
            ("chunked_with_bad_credentials", {
                post(&format!("Authorization: Bearer cs_no\r\n{chunked}{body}"))
            }),
            ("chunked_of_nothing", post(&format!("{chunked}\r\n\r\n0"))),
            ("list", post("Transfer-Encoding: gzip, chunked")),
            ("list_that_ends_otherwise", post("Transfer-Encoding: chunked, identity")),
            ("duplicate", post(&format!("{chunked}\r\nTransfer-Encoding: identity"))),
            ("identity", post("Transfer-Encoding: identity")),
            ("empty", post("Transfer-Encoding:")),
            ("unknown", post("Transfer-Encoding: xchunked")),
            ("mixed_case", post("tRANSFER-eNCODING: Chunked")),
            ("before_a_length", post(&format!("{chunked}\r\nContent-Length: 3"))),
            ("after_a_length", post(&format!("Content-Length: 40\r\n{chunked}"))),
            ("on_get", with(chunked)),
            (
                "on_1_0",
                format!("POST /api/machines HTTP/1.0\r\nHost: t\r\n{chunked}\r\n\r\n").into_bytes(),
            ),
        ],
    );
}

#[test]
fn a_field_that_two_readers_could_read_differently_is_refused() {
    let server = serve(&[]);
    assert_refused(
        &server,
        400,
        &[
            ("no_host", b"GET /healthz HTTP/1.1\r\n\r\n".to_vec()),
            ("two_hosts", with("Host: u")),
            ("two_hosts_alike", with("HOST: t")),
            ("host_list", b"GET /healthz HTTP/1.1\r\nHost: a, b\r\n\r\n".to_vec()),
            ("host_with_user", b"GET /healthz HTTP/1.1\r\nHost: u@t\r\n\r\n".to_vec()),
            ("host_with_path", b"GET /healthz HTTP/1.1\r\nHost: t/x\r\n\r\n".to_vec()),
            ("space_before_colon", with("X : y")),
            ("space_before_the_length_colon", post("Content-Length : 40")),
            ("space_before_the_encoding_colon", post("Transfer-Encoding : chunked")),
            ("space_in_name", with("X y: z")),
            ("no_name", with(": y")),
            ("no_colon", with("X")),
            ("name_with_bracket", with("X(: y")),
            ("folded_line", with("X: y\r\n z")),
            ("folded_with_tab", with("X: y\r\n\tz")),
            ("folded_length", post("Content-Length:\r\n 40")),
            ("folded_first_line", b"GET /healthz HTTP/1.1\r\n Host: t\r\n\r\n".to_vec()),
            ("bare_lf", b"GET /healthz HTTP/1.1\nHost: t\n\n".to_vec()),
            ("bare_lf_after_a_field", with("X: y\nZ: a")),
            ("bare_lf_at_the_end", b"GET /healthz HTTP/1.1\r\nHost: t\r\n\n".to_vec()),
            ("bare_cr_in_value", with("X: y\rz")),
            ("bare_cr_before_a_length", post("X: y\rContent-Length: 40")),
            ("two_crs", b"GET /healthz HTTP/1.1\r\r\nHost: t\r\n\r\n".to_vec()),
            ("tab_in_length", post("Content-Length: 4\t0")),
            ("tab_in_name", with("X\t: y")),
            ("tab_in_host", b"GET /healthz HTTP/1.1\r\nHost: t\tu\r\n\r\n".to_vec()),
            ("nul_in_value", with("X: y\0z")),
            ("nul_in_name", with("X\0: y")),
            ("escape_in_value", with("X: \x1b[2J")),
            ("del_in_value", with("X: \x7f")),
            ("c1_control_in_name", with("X\u{85}: y")),
            ("non_ascii_host", "GET /healthz HTTP/1.1\r\nHost: \u{e9}\r\n\r\n".into()),
            ("non_ascii_length", post("Content-Length: \u{664}")),
            ("non_ascii_credentials", with("Authorization: Bearer \u{e9}")),
            ("non_ascii_accept", with("Accept: \u{e9}")),
            ("non_ascii_name", with("\u{e9}: y")),
            ("two_credentials", with("Authorization: Bearer a\r\nAuthorization: Bearer b")),
            ("two_types", with("Content-Type: a/b\r\nContent-Type: application/json")),
            ("two_expectations", with("Expect: 100-continue\r\nExpect: 100-continue")),
        ],
    );
}

#[test]
fn a_request_line_of_any_other_shape_is_refused() {
    let server = serve(&[]);
    assert_refused(
        &server,
        400,
        &[
            ("absolute_form_of_another", line("GET http://169.254.169.254/ HTTP/1.1")),
            ("absolute_form_of_another_port", line("GET http://t:80/healthz HTTP/1.1")),
            ("absolute_form_with_user", line("GET http://u@t/healthz HTTP/1.1")),
            ("absolute_form_of_no_host", line("GET http:///healthz HTTP/1.1")),
            ("other_scheme", line("GET ftp://t/healthz HTTP/1.1")),
            ("asterisk", line("OPTIONS * HTTP/1.1")),
            ("connect", line("CONNECT t:443 HTTP/1.1")),
            ("no_slash", line("GET healthz HTTP/1.1")),
            ("fragment", line("GET /healthz#x HTTP/1.1")),
            ("http_0_9", b"GET /healthz\r\n\r\n".to_vec()),
            ("no_version", line("GET /healthz")),
            ("empty_version", line("GET /healthz ")),
            ("lower_case_version", line("GET /healthz http/1.1")),
            ("version_without_dot", line("GET /healthz HTTP/11")),
            ("long_version", line("GET /healthz HTTP/1.10")),
            ("other_protocol", line("GET /healthz RTSP/1.0")),
            ("space_after_version", line("GET /healthz HTTP/1.1 ")),
            ("two_spaces", line("GET  /healthz HTTP/1.1")),
            ("space_in_target", line("GET /health z HTTP/1.1")),
            ("tab_for_space", line("GET\t/healthz HTTP/1.1")),
            ("leading_space", line(" GET /healthz HTTP/1.1")),
            ("no_method", line("/healthz HTTP/1.1")),
            ("method_with_colon", line("GET: /healthz HTTP/1.1")),
            ("long_method", line("ABCDEFGHIJKLMNOPQ /healthz HTTP/1.1")),
            ("nul_in_target", line("GET /health\0z HTTP/1.1")),
            ("non_ascii_target", line("GET /h\u{e9} HTTP/1.1")),
            ("two_empty_lines", [b"\r\n\r\n", &with("X: y")[..]].concat()),
            ("leading_crlf_flood", b"\r\n".repeat(64 * 1024)),
            ("leading_lf", b"\n\n\n".to_vec()),
            ("tls_client_hello", client_hello()),
            ("zeros", vec![0; 600]),
        ],
    );
}

/// A TLS 1.2 ClientHello as far as matters, with bytes that never end a line.
fn client_hello() -> Vec<u8> {
    let mut hello = vec![0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3];
    hello.extend((0..194_u8).map(|n| n | 0x80));
    hello
}

#[test]
fn every_other_version_of_http_is_refused() {
    let server = serve(&[]);
    let before = server.usage_at_rest();
    let lines =
        ["HTTP/2.0", "HTTP/9.9", "HTTP/0.9", "HTTP/1.2", "HTTP/3.0"].map(|v| format!("GET / {v}"));
    let mut vectors: Vec<_> = lines.iter().map(|l| (l.as_str(), line(l))).collect();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    vectors.push(("h2_preface", preface));
    assert_refused(&server, 505, &vectors);
    server.assert_settles(before);
}

#[test]
fn an_expectation_that_nobody_knows_is_refused() {
    let server = serve(&[]);
    assert_refused(
        &server,
        417,
        &[
            ("unknown", with("Expect: 200-ok")),
            ("list", with("Expect: 100-continue, 200-ok")),
            ("empty", with("Expect:")),
        ],
    );
}

#[test]
fn a_head_of_more_bytes_or_fields_than_allowed_is_refused() {
    let server = serve(&[]);
    let long = |name: &str, length: usize| with(&format!("{name}: {}", "x".repeat(length)));
    assert_refused(
        &server,
        431,
        &[
            ("one_byte_too_many", sized(16 * 1024 + 1)),
            ("long_value", long("X", 20_000)),
            ("long_name", long(&"x".repeat(20_000), 1)),
            ("long_target", line(&format!("GET /{} HTTP/1.1", "x".repeat(17_000)))),
            ("one_field_too_many", with(&["X: y"; 64].join("\r\n"))),
            ("a_thousand_fields", with(&["X: y"; 1000].join("\r\n"))),
        ],
    );
}

/// A good head of exactly so many bytes.
fn sized(bytes: usize) -> Vec<u8> {
    let around = with("X: ").len();
    with(&format!("X: {}", "x".repeat(bytes - around)))
}

/// Good heads: answered, and the connection serves the next request.
#[test]
fn a_head_in_good_order_is_answered_and_the_connection_lives_on() {
    let server = serve(&[]);
    let nan = "TE: trailers;q=NaN, deflate;q=NaN, gzip;q=NaN, chunked;q=nan, x;q=-NaN, y;q=inf";
    let target = |target: &str| get(target).into_bytes();
    let method = |method: &str| request(method, "/healthz", "").into_bytes();
    let signed = |path: &str| request("GET", path, &server.auth()).into_bytes();
    let body = format!("Content-Length: {}\r\n", SMUGGLED.len());
    let vectors: &[(&str, u16, Vec<u8>)] = &[
        ("te_with_nan", 200, with(nan)),
        ("upgrade", 200, with("Connection: upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk")),
        ("websocket", 200, with("Connection: Upgrade\r\nUpgrade: websocket")),
        ("length_zero", 200, with("Content-Length: 0")),
        ("length_zeros", 200, with("Content-Length: 000")),
        ("body_on_get", 200, (request("GET", "/healthz", &body) + SMUGGLED).into_bytes()),
        (
            "body_with_upgrade",
            200,
            (request("GET", "/healthz", &format!("Connection: upgrade\r\n{body}")) + SMUGGLED)
                .into_bytes(),
        ),
        ("largest_head", 200, sized(16 * 1024)),
        ("most_fields", 200, with(&["X: y"; 63].join("\r\n"))),
        ("spaces_around_value", 200, with("X:   y   ")),
        ("tabs_around_value", 200, with("Connection:\tkeep-alive \t")),
        ("tab_in_value", 200, with("X: y\tz")),
        ("utf8_value", 200, with("CF-IPCity: S\u{e3}o Paulo")),
        (
            "latin1_value",
            200,
            [&b"GET /healthz HTTP/1.1\r\nHost: t\r\nX: "[..], b"\xe9\xff\x80\r\n\r\n"].concat(),
        ),
        ("empty_line_before", 200, [b"\r\n", &with("X: y")[..]].concat()),
        ("absolute_form", 200, line("GET http://t/healthz HTTP/1.1")),
        ("absolute_form_in_capitals", 200, line("GET HTTPS://T/healthz?x=y HTTP/1.1")),
        ("absolute_form_with_dots", 404, line("GET http://t/api/../healthz HTTP/1.1")),
        ("dots", 404, target("/api/../healthz")),
        ("encoded_dots", 404, target("/api/%2e%2e/healthz")),
        ("encoded_slash", 404, target("/api%2fmachines")),
        ("encoded_dots_to_the_root", 404, target("/%2e%2e/%2e%2e/etc/passwd")),
        ("double_slash", 404, target("//healthz")),
        ("slash_at_the_end", 404, target("/healthz/")),
        ("other_case", 404, target("/HEALTHZ")),
        ("encoded_nul", 400, target("/healthz%00")),
        ("bad_escape", 400, target("/%zz")),
        ("cut_escape", 400, target("/%2")),
        ("bare_percent", 400, target("/%")),
        ("overlong_utf8", 400, target("/%c0%ae%c0%ae/")),
        ("bad_escape_in_query", 400, target("/healthz?x=%zz")),
        ("nul_in_query", 400, target("/healthz?x=%00")),
        ("line_break_in_query", 400, signed("/api/machines/snapshot?machine_id=a%0d%0aX-Evil:+1")),
        ("line_break_in_id", 400, signed("/api/machines/snapshot?id=1%0d%0aX-Evil:+1")),
        ("line_break_in_path", 404, target("/a%0d%0aX-Evil:%201")),
        ("own_request_id", 200, with("X-Request-Id: 0\r\nX-Evil: 1")),
        ("unknown_method", 405, method("BREW")),
        ("lower_case_method", 405, method("get")),
        ("connect_with_a_path", 405, method("CONNECT")),
        ("trace", 405, method("TRACE")),
        ("options", 405, method("OPTIONS")),
        ("no_credentials", 401, target("/api/machines")),
    ];
    let mut seen = 0;
    for (name, status, bytes) in vectors {
        let mut client = server.connect();
        client.send(bytes);
        let response = client.response();
        assert_eq!(response.status, *status, "{name}: {response:?}");
        assert!(!response.closes(), "{name}: {response:?}");
        assert_eq!(response.field("x-evil"), None, "{name}");
        assert_eq!(response.field("upgrade"), None, "{name}");
        client.assert_reusable(name);
        seen += 2;
        let logged = server.wait_for_requests(seen);
        assert_eq!(logged.len(), seen, "{name}: another request was seen");
    }
    assert!(!server.requests().iter().any(|request| request.path.contains("smuggled")));
}

#[test]
fn a_client_that_wants_the_connection_closed_gets_its_response_and_the_end() {
    let server = serve(&[]);
    for (n, (name, bytes)) in [
        ("close", with("Connection: close")),
        ("close_among_others", with("Connection: keep-alive, Close")),
        ("close_on_a_second_line", with("Connection: keep-alive\r\nConnection: close")),
        ("http_1_0", b"GET /healthz HTTP/1.0\r\n\r\n".to_vec()),
        ("http_1_0_kept", b"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".to_vec()),
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = server.connect();
        client.send([&bytes, SMUGGLED.as_bytes()].concat());
        let response = client.response();
        assert_eq!(response.status, 200, "{name}");
        assert!(response.closes(), "{name}");
        client.assert_closed(name);
        assert_eq!(server.wait_for_requests(n + 1).len(), n + 1, "{name}");
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = serve(&[]);
    server.register();
    let login = server.post("/api/auth/login", "{}");
    let requests = [get("/healthz"), get("/nowhere"), login, get("/api/machines"), get("/healthz")];
    let mut client = server.connect();
    client.send(requests.concat());
    let statuses: Vec<u16> = requests.iter().map(|_| client.response().status).collect();
    assert_eq!(statuses, [200, 404, 400, 401, 200]);
    assert_eq!(server.wait_for_requests(6).len(), 6);
}

#[test]
fn head_requests_and_unchanged_pulls_have_no_body() {
    let server = serve(&[]);
    server.store(b"state");
    let mut client = server.connect();
    client.send(server.pull(true));
    let whole = client.response();
    let etag = whole.field("etag").unwrap().to_owned();
    client.send(server.pull(true).replacen("GET", "HEAD", 1));
    let head = client.response_to_head();
    assert_eq!((head.status, head.field("content-length")), (200, Some("5")));
    assert_eq!(head.field("etag"), Some(etag.as_str()));
    client.send(server.pull(true).replacen(
        "Accept",
        &format!("If-None-Match: {etag}\r\nAccept"),
        1,
    ));
    assert_eq!(client.response().status, 304);
    for path in ["/nowhere", "/api/machines", "/healthz"] {
        client.send(request("HEAD", path, ""));
        let response = client.response_to_head();
        assert_ne!(response.field("content-length"), Some("0"), "{path}");
        client.assert_reusable(path);
    }
}
