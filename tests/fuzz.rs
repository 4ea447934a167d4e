//! Mutates request heads and JSON bodies without end and compares the gate's two parsers with
//! httparse and serde_json. The long runs are ignored:
//! `CONFIGSYNC_FUZZ_SECONDS=600 cargo test --release --test fuzz -- --ignored --nocapture`.

use std::io::BufReader;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use configsync_server::fuzzing::head::Head;
use configsync_server::fuzzing::{Error as ApiError, head, split_upload_json};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

#[path = "suite/fixture/random.rs"]
pub mod random;

use random::Random;

const REST_MAX: usize = 1 << 20;

#[test]
fn many_mutated_heads_read_the_same_in_httparse() {
    let mut random = Random::new(0);
    let heads = if cfg!(debug_assertions) { 20_000 } else { 400_000 };
    let passed =
        (0..heads).filter(|_| compare_head(&random_head(&mut random), &mut random)).count();
    assert!(passed > heads / 20, "only {passed} of {heads} passed: too little was compared");
}

#[test]
fn many_mutated_bodies_split_into_what_serde_json_reads() {
    let mut random = Random::new(0);
    let bodies = if cfg!(debug_assertions) { 20_000 } else { 400_000 };
    let passed =
        (0..bodies).filter(|_| compare_body(&random_body(&mut random), &mut random)).count();
    assert!(passed > bodies / 20, "only {passed} of {bodies} passed: too little was compared");
}

#[test]
#[ignore = "runs for CONFIGSYNC_FUZZ_SECONDS"]
fn fuzz_heads() {
    run("heads", |random| compare_head(&random_head(random), random));
}

#[test]
#[ignore = "runs for CONFIGSYNC_FUZZ_SECONDS"]
fn fuzz_bodies() {
    run("bodies", |random| compare_body(&random_body(random), random));
}

fn run(what: &str, mut once: impl FnMut(&mut Random) -> bool) {
    let seconds =
        std::env::var("CONFIGSYNC_FUZZ_SECONDS").map_or(600, |text| text.parse().unwrap());
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut random, mut iterations, mut passed) = (Random::new(0), 0_u64, 0_u64);
    while Instant::now() < end {
        for _ in 0..1000 {
            passed += u64::from(once(&mut random));
        }
        iterations += 1000;
    }
    println!("{what}: {iterations} iterations, {passed} accepted");
    assert!(passed > iterations / 50, "too little was compared");
}

// ---- Heads -------------------------------------------------------------------------------

