//! Values that are checked once, where they enter, and cannot be wrong afterwards.

use std::fmt;

use crate::limits::{EMAIL_CHARS_MAX, MACHINE_ID_CHARS_MAX};

/// Why a value was refused: a sentence that names the field and its rule.
pub type Refusal = String;

/// A user's email address in lower case: addresses are matched without regard to case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Email(String);

impl Email {
    /// Refuses what has no part before or after one `@`, white space or control characters, or
    /// more than 254 characters.
    pub fn parse(text: &str) -> Result<Email, Refusal> {
        let whole = matches!(text.split_once('@'), Some((local, domain))
            if !local.is_empty() && !domain.is_empty() && !domain.contains('@'));
        if !whole || text.contains(char::is_whitespace) {
            return Err("email must look like you@example.com".to_owned());
        }
        Ok(Email(checked_text("email", text, EMAIL_CHARS_MAX)?.to_lowercase()))
    }

    /// The address as it is stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The id that a client gives its machine; it is unique only together with the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineId(String);

impl MachineId {
    const RESERVED: [&str; 6] = [".", "..", "register", "latest", "history", "snapshot"];

    /// Takes 1 to 128 of `A-Z a-z 0-9 . _ : -`, but no reserved word.
    pub fn parse(text: &str) -> Result<MachineId, Refusal> {
        let fits = (1..=MACHINE_ID_CHARS_MAX).contains(&text.len());
        let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b));
        if !fits || !plain || MachineId::is_reserved(text) {
            return Err(format!(
                "machine_id must be 1 to {MACHINE_ID_CHARS_MAX} of A-Z a-z 0-9 . _ : - and none of {}",
                MachineId::RESERVED.join(" ")
            ));
        }
        Ok(MachineId(text.to_owned()))
    }

    /// True for a word that stands in the same place of a path as a machine id.
    pub fn is_reserved(text: &str) -> bool {
        MachineId::RESERVED.contains(&text)
    }

    /// The id as the client sent it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A SHA-256 digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

/// 128 random bits written as 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RandomId(pub u128);

impl RandomId {
    /// Draws from the operating system's random source.
    pub fn draw() -> Result<RandomId, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        Ok(RandomId(u128::from_be_bytes(bytes)))
    }

    /// Reads exactly 32 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Option<RandomId> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        let fits = text.len() == 32 && text.bytes().all(hex);
        fits.then(|| u128::from_str_radix(text, 16).ok().map(RandomId)).flatten()
    }
}

impl fmt::Display for RandomId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A text of at most `max` characters, none of them a control character.
pub fn checked_text<'a>(field: &str, text: &'a str, max: usize) -> Result<&'a str, Refusal> {
    if text.chars().count() > max {
        return Err(format!("{field} may have at most {max} characters"));
    }
    if text.chars().any(char::is_control) {
        return Err(format!("{field} may not contain control characters"));
    }
    Ok(text)
}

/// A name: one to `max` characters, not only white space, no control characters.
pub fn checked_name<'a>(field: &str, text: &'a str, max: usize) -> Result<&'a str, Refusal> {
    if text.trim().is_empty() {
        return Err(format!("{field} may not be empty"));
    }
    checked_text(field, text, max)
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_email_is_kept_in_lower_case() {
        assert_eq!(Email::parse("You@Example.COM").unwrap().as_str(), "you@example.com");
    }

    #[test]
    fn what_is_no_email_is_refused() {
        let long = format!("{}@example.com", "a".repeat(243));
        for bad in ["", "you", "@example.com", "you@", "a@b@c", "a b@c", "a@b\u{7}", &long] {
            assert!(Email::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_machine_id_is_a_word_of_the_allowed_characters() {
        assert!(MachineId::parse(&"a".repeat(128)).is_ok());
        assert!(MachineId::parse("A.z_0:9-").is_ok());
        for bad in ["", ".", "..", "register", "latest", "history", "snapshot", "a/b", "é", "a b"]
        {
            assert!(MachineId::parse(bad).is_err(), "{bad}");
        }
        assert!(MachineId::parse(&"a".repeat(129)).is_err());
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
