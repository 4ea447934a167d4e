//! Admission: what the gate asks before it reads a body. Does the route exist, who is the caller,
//! may the body be that large, and is there room for it?

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::routes::{self, Handler, Payload, Route};
use super::{App, Error};
use crate::api::login;
use crate::api::snapshots::METADATA;
use crate::auth::authenticate;
use crate::gate::access_log::AccessRecord;
use crate::gate::body::Spool;
use crate::gate::head::Head;
use crate::gate::{self, Client};
use crate::store::audit::Event;
use crate::store::{Upload, User};
use crate::util::limits::{LONG_JSON_BYTES_MAX, SMALL_BODY_BYTES_MAX};
use crate::util::sync::PoolGuard;

/// The listener that accepted a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    /// The listener of `--listen`.
    Main,
    /// The listener of `--metrics`, which serves metrics and health only.
    Metrics,
}

/// Admits requests of one listener.
pub struct Admission {
    pub app: Arc<App>,
    pub listener: Listener,
}

/// State of an admitted request that a worker needs and no header field can carry.
pub struct Ticket {
    pub route: &'static Route,
    /// The client's address.
    peer: IpAddr,
    /// The authenticated caller, or on the login route the user who signs in.
    pub user: Option<User>,
    /// The uploaded body, on routes that take a file.
    pub upload: Option<Upload>,
    /// The user's worker permit, held until the handler ends.
    _permit: Option<PoolGuard<()>>,
}

impl gate::Admission for Admission {
    type Ticket = Ticket;

    fn admit(
        &self, head: &Head, client: Client, record: &mut AccessRecord<'_>,
    ) -> Result<(Spool, Ticket), Error> {
        if head.path().starts_with("/api/") {
            refuse_cross_site(head, client)?;
        }
        let route = self.route(head, client)?;
        record.route = route.pattern;
        check_fields(head)?;
        let user = match route.handler {
            Handler::Anyone(_) | Handler::Metrics(_) | Handler::Login(_) => None,
            Handler::SignedIn(_) | Handler::SignedInUpload(_) => {
                let field = head.field("authorization");
                let user = authenticate(&self.app.store, &self.app.jwt_key, field)?;
                Some(User { peer: Some(client.address), ..user })
            }
        };
        record.user = user.as_ref().map(|user| user.id);
        let (spool, upload) = self.spool(route, head, user.as_ref())?;
        Ok((spool, Ticket { route, peer: client.address, user, upload, _permit: None }))
    }

    fn receive_piece(&self, ticket: &mut Ticket, bytes: &[u8]) -> Result<(), Error> {
        let upload = ticket.upload.as_mut().ok_or_else(Error::internal)?;
        Ok(upload.append(bytes)?)
    }

    /// Waits for the user's worker permit. A login has no user yet: its password is hashed here,
    /// and the worker only issues the JWT.
    fn after_body(&self, ticket: &mut Ticket, body: &[u8]) -> Result<(), Error> {
        if let Some(user) = &ticket.user {
            let busy = || Error::overloaded("too many requests of yours at once; try again");
            ticket._permit = Some(self.app.user_limit.take(user.id).ok_or_else(busy)?);
        }
        if matches!(ticket.route.handler, Handler::Login(_)) {
            ticket.user = Some(login::authenticate(&self.app, ticket.peer, body)?);
        }
        Ok(())
    }
}