fn random_head(random: &mut Random) -> Vec<u8> {
    let method =
        random.pick(&["GET", "POST", "get", "A!#$%&'*+-.^_`|~", "ABCDEFGHIJKLMNOPQ", "PRI"]);
    let target = random.pick(&[
        "/", "/a/b?c=d", "//a", "/%00?", "/\"<>{}|", "*", "http://h/a?b",
        "HTTPS://sync.example:8443",
    ]);
    let method = if random.below(2) == 0 { "GET" } else { method };
    let target = match random.below(4) {
        0 => "/api/machines",
        1 => "http://Sync.Example:8443/api/machines",
        _ => target,
    };
    let version = random.pick(&["1.1", "1.1", "1.1", "1.1", "1.0", "1.0", "1.0", "2.0"]);
    let empty = if random.below(8) == 0 { "\r\n" } else { "" };
    let mut head = format!("{empty}{method} {target} HTTP/{version}\r\n");
    if random.below(8) > 0 {
        head += "Host: sync.example:8443\r\n";
    }
    for _ in 0..random.below(5) {
        let (name, values): (&str, &[&str]) = match random.below(10) {
            0 => ("host", &["h", "", "a,b", "u@h", "a b", "[::1]:80"]),
            1 | 2 => {
                ("Content-Length", &["0", "12", "+1", "1,1", "18446744073709551616", " 7 ", ""])
            }
            3 => ("Transfer-Encoding", &["chunked", "identity", ""]),
            4 => ("EXPECT", &["100-continue", "100-CONTINUE", "x", ""]),
            5 => ("Connection", &["close", "keep-alive, Close", "upgrade", "xclose", "a,, close"]),
            6 => ("Authorization", &["Bearer cs_abc", "Basic eDp5"]),
            7 => ("content-type", &["application/json", "a/b;\tc=\"d\"", "\u{e9}"]),
            8 => ("X-Forwarded-For", &["192.0.2.1, 10.0.0.1", "::1", ":"]),
            _ => ("a", &["b", "  b  ", "", "b:c", "\"", "\x7f", "\t", "\u{e9}"]),
        };
        let name = if random.below(4) == 0 { name.to_ascii_uppercase() } else { name.to_owned() };
        let colon = random.pick(&[":", ": ", ": ", ":   "]);
        let colon = if random.below(20) == 0 { " :" } else { colon };
        head += &format!("{name}{colon}{}\r\n", random.pick(values));
    }
    if random.below(200) == 0 {
        head += &"a: b\r\n".repeat(58 + random.below(8));
    }
    if random.below(2000) == 0 {
        head += &format!("a: {}\r\n", "b".repeat(16_000 + random.below(600)));
    }
    head += "\r\n";
    let mut bytes = head.into_bytes();
    let tokens = [
        " ", "\r", "\n", "\r\n", ":", "\t", "\0", ",", "#", "@", "/", "\x7f", "\u{e9}", "\r\n\r\n",
        "\r\n ", "Host: a\r\n", "Content-Length: 5\r\n", "HTTP/1.1", "0", "+", "close", "(",
    ];
    random.mutate(&mut bytes, &tokens);
    // What follows a head is not part of it.
    bytes.extend_from_slice(
        random.pick(&["", "", "\0body", "GET / HTTP/1.1\r\n\r\n", "\r\n"]).as_bytes(),
    );
    bytes
}

/// Parses as a head arrives in random pieces, which must agree with one look at the whole.
fn read_head(bytes: &[u8], random: &mut Random) -> Result<Option<(Head, usize)>, ApiError> {
    let (mut seen, mut found) = (0, Ok(None));
    while seen < bytes.len() && matches!(found, Ok(None)) {
        let longest = if random.below(2) == 0 { 4 } else { bytes.len() };
        seen = bytes.len().min(seen + 1 + random.below(longest));
        found = head::parse(&bytes[..seen]);
    }
    let whole = head::parse(bytes);
    let end = |found: &Result<Option<(Head, usize)>, ApiError>| match found {
        Ok(found) => Ok(found.as_ref().map(|(_, end)| *end)),
        Err(error) => Err(error.clone()),
    };
    assert_eq!(end(&found), end(&whole), "{}", bytes.escape_ascii());
    whole
}

/// True if the head was accepted.
pub fn compare_head(bytes: &[u8], random: &mut Random) -> bool {
    let shown = bytes.escape_ascii();
    let ours = read_head(bytes, random);
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut theirs = httparse::Request::new(&mut fields);
    let end = match theirs.parse(bytes) {
        Ok(httparse::Status::Complete(end)) => end,
        other => {
            assert!(!matches!(ours, Ok(Some(_))), "httparse: {other:?}; accepted {shown}");
            return false;
        }
    };
    let expected = judge_head(bytes.get(..end).unwrap(), &theirs);
    let (head, our_end) = match ours {
        Ok(Some(found)) => found,
        Ok(None) => panic!("httparse found an end of {shown}"),
        Err(error) => {
            let same = match expected {
                Err(Some(expected)) => error.status == expected,
                Err(None) => true,
                Ok(()) => false,
            };
            assert!(same, "{error:?} instead of {expected:?}: {shown}");
            return false;
        }
    };
    assert_eq!(expected, Ok(()), "accepted {shown}");
    assert_eq!(our_end, end, "{shown}");
    assert_eq!(theirs.method, Some(&*head.method), "{shown}");
    assert_eq!(theirs.version, Some(u8::from(head.http11)), "{shown}");
    let (_, target) = split_target(theirs.path.unwrap()).unwrap();
    let slash = if target.starts_with('/') { "" } else { "/" };
    assert_eq!(format!("{slash}{target}"), head.target, "{shown}");
    for name in READ {
        let ours: Vec<&str> = head.fields(name).collect();
        let theirs = values(&theirs, name).concat();
        assert_eq!(ours.concat(), String::from_utf8(theirs).unwrap().replace('\t', " "), "{shown}");
        assert_eq!(head.field(name), ours.first().copied(), "{shown}");
    }
    let read = theirs.headers.iter().filter(|field| is_read(field.name)).count();
    assert_eq!(head.lines.len(), read, "{shown}");
    let length = values(&theirs, "content-length").first().map(|digits| digits.to_vec());
    let length = length.map(|digits| String::from_utf8(digits).unwrap().parse::<u64>().unwrap());
    assert_eq!(head.content_length, length, "{shown}");
    let options = values(&theirs, "connection").join(&b',').to_ascii_lowercase();
    let close = options.split(|&byte| byte == b',').any(|option| option.trim_ascii() == b"close");
    assert_eq!(head.keep_alive(), head.http11 && !close, "{shown}");
    let expects = !values(&theirs, "expect").is_empty();
    assert_eq!(head.expects_continue(), head.http11 && expects, "{shown}");
    true
}

