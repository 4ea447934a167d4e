//! Content negotiation and preconditions of snapshots: `Accept` and entity tags.

use super::Error;
use crate::store::snapshots::Digests;

/// True if an `Accept` field asks for the raw bytes: it names their type with a weight above 0, and
/// not below that of JSON if it also names JSON (RFC 9110, section 12.5.1). `*/*` means JSON.
pub fn wants_bytes(accept: &str) -> bool {
    let weight = |media_type: &str| {
        let named = accept.split(',').filter_map(|range| {
            let (name, parameters) = range.split_once(';').unwrap_or((range, ""));
            name.trim().eq_ignore_ascii_case(media_type).then(|| weight(parameters))
        });
        named.fold(0.0, f32::max)
    };
    let bytes = weight("application/octet-stream");
    bytes > 0.0 && bytes >= weight("application/json")
}

/// The weight in the parameters of a media range. An invalid weight excludes the range.
fn weight(parameters: &str) -> f32 {
    let mut parameters = parameters.split(';').map(str::trim);
    let weight = parameters.find_map(|part| part.strip_prefix(['q', 'Q'])?.strip_prefix('='));
    let valid = |weight: &f32| (0.0..=1.0).contains(weight);
    weight.map_or(1.0, |weight| weight.parse().ok().filter(valid).unwrap_or(0.0))
}

/// Parses `*` or a list of entity tags, which may contain commas (RFC 9110, section 8.8.3). In a
/// strong comparison, weak tags match nothing.
pub fn parse_tags(field: &str, strongly: bool) -> Result<Digests, Error> {
    let malformed = || {
        Error::malformed("the If-Match and If-None-Match headers take * or \"<sha256>\" in quotes")
    };
    let between = [' ', ','];
    let (mut digests, mut rest) = (Vec::new(), field.trim_matches(between));
    if rest == "*" {
        return Ok(Digests::Any);
    }
    loop {
        let quoted = rest.strip_prefix("W/");
        let tag = quoted.unwrap_or(rest).strip_prefix('"').and_then(|tag| tag.split_once('"'));
        let (tag, after) = tag.filter(|(tag, _)| !tag.contains(' ')).ok_or_else(malformed)?;
        if quoted.is_none() || !strongly {
            digests.push(tag.to_ascii_lowercase());
        }
        if after.is_empty() {
            return Ok(Digests::OneOf(digests));
        }
        rest =
            after.trim_start().strip_prefix(',').ok_or_else(malformed)?.trim_start_matches(between);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_of(tags: &[&str]) -> Result<Digests, Error> {
        Ok(Digests::OneOf(tags.iter().map(|&tag| tag.to_owned()).collect()))
    }

    #[test]
    fn a_list_of_tags_is_read_with_the_commas_in_them() {
        assert_eq!(parse_tags(r#""a,b" ,"c", ,"d""#, true), one_of(&["a,b", "c", "d"]));
        assert_eq!(parse_tags(r#", "A","#, true), one_of(&["a"]));
        assert_eq!(parse_tags(r#""""#, true), one_of(&[""]));
        assert_eq!(parse_tags(" * ", false), Ok(Digests::Any));
        for bad in [
            "", ",", "abc", "\"", "\"a", "a\"", "\"a\"\"b\"", "\"a\" \"b\"", "\"a\", b",
            "*, \"a\"", "\"a\", *", "w/\"a\"", "W/a", "W/ \"a\"", "W/", "\"a b\"", "\"a\";",
            "\"a\", W/",
        ] {
            assert!(parse_tags(bad, false).is_err(), "{bad}");
        }
    }

    #[test]
    fn weak_tags_match_only_weakly() {
        let list = r#"W/"a,b", "c", W/"d""#;
        assert_eq!(parse_tags(list, false), one_of(&["a,b", "c", "d"]));
        assert_eq!(parse_tags(list, true), one_of(&["c"]));
        assert_eq!(parse_tags(r#"W/"a""#, true), one_of(&[]));
    }

    #[test]
    fn bytes_are_wanted_where_they_are_named_and_not_less_than_json() {
        for accept in [
            "application/octet-stream",
            "text/html, APPLICATION/Octet-Stream;q=0.1, */*",
            "application/octet-stream;q=0.5, application/json;q=0.5",
            "application/octet-stream, application/json",
            "application/json;q=0.9, application/octet-stream; x=y ; Q=1.000",
            "application/octet-stream;q=0, application/octet-stream",
            "application/json;q=0, application/octet-stream;q=0.001",
        ] {
            assert!(wants_bytes(accept), "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "application/*",
            "application/json",
            "application/octet-stream;q=0",
            "application/octet-stream;q=0.000",
            "application/octet-stream;q=-1",
            "application/octet-stream;q=NaN",
            "application/octet-stream;q=2",
            "application/octet-stream;q=",
            "application/octet-streams",
            "x/application/octet-stream",
            "application/octet-stream;q=0.8, application/json",
            "application/octet-stream;q=x, */*",
            "application/json;q=0.2, application/octet-stream;q=0.1, application/json;q=0.1",
        ] {
            assert!(!wants_bytes(accept), "{accept}");
        }
    }
}
