//! Takes a JSON object apart while it arrives: one huge base64 member is decoded, another is
//! dropped unread, and the little that remains is left for serde_json, so that memory stays flat
//! however large the body is.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Objects and arrays inside each other, as serde_json allows.
const NESTING_MAX: u32 = 128;
/// Characters that are decoded at once: few enough to stay in the processor's first cache.
const DECODE_CHARS: usize = 4096;

/// Why a document was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScanError {
    /// The document cannot be taken apart; the sentence is for the client (400).
    Malformed(&'static str),
    /// The member is not canonical base64: standard alphabet, padded, nothing else (400).
    Base64,
    /// What remains is larger than allowed (413).
    RestTooLarge,
}

use ScanError::Malformed;

/// The state between two pieces of a document.
///
/// Everything but the two values is copied to the rest as it is, with `null` in their places. So
/// it is serde_json that judges the syntax of the document, and that finds a name twice, also
/// one spelled with escapes, if its struct has both names as `Option<()>`. The scanner may lose
/// its way only in a document whose beginning, copied as it is, serde_json refuses. Inside the
/// skipped value nothing but strings, escapes and the number of open brackets is followed.
#[derive(Default)]
pub struct Scanner {
    field: &'static str,
    skip: &'static str,
    rest_max: usize,
    rest: Vec<u8>,
    place: Place,
    depth: u32,
    /// Where in the rest the text of the newest string begins; before a colon, it is the name.
    text_at: usize,
    /// What becomes of the bytes that arrive.
    fate: Fate,
    /// What becomes of the value that comes next.
    next: Fate,
    found: bool,
    /// Base64 that waits for the rest of its four characters.
    carry: Vec<u8>,
    /// The last four characters ended with padding: nothing may follow.
    padded: bool,
}

/// Where the next byte stands.
#[derive(Clone, Copy, Default, PartialEq)]
enum Place {
    #[default]
    Start,
    Between,
    Text,
    Escape,
    /// In a skipped number or word.
    Scalar,
    End,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Fate {
    #[default]
    Kept,
    Skipped,
    Decoded,
}

impl Scanner {
    /// Decodes the string of the top-level member `field` and drops the value of `skip`; all
    /// that remains may have `rest_max` bytes, white space included.
    pub fn new(field: &'static str, skip: &'static str, rest_max: usize) -> Scanner {
        Scanner { field, skip, rest_max, ..Scanner::default() }
    }

    /// Takes the next piece of the document and appends what it decodes to `out`, at most three
    /// quarters of the piece and three bytes. After an error the document is lost.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), ScanError> {
        let mut left = bytes;
        while !left.is_empty() {
            let run = if self.place == Place::Text { run_len(left) } else { 0 };
            let (run, after) = left.split_at_checked(run).unwrap_or((left, &[]));
            match self.fate {
                Fate::Decoded => self.decode(run, out)?,
                Fate::Kept | Fate::Skipped => self.keep(run)?,
            }
            let Some((&byte, after)) = after.split_first() else { break };
            self.step(byte, out)?;
            left = after;
        }
        Ok(())
    }

    /// The document with `null` for the two values, and whether `field` was there.
    pub fn finish(self) -> Result<(Vec<u8>, bool), ScanError> {
        match self.place {
            Place::End => Ok((self.rest, self.found)),
            _ => Err(Malformed("the JSON object in the body is cut short")),
        }
    }

    /// Takes one byte; in a string, the one that ended a run or stands after a backslash.
    fn step(&mut self, byte: u8, out: &mut Vec<u8>) -> Result<(), ScanError> {
        let decoded = self.fate == Fate::Decoded;
        match (self.place, byte) {
            (Place::Start, b'{') | (Place::Between, _) => self.between(byte)?,
            (Place::Start, b' ' | b'\t' | b'\r' | b'\n') | (Place::End, _) => {}
            (Place::Start, _) => return Err(Malformed("the body must be a JSON object")),
            (Place::Text, b'\\') => self.place = Place::Escape,
            (Place::Text, _) if !self.carry.is_empty() => return Err(ScanError::Base64),
            (Place::Text, _) => self.place = Place::Between,
            (Place::Escape, b'/') if decoded => {
                // Some encoders write every slash so; no other escape stands for base64.
                self.decode(b"/", out)?;
                self.place = Place::Text;
            }
            (Place::Escape, _) if decoded => {
                return Err(Malformed("the base64 in the body may hold no escape but \\/"));
            }
            (Place::Escape, _) => self.place = Place::Text,
            (Place::Scalar, _) if is_scalar(byte) => {}
            (Place::Scalar, _) => {
                self.fate = Fate::Kept;
                self.between(byte)?;
            }
        }
        self.keep(&[byte])?;
        // Back at the top level, the value has ended.
        if self.place == Place::Between && self.depth == 1 {
            self.fate = Fate::Kept;
        }
        Ok(())
    }

