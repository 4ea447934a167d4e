//! JWTs: as they come, which never verify, and with our own signature around any header and claims,
//! where what verifies has the algorithm, issuer, audience and times that the contract asks for.
#![no_main]

use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use configsync_server::fuzzing::JwtKey;
use hmac::{Hmac, KeyInit, Mac};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use sha2::Sha256;

const SECRET: [u8; 32] = [7; 32];
static KEY: LazyLock<JwtKey> = LazyLock::new(|| JwtKey::new(SECRET));

fuzz_target!(|text: &str| {
    assert!(KEY.verify(text).is_err(), "forged: {text}");
    let (header, claims) = text.split_once('\n').unwrap_or(("{\"alg\":\"HS256\"}", text));
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let mut mac = Hmac::<Sha256>::new_from_slice(&SECRET).unwrap();
    mac.update(signed.as_bytes());
    let jwt = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()));
    let Ok(verified) = KEY.verify(&jwt) else { return };
    let parse =
        |text| serde_json::from_str::<Value>(text).unwrap_or_else(|_| panic!("no JSON: {text}"));
    let (header, claims) = (parse(header), parse(claims));
    assert_eq!(header["alg"], "HS256", "{text}");
    assert_eq!(header.get("crit").filter(|crit| !crit.is_null()), None, "{text}");
    let named = |claim: &str| match &claims[claim] {
        Value::Array(parties) => parties.contains(&"configsync-server".into()),
        party => party == "configsync-server",
    };
    assert!(named("iss") && named("aud"), "{text}");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as f64;
    assert!(claims["exp"].as_f64().is_some_and(|exp| exp > now - 2.0), "{text}");
    assert!(claims["iat"].as_f64().is_some_and(|iat| iat < now + 3600.0), "{text}");
    let sub = claims["sub"].as_str().expect(text);
    assert!(sub.bytes().all(|byte| byte.is_ascii_digit()), "{text}");
    assert_eq!(sub.parse(), Ok(verified.user_id), "{text}");
});
