//! JWTs (RFC 7519): HS256 and nothing else, by the advice of RFC 8725.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::signature::{self, Signer, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::time::now_ms;

/// Issuer and audience: this program's tokens are for this program.
const PARTY: &str = "configsync-server";
/// Bytes of a JWT; ours have about 300.
const JWT_BYTES_MAX: usize = 4096;

/// The claims of our JWTs; times in seconds since 1970.
#[derive(Serialize, Deserialize)]
struct Claims {
    sub: String,
    iat: i64,
    exp: i64,
    iss: String,
    aud: String,
    #[serde(rename = "gen")]
    generation: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    tid: Option<i64>,
}

/// What a good JWT says. Whether it still counts, the store knows.
#[derive(Debug, PartialEq, Eq)]
pub struct Verified {
    /// The user's id.
    pub user_id: i64,
    /// The user's generation when it was issued.
    pub generation: i64,
    /// The API token it was traded for.
    pub token_id: Option<i64>,
}

/// The key that signs and verifies.
pub struct JwtKey {
    sign: EncodingKey,
    verify: DecodingKey,
}

/// A JWT could not be made.
#[derive(Debug)]
pub struct JwtError(String);

impl fmt::Display for JwtError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no JWT: {}", self.0)
    }
}

impl JwtKey {
    /// Of 32 random bytes (RFC 7518, section 3.2: no fewer than the hash has).
    pub fn new(key: [u8; 32]) -> JwtKey {
        JwtKey { sign: EncodingKey::from_secret(&key), verify: DecodingKey::from_secret(&key) }
    }

    /// Signs a JWT for a user; times in seconds since 1970.
    pub fn issue(
        &self,
        user_id: i64,
        generation: i64,
        token_id: Option<i64>,
        now_s: i64,
        expires_s: i64,
    ) -> Result<String, JwtError> {
        let claims = Claims {
            sub: user_id.to_string(),
            iat: now_s,
            exp: expires_s,
            iss: PARTY.into(),
            aud: PARTY.into(),
            generation,
            tid: token_id,
        };
        let header = Header::new(Algorithm::HS256);
        jsonwebtoken::encode(&header, &claims, &self.sign).map_err(|e| JwtError(e.to_string()))
    }

    /// What a JWT says, if it is one of ours and has not expired.
    pub fn verify(&self, jwt: &str) -> Option<Verified> {
        if jwt.len() > JWT_BYTES_MAX || has_critical_extension(jwt) {
            return None;
        }
        let mut rules = Validation::new(Algorithm::HS256);
        rules.leeway = 0;
        rules.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        rules.set_issuer(&[PARTY]);
        rules.set_audience(&[PARTY]);
        let claims = jsonwebtoken::decode::<Claims>(jwt, &self.verify, &rules).ok()?.claims;
        // RFC 7519, section 4.1.4: on the second of `exp` it is over; the library lets it pass.
        if claims.exp <= now_ms() / 1000 || !claims.sub.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        Some(Verified {
            user_id: claims.sub.parse().ok()?,
            generation: claims.generation,
            token_id: claims.tid,
        })
    }
}

impl fmt::Debug for JwtKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JwtKey")
    }
}

/// RFC 7515, section 4.1.11: an extension marked critical is understood or the token refused.
/// The library ignores `crit`, and none of our tokens has it.
fn has_critical_extension(jwt: &str) -> bool {
    #[derive(Deserialize)]
    struct Critical {
        crit: Option<serde::de::IgnoredAny>,
    }
    use base64::Engine as _;
    let header = jwt.split('.').next().unwrap_or_default();
    let header = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(header);
    let parsed = header.map(|bytes| serde_json::from_slice::<Critical>(&bytes));
    !matches!(parsed, Ok(Ok(Critical { crit: None })))
}

/// Gives jsonwebtoken its cryptography: HMAC-SHA-256 of the hmac and sha2 crates. Without this
/// every encode and decode would panic.
pub fn install_provider() {
    static PROVIDER: CryptoProvider = CryptoProvider {
        signer_factory: |algorithm, key| Ok(Box::new(Hs256::new(algorithm, key.as_bytes())?)),
        verifier_factory: |algorithm, key| {
            Ok(Box::new(Hs256::new(algorithm, key.try_get_as_bytes()?)?))
        },
        key_utils: KeyUtils::new_unimplemented(),
    };
    // An error means that it is installed already.
    let _ = PROVIDER.install_default();
}

struct Hs256(Hmac<Sha256>);

