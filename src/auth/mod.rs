//! Who may come in: passwords, API tokens, JWTs, and the throttle in front of passwords.

pub mod jwt;
pub mod password;
pub mod throttle;
pub mod token;

use std::sync::Arc;

use crate::app::Error;
use crate::store::Store;
use crate::store::tokens::Principal;
use jwt::JwtKey;
use password::Permits;
use throttle::Throttle;
use token::ApiToken;

/// The state behind logins.
pub struct Accounts {
    /// Signs and verifies JWTs.
    pub jwt: JwtKey,
    /// Counts failed logins.
    pub throttle: Throttle,
    /// Bounds the password hashes that run at once.
    pub permits: Arc<Permits>,
}

impl Accounts {
    /// With this signing key, and nobody throttled.
    pub fn new(jwt_key: [u8; 32]) -> Accounts {
        Accounts {
            jwt: JwtKey::new(jwt_key),
            throttle: Throttle::default(),
            permits: Arc::new(Permits::default()),
        }
    }

    /// Whom an `Authorization` field belongs to. One indexed look-up, every time: a revocation
    /// counts from the next request, whichever process made it.
    pub fn authenticate(&self, store: &Store, field: Option<&str>) -> Result<Principal, Error> {
        let credential = field.and_then(bearer).ok_or_else(Error::unauthorized)?;
        let found = match ApiToken::parse(credential) {
            Some(token) => store.bearer_by_token(token.digest())?,
            None => match self.jwt.verify(credential) {
                Some(jwt) => store.bearer_by_claims(jwt.user_id, jwt.generation, jwt.token_id)?,
                None => None,
            },
        };
        found.ok_or_else(Error::unauthorized)
    }
}

/// The credential of `Bearer X` (RFC 6750, section 2.1; the scheme in any case).
fn bearer(field: &str) -> Option<&str> {
    let (scheme, credential) = field.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| credential.trim_start_matches(' '))
}
