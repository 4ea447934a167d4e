//! The route table. Each route is declared once, with its method, path, payload and handler; the
//! kind of handler determines who may call it.

use crate::api::snapshots::STATE;
use crate::api::{health, login, machines, metrics, page, snapshots, usage};
use crate::app::request::percent_decode;
use crate::app::{App, Error, HandlerResult, Request};
use crate::client_routes::entities::CIPHERTEXT;
use crate::client_routes::legacy::EMPTY_LISTS;
use crate::client_routes::{entities, legacy, links, variables};
use crate::store::entities::KINDS;
use crate::store::{Upload, User};
use crate::util::types::MachineId;
use Handler::{Anyone, Login, Metrics, SignedIn, SignedInUpload};
use Payload::{Json, LongJson, Nothing};

/// The body that a request to a route may carry.
pub enum Payload {
    /// No body; a small one is read and ignored.
    Nothing,
    /// A small JSON object.
    Json,
    /// A JSON object with a list or a long value.
    LongJson,
    /// JSON with a large base64 member, or the raw bytes if `raw` is set.
    Upload {
        /// Name of that member.
        field: &'static str,
        /// Also accepts `application/octet-stream`.
        raw: bool,
        /// It may repeat the newest snapshot, in which case nothing is stored.
        may_be_retry: bool,
        /// Name of the event in the audit log.
        event: &'static str,
    },
}

/// A handler, and who may call it: one without a user in its signature cannot learn who calls, and
/// one with a user is never called without a user.
pub enum Handler {
    Anyone(fn(&App, &Request) -> HandlerResult),
    /// For anyone, but on the `--metrics` listener only.
    Metrics(fn(&App, &Request) -> HandlerResult),
    /// For a user whose password or API token is in the body.
    Login(fn(&App, &User) -> HandlerResult),
    /// For a user with an API token or a JWT.
    SignedIn(fn(&App, &Request, &User) -> HandlerResult),
    /// Like `SignedIn`, with the file from the body.
    SignedInUpload(fn(&App, &Request, &User, Upload) -> HandlerResult),
}

pub struct Route {
    /// A GET route also serves HEAD.
    pub method: &'static str,
    /// The path. `{}` matches any one segment, `{mid}` a machine id (never a word that is a route
    /// of its own), `{kinds}` the plural of an entity kind, and `{empty}` a list that is always
    /// empty.
    pub pattern: &'static str,
    pub payload: Payload,
    pub handler: Handler,
}

const fn route(
    method: &'static str, pattern: &'static str, payload: Payload, handler: Handler,
) -> Route {
    Route { method, pattern, payload, handler }
}

/// Its handler pushes with `PushMode::Idempotent`.
const STATE_UPLOAD: Payload =
    Payload::Upload { field: STATE, raw: true, may_be_retry: true, event: "snapshot.push" };
const JSON_STATE: Payload =
    Payload::Upload { field: STATE, raw: false, may_be_retry: false, event: "snapshot.push" };
const VERSION_UPLOAD: Payload =
    Payload::Upload { field: CIPHERTEXT, raw: false, may_be_retry: false, event: "entity.push" };

