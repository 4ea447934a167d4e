//! Authentication: passwords, API tokens, JWTs, and the throttle in front of logins.

pub mod jwt;
pub mod password;
pub mod throttle;
pub mod token;

use crate::store::{Result, Store, StoreError, User};
use jwt::JwtKey;
use token::ApiToken;

/// Returns the user whose bearer credential is in an `Authorization` field.
pub fn authenticate(store: &Store, key: &JwtKey, field: Option<&str>) -> Result<User> {
    let bad = StoreError::unauthorized;
    let credential = field.and_then(bearer).ok_or_else(|| bad("unknown"))?;
    match ApiToken::parse(credential) {
        Some(token) => store.user_by_token(token.digest()),
        None => {
            let jwt = key.verify(credential).map_err(bad)?;
            let expires_at = jwt.expires_s.saturating_mul(1000);
            store.user_by_claims(jwt.user_id, jwt.generation, jwt.token_id, expires_at)
        }
    }
}

/// The credential of `Bearer X` (RFC 6750, section 2.1; the scheme is case-insensitive).
fn bearer(field: &str) -> Option<&str> {
    let (scheme, credential) = field.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| credential.trim_start_matches(' '))
}
