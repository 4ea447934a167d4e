//! A request as handlers see it, with its head checked and its body received.

use serde::de::DeserializeOwned;

use super::Error;
use super::negotiation::parse_tags;
use crate::gate::upload_json::check_nesting;
use crate::store::snapshots::Condition;
use crate::util::types::{Violation, digits};

pub struct Request {
    /// The decoded path segments at the placeholders of the route's pattern.
    pub params: Vec<String>,
    /// The decoded query.
    pub query: Query,
    /// The method is HEAD, which must not change anything.
    pub head: bool,
    /// `Accept`, as sent.
    pub accept: Option<String>,
    /// `If-Match`, as sent.
    pub if_match: Option<String>,
    /// `If-None-Match`, as sent.
    pub if_none_match: Option<String>,
    /// The body: of a JSON upload, what remains beside the file; of a raw upload, nothing.
    pub body: Vec<u8>,
}

impl Request {
    /// Parses the body as JSON of type `T`. Unknown members are ignored.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        parse_json(&self.body)
    }

    /// The precondition on the snapshot, from `If-Match` and `If-None-Match`.
    pub fn condition(&self) -> Result<Condition, Error> {
        let tags = |field: &Option<String>, strongly| {
            field.as_ref().map(|field| parse_tags(field, strongly)).transpose()
        };
        let (one_of, none_of) = (tags(&self.if_match, true)?, tags(&self.if_none_match, false)?);
        Ok(Condition { one_of, none_of })
    }

    /// A decoded path segment.
    pub fn param(&self, n: usize) -> &str {
        self.params.get(n).map_or("", String::as_str)
    }

    /// A path segment, parsed as a row id.
    pub fn param_id(&self, n: usize) -> Result<i64, Error> {
        parse_id("the id in the path", self.param(n))
    }

    /// A path segment, parsed as type `T`.
    pub fn param_as<T: TryFrom<String, Error = Violation>>(&self, n: usize) -> Result<T, Error> {
        checked("a part of the path", self.param(n))
    }
}

/// Parses a text as type `T`; the error is `what`, followed by the rule that the text breaks.
fn checked<T: TryFrom<String, Error = Violation>>(what: &str, text: &str) -> Result<T, Error> {
    T::try_from(text.to_owned()).map_err(|rule| Error::malformed(format!("{what} {rule}")))
}

/// Parses JSON of type `T`. An error names the position and repeats nothing that was sent.
pub fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    // serde would accept an array as an object, element by element, and serde_json does not check
    // ignored text for UTF-8.
    let text = std::str::from_utf8(bytes).map_err(|_| Error::malformed("the body is not UTF-8"))?;
    if text.trim_ascii_start().starts_with('[') {
        return Err(Error::malformed("the body must be a JSON object"));
    }
    check_nesting(bytes)?;
    serde_json::from_str(text).map_err(|error| {
        use serde_json::error::Category::{Data, Eof, Io, Syntax};
        let what = match error.classify() {
            Eof if bytes.is_empty() => return Error::malformed("a JSON body is needed"),
            Io | Syntax | Eof => "the body is not valid JSON".to_owned(),
            Data => data_error(&error.to_string()),
        };
        let (line, column) = (error.line(), error.column());
        Error::malformed(format!("{what} (line {line}, column {column})"))
    })
}

/// Reduces serde's message to what may be repeated: names of fields and rules of values are this
/// program's own, all else could be the client's.
fn data_error(sentence: &str) -> String {
    let ours = sentence.starts_with("missing field `") || sentence.starts_with("duplicate field `");
    match sentence.rsplit_once(" at line ") {
        Some((known, _)) if ours => known.replace('`', ""),
        Some((rule, _)) if rule.starts_with("must ") => format!("a field {rule}"),
        _ => "a field of the JSON body has the wrong type or value".to_owned(),
    }
}

/// The decoded query of a target.
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Decodes `a=b&c=d`; `+` is a space, as in HTML forms.
    pub fn parse(text: &str) -> Result<Query, Error> {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decode = |part: &str| percent_decode(&part.replace('+', " "));
            Ok((decode(name)?, decode(value)?))
        });
        Ok(Query(pairs.collect::<Result<_, Error>>()?))
    }

    /// The value of a parameter; a parameter that appears twice is an error.
    pub fn one(&self, name: &str) -> Result<Option<&str>, Error> {
        let mut values = self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| &**value);
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            _ => Err(Error::malformed(format!("{name} stands twice in the query"))),
        }
    }

    /// The value of a parameter, parsed as type `T`.
    pub fn parsed<T: TryFrom<String, Error = Violation>>(
        &self, name: &str,
    ) -> Result<Option<T>, Error> {
        self.one(name)?.map(|text| checked(name, text)).transpose()
    }

    /// The value of a parameter, parsed as a row id.
    pub fn id(&self, name: &str) -> Result<Option<i64>, Error> {
        self.one(name)?.map(|text| parse_id(name, text)).transpose()
    }
}

/// Parses a row id: decimal digits that fit into 63 bits.
pub fn parse_id(field: &str, text: &str) -> Result<i64, Error> {
    digits(text).ok_or_else(|| Error::malformed(format!("{field} must be a whole number")))
}

/// Decodes `%41` to `A` (RFC 3986, section 2.1). The result must be UTF-8 without NUL.
pub fn percent_decode(text: &str) -> Result<String, Error> {
    let bad = || Error::malformed("the target has a bad percent-escape");
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2).ok_or_else(bad)?;
        // `from_str_radix` also accepts a sign.
        let digits = if digits.starts_with('+') { "" } else { digits };
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| bad())?);
        bytes.extend(rest.bytes());
    }
    let text = String::from_utf8(bytes).map_err(|_| bad())?;
    if text.contains('\0') { Err(bad()) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded_once() {
        let query = Query::parse("message=a+b%2Bc%26d&machine_id=x&&flag").unwrap();
        assert_eq!(query.one("message").unwrap(), Some("a b+c&d"));
        assert_eq!(query.one("flag").unwrap(), Some(""));
        assert_eq!(query.one("absent").unwrap(), None);
        assert!(Query::parse("a=1&a=2").unwrap().one("a").is_err());
    }

    #[test]
    fn bad_escapes_are_refused() {
        for bad in ["%", "%4", "%zz", "%00", "%ff", "%+1"] {
            assert!(percent_decode(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_id_is_digits_that_fit() {
        assert_eq!(parse_id("id", "9223372036854775807").unwrap(), i64::MAX);
        for bad in ["", "-1", "+1", "1.0", "0x1", "9223372036854775808", "１"] {
            assert!(parse_id("id", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_json_error_repeats_nothing_that_was_sent() {
        let error = parse_json::<u8>(br#""hunter2""#).unwrap_err();
        assert!(!format!("{error:?}").contains("hunter2"));
    }
}