    /// Follows a byte that is in no string.
    fn between(&mut self, byte: u8) -> Result<(), ScanError> {
        self.place = Place::Between;
        if self.next != Fate::Kept && !matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
            return self.begin(byte);
        }
        match byte {
            b'"' => {
                self.place = Place::Text;
                self.text_at = self.rest.len().saturating_add(1);
            }
            b'{' | b'[' if self.depth == NESTING_MAX => {
                return Err(Malformed("the JSON in the body is nested too deeply"));
            }
            b'{' | b'[' => self.depth = self.depth.saturating_add(1),
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            b':' if self.depth == 1 => self.next = self.fate_of_value(),
            _ => {}
        }
        if self.depth == 0 {
            self.place = Place::End;
        }
        Ok(())
    }

    /// What becomes of the value whose name was the newest string.
    fn fate_of_value(&self) -> Fate {
        let name = self.rest.get(self.text_at..).unwrap_or_default().trim_ascii_end();
        match name.strip_suffix(b"\"") {
            Some(name) if name == self.field.as_bytes() => Fate::Decoded,
            Some(name) if name == self.skip.as_bytes() => Fate::Skipped,
            _ => Fate::Kept,
        }
    }

    /// Puts `null` in the place of a value that is not kept and looks at its first byte.
    fn begin(&mut self, byte: u8) -> Result<(), ScanError> {
        self.keep(b"null")?;
        self.fate = std::mem::replace(&mut self.next, Fate::Kept);
        match (self.fate, byte) {
            (Fate::Decoded, b'"') if !self.found => (self.place, self.found) = (Place::Text, true),
            (Fate::Decoded, _) => return Err(Malformed("the body needs its base64 as one string")),
            (_, b'"') => self.place = Place::Text,
            (_, b'{' | b'[') => self.depth = self.depth.saturating_add(1),
            _ if is_scalar(byte) => self.place = Place::Scalar,
            _ => return Err(Malformed("a member of the body has no value")),
        }
        Ok(())
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), ScanError> {
        if self.fate != Fate::Kept {
            return Ok(());
        }
        if bytes.len() > self.rest_max.saturating_sub(self.rest.len()) {
            return Err(ScanError::RestTooLarge);
        }
        self.rest.extend_from_slice(bytes);
        Ok(())
    }

    fn decode(&mut self, run: &[u8], out: &mut Vec<u8>) -> Result<(), ScanError> {
        let missing = (4 - self.carry.len()) % 4;
        let (first, rest) = run.split_at_checked(missing).unwrap_or((run, &[]));
        self.carry.extend_from_slice(first);
        if self.carry.len() == 4 {
            let fours = std::mem::take(&mut self.carry);
            self.decode_fours(&fours, out)?;
        }
        let (fours, tail) = rest.split_at_checked(rest.len() - rest.len() % 4).unwrap_or_default();
        self.decode_fours(fours, out)?;
        self.carry.extend_from_slice(tail);
        match self.padded && !self.carry.is_empty() {
            true => Err(ScanError::Base64),
            false => Ok(()),
        }
    }

    fn decode_fours(&mut self, fours: &[u8], out: &mut Vec<u8>) -> Result<(), ScanError> {
        for chars in fours.chunks(DECODE_CHARS) {
            if self.padded {
                return Err(ScanError::Base64);
            }
            STANDARD.decode_vec(chars, out).map_err(|_| ScanError::Base64)?;
            self.padded = chars.ends_with(b"=");
        }
        Ok(())
    }
}

/// Bytes before the first quote or backslash. Whole blocks are asked first, without a branch for
/// each byte, so that the compiler can use vector instructions.
fn run_len(bytes: &[u8]) -> usize {
    let ends = |byte: u8| u8::from(byte == b'"') | u8::from(byte == b'\\');
    let plain = |block: &&[u8]| block.iter().fold(0, |found, byte| found | ends(*byte)) == 0;
    let skipped = bytes.chunks_exact(64).take_while(plain).count() * 64;
    let rest = bytes.get(skipped..).unwrap_or_default();
    skipped + rest.iter().position(|byte| ends(*byte) != 0).unwrap_or(rest.len())
}