/// The fields that this program reads; those in the first line may appear once.
const SINGLE: usize = 8;
const READ: [&str; 16] = [
    "host", "content-length", "content-type", "content-range", "authorization", "expect", "origin",
    "sec-fetch-site", "transfer-encoding", "connection", "content-encoding", "accept", "if-match",
    "if-none-match", "x-forwarded-for", "x-forwarded-host",
];

fn is_read(name: &str) -> bool {
    READ.iter().any(|read| read.eq_ignore_ascii_case(name))
}

/// The authority of an absolute target, and what follows it.
fn split_target(target: &str) -> Option<(Option<&str>, &str)> {
    if target.starts_with('/') {
        return Some((None, target));
    }
    let end = target.find("://")? + 3;
    let http = ["http://", "https://"].contains(&&*target[..end].to_ascii_lowercase());
    let rest = &target[end..];
    let authority = rest.split(['/', '?']).next().unwrap();
    let fits = http && !authority.is_empty() && authority.bytes().all(|byte| host_byte(&byte));
    fits.then_some((Some(authority), &rest[authority.len()..]))
}

fn host_byte(byte: &u8) -> bool {
    byte.is_ascii_graphic() && !b"/@,?#\\\"<>^`{|}".contains(byte)
}

fn values<'a>(request: &httparse::Request<'_, 'a>, name: &str) -> Vec<&'a [u8]> {
    let named = request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
    named.map(|field| field.value.trim_ascii()).collect()
}

/// The rules that go beyond httparse's, told from its pieces: the status of the refusal, or
/// Err(None) for a head that is malformed or too large.
fn judge_head(bytes: &[u8], request: &httparse::Request<'_, '_>) -> Result<(), Option<u16>> {
    let head = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    let line = head.split(|&byte| byte == b'\r').next().unwrap();
    let text: String = head.iter().map(|&byte| char::from(byte)).collect();
    let mut inside = text.replace("\r\n", "").into_bytes().into_iter();
    let in_order = inside.all(|byte| matches!(byte, b'\t' | b' '..=b'~' | 0x80..));
    let method = request.method.unwrap_or_default();
    let target = request.path.unwrap_or_default();
    let (authority, _) = split_target(target).ok_or(None)?;
    let http11 = request.version == Some(1);
    let hosts = values(request, "host");
    let lengths = values(request, "content-length");
    let expects = values(request, "expect");
    let single = |name: &&str| values(request, name).len() <= 1;
    let is_length = |value: &&[u8]| {
        let text = std::str::from_utf8(value).unwrap_or_default();
        text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u64>().is_ok()
    };
    let good = in_order
        && !head.starts_with(b"\r\n")
        && line.iter().all(|byte| (b' '..=b'~').contains(byte))
        && bytes.len() <= 16 * 1024
        && method.len() <= 16
        && !target.contains('#')
        && READ[..SINGLE].iter().all(single)
        && READ.iter().all(|name| values(request, name).iter().all(|value| value.is_ascii()))
        && hosts.iter().all(|host| {
            authority.is_none_or(|authority| host.eq_ignore_ascii_case(authority.as_bytes()))
        })
        && (!http11 || hosts.len() == 1)
        && hosts.concat().iter().all(host_byte)
        && lengths.iter().all(is_length);
    if !good {
        return Err(None);
    }
    if !values(request, "transfer-encoding").is_empty() {
        return Err(Some(411));
    }
    if http11 && !expects.iter().all(|value| value.eq_ignore_ascii_case(b"100-continue")) {
        return Err(Some(417));
    }
    Ok(())
}

