use std::collections::VecDeque;
use std::io;

use serde::Deserialize;
use serde_json::Value;

use super::*;

const REST_MAX: usize = 1 << 20;

/// The rest and the decoded bytes, or the status and the sentence of the refusal.
type Split = Result<(String, Vec<u8>), (u16, String)>;

/// A document that arrives in the given pieces.
struct Pieces<'a>(VecDeque<&'a [u8]>);

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

fn split_pieces<'a>(rest_max: usize, pieces: impl IntoIterator<Item = &'a [u8]>) -> Split {
    let mut decoded = Vec::new();
    let source = Pieces(pieces.into_iter().collect());
    let rest = split_upload_json(source, "encrypted_state", "metadata", rest_max, |bytes| {
        assert!(bytes.len() <= DECODE_CHARS / 4 * 3);
        decoded.extend_from_slice(bytes);
        Ok(())
    });
    match rest {
        Ok(rest) => Ok((String::from_utf8(rest).unwrap(), decoded)),
        Err(error) => Err((error.status, error.sentence)),
    }
}

/// Splits at once, at every position, and byte by byte: all results must agree.
fn split(document: &str) -> Split {
    let document = document.as_bytes();
    let whole = split_pieces(REST_MAX, [document]);
    for at in 0..=document.len() {
        assert_eq!(split_pieces(REST_MAX, [&document[..at], &document[at..]]), whole, "{at}");
    }
    assert_eq!(split_pieces(REST_MAX, document.chunks(1)), whole);
    whole
}

/// What a handler parses from the rest: it does not know the two members.
#[derive(Deserialize)]
struct Body {
    #[serde(rename = "machine_id")]
    _machine_id: Option<Value>,
}

/// The rest, if serde_json accepts it.
fn accepted(document: &str) -> Option<String> {
    let (rest, _) = split(document).ok()?;
    serde_json::from_str::<Body>(&rest).ok().map(|_| rest)
}

