//! JWTs: HS256 only (RFC 7519, with the best practices of RFC 8725).

use hmac::{Hmac, KeyInit, Mac};
use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::signature::{self, Signer, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::util::limits::JWT_BYTES_MAX;
use crate::util::time::now_ms;
use crate::util::types::digits;

/// The claims of a JWT that this server issues.
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    /// The user's id in decimal digits.
    sub: String,
    /// Time of issue, in seconds since 1970.
    iat: i64,
    /// Expiry, in seconds since 1970; from then on the JWT is refused.
    exp: i64,
    /// Issuer: always this program.
    iss: String,
    /// Audience: always this program.
    aud: String,
    /// The user's generation at the time of issue; raising the user's number revokes the JWT.
    #[serde(rename = "gen")]
    generation: i64,
    /// The API token that the JWT was traded for, and with which it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tid: Option<i64>,
}

/// The claims of a JWT with a valid signature, issuer, audience and expiry. Whether the user and
/// the API token are still valid is for the database to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    pub user_id: i64,
    /// The user's generation when the JWT was issued.
    pub generation: i64,
    /// The API token that the JWT was traded for, if any.
    pub token_id: Option<i64>,
    /// When the JWT expires, in seconds since 1970.
    pub expires_s: i64,
}

/// The key that signs and verifies JWTs, and the validation rules. It is not `Debug`.
pub struct JwtKey {
    signing: EncodingKey,
    verifying: DecodingKey,
    rules: Validation,
}

impl JwtKey {
    /// Takes the bytes of the key file: as many as the output of the hash has, the minimum that
    /// RFC 7518, section 3.2, requires.
    pub fn new(key: [u8; 32]) -> JwtKey {
        // Installs the library's crypto provider; an error means that an earlier call did so.
        let _ = PROVIDER.install_default();
        let mut rules = Validation::new(Algorithm::HS256);
        rules.leeway = 0;
        // The library accepts a JWT during the second of its `exp`; RFC 7519, section 4.1.4,
        // forbids it on or after `exp`.
        rules.reject_tokens_expiring_in_less_than = 1;
        // The library accepts a JWT without one of these claims unless it is required here.
        rules.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        rules.set_issuer(&[PARTY]);
        rules.set_audience(&[PARTY]);
        let (signing, verifying) = (EncodingKey::from_secret(&key), DecodingKey::from_secret(&key));
        JwtKey { signing, verifying, rules }
    }

    /// Issues a JWT that is valid before `expires_s` (both times are in seconds since 1970).
    pub fn issue(
        &self, user_id: i64, generation: i64, token_id: Option<i64>, now_s: i64, expires_s: i64,
    ) -> Result<String, Error> {
        let claims = Claims {
            sub: user_id.to_string(),
            iat: now_s,
            exp: expires_s,
            iss: PARTY.to_owned(),
            aud: PARTY.to_owned(),
            generation,
            tid: token_id,
        };
        encode(&Header::new(Algorithm::HS256), &claims, &self.signing)
    }

    /// Verifies a JWT and returns its claims, or the reason for the refusal, for the log.
    pub fn verify(&self, jwt: &str) -> Result<Verified, &'static str> {
        if jwt.len() > JWT_BYTES_MAX {
            return Err("unknown");
        }
        let decoded = decode::<Claims>(jwt, &self.verifying, &self.rules);
        let jwt = decoded.map_err(|error| match error.kind() {
            // The library checks the expiry only after the signature.
            ErrorKind::ExpiredSignature => "expired",
            _ => "unknown",
        })?;
        // RFC 7515, section 4.1.11: extensions that are not understood must be refused. The
        // library parses the field and ignores it.
        if jwt.header.crit.is_some() {
            return Err("unknown");
        }
        // A JWT issued while the clock was ahead would outlive its intended lifetime.
        if jwt.claims.iat > now_ms() / 1000 + IAT_AHEAD_S {
            return Err("unknown");
        }
        let user_id = digits(&jwt.claims.sub).ok_or("unknown")?;
        let Claims { generation, tid: token_id, exp: expires_s, .. } = jwt.claims;
        Ok(Verified { user_id, generation, token_id, expires_s })
    }
}

/// HMAC-SHA-256, already keyed.
struct Hs256(Hmac<Sha256>);

impl Hs256 {
    fn new(algorithm: Algorithm, key: &[u8]) -> Result<Hs256, Error> {
        if algorithm != Algorithm::HS256 {
            return Err(ErrorKind::InvalidAlgorithm.into());
        }
        Hmac::new_from_slice(key).map(Hs256).map_err(|_| ErrorKind::InvalidKeyFormat.into())
    }
}

