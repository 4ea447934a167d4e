//! Values that are checked once, where they enter, and are valid from then on.

use std::fmt;
use std::ops::{Deref, RangeInclusive};
use std::str::FromStr;

use base64::Engine as _;
use rusqlite::ToSql;
use rusqlite::types::ToSqlOutput;
use serde::{Deserialize, Serialize};

use crate::util::limits::{
    EMAIL_CHARS_MAX, KEY_CHARS_MAX, LONG_CHARS_MAX, MACHINE_ID_CHARS_MAX, MESSAGE_CHARS_MAX,
    NAME_CHARS_MAX, SHORT_CHARS_MAX,
};

/// The rule that a value breaks: a sentence without its subject, beginning with `must`.
pub type Violation = String;

/// Defines checked text types, each with its rule. SQL statements take them as parameters.
macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident: $check:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
        #[serde(try_from = "String")]
        pub struct $name(String);

        impl TryFrom<String> for $name {
            type Error = Violation;
            fn try_from(text: String) -> Result<$name, Violation> {
                let check: fn(&str) -> Result<(), Violation> = $check;
                check(&text).map(|()| $name(text))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Deref for $name {
            type Target = str;
            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl ToSql for $name {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                self.0.to_sql()
            }
        }
    )*};
}

texts! {
    /// At most 128 characters, none of them a control character.
    Short: |text| plain(text, SHORT_CHARS_MAX);

    /// A path or URL: at most 4096 characters, none of them a control character.
    Long: |text| plain(text, LONG_CHARS_MAX);

    /// One to 255 characters, not only white space, no control characters.
    Name: |text| match text.trim().is_empty() {
        true => Err("must not be empty".into()),
        false => plain(text, NAME_CHARS_MAX),
    };

    /// A message or description: at most 4096 characters. Line breaks and tabs are allowed; other
    /// control characters could act on the terminal that shows it.
    Message: |text| plain(&text.replace(['\n', '\t'], " "), MESSAGE_CHARS_MAX);

    /// A wrapped key: canonical base64 of at most 4096 characters, not empty.
    Key: |text| match (1..=KEY_CHARS_MAX).contains(&text.len()) {
        true => canonical(text),
        false => Err(format!("must be base64 of 1 to {KEY_CHARS_MAX} characters")),
    };

    /// A value of any length in canonical base64.
    Base64: canonical;

    /// Who may see a variable: every user of the project, the user who wrote it, or as clients
    /// define it.
    Visibility: |text| match text {
        "shared" | "personal" | "restricted" => Ok(()),
        _ => Err("must be shared, personal or restricted".into()),
    };

    /// The id that a client gives its machine; it is unique per user only.
    MachineId: |text| {
        let fits = (1..=MACHINE_ID_CHARS_MAX).contains(&text.len());
        let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b));
        match fits && plain && !MachineId::RESERVED.contains(&text) {
            true => Ok(()),
            false => Err(format!(
                "must be a machine id: 1 to {MACHINE_ID_CHARS_MAX} of A-Z a-z 0-9 . _ : - and \
                 none of {}",
                MachineId::RESERVED.join(" ")
            )),
        }
    };

    /// A user's email address in lower case: addresses are matched case-insensitively.
    Email: |text| {
        let (local, domain) = text.split_once('@').unwrap_or_default();
        let whole = !local.is_empty() && !domain.is_empty() && !domain.contains('@');
        let typo = text.contains([',', ';']) || text.contains("..") || domain.starts_with('.');
        match whole && !typo && !text.contains(char::is_whitespace) {
            true => plain(text, EMAIL_CHARS_MAX),
            false => Err("must be an address such as you@example.com".into()),
        }
    };
}

impl MachineId {
    /// Words that other routes have in the place of a machine id.
    pub const RESERVED: [&str; 6] = [".", "..", "register", "latest", "history", "snapshot"];
}

impl Email {
    /// Converts an address to lower case and checks it.
    pub fn parse(text: &str) -> Result<Email, Violation> {
        Email::try_from(text.to_lowercase())
    }
}

/// Checks for at most `max` characters, none of them a control character.
pub fn plain(text: &str, max: usize) -> Result<(), Violation> {
    if text.chars().count() > max {
        return Err(format!("must have at most {max} characters"));
    }
    match text.chars().any(char::is_control) {
        true => Err("must not contain control characters".into()),
        false => Ok(()),
    }
}

/// Text for a terminal: characters that control it, change the reading direction or are invisible
/// are written as `\u{202e}`.
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() || UNSEEN.iter().any(|range| range.contains(&c)) {
            true => shown.extend(c.escape_unicode()),
            false => shown.push(c),
        }
    }
    shown
}