impl Hs256 {
    fn new(algorithm: &Algorithm, key: &[u8]) -> Result<Hs256, Error> {
        match algorithm {
            Algorithm::HS256 => {
                Hmac::new_from_slice(key).map(Hs256).map_err(|_| ErrorKind::InvalidKeyFormat.into())
            }
            _ => Err(ErrorKind::InvalidAlgorithm.into()),
        }
    }
}

impl Signer<Vec<u8>> for Hs256 {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, signature::Error> {
        Ok(self.0.clone().chain_update(message).finalize().into_bytes().to_vec())
    }
}

impl JwtSigner for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

impl Verifier<Vec<u8>> for Hs256 {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        // Compares in constant time.
        let mac = self.0.clone().chain_update(message);
        mac.verify_slice(signature).map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use serde_json::{Value, json};

    const KEY: [u8; 32] = [7; 32];

    fn key() -> JwtKey {
        install_provider();
        JwtKey::new(KEY)
    }

    fn now_s() -> i64 {
        now_ms() / 1000
    }

    /// A token signed with our key, whatever it says.
    fn signed(header: &Value, claims: &Value) -> String {
        let encode =
            |v: &Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(v.to_string());
        let message = format!("{}.{}", encode(header), encode(claims));
        let mac = Hs256::new(&Algorithm::HS256, &KEY).unwrap().try_sign(message.as_bytes());
        let mac = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(mac.unwrap());
        format!("{message}.{mac}")
    }

    fn claims() -> Value {
        json!({ "sub": "5", "iat": 0, "exp": now_s() + 60, "iss": PARTY, "aud": PARTY, "gen": 1 })
    }

    #[test]
    fn what_was_issued_is_verified() {
        let jwt = key().issue(5, 3, Some(9), now_s(), now_s() + 60).unwrap();
        let expected = Verified { user_id: 5, generation: 3, token_id: Some(9) };
        assert_eq!(key().verify(&jwt), Some(expected));
        assert_eq!(JwtKey::new([8; 32]).verify(&jwt), None, "another key");
        assert!(key().verify(&signed(&json!({"alg": "HS256"}), &claims())).is_some());
    }

    #[test]
    fn it_is_over_on_the_second_it_expires() {
        assert_eq!(key().verify(&key().issue(5, 1, None, 0, now_s()).unwrap()), None);
        assert_eq!(key().verify(&key().issue(5, 1, None, 0, now_s() - 1).unwrap()), None);
    }

    #[test]
    fn another_algorithm_or_a_critical_extension_is_refused() {
        for header in [
            json!({"alg": "none"}),
            json!({"alg": "HS384"}),
            json!({"alg": "RS256"}),
            json!({"alg": "HS256", "crit": ["x"], "x": 1}),
            json!({"alg": "HS256", "crit": []}),
            json!({}),
            json!([]),
        ] {
            assert_eq!(key().verify(&signed(&header, &claims())), None, "{header}");
        }
        let jwt = signed(&json!({"alg": "none"}), &claims());
        let unsigned = jwt.rsplit_once('.').unwrap().0;
        assert_eq!(key().verify(&format!("{unsigned}.")), None);
    }

    #[test]
    fn a_claim_that_is_missing_or_of_another_party_is_refused() {
        for name in ["sub", "iat", "exp", "iss", "aud", "gen"] {
            let mut without = claims();
            without.as_object_mut().unwrap().remove(name);
            assert_eq!(key().verify(&signed(&json!({"alg": "HS256"}), &without)), None, "{name}");
        }
        for (name, value) in [
            ("iss", json!("x")),
            ("aud", json!("x")),
            ("sub", json!("-5")),
            ("sub", json!("")),
            ("sub", json!(5)),
            ("exp", json!("9999999999")),
        ] {
            let mut wrong = claims();
            wrong[name] = value;
            assert_eq!(key().verify(&signed(&json!({"alg": "HS256"}), &wrong)), None, "{name}");
        }
    }

    #[test]
    fn every_damaged_token_is_refused_without_a_panic() {
        let jwt = key().issue(5, 3, None, now_s(), now_s() + 60).unwrap();
        for cut in 0..jwt.len() {
            assert_eq!(key().verify(&jwt[..cut]), None);
        }
        for at in 0..jwt.len() - 1 {
            let mut bytes = jwt.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(changed == jwt || key().verify(&changed).is_none(), "{at}");
        }
        for bad in ["", ".", "..", "...", "é.é.é", &"a".repeat(10_000), &format!("{jwt}.x")] {
            assert_eq!(key().verify(bad), None);
        }
    }
}