impl Signer<Vec<u8>> for Hs256 {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, signature::Error> {
        Ok(self.0.clone().chain_update(message).finalize().into_bytes().to_vec())
    }
}

impl Verifier<Vec<u8>> for Hs256 {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        // Compares in constant time, and refuses a truncated MAC.
        let mac = self.0.clone().chain_update(message);
        mac.verify_slice(signature).map_err(|_| signature::Error::new())
    }
}

impl JwtSigner for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

impl JwtVerifier for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |algorithm, key| Ok(Box::new(Hs256::new(*algorithm, key.as_bytes())?)),
    verifier_factory: |algorithm, key| {
        Ok(Box::new(Hs256::new(*algorithm, key.try_get_as_bytes()?)?))
    },
    // JWKs are never used, and the `jwk` field of a header is ignored.
    key_utils: KeyUtils::new_unimplemented(),
};

/// Issuer and audience of every JWT.
const PARTY: &str = "configsync-server";
/// Seconds by which the clock may be set back without invalidating JWTs issued just before.
const IAT_AHEAD_S: i64 = 300;

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const KEY: [u8; 32] = [7; 32];
    const HS256: &str = r#"{"alg":"HS256"}"#;

    fn now_s() -> i64 {
        jsonwebtoken::get_current_timestamp() as i64
    }

    fn issued() -> String {
        JwtKey::new(KEY).issue(42, 3, None, now_s(), now_s() + 60).unwrap()
    }

    fn claims() -> Value {
        json!({
            "sub": "42", "iat": now_s(), "exp": now_s() + 60, "iss": PARTY, "aud": PARTY, "gen": 3,
        })
    }

    /// Valid claims, one of them replaced.
    fn with(claim: &str, value: Value) -> Value {
        let mut claims = claims();
        claims[claim] = value;
        claims
    }

    /// A JWT with an arbitrary header and claims, and a valid signature.
    fn forged(header: &str, claims: &Value) -> String {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let message = format!("{}.{}", part(header), part(&claims.to_string()));
        let mac = Hs256::new(Algorithm::HS256, &KEY).unwrap().sign(message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(mac))
    }

    fn accepted(jwt: &str) -> bool {
        JwtKey::new(KEY).verify(jwt).is_ok()
    }

    fn accepted_claims(claims: &Value) -> bool {
        accepted(&forged(HS256, claims))
    }

    #[test]
    fn what_is_issued_is_verified() {
        let key = JwtKey::new(KEY);
        for token_id in [None, Some(9)] {
            let expires_s = now_s() + 60;
            let jwt = key.issue(42, 3, token_id, now_s(), expires_s).unwrap();
            let expected = Verified { user_id: 42, generation: 3, token_id, expires_s };
            assert_eq!(key.verify(&jwt), Ok(expected));
        }
        assert!(accepted_claims(&claims()));
    }

    #[test]
    fn the_signature_is_that_of_an_independent_implementation() {
        // RFC 4231, test case 2.
        let mac = Hs256::new(Algorithm::HS256, b"Jefe").unwrap();
        let mac = mac.sign(b"what do ya want for nothing?");
        let hex: String = mac.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }

    #[test]
    fn another_key_verifies_nothing() {
        assert_eq!(JwtKey::new([8; 32]).verify(&issued()), Err("unknown"));
    }

    #[test]
    fn no_other_algorithm_is_accepted() {
        for alg in ["none", "None", "", "hs256", "HS384", "HS512", "RS256", "ES256", "EdDSA"] {
            let jwt = forged(&json!({ "typ": "JWT", "alg": alg }).to_string(), &claims());
            assert!(!accepted(&jwt), "{alg}");
            let (unsigned, _) = jwt.rsplit_once('.').unwrap();
            assert!(!accepted(&format!("{unsigned}.")), "{alg} without signature");
        }
        assert!(!accepted(&forged(r#"{"typ":"JWT"}"#, &claims())));
        assert!(!accepted(&forged(r#"{"alg":"HS256","alg":"none"}"#, &claims())));
        // The provider has no signature of another algorithm to compare with either.
        assert!(Hs256::new(Algorithm::HS384, &KEY).is_err());
    }

    #[test]
    fn a_critical_extension_is_refused() {
        for crit in [r#"["b64"]"#, r#"["exp"]"#, "[]", "1", "{}"] {
            let header = format!(r#"{{"alg":"HS256","crit":{crit},"b64":true}}"#);
            assert!(!accepted(&forged(&header, &claims())), "{crit}");
        }
    }

    #[test]
    fn the_type_and_a_key_in_the_header_do_not_matter() {
        let jwk = r#"{"alg":"HS256","typ":"at+jwt","kid":"x","jwk":{"kty":"oct","k":"AAAA"}}"#;
        assert!(accepted(&forged(jwk, &claims())));
        let good = issued();
        let (message, _) = good.rsplit_once('.').unwrap();
        let own_key = Hs256::new(Algorithm::HS256, &[0; 3]).unwrap().sign(message.as_bytes());
        assert!(!accepted(&format!("{message}.{}", URL_SAFE_NO_PAD.encode(own_key))));
    }

    #[test]
    fn a_change_of_any_character_is_refused() {
        let good = issued();
        assert!(accepted(&good));
        for at in 0..good.len() {
            let mut changed = good.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert!(!accepted(std::str::from_utf8(&changed).unwrap()), "changed at {at}");
            assert!(!accepted(&good[..at]), "cut at {at}");
        }
        for more in ["A", ".", "=", " ", "\n", ".A"] {
            assert!(!accepted(&format!("{good}{more}")), "{more:?} at the end");
            assert!(!accepted(&format!("{more}{good}")), "{more:?} at the start");
        }
    }

    #[test]
    fn each_claim_is_required() {
        for claim in ["sub", "iat", "exp", "iss", "aud", "gen"] {
            let mut missing = claims();
            missing.as_object_mut().unwrap().remove(claim);
            assert!(!accepted_claims(&missing), "{claim} missing");
            assert!(!accepted_claims(&with(claim, Value::Null)), "{claim} null");
            assert!(!accepted_claims(&with(claim, json!({}))), "{claim} an object");
        }
        assert!(accepted_claims(&with("tid", Value::Null)));
        assert!(!accepted_claims(&with("tid", json!("1"))));
    }

    #[test]
    fn issuer_and_audience_must_be_this_program() {
        for claim in ["iss", "aud"] {
            for other in [json!(""), json!("other"), json!("CONFIGSYNC-SERVER"), json!([PARTY])] {
                assert!(!accepted_claims(&with(claim, other.clone())), "{claim} {other}");
            }
        }
    }

    #[test]
    fn from_its_expiry_on_it_is_refused() {
        for past in [now_s(), now_s() - 1, now_s() - 3600, 1, 0, -1, i64::MIN] {
            assert!(!accepted_claims(&with("exp", json!(past))), "{past}");
            let jwt = JwtKey::new(KEY).issue(42, 3, None, 0, past).unwrap();
            assert!(!accepted(&jwt), "{past}");
        }
        let past = JwtKey::new(KEY).issue(42, 3, None, 0, now_s() - 1).unwrap();
        assert_eq!(JwtKey::new(KEY).verify(&past), Err("expired"));
        for future in [now_s() + 10, i64::MAX] {
            assert!(accepted_claims(&with("exp", json!(future))), "{future}");
        }
        for odd in [json!(u64::MAX), json!(1e300), json!(9e9), json!("9999999999")] {
            assert!(!accepted_claims(&with("exp", odd.clone())), "{odd}");
        }
    }

    #[test]
    fn one_issued_in_the_future_is_refused() {
        assert!(accepted_claims(&with("iat", json!(now_s() + 60))));
        assert!(!accepted_claims(&with("iat", json!(now_s() + 400))));
    }

    #[test]
    fn the_subject_must_be_digits_only() {
        for sub in ["", "+42", "-42", " 42", "42 ", "4.2", "x", "٤٢", "99999999999999999999"] {
            assert!(!accepted_claims(&with("sub", json!(sub))), "{sub:?}");
        }
        assert!(!accepted_claims(&with("sub", json!(42))));
    }

    #[test]
    fn garbage_is_refused() {
        let nested = URL_SAFE_NO_PAD.encode("[".repeat(2000));
        for bad in ["", ".", "..", "...", "a.b.c", "é.é.é", "\0.\0.\0", "💥", "e30.e30.e30"] {
            assert!(!accepted(bad), "{bad:?}");
        }
        assert!(!accepted(&format!("{nested}.e30.e30")));
        assert!(!accepted(&forged(HS256, &json!([]))));
    }

    #[test]
    fn a_huge_one_is_refused_before_it_is_read() {
        let padded = |chars: usize| forged(HS256, &with("pad", json!("x".repeat(chars))));
        assert!(accepted(&padded(2500)));
        let huge = padded(3000);
        assert!(huge.len() > JWT_BYTES_MAX);
        assert!(!accepted(&huge));
        assert!(!accepted(&".".repeat(1 << 20)));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,200}", header in ".{0,80}", claims in ".{0,80}") {
            let parts = [&header, &claims].map(|part| URL_SAFE_NO_PAD.encode(part));
            for jwt in [parts.join(".") + "." + &text, forged(&header, &json!(claims)), text] {
                prop_assert!(!accepted(&jwt));
            }
        }
    }
}
