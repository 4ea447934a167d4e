//! POST /api/auth/login: a JWT for a password or for an API token.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;

use crate::app::App;
use crate::app::HandlerResult;
use crate::app::{Error, Request, Response};
use crate::auth::password::{self, Permit};
use crate::auth::throttle::Attempt;
use crate::auth::token::ApiToken;
use crate::store::audit::Event;
use crate::store::credentials::Principal;
use crate::store::{ErrorKind, User};
use crate::util::limits::{EMAIL_CHARS_MAX, HASH_WAIT_S, PASSWORD_BYTES_MAX};
use crate::util::log::{self, Level};
use crate::util::net::Network;
use crate::util::time::{now_ms, rfc3339};
use crate::util::types::plain;

#[derive(Deserialize)]
struct Login {
    email: Option<String>,
    password: Option<String>,
    token: Option<String>,
}

/// The path of this route.
pub const PATTERN: &str = "/api/auth/login";

/// A permit to hash for a login by password. It is waited for on the connection's own thread, so
/// that a flood of logins holds up neither workers nor the trade of tokens.
pub fn permit(app: &App, body: &[u8]) -> Result<Option<Permit>, Error> {
    match serde_json::from_slice(body) {
        Ok(Login { password: Some(_), token: None, .. }) => {
            let busy = || Error::overloaded("too many logins at once; try again");
            let permit = app.accounts.permits.acquire(Duration::from_secs(HASH_WAIT_S));
            permit.map(Some).ok_or_else(busy)
        }
        // What is malformed, the handler refuses.
        _ => Ok(None),
    }
}

/// Signs in.
pub fn login(app: &App, request: &Request) -> HandlerResult {
    let peer = request.peer;
    match request.json::<Login>()? {
        Login { token: Some(token), .. } => {
            let find = |token: ApiToken| app.store.principal_by_token(token.digest());
            match ApiToken::parse(&token).map(find).transpose() {
                Ok(Some(bearer)) => welcome(app, peer, &bearer),
                Err(error) if !matches!(error.kind, ErrorKind::Unauthorized(_)) => {
                    Err(error.into())
                }
                // Counted as a password is, the token standing for an account; a good one is not.
                _ => Err(attempt(app, peer, &token)?.failed(None)),
            }
        }
        Login { email: Some(email), password: Some(password), .. } => {
            plain(&email, EMAIL_CHARS_MAX)
                .map_err(|rule| Error::malformed(format!("email {rule}")))?;
            if !(1..=PASSWORD_BYTES_MAX).contains(&password.len()) {
                let rule = format!("password must have 1 to {PASSWORD_BYTES_MAX} bytes");
                return Err(Error::malformed(rule));
            }
            let email = email.to_lowercase();
            by_password(&email, &password, attempt(app, peer, &email)?)
        }
        _ => Err(Error::malformed("send email and password, or token")),
    }
}

/// A login under way that counts in the throttle. Dropped without a word it does not: then nobody
/// looked at the password.
struct Counted<'a> {
    context: &'a App,
    peer: IpAddr,
    attempt: Option<Attempt>,
}

impl Counted<'_> {
    fn succeeded(mut self) {
        if let Some(attempt) = self.attempt.take() {
            self.context.accounts.throttle.succeeded(attempt);
        }
    }

    /// The one answer to every failed login. What was typed is kept nowhere.
    fn failed(mut self, user: Option<User>) -> Error {
        // An attempt that is let go counts as a failure.
        self.attempt = None;
        self.context.metrics.login_failures.add(1);
        report(self.context, self.peer, "login.failed", "failed", user);
        Error::new(401, "invalid_credentials", "email and password, or the token, do not match")
            .with("WWW-Authenticate", "Bearer")
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if let Some(attempt) = self.attempt.take() {
            self.context.accounts.throttle.withdraw(attempt);
        }
    }
}

fn attempt<'a>(app: &'a App, peer: IpAddr, account: &str) -> Result<Counted<'a>, Error> {
    let refused =
        match app.accounts.throttle.attempt(account, Network::of_login(peer), Instant::now()) {
            Ok(attempt) => {
                return Ok(Counted { context: app, peer, attempt: Some(attempt) });
            }
            Err(refused) => refused,
        };
    let wait_s = refused.retry_after.as_secs().saturating_add(1);
    app.metrics.login_failures.add(1);
    if refused.first {
        let known = app.store.password_of(account).ok().flatten();
        let user = known.map(|(bearer, _)| bearer.user);
        report(app, peer, "login.throttled", "throttled", user);
    }
    let message = format!("too many failed logins: try again in {wait_s} seconds");
    Err(Error::new(429, "too_many_attempts", message).with("Retry-After", wait_s.to_string()))
}

fn by_password(email: &str, password: &str, counted: Counted<'_>) -> HandlerResult {
    let context = counted.context;
    let (known, hash) = context.store.password_of(email)?.unzip();
    // For an unknown user, one without a password and a disabled one the same work is done.
    let right = password::verify(password.as_bytes(), hash.flatten().as_deref());
    let right = right.map_err(|error| {
        log::error(&format!("a password could not be hashed: {error}"));
        Error::internal()
    })?;
    match known {
        Some(bearer) if right => {
            let peer = counted.peer;
            counted.succeeded();
            welcome(context, peer, &bearer)
        }
        known => Err(counted.failed(known.map(|bearer| bearer.user))),
    }
}

/// The answer with a JWT.
fn welcome(app: &App, peer: IpAddr, bearer: &Principal) -> HandlerResult {
    let now_s = now_ms() / 1000;
    // A JWT never outlives the API token it was traded for.
    let token_ends_s = bearer.token_expires_at.map_or(i64::MAX, |ms| ms / 1000);
    let expires_s = now_s.saturating_add(app.jwt_lifetime_s).min(token_ends_s);
    let (who, jwt) = (&bearer.user, &app.accounts.jwt);
    let jwt = jwt.issue(who.id, bearer.generation, who.token_id, now_s, expires_s);
    let jwt = jwt.map_err(|_| Error::internal())?;
    app.store.audit_later(Event::of(who, "login.ok").peer(peer));
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

/// An audit row, and a line in the log for those who watch it.
fn report(app: &App, peer: IpAddr, event: &'static str, outcome: &'static str, user: Option<User>) {
    let row = Event::new(event, outcome).peer(peer);
    app.store.audit_later(match &user {
        Some(user) => row.user(user),
        None => row,
    });
    log::event(Level::WARN, &format!("login {outcome}"), &[("peer", peer.to_string().into())]);
}