// ---- Bodies ------------------------------------------------------------------------------

/// A whole document: serde_json refuses either name twice.
#[derive(Deserialize)]
struct Whole {
    encrypted_state: Option<String>,
    #[serde(rename = "metadata")]
    _metadata: Option<IgnoredAny>,
}

fn random_body(random: &mut Random) -> Vec<u8> {
    let mut members = Vec::new();
    for _ in 0..random.below(4) {
        let name =
            random.pick(&["a", "b\\n", "", "encrypted_stat", "x\\\"metadata", "é", "\\u0061"]);
        members.push(format!("\"{name}\"{}{}", colon(random), random_value(random, 0)));
    }
    if random.below(8) > 0 {
        let bytes: Vec<u8> = (0..random.below(40)).map(|_| random.below(256) as u8).collect();
        let base64 =
            STANDARD.encode(bytes).replace('+', "/").replace('/', random.pick(&["/", "\\/"]));
        let base64: String = base64.chars().map(|c| spelled(c, random)).collect();
        let name = random.pick(&["encrypted_state", "encrypted_state", "encrypted\\u005fstate"]);
        members.push(format!("\"{name}\"{}\"{base64}\"", colon(random)));
    }
    if random.below(3) > 0 {
        let name = random.pick(&["metadata", "metadata", "meta\\u0064ata"]);
        members.push(format!("\"{name}\"{}{}", colon(random), random_value(random, 0)));
    }
    let turn = random.below(members.len() + 1);
    members.rotate_left(turn);
    let space = random.pick(&["", "", " ", "\n"]);
    let mut bytes = format!("{space}{{{}}}{space}", members.join(",")).into_bytes();
    let tokens = [
        "{", "}", "[", "]", "\"", "\\", ",", ":", "=", "A", "\\/", "null", "1", "\n", "\0",
        "\u{e9}", "\"metadata\":", "\"encrypted_state\":", "\"encrypted_state\":\"AAAA\",",
        "\\u0061", "\\u002F", "\\u003d", "\\\\", "\\u00", "==",
    ];
    random.mutate(&mut bytes, &tokens);
    bytes
}

/// A character of base64, now and then as an escape.
fn spelled(c: char, random: &mut Random) -> String {
    match random.below(12) {
        0 => format!("\\u{:04x}", u32::from(c)),
        1 => format!("\\u{:04X}", u32::from(c)),
        _ => c.to_string(),
    }
}

fn colon(random: &mut Random) -> &'static str {
    random.pick(&[":", ":", ": ", " :\t", "\r\n:"])
}

fn random_value(random: &mut Random, depth: u32) -> String {
    let leaves = [
        "1", "-0.5e+3", "true", "null", "\"\"", "\"a\\\\\"", "\"]}\\\"{[\"", "\"\\u00e9é\"",
        "\"encrypted_state\"", "\"metadata\"", "\"AAAA\"",
    ];
    let inner = |random: &mut Random| random_value(random, depth + 1);
    match random.below(if depth < 3 { 6 } else { 4 }) {
        4 => {
            let items: Vec<String> = (0..random.below(4)).map(|_| inner(random)).collect();
            format!("[{}]", items.join(", "))
        }
        5 => {
            let names = ["a", "b", "metadata", "encrypted_state"];
            let count = random.below(names.len() + 1);
            let item = |name: &&str| format!("\"{name}\":{}", inner(random));
            let items: Vec<String> = names.iter().take(count).map(item).collect();
            format!("{{{}}}", items.join(","))
        }
        _ => random.pick(&leaves).to_owned(),
    }
}

