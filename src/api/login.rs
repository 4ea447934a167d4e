//! POST /api/auth/login: a JWT for a password or for an API token.

use std::net::IpAddr;
use std::time::Instant;

use serde::Deserialize;
use serde_json::json;

use crate::app::request::parse_json;
use crate::app::{App, Error, HandlerResult, Response};
use crate::auth::password;
use crate::auth::throttle::{Source, Throttle, Throttled};
use crate::auth::token::ApiToken;
use crate::store::audit::Event;
use crate::store::{ErrorKind, User};
use crate::util::limits::{EMAIL_CHARS_MAX, PASSWORD_BYTES_MAX};
use crate::util::log::{self, Level};
use crate::util::time::{now_ms, rfc3339};
use crate::util::types::plain;

#[derive(Deserialize)]
struct Login {
    email: Option<String>,
    password: Option<String>,
    token: Option<String>,
}

/// Authenticates the login in `body`, on the connection's own thread: password logins queue for a
/// hash permit, and a flood of them must not hold up the workers.
pub fn authenticate(app: &App, peer: IpAddr, body: &[u8]) -> Result<User, Error> {
    let mut user = match parse_json(body)? {
        Login { token: Some(token), .. } => by_token(app, peer, &token),
        Login { email: Some(email), password: Some(password), .. } => {
            let rule = |rule| Error::malformed(format!("email {rule}"));
            plain(&email, EMAIL_CHARS_MAX).map_err(rule)?;
            if !(1..=PASSWORD_BYTES_MAX).contains(&password.len()) {
                let rule = format!("password must have 1 to {PASSWORD_BYTES_MAX} bytes");
                return Err(Error::malformed(rule));
            }
            by_password(app, peer, &email.to_lowercase(), &password)
        }
        _ => Err(Error::malformed("send email and password, or token")),
    }?;
    user.peer = Some(peer);
    Ok(user)
}

fn by_token(app: &App, peer: IpAddr, token: &str) -> Result<User, Error> {
    match ApiToken::parse(token).map(|token| app.store.user_by_token(token.digest())) {
        // A valid token is never counted as an attempt.
        Some(Ok(user)) => Ok(user),
        Some(Err(error)) if !matches!(error.kind, ErrorKind::Unauthorized(_)) => Err(error.into()),
        _ => {
            // With a space in front, so that a report never finds it as the address of a user.
            let account = format!(" {token}");
            unless_throttled(app, &app.token_throttle, peer, &account, Throttle::attempt)?;
            Err(failed(app, peer, None))
        }
    }
}

fn by_password(app: &App, peer: IpAddr, email: &str, password: &str) -> Result<User, Error> {
    // A throttled account is refused before it queues for a permit.
    unless_throttled(app, &app.password_throttle, peer, email, Throttle::check)?;
    let busy = || Error::overloaded("too many logins at once; try again");
    let permit = password::permit().ok_or_else(busy)?;
    let source = unless_throttled(app, &app.password_throttle, peer, email, Throttle::attempt)?;
    let (known, hash) = app.store.password_of(email)?.unzip();
    // Unknown users, users without a password and disabled users cost the same work.
    let right = password::verify_with(&permit, password.as_bytes(), hash.flatten().as_deref());
    let right =
        right.map_err(|error| Error::caused_by(format_args!("no password hash: {error}")))?;
    match known {
        Some(user) if right => {
            app.password_throttle.succeeded(source);
            Ok(user)
        }
        known => Err(failed(app, peer, known)),
    }
}

/// Refuses an attempt over the limit, and reports the first refusal. `ask` is `Throttle::check`, or
/// `Throttle::attempt`, which also counts the attempt. `account` is the email address of a password
/// login; for a token login, a space and the token, which is not the address of any user.
fn unless_throttled(
    app: &App, throttle: &Throttle, peer: IpAddr, account: &str,
    ask: fn(&Throttle, Source, Instant) -> Result<(), Throttled>,
) -> Result<Source, Error> {
    let source = throttle.source(account, peer);
    let Err(throttled) = ask(throttle, source, Instant::now()) else { return Ok(source) };
    app.metrics.login_failures.add(1);
    if throttled.first {
        let known = app.store.password_of(&account.to_lowercase()).ok().flatten();
        report(app, peer, "login.throttled", "throttled", known.map(|(user, _)| user));
    }
    let wait_s = throttled.retry_after.as_secs().saturating_add(1);
    let sentence = format!("too many failed logins: try again in {wait_s} seconds");
    Err(Error::new(429, "too_many_attempts", sentence).with("Retry-After", wait_s.to_string()))
}

/// The same response to every failed login. The credentials sent are neither logged nor stored.
fn failed(app: &App, peer: IpAddr, user: Option<User>) -> Error {
    app.metrics.login_failures.add(1);
    report(app, peer, "login.failed", "failed", user);
    Error::new(401, "invalid_credentials", "email and password, or the token, do not match")
        .with("WWW-Authenticate", "Bearer")
}

/// Issues a JWT to the user who signed in.
pub fn login(app: &App, user: &User) -> HandlerResult {
    let now_s = now_ms() / 1000;
    // A JWT never outlives the API token it was traded for.
    let token_ends_s = user.token_expires_at.map_or(i64::MAX, |ms| ms / 1000);
    let expires_s = now_s.saturating_add(app.settings.jwt_lifetime_s).min(token_ends_s);
    let jwt = app.jwt_key.issue(user.id, user.generation, user.token_id, now_s, expires_s);
    let jwt = jwt.map_err(|_| Error::internal())?;
    app.store.audit_later(Event::of(user, "login.ok"));
    let body = json!({
        "token": jwt,
        "token_type": "Bearer",
        "expires_in": expires_s - now_s,
        "expires_at": rfc3339(expires_s.saturating_mul(1000)),
        "user": { "id": user.id, "email": user.email },
    });
    Ok(Response::json(200, body))
}

/// Queues an audit row, and writes a line for tools that watch the log.
fn report(app: &App, peer: IpAddr, event: &'static str, outcome: &'static str, user: Option<User>) {
    let event = user.map_or_else(|| Event::new(event), |user| Event::of(&user, event));
    app.store.audit_later(Event { outcome, peer: Some(peer), ..event });
    log::event(Level::WARN, &format!("login {outcome}"), &[("peer", peer.to_string().into())]);
}