/// Default_Ignorable_Code_Point of Unicode 16 (DerivedCoreProperties.txt), the line and paragraph
/// separators, the interlinear annotations and the blank Braille pattern.
const UNSEEN: [RangeInclusive<char>; 18] = [
    '\u{ad}'..='\u{ad}',
    '\u{34f}'..='\u{34f}',
    '\u{61c}'..='\u{61c}',
    '\u{115f}'..='\u{1160}',
    '\u{17b4}'..='\u{17b5}',
    '\u{180b}'..='\u{180f}',
    '\u{200b}'..='\u{200f}',
    '\u{2028}'..='\u{202e}',
    '\u{2060}'..='\u{206f}',
    '\u{2800}'..='\u{2800}',
    '\u{3164}'..='\u{3164}',
    '\u{fe00}'..='\u{fe0f}',
    '\u{feff}'..='\u{feff}',
    '\u{ffa0}'..='\u{ffa0}',
    '\u{fff0}'..='\u{fffb}',
    '\u{1bca0}'..='\u{1bca3}',
    '\u{1d173}'..='\u{1d17a}',
    '\u{e0000}'..='\u{e0fff}',
];

fn canonical(text: &str) -> Result<(), Violation> {
    let decoded = base64::engine::general_purpose::STANDARD.decode(text);
    decoded.map(drop).map_err(|_| "must be canonical base64".into())
}

/// A SHA-256 digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// 128 random bits, written as 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RandomId(pub u128);

impl RandomId {
    /// Draws an id from the operating system's random source.
    pub fn draw() -> Result<RandomId, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        Ok(RandomId(u128::from_be_bytes(bytes)))
    }

    /// Parses exactly 32 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Option<RandomId> {
        let id = u128::from_str_radix(text, 16).ok().map(RandomId);
        id.filter(|id| id.to_string() == text)
    }
}

impl fmt::Display for RandomId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Parses a number of decimal digits only, if it fits; Rust's own parser also accepts a sign.
pub fn digits<T: FromStr>(text: &str) -> Option<T> {
    are_digits(text).then(|| text.parse().ok()).flatten()
}

/// True for one or more decimal digits and nothing else.
pub fn are_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_email_is_kept_in_lower_case() {
        assert_eq!(&*Email::parse("You@Example.COM").unwrap(), "you@example.com");
    }

    #[test]
    fn what_is_no_email_is_refused() {
        let long = format!("{}@example.com", "a".repeat(243));
        let typos = ["a@b,c", "a@b;c", "a@b..c", "a@.b"];
        let bad = ["", "you", "@example.com", "you@", "a@b@c", "a b@c", "a@b\u{7}", &long];
        for bad in bad.into_iter().chain(typos) {
            assert!(Email::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_machine_id_is_a_word_of_the_allowed_characters() {
        assert!(MachineId::try_from("a".repeat(128)).is_ok());
        assert!(MachineId::try_from("A.z_0:9-".to_owned()).is_ok());
        for bad in ["", ".", "..", "register", "latest", "history", "snapshot", "a/b", "é", "a b"]
        {
            assert!(MachineId::try_from(bad.to_owned()).is_err(), "{bad}");
        }
        assert!(MachineId::try_from("a".repeat(129)).is_err());
    }

    #[test]
    fn texts_are_refused_one_character_over_their_limit_and_with_control_characters() {
        assert!(
            Short::try_from("é".repeat(128)).is_ok() && Short::try_from("é".repeat(129)).is_err()
        );
        assert!(
            Name::try_from("é".repeat(255)).is_ok() && Name::try_from("é".repeat(256)).is_err()
        );
        assert!(Message::try_from("a\nb\tc".to_owned()).is_ok());
        for bad in ["\u{1b}[2J", "a\0", "a\r\nb"] {
            assert!(Message::try_from(bad.to_owned()).is_err());
            assert!(Short::try_from(bad.to_owned()).is_err());
        }
        assert!(Name::try_from("  ".to_owned()).is_err());
        for bad in ["", "AA", "AA=", "AB==", "A A=", "AA==\n", "_w=="] {
            assert!(Key::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }

    #[test]
    fn text_for_a_terminal_shows_what_would_act_on_it_turn_it_or_hide_in_it() {
        let hidden = "a\u{1b}[2J\u{202e}b\u{200b}c\u{2066}\u{feff}\u{ad}\u{e0041}\u{9b}\n";
        let shown = r"a\u{1b}[2J\u{202e}b\u{200b}c\u{2066}\u{feff}\u{ad}\u{e0041}\u{9b}\u{a}";
        assert_eq!(visible(hidden), shown);
        let plain = "Jürgens Läptop – 東京 עברית 🖥 a\\b";
        assert_eq!(visible(plain), plain);
    }

    #[test]
    fn a_random_id_survives_its_text_and_nothing_else_is_one() {
        let id = RandomId::draw().unwrap();
        assert_eq!(RandomId::parse(&id.to_string()), Some(id));
        assert_eq!(RandomId::parse(&RandomId(7).to_string()), Some(RandomId(7)));
        for bad in ["", "+0000000000000000000000000000001", "ABCDEF00000000000000000000000000"] {
            assert_eq!(RandomId::parse(bad), None, "{bad}");
        }
    }
}
