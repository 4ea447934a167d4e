//! POST /api/auth/login: a JWT for a password or for an API token.

use std::time::Instant;

use serde::Deserialize;
use serde_json::json;

use super::Answer;
use crate::auth::password;
use crate::auth::throttle::Throttled;
use crate::auth::token::ApiToken;
use crate::context::Context;
use crate::http::{ApiError, Request, Response};
use crate::limits::{EMAIL_CHARS_MAX, PASSWORD_BYTES_MAX};
use crate::log::{self, Level};
use crate::store::Caller;
use crate::store::audit::Event;
use crate::store::tokens::Bearer;
use crate::time::{now_ms, rfc3339};
use crate::types::{Digest, plain};

#[derive(Deserialize)]
struct Login {
    email: Option<String>,
    password: Option<String>,
    token: Option<String>,
}

/// Signs in. Runs with a hash permit held.
pub fn login(context: &Context, request: Request) -> Answer {
    let bearer = match request.json::<Login>()? {
        Login { token: Some(token), .. } => by_token(context, &request, &token)?,
        Login { email: Some(email), password: Some(password), .. } => {
            by_password(context, &request, &email, &password)?
        }
        _ => return Err(ApiError::malformed("send email and password, or token")),
    };
    let now_s = now_ms() / 1000;
    // A JWT never outlives the API token it was traded for.
    let token_ends_s = bearer.token_expires_at.map_or(i64::MAX, |ms| ms / 1000);
    let expires_s = now_s.saturating_add(context.jwt_lifetime_s).min(token_ends_s);
    let (who, jwt) = (&bearer.who, &context.accounts.jwt);
    let jwt = jwt.issue(who.id, bearer.generation, bearer.token_id, now_s, expires_s);
    let jwt = jwt.map_err(|_| ApiError::internal())?;
    context.store.audit_later(Event::of(who, "login.ok").peer(request.peer));
    Ok(Response::json(
        200,
        &json!({
            "token": jwt,
            "token_type": "Bearer",
            "expires_in": expires_s - now_s,
            "expires_at": rfc3339(expires_s.saturating_mul(1000)),
            "user": { "id": who.id, "email": who.email },
        }),
    ))
}

fn by_token(context: &Context, request: &Request, token: &str) -> Result<Bearer, ApiError> {
    // Counted as a password is, the token standing for an account.
    let throttle = &context.accounts.throttle;
    let attempt = throttle
        .attempt(token, request.peer.into(), Instant::now())
        .map_err(|refused| throttled(context, request, "", &refused))?;
    let digest = ApiToken::parse(token).map(|token| Digest(token.digest()));
    match digest.map(|digest| context.store.bearer_by_token(digest)).transpose()?.flatten() {
        Some(bearer) => {
            throttle.succeeded(attempt);
            Ok(bearer)
        }
        None => Err(failed(context, request, None)),
    }
}

fn by_password(
    context: &Context, request: &Request, email: &str, password: &str,
) -> Result<Bearer, ApiError> {
    plain(email, EMAIL_CHARS_MAX).map_err(|rule| ApiError::malformed(format!("email {rule}")))?;
    if !(1..=PASSWORD_BYTES_MAX).contains(&password.len()) {
        let rule = format!("password must have 1 to {PASSWORD_BYTES_MAX} bytes");
        return Err(ApiError::malformed(rule));
    }
    let email = email.to_lowercase();
    let throttle = &context.accounts.throttle;
    // Counted before the hash, so that guesses sent at once cannot exceed the limit.
    let attempt = throttle
        .attempt(&email, request.peer.into(), Instant::now())
        .map_err(|refused| throttled(context, request, &email, &refused))?;
    let (known, hash) = context.store.credentials(&email)?.unzip();
    // For an unknown user, one without a password and a disabled one the same work is done.
    match password::verify(password.as_bytes(), hash.flatten().as_deref()) {
        Ok(right) => match known {
            Some(bearer) if right => {
                throttle.succeeded(attempt);
                Ok(bearer)
            }
            known => Err(failed(context, request, known.map(|bearer| bearer.who))),
        },
        Err(error) => {
            throttle.withdraw(attempt);
            log::error(&format!("a password could not be hashed: {error}"));
            Err(ApiError::internal())
        }
    }
}

/// The one answer to every failed login. What was typed is kept nowhere.
fn failed(context: &Context, request: &Request, user: Option<Caller>) -> ApiError {
    context.metrics.login_failures.add(1);
    report(context, request, "login.failed", "failed", user);
    ApiError::new(401, "invalid_credentials", "email and password, or the token, do not match")
        .with("WWW-Authenticate", "Bearer")
}

fn throttled(context: &Context, request: &Request, email: &str, refused: &Throttled) -> ApiError {
    let wait_s = refused.retry_after.as_secs().saturating_add(1);
    context.metrics.login_failures.add(1);
    if refused.first {
        let known = context.store.credentials(email).ok().flatten();
        let user = known.map(|(bearer, _)| bearer.who);
        report(context, request, "login.throttled", "throttled", user);
    }
    ApiError::new(
        429,
        "too_many_attempts",
        format!("too many failed logins: try again in {wait_s} seconds"),
    )
    .with("Retry-After", wait_s.to_string())
}

/// An audit row, and a line in the log for those who watch it.
fn report(
    context: &Context, request: &Request, event: &'static str, outcome: &'static str,
    user: Option<Caller>,
) {
    let row = Event::new(event, outcome).peer(request.peer);
    context.store.audit_later(match &user {
        Some(user) => row.user(user),
        None => row,
    });
    let peer = request.peer.to_string().into();
    log::event(Level::Warn, &format!("login {outcome}"), &[("peer", peer)]);
}
