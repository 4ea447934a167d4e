//! Takes a JSON object apart while it arrives: one huge base64 member is decoded, another is
//! dropped unread, and the little that remains is left for serde_json, so that memory stays flat
//! however large the body is.

use std::io::{self, BufRead, Read};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::body::Broken;
use crate::app::Error;

/// Objects and arrays inside each other, as serde_json allows.
const NESTING_MAX: u32 = 128;
/// Characters that are decoded at once: a multiple of four, and enough for one write to a file.
const DECODE_CHARS: usize = 64 * 1024;
const CUT_SHORT: &str = "the JSON object in the body is cut short";

/// Takes a document apart, to the end of its source: hands what the string of the top-level member
/// `field` decodes to on to `take`, in pieces of at most 48 KiB, drops the value of `skip`, and
/// returns all that remains, at most `rest_max` bytes, white space included.
///
/// Everything but the two values is copied to the rest as it is, with `null` in their places. So
/// it is serde_json that judges the syntax of the document, and that finds a name twice, also
/// one spelled with escapes, if its struct has both names as `Option<()>`. The scanner may lose
/// its way only in a document whose beginning, copied as it is, serde_json refuses. Inside the
/// skipped value nothing but strings, escapes and the number of open brackets is followed.
pub fn take_apart(
    source: impl BufRead, field: &str, skip: &str, rest_max: usize,
    take: impl FnMut(&[u8]) -> Result<(), Broken>,
) -> Result<Vec<u8>, Broken> {
    Scanner { source, take, field, skip, rest_max, rest: Vec::new(), skipping: false }.run()
}

struct Scanner<'a, S, T> {
    source: S,
    take: T,
    field: &'a str,
    skip: &'a str,
    rest_max: usize,
    rest: Vec<u8>,
    /// In the value that is dropped.
    skipping: bool,
}

impl<S: BufRead, T: FnMut(&[u8]) -> Result<(), Broken>> Scanner<'_, S, T> {
    fn run(mut self) -> Result<Vec<u8>, Broken> {
        let (mut depth, mut name_at, mut found) = (1, 0, false);
        self.copy_while(u8::is_ascii_whitespace)?;
        if self.copy()? != b'{' {
            return refuse("the body must be a JSON object");
        }
        while depth > 0 {
            match self.copy()? {
                b'"' => {
                    name_at = self.rest.len();
                    self.string()?;
                }
                b'{' | b'[' if depth == NESTING_MAX => {
                    return refuse("the JSON in the body is nested too deeply");
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                b':' if depth == 1 && self.is_name(name_at, self.field) => {
                    if self.begin()? != b'"' || found {
                        return refuse("the body needs its base64 as one string");
                    }
                    found = true;
                    self.decode()?;
                }
                b':' if depth == 1 && self.is_name(name_at, self.skip) => {
                    let first = self.begin()?;
                    self.skipping = true;
                    match first {
                        b'"' => self.string()?,
                        b'{' | b'[' => depth += 1,
                        _ if is_scalar(&first) => self.copy_while(is_scalar)?,
                        _ => return refuse("a member of the body has no value"),
                    }
                }
                _ => {}
            }
            // Back at the top level, the value has ended.
            self.skipping &= depth > 1;
        }
        self.copy_while(|_| true)?;
        Ok(self.rest)
    }

    /// True if what was copied since `name_at`, the newest string and a colon, is this name.
    fn is_name(&self, name_at: usize, name: &str) -> bool {
        let text = self.rest.get(name_at..).unwrap_or_default();
        let text = text.strip_suffix(b":").unwrap_or_default().trim_ascii_end();
        text.strip_suffix(b"\"") == Some(name.as_bytes())
    }

    /// Puts `null` in the place of the value that comes, and returns its first byte.
    fn begin(&mut self) -> Result<u8, Broken> {
        self.copy_while(u8::is_ascii_whitespace)?;
        self.keep(b"null")?;
        self.next()
    }

    /// Copies what remains of a string, its closing quote included.
    fn string(&mut self) -> Result<(), Broken> {
        loop {
            match self.copy()? {
                b'"' => return Ok(()),
                b'\\' => drop(self.copy()?),
                _ => {}
            }
        }
    }

    /// Decodes what remains of a string.
    fn decode(&mut self) -> Result<(), Broken> {
        let (mut chars, mut plain, mut padded, mut ended) = (Vec::new(), Vec::new(), false, false);
        while !ended {
            let room = DECODE_CHARS.saturating_sub(chars.len()) as u64;
            if Read::take(&mut self.source, room).read_until(b'"', &mut chars)? == 0 {
                return refuse(CUT_SHORT);
            }
            if chars.ends_with(b"\\") {
                chars.push(self.next()?);
            }
            ended = chars.pop_if(|last| *last == b'"').is_some();
            // Without a branch for each byte the compiler can use vector instructions.
            if chars.iter().fold(false, |found, byte| found | (*byte == b'\\')) {
                // Some encoders write every slash so; no other escape stands for base64.
                chars = String::from_utf8_lossy(&chars).replace("\\/", "/").into_bytes();
            }
            let whole = if ended { chars.len() } else { chars.len() / 4 * 4 };
            let fours = chars.get(..whole).unwrap_or_default();
            plain.clear();
            let (decoded, follows) = (STANDARD.decode_vec(fours, &mut plain), padded && whole > 0);
            padded = fours.ends_with(b"=");
            chars.drain(..whole);
            // Nothing may follow what ended with padding, and no other escape waits for its rest.
            if decoded.is_err() || follows || chars.contains(&b'\\') {
                let rule = "must be canonical base64 (standard alphabet, padded, nothing else)";
                return refuse(&format!("{} {rule}", self.field));
            }
            (self.take)(&plain)?;
        }
        Ok(())
    }

    /// Copies bytes to the rest as long as they are such; skipped ones are dropped.
    fn copy_while(&mut self, wanted: fn(&u8) -> bool) -> Result<(), Broken> {
        while self.peek()?.as_ref().is_some_and(wanted) {
            self.copy()?;
        }
        Ok(())
    }

    fn copy(&mut self) -> Result<u8, Broken> {
        let byte = self.next()?;
        self.keep(&[byte])?;
        Ok(byte)
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        if !self.skipping {
            self.rest.extend_from_slice(bytes);
        }
        if self.rest.len() > self.rest_max {
            let beside = format!(" beside {}, whatever --max-body allows", self.field);
            return Err(Error::too_large(self.rest_max as u64, &beside).into());
        }
        Ok(())
    }

    fn next(&mut self) -> Result<u8, Broken> {
        let byte = self.peek()?.ok_or_else(|| Error::malformed(CUT_SHORT))?;
        self.source.consume(1);
        Ok(byte)
    }

    /// The byte that comes next; none at the end.
    fn peek(&mut self) -> io::Result<Option<u8>> {
        Ok(self.source.fill_buf()?.first().copied())
    }
}