impl Admission {
    /// Returns the route of a request if this listener serves it.
    fn route(&self, head: &Head, client: Client) -> Result<&'static Route, Error> {
        let nothing = || match self.listener {
            Listener::Main => nothing_here(head, client),
            Listener::Metrics => {
                Error::new(404, "not_found", "this listener has /metrics and /healthz alone")
            }
        };
        let found = routes::find(&head.method, head.path())?;
        let (route, _) = found.ok_or_else(nothing)?;
        let of_metrics = matches!(route.handler, Handler::Metrics(_));
        let here = match self.listener {
            Listener::Main => !of_metrics && (self.app.settings.page || route.pattern != "/"),
            Listener::Metrics => of_metrics || route.pattern == "/healthz",
        };
        if !here {
            return Err(nothing());
        }
        if of_metrics && !names_an_address(head.field("host").unwrap_or_default()) {
            let rule = "metrics are served to a Host that is an address or localhost alone";
            return Err(Error::new(403, "forbidden_host", rule));
        }
        Ok(route)
    }

    /// Decides where the body goes, or refuses it.
    fn spool(
        &self, route: &Route, head: &Head, user: Option<&User>,
    ) -> Result<(Spool, Option<Upload>), Error> {
        let (length, max) = (head.body_bytes(), self.app.settings.body_bytes_max);
        let content_type = head.field("content-type").unwrap_or_default();
        let (spool, bound) = match route.payload {
            Payload::Nothing => (Spool::Memory, SMALL_BODY_BYTES_MAX as u64),
            Payload::Upload { raw: true, .. } if is_bytes(content_type) => {
                (Spool::Upload, u64::MAX)
            }
            Payload::Upload { raw: true, .. } if !is_json(content_type) => {
                let rule = "send application/json, or the bytes as application/octet-stream";
                return Err(Error::unsupported(rule));
            }
            _ if !is_json(content_type) => {
                return Err(Error::unsupported("send the body as application/json"));
            }
            Payload::Json => (Spool::Memory, SMALL_BODY_BYTES_MAX as u64),
            Payload::LongJson => (Spool::Memory, LONG_JSON_BYTES_MAX as u64),
            Payload::Upload { field, .. } => {
                (Spool::UploadJson { field, skip: METADATA }, u64::MAX)
            }
        };
        if length > max && max < bound {
            return Err(Error::too_large(max, " (--max-body)"));
        }
        if length > bound {
            return Err(Error::too_large(bound, " of this route, below --max-body"));
        }
        let Payload::Upload { may_be_retry, event, .. } = route.payload else {
            return Ok((spool, None));
        };
        let (store, user) = (&self.app.store, user.ok_or_else(Error::internal)?);
        // If the request may be a retry or have a precondition, only its transaction checks the
        // quota and all of --min-free.
        let upload = store.upload(user.id, length, may_be_retry).inspect_err(|error| {
            store.audit_refusal(Event::of(user, event), error);
        })?;
        Ok((spool, Some(upload)))
    }
}

/// Refuses what a browser sends for a page of another site (Fetch Metadata; RFC 6454, section 7).
fn refuse_cross_site(head: &Head, client: Client) -> Result<(), Error> {
    let origin = head.field("origin");
    let authority = origin.and_then(|origin| origin.split_once("://")).map(|(_, rest)| rest);
    let forwarded = head.field("x-forwarded-host").filter(|_| client.through_proxy);
    let mut hosts = head.field("host").into_iter().chain(forwarded);
    let own = hosts.any(|host| authority.is_some_and(|origin| origin.eq_ignore_ascii_case(host)));
    if head.field("sec-fetch-site") == Some("cross-site") || origin.is_some() && !own {
        let rule = "a page of another site may not call this API";
        return Err(Error::new(403, "cross_site", rule));
    }
    Ok(())
}

/// Checks the head rules that apply to every route.
fn check_fields(head: &Head) -> Result<(), Error> {
    if matches!(&*head.method, "POST" | "PUT" | "PATCH") && head.content_length.is_none() {
        let needed = "send the body with a Content-Length (0 for none)";
        return Err(Error::new(411, "length_required", needed));
    }
    if head.field("content-range").is_some() {
        return Err(Error::malformed("Content-Range is not taken: send the whole body"));
    }
    // Stored as sent, an encoded body would be returned without its coding (RFC 9110, section 8.4).
    if head.fields("content-encoding").any(|coding| !coding.eq_ignore_ascii_case("identity")) {
        let rule = "the body must not be compressed: send it without Content-Encoding";
        return Err(Error::unsupported(rule).with("Accept-Encoding", "identity"));
    }
    Ok(())
}

/// True if a `Content-Type` field names JSON in UTF-8, or is absent.
fn is_json(content_type: &str) -> bool {
    let lower = content_type.to_ascii_lowercase();
    let mut parts = lower.split(';').map(str::trim);
    let named = lower.is_empty() || parts.next() == Some("application/json");
    let charset = parts.find_map(|part| part.strip_prefix("charset="));
    named && charset.is_none_or(|charset| charset.trim_matches('"') == "utf-8")
}

fn is_bytes(content_type: &str) -> bool {
    let (name, _) = content_type.split_once(';').unwrap_or((content_type, ""));
    name.trim().eq_ignore_ascii_case("application/octet-stream")
}

/// 404 for a path without a route, usually the result of a wrong base URL.
fn nothing_here(head: &Head, client: Client) -> Error {
    let host = head.field("host").unwrap_or("HOST");
    let scheme = if client.through_proxy { "https" } else { "http" };
    let sentence = format!("there is nothing at this path: the API URL is {scheme}://{host}");
    Error::new(404, "not_found", sentence)
}

/// True for `127.0.0.1:9100`, `[::1]` and `localhost`. A page of another site that points its own
/// name here cannot send such a Host (DNS rebinding).
fn names_an_address(host: &str) -> bool {
    let (name, _) = host.split_once(':').unwrap_or((host, ""));
    name.eq_ignore_ascii_case("localhost")
        || host.parse::<SocketAddr>().is_ok()
        || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
}
