//! API tokens: how they are generated, parsed and reduced to what the database may hold.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use crate::util::limits::{TOKEN_PREFIX_CHARS, TOKEN_RANDOM_BYTES};
use crate::util::types::Digest;

/// A long-lived credential: `cs_` and base64url characters (RFC 4648, section 5). It implements
/// neither `Display` nor `Debug`, so that it cannot slip into a log.
pub struct ApiToken(String);

impl ApiToken {
    /// A new token from the operating system's random source.
    pub fn generate() -> Result<ApiToken, getrandom::Error> {
        let mut random = [0; TOKEN_RANDOM_BYTES];
        getrandom::fill(&mut random)?;
        Ok(ApiToken(format!("{SCHEME}{}", URL_SAFE_NO_PAD.encode(random))))
    }

    /// Checks the form alone; whether the token is valid takes a lookup of its digest.
    pub fn parse(text: &str) -> Option<ApiToken> {
        let body = text.strip_prefix(SCHEME)?.as_bytes();
        let base64url = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        (BODY_CHARS.contains(&body.len()) && body.iter().all(base64url))
            .then(|| ApiToken(text.to_owned()))
    }

    /// SHA-256 of the whole text, which is stored in place of the token. A fast, unsalted hash is
    /// right here: nobody guesses 256 random bits, and a lookup needs the same digest every time.
    pub fn digest(&self) -> Digest {
        Digest(Sha256::digest(self.0.as_bytes()).into())
    }

    /// The first characters, by which the owner recognises the token in a list.
    pub fn prefix(&self) -> &str {
        self.0.get(..TOKEN_PREFIX_CHARS).unwrap_or(SCHEME)
    }

    /// The secret itself, for the one time it is shown.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

const SCHEME: &str = "cs_";
/// A generated body has 43 characters; the range leaves room for other sizes.
const BODY_CHARS: std::ops::RangeInclusive<usize> = 40..=128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_token_is_recognised_again() {
        let token = ApiToken::generate().unwrap();
        assert_eq!(token.as_str().len(), 46);
        let again = ApiToken::parse(token.as_str()).unwrap();
        assert_eq!(again.as_str(), token.as_str());
        assert_eq!(again.digest(), token.digest());
    }

    #[test]
    fn no_two_generated_tokens_are_the_same() {
        let (one, other) = (ApiToken::generate().unwrap(), ApiToken::generate().unwrap());
        assert_ne!(one.as_str(), other.as_str());
        assert_ne!(one.digest(), other.digest());
    }

    #[test]
    fn only_forty_to_128_base64url_characters_after_the_scheme_are_a_token() {
        let body = |n: usize| format!("cs_{}", "aZ0-_".chars().cycle().take(n).collect::<String>());
        for good in [40, 43, 128] {
            assert!(ApiToken::parse(&body(good)).is_some(), "{good}");
        }
        for bad in [0, 1, 39, 129, 10_000] {
            assert!(ApiToken::parse(&body(bad)).is_none(), "{bad}");
        }
        let good = body(43);
        for bad in [
            good.replace("cs_", "CS_"),
            good.replace("cs_", ""),
            format!(" {good}"),
            format!("{good} "),
            format!("{good}\n"),
            format!("{good}="),
            format!("{good}+"),
            format!("{good}/"),
            format!("{good}."),
            format!("{good}é"),
            format!("{good}\0"),
            String::new(),
        ] {
            assert!(ApiToken::parse(&bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn the_digest_is_sha256_of_the_whole_text() {
        let token = ApiToken::parse(&format!("cs_{}", "a".repeat(40))).unwrap();
        let hex = token.digest().to_string();
        assert_eq!(hex, "3f018ca590a2d145b9437e064d7c014f730d9977db16d16a0685ef4ba8ef79d4");
    }

    #[test]
    fn a_prefix_shows_six_random_characters() {
        let token = ApiToken::generate().unwrap();
        assert_eq!(token.prefix(), &token.as_str()[..9]);
    }
}
