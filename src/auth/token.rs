//! API tokens: `cs_` and base64url of random bytes. 256 random bits cannot be guessed, so a
//! plain SHA-256 of the token is enough to store (OWASP: a slow hash is for passwords).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use crate::limits::{TOKEN_PREFIX_CHARS, TOKEN_RANDOM_BYTES};

/// An API token in clear: it exists while it is made or checked, and is stored nowhere.
pub struct ApiToken(String);

const PREFIX: &str = "cs_";

impl ApiToken {
    /// Draws a new token from the operating system's random source.
    pub fn generate() -> Result<ApiToken, getrandom::Error> {
        let mut bytes = [0; TOKEN_RANDOM_BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(ApiToken(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))))
    }

    /// Takes `cs_` and 40 to 128 base64url characters.
    pub fn parse(text: &str) -> Option<ApiToken> {
        let random = text.strip_prefix(PREFIX)?;
        let fits = (40..=128).contains(&random.len());
        let plain = random.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        (fits && plain).then(|| ApiToken(text.to_owned()))
    }

    /// SHA-256 of the whole text.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.0.as_bytes()).into()
    }

    /// The first characters, by which a person recognises it in a list.
    pub fn prefix(&self) -> &str {
        self.0.get(..TOKEN_PREFIX_CHARS).unwrap_or_default()
    }

    /// The token itself, to be shown once.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiToken({}…)", self.prefix())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_token_is_long_random_and_parses() {
        let (a, b) = (ApiToken::generate().unwrap(), ApiToken::generate().unwrap());
        assert_ne!(a.as_str(), b.as_str());
        assert_eq!(a.as_str().len(), 3 + 43);
        assert_eq!(ApiToken::parse(a.as_str()).unwrap().digest(), a.digest());
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let random = "a".repeat(40);
        let long = "a".repeat(129);
        for bad in [
            format!("xx_{random}"),
            "cs_short".into(),
            format!("cs_{long}"),
            format!("cs_{random}="),
            format!("cs_{random} "),
            format!("cs_é{random}"),
        ] {
            assert!(ApiToken::parse(&bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn debug_shows_the_prefix_alone() {
        let token = ApiToken::generate().unwrap();
        let shown = format!("{token:?}");
        assert!(shown.contains(token.prefix()) && !shown.contains(token.as_str()));
    }
}