/// The rest and the decoded bytes, or status and sentence of the refusal.
type Scanned = Result<(Vec<u8>, Vec<u8>), (u16, String)>;

/// Scans a document that arrives in pieces of `size` bytes at most.
fn scan(decode: bool, doc: &[u8], size: usize) -> Scanned {
    // No name in the document is as long as this one: nothing is decoded.
    let absent = "x".repeat(doc.len() + 1);
    let field = if decode { "encrypted_state" } else { &absent };
    let mut out = Vec::new();
    let source = BufReader::with_capacity(size.max(1), doc);
    let rest = split_upload_json(source, field, "metadata", REST_MAX, |decoded| {
        out.extend_from_slice(decoded);
        Ok(())
    });
    match rest {
        Ok(rest) => Ok((rest, out)),
        Err(error) => Err((error.status, error.sentence)),
    }
}

/// True if the body was accepted.
pub fn compare_body(doc: &[u8], random: &mut Random) -> bool {
    let shown = doc.escape_ascii();
    let scanned = scan(true, doc, 1 + random.below(12));
    assert_eq!(scanned, scan(true, doc, doc.len()), "{shown}");
    let whole = serde_json::from_slice::<Value>(doc).ok();
    let parsed = |(rest, out): (Vec<u8>, Vec<u8>)| Some((serde_json::from_slice(&rest).ok()?, out));
    let Some((rest, out)): Option<(Value, _)> = scanned.ok().and_then(parsed) else {
        assert!(!must_pass(doc, whole.as_ref()), "refused {shown}");
        return false;
    };
    // The document with nothing but the skipped value taken out.
    let (readable, _) = scan(false, doc, doc.len()).unwrap();
    let decoded: Value = serde_json::from_slice(&readable).unwrap_or_else(|_| panic!("{shown}"));
    let state = decoded.get("encrypted_state").map(|state| state.as_str().unwrap());
    assert_eq!(state.is_some(), rest.get("encrypted_state").is_some(), "{shown}");
    assert_eq!(STANDARD.decode(state.unwrap_or_default()).unwrap(), out, "{shown}");
    assert_eq!(without(&decoded), rest, "{shown}");
    match whole {
        Some(whole) => assert_eq!(without(&whole), rest, "{shown}"),
        None => assert!(only_the_skipped_value_is_bad(doc, &readable), "{shown}"),
    }
    true
}

/// The document with the two values taken out.
fn without(whole: &Value) -> Value {
    let mut whole = whole.clone();
    for name in ["encrypted_state", "metadata"] {
        if let Some(value) = whole.get_mut(name) {
            *value = Value::Null;
        }
    }
    whole
}

/// True if the scanner has no reason to refuse: an object that serde_json takes, neither name
/// twice, and a canonical state or none.
fn must_pass(doc: &[u8], whole: Option<&Value>) -> bool {
    let Some(whole) = whole.filter(|whole| whole.is_object()) else { return false };
    let Ok(members) = serde_json::from_slice::<Whole>(doc) else { return false };
    match members.encrypted_state {
        Some(state) => STANDARD.decode(state).is_ok(),
        None => whole.get("encrypted_state").is_none(),
    }
}

/// True if `doc` is `readable` with something in the place of a `null` that is no JSON, but begins
/// and ends as a string, a list or an object does, or is a word.
fn only_the_skipped_value_is_bad(doc: &[u8], readable: &[u8]) -> bool {
    let skipped = (doc.len() + 4).checked_sub(readable.len()).unwrap();
    (0..readable.len()).any(|at| {
        let Some(after) = readable[at..].strip_prefix(b"null") else { return false };
        let Some(value) = doc.get(at..at + skipped) else { return false };
        let closed = match value.trim_ascii_start() {
            [b'"', .., last] => *last == b'"',
            [b'[' | b'{', .., last] => b"]}".contains(last),
            word => word.iter().all(|&byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)),
        };
        closed
            && !value.is_empty()
            && doc.starts_with(&readable[..at])
            && doc[at + skipped..] == *after
            && serde_json::from_slice::<Value>(value).is_err()
    })
}
