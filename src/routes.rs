//! The table of routes: each declared once with its method, path, body and handler; the kind of
//! handler says who may call it.

use crate::api::snapshots::{METADATA, STATE};
use crate::api::{Answer, health, history, login, machines, snapshots};
use crate::context::Context;
use crate::http::request::percent_decode;
use crate::http::{ApiError, Request};
use crate::store::tokens::Bearer;

/// What a request to a route may carry.
#[derive(Clone, Copy)]
pub enum Payload {
    /// Nothing; a small body is read and ignored.
    Nothing,
    /// A small JSON object.
    Json,
    /// JSON with a large base64 member of this name, or, where `raw` allows it, the bytes alone.
    Upload {
        /// The member.
        field: &'static str,
        /// The member that is dropped unread.
        skip: &'static str,
        /// `application/octet-stream` is taken too.
        raw: bool,
    },
}

/// Who may call a route, and what answers.
#[derive(Clone, Copy)]
pub enum Handler {
    /// Anybody.
    Public(fn(&Context, Request) -> Answer),
    /// Anybody, one of few at once: it hashes a password.
    Login(fn(&Context, Request) -> Answer),
    /// Who holds an API token or a JWT.
    User(fn(&Context, Request, &Bearer) -> Answer),
}

/// One route.
pub struct Route {
    /// GET answers HEAD too.
    pub method: &'static str,
    /// Path with `{}` for any one segment.
    pub pattern: &'static str,
    /// What it takes.
    pub payload: Payload,
    /// What it does.
    pub handler: Handler,
}

const STATE_UPLOAD: Payload = Payload::Upload { field: STATE, skip: METADATA, raw: true };

const fn route(
    method: &'static str,
    pattern: &'static str,
    payload: Payload,
    handler: Handler,
) -> Route {
    Route { method, pattern, payload, handler }
}

use Handler::{Login, Public, User};
use Payload::{Json, Nothing};

/// All routes; of two that match, the first counts.
pub static ROUTES: &[Route] = &[
    route("GET", "/healthz", Nothing, Public(health::healthz)),
    route("POST", "/api/auth/login", Json, Login(login::login)),
    route("GET", "/api/machines", Nothing, User(machines::list)),
    route("POST", "/api/machines", Json, User(machines::register)),
    route("GET", "/api/machines/snapshot", Nothing, User(snapshots::pull)),
    route("POST", "/api/machines/snapshot", STATE_UPLOAD, User(snapshots::push)),
    route("GET", "/api/machines/history", Nothing, User(history::history)),
];

/// The route of a method and path with the decoded segments that stand for `{}`.
pub fn find(method: &str, path: &str) -> Result<(&'static Route, Vec<String>), ApiError> {
    let wanted = if method == "HEAD" { "GET" } else { method };
    let mut allowed: Vec<&str> = Vec::new();
    for route in ROUTES.iter().filter(|route| matches(route.pattern, path)) {
        if route.method == wanted {
            return Ok((route, params(route.pattern, path)?));
        }
        allowed.push(route.method);
        allowed.extend((route.method == "GET").then_some("HEAD"));
    }
    if allowed.is_empty() {
        // A path that cannot be decoded is no path at all.
        percent_decode(path)?;
        return Err(ApiError::no_route());
    }
    let message = format!("this path takes {}", allowed.join(", "));
    Err(ApiError::new(405, "method_not_allowed", message).with("Allow", allowed.join(", ")))
}

fn matches(pattern: &str, path: &str) -> bool {
    let (mut pattern, mut path) = (pattern.split('/'), path.split('/'));
    loop {
        match (pattern.next(), path.next()) {
            (None, None) => return true,
            (Some("{}"), Some(segment)) if !segment.is_empty() => {}
            (Some(word), Some(segment)) if word == segment => {}
            _ => return false,
        }
    }
}

fn params(pattern: &str, path: &str) -> Result<Vec<String>, ApiError> {
    let pairs = pattern.split('/').zip(path.split('/'));
    pairs.filter(|(word, _)| *word == "{}").map(|(_, segment)| percent_decode(segment)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_segment_by_segment() {
        assert!(matches("/a/{}/b", "/a/x/b"));
        for path in ["/a//b", "/a/x/b/", "/a/x", "/a/x/y/b", "a/x/b", "/A/x/b"] {
            assert!(!matches("/a/{}/b", path), "{path}");
        }
    }

    #[test]
    fn a_known_path_with_another_method_names_what_it_takes() {
        let refusal = find("DELETE", "/api/machines").err().map(|e| format!("{e:?}")).unwrap();
        assert!(refusal.contains("405") && refusal.contains("GET, HEAD, POST"), "{refusal}");
    }
}
