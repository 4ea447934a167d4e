//! The gate's two parsers compared with httparse and serde_json: here on mutated heads and bodies,
//! and by the targets of tests/fuzz, which find their inputs by coverage.

use std::io::BufReader;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use configsync_server::fuzzing::head::Head;
use configsync_server::fuzzing::{Error as ApiError, head, split_upload_json};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

// The targets of tests/fuzz, which include this file, have inputs of their own.
#[cfg(test)]
#[path = "suite/fixture/mutated.rs"]
mod mutated;

const REST_MAX: usize = 1 << 20;

// ---- Heads -------------------------------------------------------------------------------

/// Parses as a head arrives in pieces of this size, which must agree with one look at the whole.
fn read_head(bytes: &[u8], piece: usize) -> Result<Option<(Head, usize)>, ApiError> {
    let ends = (piece..bytes.len()).step_by(piece).chain([bytes.len()]);
    let mut found = ends.map(|end| head::parse(&bytes[..end]));
    let found = found.find(|found| !matches!(found, Ok(None))).unwrap_or(Ok(None));
    let whole = head::parse(bytes);
    let end = |found: &Result<Option<(Head, usize)>, ApiError>| match found {
        Ok(found) => Ok(found.as_ref().map(|(_, end)| *end)),
        Err(error) => Err(error.clone()),
    };
    assert_eq!(end(&found), end(&whole), "{}", bytes.escape_ascii());
    whole
}