/// A character of a number, `true`, `false` or `null`.
fn is_scalar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
    use serde::Deserialize;
    use serde_json::{Map, Value, json};

    use super::*;

    const REST_MAX: usize = 1 << 20;

    /// What a caller makes of the rest.
    #[derive(Deserialize)]
    struct Rest {
        #[serde(rename = "encrypted_state")]
        _state: Option<()>,
        #[serde(rename = "metadata")]
        _metadata: Option<()>,
    }

    type Scanned = Result<(Vec<u8>, Vec<u8>, bool), ScanError>;

    fn scan_with(mut scanner: Scanner, pieces: &[&[u8]]) -> Scanned {
        let mut out = Vec::new();
        for piece in pieces {
            let before = out.len();
            scanner.feed(piece, &mut out)?;
            assert!(out.len() - before <= piece.len() * 3 / 4 + 3);
        }
        scanner.finish().map(|(rest, found)| (rest, out, found))
    }

    fn scan_pieces(pieces: &[&[u8]]) -> Scanned {
        scan_with(Scanner::new("encrypted_state", "metadata", REST_MAX), pieces)
    }

    /// Scans at once and in every two pieces, and byte by byte: all must agree.
    fn scan(doc: &str) -> Result<(String, Vec<u8>, bool), ScanError> {
        let doc = doc.as_bytes();
        let whole = scan_pieces(&[doc]);
        for at in 0..=doc.len() {
            assert_eq!(scan_pieces(&[&doc[..at], &doc[at..]]), whole, "{at}");
        }
        assert_eq!(scan_pieces(&doc.chunks(1).collect::<Vec<_>>()), whole);
        whole.map(|(rest, out, found)| (String::from_utf8(rest).unwrap(), out, found))
    }

    /// The rest, if serde_json accepts it.
    fn accept(doc: &str) -> Option<String> {
        let (rest, _, _) = scan(doc).ok()?;
        serde_json::from_str::<Rest>(&rest).ok().map(|_| rest)
    }

    fn refusal(doc: &str) -> Option<ScanError> {
        scan(doc).err()
    }

    fn is_malformed(doc: &str) -> bool {
        matches!(refusal(doc), Some(Malformed(_)))
    }

    #[test]
    fn the_state_is_decoded_and_the_metadata_dropped() {
        let doc = r#" {"a":"b", "encrypted_state" : "aGVsbG8=","metadata":{"x":["]}"]},"v":1}
"#;
        let rest = r#" {"a":"b", "encrypted_state" : null,"metadata":null,"v":1}
"#;
        assert_eq!(scan(doc), Ok((rest.to_owned(), b"hello".to_vec(), true)));
    }

    #[test]
    fn the_caller_learns_that_the_state_is_missing_or_empty() {
        assert_eq!(scan("{}"), Ok(("{}".to_owned(), vec![], false)));
        let empty = r#"{"encrypted_state":null}"#.to_owned();
        assert_eq!(scan(r#"{"encrypted_state":""}"#), Ok((empty, vec![], true)));
    }

    #[test]
    fn only_names_at_the_top_level_count() {
        for doc in [
            r#"{"a":{"encrypted_state":1,"metadata":2}}"#,
            r#"{"a":["encrypted_state","metadata"]}"#,
            r#"{"a":"encrypted_state","b":"metadata"}"#,
            r#"{"a":"\"encrypted_state","x\"metadata":1,"encrypted_state ":2,"":3}"#,
        ] {
            assert_eq!(scan(doc), Ok((doc.to_owned(), vec![], false)), "{doc}");
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
        let (_, out, _) = scan(r#"{"encrypted_state":"\/\/\/\/AA\/\/"}"#).unwrap();
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
            assert_eq!(refusal(&doc), Some(ScanError::Base64), "{bad}");
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
        let scanner = || Scanner::new("encrypted_state", "metadata", 38);
        let good = br#"{"encrypted_state":"AAAA","metadata":1}"#;
        assert_eq!(scan_with(scanner(), &[good]), Err(ScanError::RestTooLarge));
        let good = br#"{"encrypted_state":"AAAAAAAA","b":[1]}"#;
        assert_eq!(scan_with(scanner(), &[good]).map(|found| found.0.len()), Ok(32));
        for (space, fits) in [("      ", true), ("       ", false)] {
            let doc = [good, space.as_bytes()].concat();
            assert_eq!(scan_with(scanner(), &[&doc]).is_ok(), fits);
        }
        let long = format!(r#"{{"{}"#, "a".repeat(100));
        assert_eq!(scan_with(scanner(), &[long.as_bytes()]), Err(ScanError::RestTooLarge));
    }

    #[test]
    fn a_large_state_in_odd_pieces_is_decoded_whole() {
        let bytes: Vec<u8> =
            (0..100_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let doc = format!(r#"{{"encrypted_state":"{}","a":1}}"#, STANDARD.encode(&bytes));
        for size in [1, 3, 4095, 4096, 4099, 65_536, usize::MAX >> 1] {
            let pieces: Vec<&[u8]> = doc.as_bytes().chunks(size).collect();
            let (rest, out, found) = scan_pieces(&pieces).unwrap();
            assert!(found && out == bytes && rest == br#"{"encrypted_state":null,"a":1}"#);
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
            let (rest, out, found) = scan_pieces(&in_pieces(text.as_bytes(), &sizes)).unwrap();
            assert!(serde_json::from_slice::<Rest>(&rest).is_ok());
            let rest: Value = serde_json::from_slice(&rest).unwrap();
            assert_eq!(rest, doc.rest());
            let state = doc.state.map(|(bytes, _, _)| bytes);
            assert_eq!(found, state.is_some());
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
        let Ok((rest, out, found)) = scanned else { return };
        let Ok(value) = serde_json::from_slice::<Value>(&rest) else { return };
        if serde_json::from_slice::<Rest>(&rest).is_err() {
            return;
        }
        // No name holds a bare control character: nothing is decoded here.
        let unskipped = Scanner::new("\0", "metadata", REST_MAX);
        let (readable, _, _) = scan_with(unskipped, &[doc]).unwrap();
        let whole: Value = serde_json::from_slice(&readable).unwrap();
        let state = whole.get("encrypted_state").map(|state| state.as_str().unwrap());
        assert_eq!(state.is_some(), found);
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