/// A character of a number, `true`, `false` or `null`.
fn is_scalar(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')
}

fn refuse<T>(sentence: &str) -> Result<T, Broken> {
    Err(Error::malformed(sentence).into())
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
    use serde::Deserialize;
    use serde_json::{Map, Value, json};

    use super::*;
    use crate::app::Piece;

    const REST_MAX: usize = 1 << 20;

    /// What a caller makes of the rest.
    #[derive(Deserialize)]
    struct Rest {
        #[serde(rename = "encrypted_state")]
        _state: Option<()>,
        #[serde(rename = "metadata")]
        _metadata: Option<()>,
    }

    /// The rest and the decoded bytes, or status and sentence of the refusal.
    type Scanned = Result<(Vec<u8>, Vec<u8>), (u16, String)>;

    /// A document that arrives in these pieces.
    struct Pieces<'a>(std::collections::VecDeque<&'a [u8]>);

    impl Read for Pieces<'_> {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            unreachable!("the pieces are lent")
        }
    }

    impl BufRead for Pieces<'_> {
        fn fill_buf(&mut self) -> io::Result<&[u8]> {
            while self.0.front().is_some_and(|piece| piece.is_empty()) {
                self.0.pop_front();
            }
            Ok(self.0.front().copied().unwrap_or_default())
        }

        fn consume(&mut self, n: usize) {
            if let Some(piece) = self.0.front_mut() {
                *piece = &piece[n..];
            }
        }
    }

    fn scan_with(field: &str, rest_max: usize, pieces: &[&[u8]]) -> Scanned {
        let mut out = Vec::new();
        let source = Pieces(pieces.iter().copied().collect());
        let rest = take_apart(source, field, "metadata", rest_max, |decoded| {
            assert!(decoded.len() <= DECODE_CHARS / 4 * 3);
            out.extend_from_slice(decoded);
            Ok(())
        });
        match rest {
            Ok(rest) => Ok((rest, out)),
            Err(Broken::Gone) => panic!("a whole document has not gone"),
            Err(Broken::Refused(response)) => match &response.pieces[..] {
                [Piece::Bytes(text)] => {
                    Err((response.status, String::from_utf8(text.clone()).unwrap()))
                }
                other => panic!("{other:?}"),
            },
        }
    }

    fn scan_pieces(pieces: &[&[u8]]) -> Scanned {
        scan_with("encrypted_state", REST_MAX, pieces)
    }

    /// Scans at once and in every two pieces, and byte by byte: all must agree.
    fn scan(doc: &str) -> Result<(String, Vec<u8>), (u16, String)> {
        let doc = doc.as_bytes();
        let whole = scan_pieces(&[doc]);
        for at in 0..=doc.len() {
            assert_eq!(scan_pieces(&[&doc[..at], &doc[at..]]), whole, "{at}");
        }
        assert_eq!(scan_pieces(&doc.chunks(1).collect::<Vec<_>>()), whole);
        whole.map(|(rest, out)| (String::from_utf8(rest).unwrap(), out))
    }

    /// The rest, if serde_json accepts it.
    fn accept(doc: &str) -> Option<String> {
        let (rest, _) = scan(doc).ok()?;
        serde_json::from_str::<Rest>(&rest).ok().map(|_| rest)
    }

    fn is_malformed(doc: &str) -> bool {
        scan(doc).is_err_and(|(status, _)| status == 400)
    }

    #[test]
    fn the_state_is_decoded_and_the_metadata_dropped() {
        let doc = r#" {"a":"b", "encrypted_state" : "aGVsbG8=","metadata":{"x":["]}"]},"v":1}
"#;
        let rest = r#" {"a":"b", "encrypted_state" : null,"metadata":null,"v":1}
"#;
        assert_eq!(scan(doc), Ok((rest.to_owned(), b"hello".to_vec())));
    }

    #[test]
    fn the_caller_learns_that_the_state_is_missing_or_empty() {
        assert_eq!(scan("{}"), Ok(("{}".to_owned(), vec![])));
        let empty = r#"{"encrypted_state":null}"#.to_owned();
        assert_eq!(scan(r#"{"encrypted_state":""}"#), Ok((empty, vec![])));
    }

    #[test]
    fn only_names_at_the_top_level_count() {
        for doc in [
            r#"{"a":{"encrypted_state":1,"metadata":2}}"#,
            r#"{"a":["encrypted_state","metadata"]}"#,
            r#"{"a":"encrypted_state","b":"metadata"}"#,
            r#"{"a":"\"encrypted_state","x\"metadata":1,"encrypted_state ":2,"":3}"#,
        ] {
            assert_eq!(scan(doc), Ok((doc.to_owned(), vec![])), "{doc}");
        }
    }

    #[test]
    fn a_state_that_is_no_string_is_refused() {
        for value in ["null", "1", "true", "{}", "[\"AAAA\"]", "", ",", "}", ":\"AAAA\""] {
            assert!(is_malformed(&format!(r#"{{"encrypted_state":{value}}}"#)), "{value}");
        }
    }

    #[test]
    fn a_second_state_is_refused() {
        assert!(is_malformed(r#"{"encrypted_state":"AAAA","encrypted_state":"AAAA"}"#));
    }

    #[test]
    fn names_given_twice_or_spelled_with_escapes_are_left_for_serde_to_refuse() {
        for doc in [
            r#"{"metadata":1,"metadata":2}"#,
            r#"{"encrypted_state":"AAAA","encrypted\u005fstate":"AAAA"}"#,
            r#"{"encrypted\u005fstate":"AAAA"}"#,
            r#"{"metadata":1,"metadat\u0061":null}"#,
        ] {
            assert!(scan(doc).is_ok() && accept(doc).is_none(), "{doc}");
        }
    }

    #[test]
    fn an_escaped_slash_is_a_slash_and_every_other_escape_is_refused() {
        let (_, out) = scan(r#"{"encrypted_state":"\/\/\/\/AA\/\/"}"#).unwrap();
        assert_eq!(out, [255, 255, 255, 0, 15, 255]);
        for escape in ["\\n", "\\u0041", "\\\\", "\\\"", "\\b"] {
            let doc = format!(r#"{{"encrypted_state":"{escape}AAA"}}"#);
            assert!(is_malformed(&doc), "{doc}");
        }
    }

    #[test]
    fn base64_that_is_not_canonical_is_refused() {
        for bad in [
            "A", "AA", "AAA", "AAAAA", "AA=", "A===", "====", "=", "AB==", "AAB=", "AA==AAAA",
            "AA==A", "AA===", "AA======", "AAAA=", "AA AA", "AAAA\n", "AA-_", "AAé=", "AA\0A",
            "AA=A", " AAAA",
        ] {
            let doc = format!(r#"{{"encrypted_state":"{bad}"}}"#);
            let (status, sentence) = scan(&doc).unwrap_err();
            assert!(status == 400 && sentence.contains("canonical base64"), "{bad}");
        }
    }

    #[test]
    fn a_document_that_has_not_ended_is_refused() {
        let doc = r#"{"a":"b\n","metadata":{"c":[12]},"encrypted_state":"g\/g=","d":1}"#;
        assert!(accept(doc).is_some());
        for cut in 0..doc.len() {
            assert!(is_malformed(&doc[..cut]), "{}", &doc[..cut]);
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for bad in ["[]", "\"a\"", "1", "null", "\u{feff}{}", "x{}", "}", ""] {
            assert!(is_malformed(bad), "{bad}");
        }
    }

    #[test]
    fn broken_syntax_outside_the_skipped_value_reaches_serde() {
        for bad in [
            "{}{}", "{} x", r#"{"a":1]"#, r#"{"a" 1}"#, r#"{"encrypted_state" "AAAA"}"#,
            r#"{"encrypted_state":"AAAA"x}"#, r#"{"encrypted_state":"AAAA"1,"b":2}"#,
            r#"{"encrypted_state":"AAAA""b":2}"#, r#"{"metadata":1 2}"#, r#"{"metadata":"a"b}"#,
            r#"{"metadata":[1]2}"#, r#"{"metadata":12"a"}"#, r#"{"metadata":1]"#,
            r#"{"metadata":1,}"#, r#"{,"metadata":1}"#, r#"{"a":"encrypted_state":"AAAA"}"#,
        ] {
            assert!(scan(bad).is_ok() && accept(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn the_skipped_value_may_be_anything_that_closes() {
        for value in ["1", "-1.5e+3", "true", r#""a\"}\\""#, "[]", r#"{"a":[{"b":"]"}]}"#, "[}"] {
            let doc = format!(r#"{{"metadata": {value} ,"a":1}}"#);
            assert_eq!(accept(&doc).as_deref(), Some(r#"{"metadata": null ,"a":1}"#), "{value}");
        }
        for value in ["", ",", ":1", "]", "+\u{e9}", "'a'"] {
            assert_eq!(accept(&format!(r#"{{"metadata":{value}}}"#)), None, "{value}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        for name in ["a", "metadata"] {
            let nested = |n| format!("{{\"{name}\":{}{}}}", "[".repeat(n), "]".repeat(n));
            assert!(scan(&nested(127)).is_ok());
            assert!(is_malformed(&nested(128)));
        }
    }

    #[test]
    fn the_rest_is_bounded_with_its_white_space() {
        let scan = |doc: &[u8]| scan_with("encrypted_state", 38, &[doc]);
        let is_large = |doc: &[u8]| scan(doc).is_err_and(|(status, _)| status == 413);
        assert!(is_large(br#"{"encrypted_state":"AAAA","metadata":1}"#));
        let good = br#"{"encrypted_state":"AAAAAAAA","b":[1]}"#;
        assert_eq!(scan(good).map(|found| found.0.len()), Ok(32));
        for (space, fits) in [("      ", true), ("       ", false)] {
            let doc = [good, space.as_bytes()].concat();
            assert_eq!(scan(&doc).is_ok(), fits);
        }
        assert!(is_large(format!(r#"{{"{}"#, "a".repeat(100)).as_bytes()));
    }

    #[test]
    fn a_large_state_in_odd_pieces_is_decoded_whole() {
        let bytes: Vec<u8> =
            (0..100_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let doc = format!(r#"{{"encrypted_state":"{}","a":1}}"#, STANDARD.encode(&bytes));
        for doc in [doc.replace('/', "\\/"), doc] {
            for size in [1, 3, 4095, 4096, 4099, 65_536, usize::MAX >> 1] {
                let pieces: Vec<&[u8]> = doc.as_bytes().chunks(size).collect();
                let (rest, out) = scan_pieces(&pieces).unwrap();
                assert!(out == bytes && rest == br#"{"encrypted_state":null,"a":1}"#);
            }
        }
    }

    #[test]
    fn at_the_edge_of_a_block_a_state_is_read_as_anywhere() {
        let tokens =
            ["", "A", "\\/", "\\/\\/", "\\\\/", "\\\\", "\\n", "\\\"", "=", "==", "AA==", "é", " "];
        for (token, at) in tokens.iter().flat_map(|t| (0..12).map(move |at| (t, at))) {
            for after in 0..5 {
                let before = "A".repeat(DECODE_CHARS - 6 + at);
                let text = format!("{before}{token}{}", "A".repeat(after));
                let doc = format!(r#"{{"encrypted_state":"{text}"}}"#);
                let value: String = serde_json::from_str(&format!("\"{text}\"")).unwrap();
                let decoded = STANDARD.decode(value).ok();
                for size in [DECODE_CHARS, usize::MAX >> 1] {
                    let pieces: Vec<&[u8]> = doc.as_bytes().chunks(size).collect();
                    let out = scan_pieces(&pieces).ok().map(|(_, out)| out);
                    assert!(out == decoded, "{token} at {at} before {after}");
                }
            }
        }
    }

    /// A value and its text.
    fn value() -> impl Strategy<Value = Value> {
        let text = r#"[a-c"\\/\n\u{0}\{\}\[\],: é😀]{0,8}|metadata|encrypted_state"#;
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            text.prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, move |inner| {
            let map = vec((text, inner.clone()), 0..4);
            prop_oneof![
                vec(inner, 0..4).prop_map(Value::from),
                map.prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    /// Members in any order; a state of these bytes, or none.
    #[derive(Debug, Clone)]
    struct Doc {
        members: Vec<(String, Value)>,
        state: Option<(Vec<u8>, usize, bool)>,
        metadata: Option<(Value, usize)>,
        pretty: bool,
        ascii: bool,
    }

    fn doc() -> impl Strategy<Value = Doc> {
        let member = (r#"[a-z"\\ é]{0,3}[0-9]"#, value());
        let state = proptest::option::of((vec(any::<u8>(), 0..80), 0..9_usize, any::<bool>()));
        let metadata = proptest::option::of((value(), 0..9_usize));
        (vec(member, 0..5), state, metadata, any::<bool>(), any::<bool>()).prop_map(
            |(members, state, metadata, pretty, ascii)| {
                let mut named = Map::new();
                members.into_iter().for_each(|(name, value)| drop(named.insert(name, value)));
                Doc { members: named.into_iter().collect(), state, metadata, pretty, ascii }
            },
        )
    }

    impl Doc {
        fn text(&self) -> String {
            let print = |value: &Value| {
                let pretty = serde_json::to_string_pretty(value).unwrap();
                let text = if self.pretty { pretty } else { value.to_string() };
                if self.ascii { as_ascii(&text) } else { text }
            };
            let json = |name: &String| Value::from(name.as_str());
            let mut members: Vec<(String, String)> = self
                .members
                .iter()
                .map(|(name, value)| (print(&json(name)), print(value)))
                .collect();
            if let Some((bytes, at, escaped)) = &self.state {
                let base64 = STANDARD.encode(bytes);
                let base64 = if *escaped { base64.replace('/', "\\/") } else { base64 };
                let at = at % (members.len() + 1);
                members.insert(at, ("\"encrypted_state\"".into(), format!("\"{base64}\"")));
            }
            if let Some((value, at)) = &self.metadata {
                let at = at % (members.len() + 1);
                members.insert(at, ("\"metadata\"".into(), print(value)));
            }
            let colon = if self.pretty { "\n\t: " } else { ":" };
            let members: Vec<String> =
                members.iter().map(|(name, value)| format!("{name}{colon}{value}")).collect();
            format!("{{{}}}", members.join(if self.pretty { "\r\n , " } else { "," }))
        }

        /// What must remain.
        fn rest(&self) -> Value {
            let mut rest: Map<String, Value> = self.members.iter().cloned().collect();
            let state = self.state.as_ref().map(|_| "encrypted_state");
            let metadata = self.metadata.as_ref().map(|_| "metadata");
            for name in [state, metadata].into_iter().flatten() {
                rest.insert(name.to_owned(), Value::Null);
            }
            Value::Object(rest)
        }
    }

    /// Other characters are only in strings, where an escape may stand for them.
    fn as_ascii(text: &str) -> String {
        let mut units = [0; 2];
        let escape = |c: char| match c {
            ' '..='~' | '\n' => c.to_string(),
            _ => c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
        };
        text.chars().map(escape).collect::<Vec<_>>().concat()
    }

    fn runner(cases: u32) -> TestRunner {
        let config = Config { cases, failure_persistence: None, ..Config::default() };
        TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
    }

    fn in_pieces<'a>(mut doc: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
        let mut pieces = Vec::new();
        for &size in sizes {
            let (piece, rest) = doc.split_at(size.min(doc.len()));
            pieces.push(piece);
            doc = rest;
        }
        pieces.push(doc);
        pieces
    }

    #[test]
    fn every_document_in_any_pieces_scans_to_what_serde_sees() {
        let check = |(doc, sizes): (Doc, Vec<usize>)| {
            let text = doc.text();
            let whole: Value = serde_json::from_str(&text).unwrap();
            let (rest, out) = scan_pieces(&in_pieces(text.as_bytes(), &sizes)).unwrap();
            assert!(serde_json::from_slice::<Rest>(&rest).is_ok());
            let rest: Value = serde_json::from_slice(&rest).unwrap();
            assert_eq!(rest, doc.rest());
            let state = doc.state.map(|(bytes, _, _)| bytes);
            assert_eq!(out, state.unwrap_or_default());
            assert_eq!(without(whole), rest);
            Ok(())
        };
        runner(500).run(&(doc(), vec(0..20_usize, 0..12)), check).unwrap();
    }

    /// The whole document with the two values taken out.
    fn without(mut whole: Value) -> Value {
        for name in ["encrypted_state", "metadata"] {
            whole.get_mut(name).map(|value| std::mem::replace(value, json!(null)));
        }
        whole
    }

    /// If scanner and serde accept, serde accepts the whole with the same content; what it
    /// refuses can only lie in the skipped value.
    fn judge(doc: &[u8], sizes: &[usize]) {
        let scanned = scan_pieces(&in_pieces(doc, sizes));
        assert_eq!(scanned, scan_pieces(&[doc]));
        let Ok((rest, out)) = scanned else { return };
        let Ok(value) = serde_json::from_slice::<Value>(&rest) else { return };
        if serde_json::from_slice::<Rest>(&rest).is_err() {
            return;
        }
        // No name holds a bare control character: nothing is decoded here.
        let (readable, _) = scan_with("\0", REST_MAX, &[doc]).unwrap();
        let whole: Value = serde_json::from_slice(&readable).unwrap();
        let state = whole.get("encrypted_state").map(|state| state.as_str().unwrap());
        assert_eq!(state.is_some(), value.get("encrypted_state").is_some());
        assert_eq!(STANDARD.decode(state.unwrap_or_default()).unwrap(), out);
        assert_eq!(without(whole), value);
        match serde_json::from_slice::<Value>(doc) {
            Ok(whole) => assert_eq!(without(whole), value),
            Err(_) => assert!(value.get("metadata").is_some()),
        }
    }

    /// Kind, two places, a length.
    type Edit = (u8, usize, usize, usize);

    #[test]
    fn mutated_documents_never_pass_where_serde_refuses_them() {
        let edit = (0..6_u8, any::<usize>(), any::<usize>(), 0..32_usize);
        let check = |(doc, edits, sizes): (Doc, Vec<Edit>, Vec<usize>)| {
            let mut bytes = doc.text().into_bytes();
            for (kind, at, other, n) in edits {
                let at = at % (bytes.len() + 1);
                let other = other % (bytes.len() + 1);
                let syntax = br#"{}[]:,"\/ nulA=1"#;
                match kind {
                    0 => bytes.insert(at, syntax[other % syntax.len()]),
                    1 => drop(bytes.drain(at.min(other)..bytes.len().min(at.min(other) + n % 3))),
                    2 if at < bytes.len() => bytes[at] ^= 1 << (n % 8),
                    3 => bytes.truncate(bytes.len().saturating_sub(n % 2)),
                    _ => {
                        let copy = bytes[other..bytes.len().min(other + n)].to_vec();
                        drop(bytes.splice(at..at, copy));
                    }
                }
            }
            judge(&bytes, &sizes);
            Ok(())
        };
        let input = (doc(), vec(edit, 1..4), vec(0..20_usize, 0..6));
        runner(2000).run(&input, check).unwrap();
    }
}