/// True if the head was accepted.
pub fn compare_head(bytes: &[u8], piece: usize) -> bool {
    let shown = bytes.escape_ascii();
    let ours = read_head(bytes, piece);
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

/// The rest and the decoded bytes, or status and sentence of the refusal.
type Scanned = Result<(Vec<u8>, Vec<u8>), (u16, String)>;

/// Scans a document that arrives in pieces of so many bytes.
fn scan(decode: bool, doc: &[u8], piece: usize) -> Scanned {
    // No name in the document is as long as this one: nothing is decoded.
    let absent = "x".repeat(doc.len() + 1);
    let field = if decode { "encrypted_state" } else { &absent };
    let mut out = Vec::new();
    let source = BufReader::with_capacity(piece, doc);
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
pub fn compare_body(doc: &[u8], piece: usize) -> bool {
    let shown = doc.escape_ascii();
    let scanned = scan(true, doc, piece);
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

// ---- What is compared --------------------------------------------------------------------

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;
    use proptest::string::string_regex;

    use super::mutated::{mutated, with_each};
    use super::*;

    /// Compares so many inputs, of which enough must be accepted, in pieces of up to so many bytes.
    fn compare(
        inputs: impl Strategy<Value = Vec<u8>>, longest: usize, accepted: fn(&[u8], usize) -> bool,
    ) {
        let cases = if cfg!(debug_assertions) { 20_000 } else { 400_000 };
        let passed = Cell::new(0);
        with_each(0, cases, (inputs, 1..=longest), |(bytes, piece)| {
            passed.set(passed.get() + u32::from(accepted(&bytes, piece)));
        });
        let passed = passed.get();
        assert!(passed > cases / 20, "only {passed} of {cases} passed: too little was compared");
    }

    #[test]
    fn many_mutated_heads_read_the_same_in_httparse() {
        let line = r"(?x) (\r\n|||||||)
            (GET|GET|GET|GET|POST|get|A!\#\$%&'\*\+-\.\^_`\|~|ABCDEFGHIJKLMNOPQ|PRI)\x20
            (/api/machines|http://Sync\.Example:8443/api/machines|/|/a/b\?c=d|//a|/%00\?
             |/\x22<>\{\}\||\*|http://h/a\?b|HTTPS://sync\.example:8443)\x20
            HTTP/(1\.1|1\.1|1\.1|1\.0|1\.0|1\.0|2\.0)\r\n
            (Host:\x20sync\.example:8443\r\n|Host:\x20sync\.example:8443\r\n|)";
        let fields = r"(?x) (
            ((host|HOST)(:|:\x20|:\x20{3})(h||a,b|u@h|a\x20b|\[::1\]:80)
            |(Content-Length|CONTENT-LENGTH):\x20?(0|12|\+1|1,1|18446744073709551616|\x207\x20|)
            |(Transfer-Encoding|TRANSFER-ENCODING):\x20?(chunked|identity|)
            |(EXPECT|Expect):\x20?(100-continue|100-CONTINUE|x|)
            |(Connection|CONNECTION):\x20?(close|keep-alive,\x20Close|upgrade|xclose|a,,\x20close)
            |(Authorization|AUTHORIZATION):\x20?(Bearer\x20cs_abc|Basic\x20eDp5)
            |(content-type|CONTENT-TYPE):\x20?(application/json|a/b;\tc=\x22d\x22|é)
            |(X-Forwarded-For|X-FORWARDED-FOR):\x20?(192\.0\.2\.1,\x2010\.0\.0\.1|::1|:)
            |a\x20?(:|:\x20|:\x20{3})(b|\x20\x20b\x20\x20||b:c|\x22|\x7f|\t|é))\r\n){0,4}";
        let [line, fields] = [line, fields].map(|pattern| string_regex(pattern).unwrap());
        let many = prop_oneof![2000 => "", 10 => "(a: b\r\n){58,65}", 1 => "a: b{16000,16600}\r\n"];
        // What follows a head is not part of it.
        let rest = select(&["", "", "\0body", "GET / HTTP/1.1\r\n\r\n", "\r\n"][..]);
        let whole = (line, fields, many, rest).prop_map(|(line, fields, many, rest)| {
            format!("{line}{fields}{many}\r\n{rest}").into_bytes()
        });
        let tokens = &[
            " ", "\r", "\n", "\r\n", ":", "\t", "\0", ",", "#", "@", "/", "\x7f", "é", "\r\n\r\n",
            "\r\n ", "Host: a\r\n", "Content-Length: 5\r\n", "HTTP/1.1", "0", "+", "close", "(",
        ];
        compare(mutated(whole, tokens), 60, compare_head);
    }

    /// A value of JSON, now and then with what looks like one of the two members in it.
    fn value() -> impl Strategy<Value = String> {
        let leaves = [
            "1", "-0.5e+3", "true", "null", "\"\"", "\"a\\\\\"", "\"]}\\\"{[\"", "\"\\u00e9é\"",
            "\"encrypted_state\"", "\"metadata\"", "\"AAAA\"",
        ];
        select(leaves.map(str::to_owned).to_vec()).prop_recursive(3, 12, 3, |inner| {
            let name = select(&["a", "b", "metadata", "encrypted_state"][..]);
            let member = (name, inner.clone()).prop_map(|(name, v)| format!("\"{name}\":{v}"));
            let object = vec(member, 0..4).prop_map(|items| format!("{{{}}}", items.join(",")));
            let list = vec(inner, 0..4).prop_map(|items| format!("[{}]", items.join(", ")));
            prop_oneof![list, object]
        })
    }

    #[test]
    fn many_mutated_bodies_split_into_what_serde_json_reads() {
        let colon = r"(:|:|:\x20|\x20:\t|\r\n:)";
        // Canonical base64, now and then with an escape.
        let c =
            r"([A-Za-z0-9+/]|[A-Za-z0-9+/]|[A-Za-z0-9+/]|\\/|\\u00(2[BbFf]|3[0-9]|4[1-9A-Fa-f]))";
        let end = r"(=|=|\\u003[Dd])";
        let state = format!(
            r#"(?x) "encrypted(_|_|\\u005f)state" {colon}
               "({c}{{4}}){{0,12}} ({c}[AQgw]{end}{end}|{c}{c}[AEgw048]{end}|)""#
        );
        let other = format!(
            r#"(?x) "(a|b\\n||encrypted_stat|x\\"metadata|é|\\u0061
               |metadata|meta\\u0064ata)" {colon}"#
        );
        let state = string_regex(&state).unwrap();
        let other = string_regex(&other).unwrap();
        let other = (other, value()).prop_map(|(name, value)| name + &value);
        let members = vec(prop_oneof![2 => state, 3 => other], 0..5);
        let whole = (members, "( |\n||)").prop_map(|(members, space)| {
            format!("{space}{{{}}}{space}", members.join(",")).into_bytes()
        });
        let tokens = &[
            "{", "}", "[", "]", "\"", "\\", ",", ":", "=", "A", "\\/", "null", "1", "\n", "\0",
            "é", "\"metadata\":", "\"encrypted_state\":", "\"encrypted_state\":\"AAAA\",",
            "\\u0061", "\\u002F", "\\u003d", "\\\\", "\\u00", "==",
        ];
        compare(mutated(whole, tokens), 12, compare_body);
    }
}