pub static ROUTES: &[Route] = &[
    route("GET", "/", Nothing, Anyone(page::page)),
    route("GET", "/healthz", Nothing, Anyone(health::healthz)),
    route("GET", "/metrics", Nothing, Metrics(metrics::metrics)),
    route("POST", "/api/auth/login", Json, Login(login::login)),
    route("GET", "/api/machines", Nothing, SignedIn(machines::list)),
    route("POST", "/api/machines", Json, SignedIn(machines::register)),
    route("GET", "/api/machines/snapshot", Nothing, SignedIn(snapshots::pull)),
    route("POST", "/api/machines/snapshot", STATE_UPLOAD, SignedInUpload(snapshots::push)),
    route("GET", "/api/machines/history", Nothing, SignedIn(snapshots::history)),
    route("GET", "/api/usage", Nothing, SignedIn(usage::usage)),
    // The routes of the released command-line client.
    route("GET", "/api/auth/verify", Nothing, SignedIn(legacy::verify)),
    route("POST", "/api/auth/register", Json, Anyone(legacy::closed)),
    route("GET", "/api/auth/keypair", Nothing, SignedIn(legacy::keypair)),
    route("POST", "/api/auth/keypair", Json, SignedIn(legacy::add_keypair)),
    route("POST", "/api/machines/register", Json, SignedIn(legacy::register)),
    route("GET", "/api/machines/latest", Nothing, SignedIn(snapshots::pull)),
    route("GET", "/api/machines/snapshot/{}", Nothing, SignedIn(snapshots::pull)),
    route("DELETE", "/api/machines/{mid}", Nothing, SignedIn(legacy::remove_machine)),
    route("POST", "/api/machines/{mid}/push", JSON_STATE, SignedInUpload(legacy::push)),
    route("GET", "/api/machines/{mid}/{empty}", Nothing, SignedIn(legacy::empty_list)),
    route("DELETE", "/api/machines/{mid}/actions", Nothing, SignedIn(legacy::clear_actions)),
    route("GET", "/api/machines/{mid}/projects", Nothing, SignedIn(links::list)),
    route("POST", "/api/machines/{mid}/projects", Json, SignedIn(links::add)),
    route("PATCH", "/api/machines/{mid}/projects/{}", Json, SignedIn(links::change)),
    route("PATCH", "/api/machines/{mid}/profiles/{}", Json, SignedIn(links::mark_profile)),
    route("POST", "/api/sync/plan", LongJson, SignedIn(links::plan)),
    route("POST", "/api/sync/commit", LongJson, SignedIn(links::commit)),
    route("GET", "/api/environments", Nothing, SignedIn(legacy::list_environments)),
    route("PUT", "/api/environments/sync", LongJson, SignedIn(legacy::sync_environments)),
    route("POST", "/api/profiles/{}/workspaces", Json, SignedIn(entities::add_workspace)),
    route(
        "DELETE",
        "/api/profiles/{}/workspaces/{}",
        Nothing,
        SignedIn(entities::remove_workspace),
    ),
    // `keys` may also be a variable's name: GET and POST are about layer keys, PUT and DELETE not.
    route("GET", "/api/projects/{}/env/keys", Nothing, SignedIn(variables::keys)),
    route("POST", "/api/projects/{}/env/keys", Json, SignedIn(variables::add_key)),
    route("GET", "/api/projects/{}/env", Nothing, SignedIn(variables::list)),
    route("PUT", "/api/projects/{}/env/{}", LongJson, SignedIn(variables::set)),
    route("DELETE", "/api/projects/{}/env/{}", Nothing, SignedIn(variables::remove)),
    route("GET", "/api/{kinds}", Nothing, SignedIn(entities::list)),
    route("POST", "/api/{kinds}", Json, SignedIn(entities::add)),
    route("GET", "/api/{kinds}/{}", Nothing, SignedIn(entities::show)),
    route("PATCH", "/api/{kinds}/{}", Json, SignedIn(entities::change)),
    route("DELETE", "/api/{kinds}/{}", Nothing, SignedIn(entities::remove)),
    route("GET", "/api/{kinds}/{}/versions", Nothing, SignedIn(entities::versions)),
    route("POST", "/api/{kinds}/{}/versions", VERSION_UPLOAD, SignedInUpload(entities::push)),
    route("GET", "/api/{kinds}/{}/versions/{}", Nothing, SignedIn(entities::pull)),
    route("GET", "/api/{kinds}/{}/blob", Nothing, SignedIn(entities::pull)),
    route("POST", "/api/{kinds}/{}/keys", Json, SignedIn(entities::add_key)),
];

