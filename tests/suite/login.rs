//! POST /api/auth/login, and how long what it gives is good for.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::{Sha256, Sha512};

use super::support::{ELSEWHERE, HERE, Server, User, refused, serve};
use super::wire::Answer;

const PASSWORD: &str = "correct horse";

fn with_password(email: &str) -> Server {
    let server = serve(&[]);
    let added = server.cli_with(&["user", "add", email, "--password-stdin"], PASSWORD);
    assert_eq!(added.code, 0, "{added:?}");
    server
}

fn login_from(server: &Server, from: [u8; 4], body: &Value) -> Answer {
    let body = body.to_string();
    let head = format!(
        "POST /api/auth/login HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    server.send(from, &head, body.as_bytes(), false)
}

fn login(server: &Server, email: &str, password: &str) -> Answer {
    login_from(server, HERE, &json!({ "email": email, "password": password }))
}

fn jwt(server: &Server, email: &str) -> User {
    let answer = login(server, email, PASSWORD);
    assert_eq!(answer.status, 200, "{answer:?}");
    User::of(server, email, answer.json()["token"].as_str().unwrap())
}

fn claims(jwt: &str) -> Value {
    let part = jwt.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[test]
fn a_password_gives_a_jwt_that_works_everywhere() {
    let server = with_password("You@Example.org");
    let answer = login(&server, "yOU@example.ORG", PASSWORD);
    assert_eq!(answer.status, 200);
    let body = answer.json();
    assert_eq!(body["token_type"], "Bearer");
    assert_eq!(body["expires_in"], 86_400);
    assert_eq!(body["user"], json!({ "id": 1, "email": "you@example.org" }));
    let token = body["token"].as_str().unwrap();
    let claims = claims(token);
    assert_eq!(claims["sub"], "1");
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 86_400);
    for claim in ["iss", "aud"] {
        assert!(claims[claim].is_string());
    }
    assert!(claims["gen"].is_number() && claims["tid"].is_null());
    let user = User::of(&server, "you@example.org", token);
    user.register("m");
    user.stored("m", b"state");
    assert_eq!(user.pull("").body, b"state");
}

#[test]
fn all_wrong_logins_get_the_same_answer() {
    let server = with_password("a@example.org");
    server.ok(&["user", "add", "none@example.org"]);
    let added = server.cli_with(&["user", "add", "off@example.org", "--password-stdin"], PASSWORD);
    assert_eq!(added.code, 0);
    server.ok(&["user", "disable", "off@example.org"]);
    let answers = [
        login(&server, "a@example.org", "wrong"),
        login(&server, "unknown@example.org", PASSWORD),
        login(&server, "none@example.org", PASSWORD),
        login(&server, "off@example.org", PASSWORD),
        login(&server, "no address", PASSWORD),
        login_from(
            &server,
            HERE,
            &json!({ "token": "cs_0000000000000000000000000000000000000000" }),
        ),
        login_from(&server, HERE, &json!({ "token": "x" })),
    ];
    for answer in &answers {
        refused(answer, 401, "invalid_credentials");
        assert_eq!(answer.body, answers[0].body);
        assert_eq!(answer.field("www-authenticate"), Some("Bearer"));
    }
}

#[test]
fn a_login_without_what_it_needs_is_malformed() {
    let server = with_password("a@example.org");
    for bad in [
        json!({}),
        json!({ "email": "a@example.org" }),
        json!({ "password": "x" }),
        json!({ "email": 1, "password": "x" }),
        json!({ "email": "a@example.org", "password": "" }),
        json!({ "email": "a@example.org", "password": "x".repeat(1025) }),
        json!({ "email": "x".repeat(255), "password": "x" }),
        json!([]),
    ] {
        refused(&login_from(&server, HERE, &bad), 400, "bad_request");
    }
    let longest = "é".repeat(512);
    refused(&login(&server, "a@example.org", &longest), 401, "invalid_credentials");
}

#[test]
fn ten_failures_for_one_account_from_one_address_are_enough() {
    let server = with_password("a@example.org");
    for _ in 0..10 {
        refused(&login(&server, "a@example.org", "wrong"), 401, "invalid_credentials");
    }
    let throttled = login(&server, "A@example.org", PASSWORD);
    refused(&throttled, 429, "too_many_attempts");
    let wait: u64 = throttled.field("retry-after").unwrap().parse().unwrap();
    assert!((1..=901).contains(&wait), "{wait}");
    let right = json!({ "email": "a@example.org", "password": PASSWORD });
    assert_eq!(login_from(&server, ELSEWHERE, &right).status, 200, "from another address");
    refused(&login(&server, "b@example.org", "x"), 401, "invalid_credentials");
    assert_eq!(server.ask("GET", "/healthz", "", b"").status, 200);
}

#[test]
fn a_success_clears_the_failures_of_its_account_and_address() {
    let server = with_password("a@example.org");
    for _ in 0..3 {
        for _ in 0..9 {
            assert_eq!(login(&server, "a@example.org", "wrong").status, 401);
        }
        assert_eq!(login(&server, "a@example.org", PASSWORD).status, 200);
    }
}

#[test]
fn a_jwt_dies_with_the_password_the_user_and_disabling() {
    let server = with_password("a@example.org");
    let old = jwt(&server, "a@example.org");
    assert_eq!(old.get("/api/machines").status, 200);
    let changed = server.cli_with(
        &["user", "passwd", "a@example.org", "--password-stdin"],
        &format!("{PASSWORD}\n"),
    );
    assert_eq!(changed.code, 0);
    refused(&old.get("/api/machines"), 401, "unauthorized");
    let (jwt_user, token) = (jwt(&server, "a@example.org"), server.token("a@example.org"));
    let token_user = User::of(&server, "a@example.org", &token);
    server.ok(&["user", "disable", "a@example.org"]);
    refused(&jwt_user.get("/api/machines"), 401, "unauthorized");
    refused(&token_user.get("/api/machines"), 401, "unauthorized");
    server.ok(&["user", "enable", "a@example.org"]);
    refused(&jwt_user.get("/api/machines"), 401, "unauthorized");
    assert_eq!(token_user.get("/api/machines").status, 200);
    let again = jwt(&server, "a@example.org");
    server.ok(&["user", "remove", "a@example.org", "--yes"]);
    refused(&again.get("/api/machines"), 401, "unauthorized");
    refused(&token_user.get("/api/machines"), 401, "unauthorized");
}

#[test]
fn a_jwt_traded_for_a_token_dies_with_it_and_never_outlives_it() {
    let server = serve(&["--token-hours", "1000"]);
    let user = server.user("a@example.org");
    let trade = |token: &str| login_from(&server, HERE, &json!({ "token": token })).json();
    let traded = trade(&user.bearer);
    let token = traded["token"].as_str().unwrap();
    assert_eq!(claims(token)["tid"], 1);
    let by_jwt = User::of(&server, "a@example.org", token);
    assert_eq!(by_jwt.get("/api/machines").status, 200);
    server.ok(&["token", "revoke", "1"]);
    refused(&by_jwt.get("/api/machines"), 401, "unauthorized");
    refused(&user.get("/api/machines"), 401, "unauthorized");
    let short =
        server.ok(&["token", "create", "a@example.org", "--name", "short", "--expires-days", "1"]);
    let expires_in = trade(short.trim_end())["expires_in"].as_i64().unwrap();
    assert!((86_000..=86_400).contains(&expires_in), "{expires_in}");
}

#[test]
fn an_expired_token_is_refused() {
    let server = serve(&[]);
    let user = server.user("a@example.org");
    assert_eq!(user.get("/api/machines").status, 200);
    server.database().execute("UPDATE api_tokens SET expires_at = 1000", []).unwrap();
    refused(&user.get("/api/machines"), 401, "unauthorized");
}

#[test]
fn a_forged_jwt_is_refused() {
    let server = with_password("a@example.org");
    let good = jwt(&server, "a@example.org").bearer;
    let key = std::fs::read(server.data().join("jwt.key")).unwrap();
    let base = claims(&good);
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let sign = |header: Value, claims: &Value, key: &[u8]| {
        let text = format!("{}.{}", encode(&header), encode(claims));
        let mac = Hmac::<Sha256>::new_from_slice(key).unwrap().chain_update(text.as_bytes());
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
    };
    let hs256 = || json!({ "alg": "HS256", "typ": "JWT" });
    let with = |name: &str, value: Value| {
        let mut changed = base.clone();
        changed[name] = value;
        changed
    };
    let without = |name: &str| {
        let mut changed = base.clone();
        changed.as_object_mut().unwrap().remove(name);
        changed
    };
    let text = format!("{}.{}", encode(&json!({ "alg": "HS512" })), encode(&base));
    let hs512 = Hmac::<Sha512>::new_from_slice(&key).unwrap().chain_update(text.as_bytes());
    let mut bad = vec![
        ("another key", sign(hs256(), &base, &[0; 32])),
        ("none", format!("{}.{}.", encode(&json!({ "alg": "none" })), encode(&base))),
        ("none, signed", sign(json!({ "alg": "none" }), &base, &key)),
        ("HS512", format!("{text}.{}", URL_SAFE_NO_PAD.encode(hs512.finalize().into_bytes()))),
        ("RS256", sign(json!({ "alg": "RS256" }), &base, &key)),
        ("crit", sign(json!({ "alg": "HS256", "crit": ["x"], "x": 1 }), &base, &key)),
        ("expired", sign(hs256(), &with("exp", json!(1)), &key)),
        ("issuer", sign(hs256(), &with("iss", json!("x")), &key)),
        ("audience", sign(hs256(), &with("aud", json!("x")), &key)),
        ("generation", sign(hs256(), &with("gen", json!(99)), &key)),
        ("user", sign(hs256(), &with("sub", json!("99")), &key)),
        ("user with a sign", sign(hs256(), &with("sub", json!("+1")), &key)),
        ("user as a number", sign(hs256(), &with("sub", json!(1)), &key)),
        ("token", sign(hs256(), &with("tid", json!(99)), &key)),
        ("cut", good[..good.len() - 1].to_owned()),
        ("no signature", good.rsplit_once('.').unwrap().0.to_owned()),
        ("empty signature", format!("{}.", good.rsplit_once('.').unwrap().0)),
        ("long", "e".repeat(5000)),
    ];
    for name in ["exp", "iss", "aud", "sub", "gen", "iat"] {
        bad.push((name, sign(hs256(), &without(name), &key)));
    }
    let works = |jwt: &str| User::of(&server, "a@example.org", jwt).get("/api/machines").status;
    assert_eq!(works(&sign(hs256(), &base, &key)), 200, "the test signs as the server does");
    for (what, jwt) in bad {
        assert_eq!(works(&jwt), 401, "{what}");
    }
}

#[test]
fn a_jwt_and_its_key_survive_a_restart() {
    let server = with_password("a@example.org");
    let user = jwt(&server, "a@example.org");
    let server = server.restarted(&[]);
    assert_eq!(user.on(&server).get("/api/machines").status, 200);
}
