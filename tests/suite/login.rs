//! POST /api/auth/login, and how long what it gives is good for.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::fixture::{
    ELSEWHERE, HERE, Response, Server, User, assert_has, at_once, refused, serve, with_user,
};

const PASSWORD: &str = "correct horse";
const A: &str = "a@example.org";

fn with_password(email: &str) -> Server {
    let server = serve(&[]);
    server.user_with_password(email, PASSWORD);
    server
}

fn trade(server: &Server, token: &str) -> Response {
    server.login_from(HERE, &json!({ "token": token }))
}

fn jwt(server: &Server) -> User {
    User::of(server, A, server.login(A, PASSWORD).is(200)["token"].as_str().unwrap())
}

fn claims(jwt: &str) -> Value {
    let part = jwt.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// The user's bearer is good no more.
#[track_caller]
fn is_out(user: &User) {
    refused(&user.get("/api/machines"), 401, "unauthorized");
}

#[test]
fn a_password_gives_a_jwt_that_works_everywhere() {
    let server = with_password("You@Example.org");
    let body = server.login("yOU@example.ORG", PASSWORD).is(200);
    let expected = json!({ "id": 1, "email": "you@example.org" });
    assert_has(&body, json!({ "token_type": "Bearer", "expires_in": 86_400, "user": expected }));
    assert!(body["expires_at"].as_str().unwrap().ends_with('Z'));
    let user = User::of(&server, "you@example.org", body["token"].as_str().unwrap());
    let claims = claims(&user.bearer);
    assert_has(&claims, json!({ "sub": "1", "tid": null }));
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 86_400);
    assert!(claims["iss"].is_string() && claims["aud"].is_string() && claims["gen"].is_number());
    user.register("m");
    user.stored("m", b"state");
    assert_eq!(user.pull("").body, b"state");
    // The key outlives the server.
    let _server = server.restarted(&[]);
    user.read("/api/machines");
}

#[test]
fn all_wrong_logins_get_the_same_response() {
    let server = with_password(A);
    server.ok(&["user", "add", "none@example.org"]);
    server.user_with_password("off@example.org", PASSWORD);
    server.ok(&["user", "disable", "off@example.org"]);
    let responses = [
        server.login(A, "wrong"),
        server.login("unknown@example.org", PASSWORD),
        server.login("none@example.org", PASSWORD),
        server.login("off@example.org", PASSWORD),
        server.login("no address", PASSWORD),
        server.login(A, &"é".repeat(512)),
        trade(&server, "cs_0000000000000000000000000000000000000000"),
        trade(&server, "x"),
    ];
    for response in &responses {
        refused(response, 401, "invalid_credentials");
        assert_eq!(response.body, responses[0].body);
        assert_eq!(response.field("www-authenticate"), Some("Bearer"));
    }
}

#[test]
fn ten_failures_for_one_account_from_one_address_are_enough() {
    let server = with_password(A);
    // A success clears what was counted before.
    for wrong in [9, 10] {
        for _ in 0..wrong {
            refused(&server.login(A, "wrong"), 401, "invalid_credentials");
        }
        server.login(A, PASSWORD);
    }
    let throttled = server.login("A@example.org", PASSWORD);
    refused(&throttled, 429, "too_many_attempts");
    let wait: u64 = throttled.field("retry-after").unwrap().parse().unwrap();
    assert!((1..=901).contains(&wait), "{wait}");
    // A right password from another address still gets in, and others from this one may try.
    server.login_from(ELSEWHERE, &json!({ "email": A, "password": PASSWORD })).is(200);
    refused(&server.login("b@example.org", "x"), 401, "invalid_credentials");
    server.ask("GET", "/healthz", "", b"").is(200);
}

#[test]
fn attempts_count_before_their_hash_starts() {
    let server = with_password(A);
    let mut statuses = at_once(30, |_| server.login(A, "wrong").status);
    statuses.sort_unstable();
    assert_eq!(statuses, [&[401; 10][..], &[429; 20]].concat());
}

#[test]
fn a_jwt_dies_with_the_password_the_user_and_disabling() {
    let server = with_password(A);
    let old = jwt(&server);
    old.read("/api/machines");
    let passwd = ["user", "passwd", A, "--password-stdin"];
    server.cli_with(&passwd, PASSWORD).ok();
    is_out(&old);
    let (by_jwt, by_token) = (jwt(&server), User::of(&server, A, &server.token(A)));
    server.ok(&["user", "disable", A]);
    is_out(&by_jwt);
    is_out(&by_token);
    server.ok(&["user", "enable", A]);
    is_out(&by_jwt);
    by_token.read("/api/machines");
    let again = jwt(&server);
    server.ok(&["user", "enable", A]);
    again.read("/api/machines");
    server.ok(&["user", "remove", A, "--yes"]);
    is_out(&again);
    is_out(&by_token);
}

#[test]
fn a_jwt_traded_for_a_token_dies_with_it_and_never_outlives_it() {
    let (server, user) = with_user(&["--token-hours", "1000"]);
    let traded = trade(&server, &user.bearer).is(200);
    let token = traded["token"].as_str().unwrap();
    assert_eq!(claims(token)["tid"], 1);
    let by_jwt = User::of(&server, A, token);
    by_jwt.read("/api/machines");
    server.ok(&["token", "revoke", "1"]);
    is_out(&by_jwt);
    is_out(&user);
    let short = server.ok(&["token", "create", A, "--name", "short", "--expires-days", "1"]);
    let expires_in = trade(&server, short.trim_end()).is(200)["expires_in"].as_i64().unwrap();
    assert!((86_000..=86_400).contains(&expires_in), "{expires_in}");
}

#[test]
fn a_jwt_counts_only_if_this_server_signed_it_for_a_user_and_token_it_has() {
    let server = with_password(A);
    server.user_with_password("b@example.org", PASSWORD);
    let base = claims(&jwt(&server).bearer);
    let key = std::fs::read(server.data().join("jwt.key")).unwrap();
    assert_eq!(key.len(), 32);
    let status = |claim: &str, value: Value, key: &[u8]| {
        let mut claims = base.clone();
        claims[claim] = value;
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", encode(&json!({ "alg": "HS256" })), encode(&claims));
        let mac = Hmac::<Sha256>::new_from_slice(key).unwrap().chain_update(text.as_bytes());
        let jwt = format!("{text}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()));
        User::of(&server, A, &jwt).get("/api/machines").status
    };
    // One's own token may stand behind it, and no other user's.
    for email in ["b@example.org", A] {
        server.token(email);
    }
    // The unit tests have every other way to forge one.
    for (expected, claim, value, key) in [
        (200, "sub", json!("1"), &key),
        (401, "sub", json!("1"), &vec![0; 32]),
        (401, "sub", json!("99"), &key),
        (401, "gen", json!(99), &key),
        (401, "tid", json!(99), &key),
        (401, "tid", json!(1), &key),
        (200, "tid", json!(2), &key),
    ] {
        assert_eq!(status(claim, value.clone(), key), expected, "{claim} {value}");
    }
}