/// Finds the route of a method and path, and its decoded path parameters. Returns None if no route
/// has such a path.
pub fn find(method: &str, path: &str) -> Result<Option<(&'static Route, Vec<String>)>, Error> {
    let wanted = if method == "HEAD" { "GET" } else { method };
    let mut allowed: Vec<&str> = Vec::new();
    for route in ROUTES {
        let Some(segments) = captures(route.pattern, path) else { continue };
        if route.method == wanted {
            let params = segments.into_iter().map(percent_decode);
            return Ok(Some((route, params.collect::<Result<_, _>>()?)));
        }
        allowed.push(route.method);
        allowed.extend((route.method == "GET").then_some("HEAD"));
    }
    if allowed.is_empty() {
        // A path that cannot be decoded is malformed even if no route has it.
        return percent_decode(path).map(|_| None);
    }
    let sentence = format!("this path takes {}", allowed.join(", "));
    Err(Error::new(405, "method_not_allowed", sentence).with("Allow", allowed.join(", ")))
}

/// Returns the path segments at the placeholders of a pattern, or None if the path does not match.
fn captures<'p>(pattern: &str, path: &'p str) -> Option<Vec<&'p str>> {
    let (mut words, mut captured) = (pattern.split('/'), Vec::new());
    for segment in path.split('/') {
        let word = words.next()?;
        let fits = match word {
            "{}" => !segment.is_empty(),
            "{mid}" => !segment.is_empty() && !MachineId::RESERVED.contains(&segment),
            "{empty}" => EMPTY_LISTS.contains(&segment),
            "{kinds}" => segment.strip_suffix('s').is_some_and(|kind| KINDS.contains(&kind)),
            word => word == segment,
        };
        if !fits {
            return None;
        }
        captured.extend(word.starts_with('{').then_some(segment));
    }
    words.next().is_none().then_some(captured)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_segment_by_segment() {
        assert!(captures("/a/{}/b", "/a/x/b").is_some());
        for path in ["/a//b", "/a/x/b/", "/a/x", "/a/x/y/b", "a/x/b", "/A/x/b"] {
            assert!(captures("/a/{}/b", path).is_none(), "{path}");
        }
    }

    #[test]
    fn a_word_that_is_a_route_is_never_a_machine_and_only_five_plurals_are_kinds() {
        assert!(captures("/api/machines/{mid}/push", "/api/machines/laptop/push").is_some());
        for word in ["latest", "history", "snapshot", "register"] {
            let path = format!("/api/machines/{word}/push");
            assert!(captures("/api/machines/{mid}/push", &path).is_none(), "{word}");
        }
        assert!(captures("/api/machines/{mid}", "/api/machines/history").is_none());
        assert!(captures("/api/{kinds}/{}", "/api/configs/7").is_some());
        for path in ["/api/config/7", "/api/users/7", "/api/configss/7", "/api//7"] {
            assert!(captures("/api/{kinds}/{}", path).is_none(), "{path}");
        }
    }

    #[test]
    fn no_two_routes_have_the_same_method_and_pattern() {
        let mut seen = std::collections::HashSet::new();
        assert!(ROUTES.iter().all(|route| seen.insert((route.method, route.pattern))));
    }

    #[test]
    fn a_known_path_with_another_method_names_what_it_takes() {
        for (method, path, allow) in [
            ("DELETE", "/api/machines", "GET, HEAD, POST"),
            ("PUT", "/api/machines/snapshot", "GET, HEAD, POST"),
            ("POST", "/healthz", "GET, HEAD"),
            ("POST", "/", "GET, HEAD"),
            ("GET", "/api/auth/login", "POST"),
            ("OPTIONS", "/api/machines", "GET, HEAD, POST"),
        ] {
            let refusal = find(method, path).err().unwrap();
            assert_eq!((refusal.status, refusal.code), (405, "method_not_allowed"));
            assert_eq!(refusal.fields, [("Allow", allow.to_owned())], "{method} {path}");
        }
    }
}