/// The decoded state of a document that is accepted.
fn state(string: &str) -> Option<Vec<u8>> {
    let document = format!(r#"{{"encrypted_state":"{string}"}}"#);
    accepted(&document).and_then(|_| Some(split(&document).ok()?.1))
}

#[test]
fn the_state_is_decoded_and_the_metadata_dropped() {
    let document = r#" {"a":"b", "encrypted_state" : "aGVsbG8=" ,"metadata": {"x":["]}"]},"v":1}
"#;
    let rest = r#" {"a":"b", "encrypted_state" :null ,"metadata":null,"v":1}
"#;
    assert_eq!(split(document), Ok((rest.to_owned(), b"hello".to_vec())));
    assert_eq!(split("{}"), Ok(("{}".to_owned(), vec![])));
    assert_eq!(state(""), Some(vec![]));
}

#[test]
fn only_names_at_the_top_level_count() {
    for document in [
        r#"{"a":{"encrypted_state":1,"metadata":2}}"#,
        r#"{"a":["encrypted_state","metadata"]}"#,
        r#"{"a":"encrypted_state","b":"metadata"}"#,
        r#"{"a":"\"encrypted_state","x\"metadata":1,"encrypted_state ":2,"":3}"#,
    ] {
        assert_eq!(split(document), Ok((document.to_owned(), vec![])), "{document}");
    }
}

#[test]
fn a_name_means_the_same_in_every_spelling() {
    let document = r#"{"encrypted\u005Fstate":"QUJD","\u006deta\u0064ata":[1],"a\/b":"\u00e9"}"#;
    let (rest, bytes) = split(document).unwrap();
    assert_eq!(rest, r#"{"encrypted\u005Fstate":null,"\u006deta\u0064ata":null,"a\/b":"\u00e9"}"#);
    assert_eq!(bytes, b"ABC");
}

#[test]
fn neither_member_may_appear_twice_in_any_spelling() {
    let spellings = |names: [&'static str; 2], value: &'static str| {
        let pairs = [(0, 0), (0, 1), (1, 0), (1, 1)];
        pairs.map(|(a, b)| format!(r#"{{"{}":{value},"b":1,"{}":{value}}}"#, names[a], names[b]))
    };
    for document in spellings(["encrypted_state", "encrypted\\u005fstate"], r#""AAAA""#) {
        let (status, sentence) = split(&document).unwrap_err();
        assert!(status == 400 && sentence.contains("encrypted_state appears twice"), "{document}");
    }
    for document in spellings(["metadata", "meta\\u0064ata"], "{}") {
        let (status, sentence) = split(&document).unwrap_err();
        assert!(status == 400 && sentence.contains("metadata appears twice"), "{document}");
    }
}

#[test]
fn an_escape_in_base64_stands_for_its_character() {
    let bytes = [0xfb, 0xff, 0xbf, 0, 0];
    let plain = STANDARD.encode(bytes);
    assert_eq!(plain, "+/+/AAA=");
    let slash = plain.replace('/', "\\/");
    let lower = plain.replace('+', "\\u002b").replace('/', "\\u002f").replace('=', "\\u003d");
    let upper = plain.replace('+', "\\u002B").replace('/', "\\u002F").replace('=', "\\u003D");
    let all: String = plain.bytes().map(|byte| format!("\\u{byte:04x}")).collect();
    for string in [plain, slash, lower, upper, all] {
        assert_eq!(state(&string).as_deref(), Some(&bytes[..]), "{string}");
    }
    for string in [
        "\\nAAA", "AAA\\", "\\\\AAA", "\\\\u0041AAA", "AA\\\\u0041A", "\\\"AAA", "\\bAAA",
        "\\u004", "\\u004gAAA", "\\u+041AAA", "\\U0041AAA", "\\x41AAA", "\\u000aAAAA",
        "\\u00c1AAA", "\\ud83d\\ude00", "\\ud83dAAA", "\\u0041", "\\u003dAAA", "AA\\u003d",
        "AA==\\u0041AAA",
    ] {
        assert_eq!(state(string), None, "{string}");
    }
}

#[test]
fn base64_that_is_not_canonical_is_refused() {
    for string in [
        "A", "AA", "AAA", "AAAAA", "AA=", "A===", "====", "=", "AB==", "AAB=", "AA==AAAA", "AA==A",
        "AA===", "AA======", "AAAA=", "AA AA", "AAAA\n", "AA-_", "AAé=", "AA\0A", "AA=A", " AAAA",
    ] {
        let (status, sentence) =
            split(&format!(r#"{{"encrypted_state":"{string}"}}"#)).unwrap_err();
        assert!(status == 400 && sentence.contains("canonical base64"), "{string}");
    }
    for value in ["null", "1", "true", "{}", "[\"AAAA\"]", "", ",", "}", ":\"AAAA\""] {
        let (status, _) = split(&format!(r#"{{"encrypted_state":{value}}}"#)).unwrap_err();
        assert_eq!(status, 400, "{value}");
    }
}

#[test]
fn a_document_that_has_not_ended_is_refused() {
    let document = r#"{"a":"b\n","metadata":{"c":[12]},"encrypted_state":"g\/g\u003d","d":1}"#;
    assert!(accepted(document).is_some());
    for cut in 0..document.len() {
        assert_eq!(accepted(&document[..cut]), None, "{}", &document[..cut]);
    }
}

#[test]
fn what_is_not_one_object_is_refused() {
    for bad in ["[]", "\"a\"", "1", "null", "\u{feff}{}", "x{}", "}", "{} x", "{}[", "{}}"] {
        assert!(split(bad).is_err_and(|(status, _)| status == 400), "{bad}");
    }
    for bad in ["", " ", "{}{}", "{"] {
        assert_eq!(accepted(bad), None, "{bad}");
    }
}

#[test]
fn broken_syntax_outside_the_skipped_value_is_refused() {
    for bad in [
        r#"{"a":1]"#, r#"{"a" 1}"#, r#"{"encrypted_state" "AAAA"}"#, r#"{"\x61":1}"#,
        r#"{"encrypted_state":"AAAA"x}"#, r#"{"encrypted_state":"AAAA"1,"b":2}"#,
        r#"{"encrypted_state":"AAAA""b":2}"#, r#"{"metadata":1 2}"#, r#"{"metadata":"a"b}"#,
        r#"{"metadata":[1]2}"#, r#"{"metadata":12"a"}"#, r#"{"metadata":1]"#, r#"{"metadata":1,}"#,
        r#"{,"metadata":1}"#, r#"{"a":"encrypted_state":"AAAA"}"#, r#"{"metadata"x:1}"#,
        r#"{"metadata"::1}"#, r#"{"a":1:2}"#, r#"{"a"::::::1}"#, "{\"metadata\":\u{c}1}",
    ] {
        assert_eq!(accepted(bad), None, "{bad}");
    }
}

#[test]
fn the_skipped_value_may_be_anything_that_closes() {
    for value in ["1", "-1.5e+3", "true", r#""a\"}\\""#, "[]", r#"{"a":[{"b":"]"}]}"#, "[}", "\"\""]
    {
        let document = format!(r#"{{"metadata": {value} ,"a":1}}"#);
        assert_eq!(accepted(&document).as_deref(), Some(r#"{"metadata":null ,"a":1}"#), "{value}");
    }
    for value in ["", ",", ":1", "]", "}", "+\u{e9}", "'a'", "\\"] {
        assert_eq!(accepted(&format!(r#"{{"metadata":{value}}}"#)), None, "{value}");
    }
}

#[test]
fn nesting_is_bounded_wherever_it_stands() {
    for name in ["a", "metadata"] {
        let nested = |n| format!(r#"{{"{name}":{}{}}}"#, "[".repeat(n), "]".repeat(n));
        assert!(split(&nested(127)).is_ok() && check_nesting(nested(127).as_bytes()).is_ok());
        assert!(split(&nested(128)).is_err_and(|(status, _)| status == 400));
        assert!(check_nesting(nested(128).as_bytes()).is_err());
    }
    let brackets = "[{".repeat(1000);
    assert!(check_nesting(format!(r#"{{"a":"{brackets}\"{brackets}"}}"#).as_bytes()).is_ok());
}

#[test]
fn the_rest_is_bounded_with_its_white_space() {
    let split = |document: &str| split_pieces(38, [document.as_bytes()]);
    let is_large = |document: &str| split(document).is_err_and(|(status, _)| status == 413);
    assert!(is_large(r#"{"encrypted_state":"AAAA","metadata":1}"#));
    let good = r#"{"encrypted_state":"AAAAAAAA","b":[1]}"#;
    assert_eq!(split(good).map(|(rest, _)| rest.len()), Ok(32));
    assert!(split(&format!("{good}      ")).is_ok());
    assert!(is_large(&format!("{good}       ")));
    assert!(is_large(&format!(r#"{{"{}"#, "a".repeat(100))));
}

#[test]
fn a_name_is_read_once_however_many_colons_follow() {
    let document = format!("{{\"{}\"{}}}", "\\n".repeat(30_000), ":".repeat(60_000));
    let begin = std::time::Instant::now();
    let split = split_pieces(REST_MAX, [document.as_bytes()]);
    assert!(split.is_ok(), "serde_json judges the syntax later");
    assert!(begin.elapsed() < std::time::Duration::from_secs(5), "{:?}", begin.elapsed());
}

#[test]
fn a_large_state_in_odd_pieces_is_decoded_whole() {
    let bytes: Vec<u8> =
        (0..100_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let plain = format!(r#"{{"encrypted_state":"{}","a":1}}"#, STANDARD.encode(&bytes));
    for document in [plain.replace('/', "\\/"), plain.replace('+', "\\u002b"), plain] {
        for size in [1, 3, 4095, 4096, 4099, 65_536, usize::MAX >> 1] {
            let split = split_pieces(REST_MAX, document.as_bytes().chunks(size)).unwrap();
            assert!(split == (r#"{"encrypted_state":null,"a":1}"#.to_owned(), bytes.clone()));
        }
    }
}

#[test]
fn at_the_edge_of_a_block_a_state_is_read_as_anywhere() {
    let tokens = [
        "", "A", "\\/", "\\/\\/", "\\\\/", "\\\\", "\\\\u0041", "\\n", "\\\"", "=", "==", "AA==",
        "é", " ", "\\u0041", "\\\\/\\u0041", "\\u002F\\u002b", "\\u00", "AA\\u003d\\u003d",
        "\\u003d",
    ];
    for (token, at) in tokens.iter().flat_map(|token| (0..12).map(move |at| (token, at))) {
        for after in 0..5 {
            let before = "A".repeat(DECODE_CHARS - 8 + at);
            let string = format!("\"{before}{token}{}\"", "A".repeat(after));
            let expected = serde_json::from_str::<String>(&string).ok();
            let expected = expected.and_then(|text| STANDARD.decode(text).ok());
            let document = format!(r#"{{"encrypted_state":{string}}}"#);
            let size = if after % 2 == 0 { DECODE_CHARS } else { document.len() };
            let split = split_pieces(REST_MAX, document.as_bytes().chunks(size));
            assert!(split.ok().map(|(_, bytes)| bytes) == expected, "{token} {at} {after}");
        }
    }
}
