//! What the gate asks before it reads a body: is there such a route, who is it, may it be that
//! large, is there room; and what is said of every request when it is over.

use std::net::IpAddr;
use std::sync::Arc;

use crate::api::Work;
use crate::context::Context;
use crate::gate::head::Head;
use crate::gate::{Admission, Record, Service, Sink, Verdict};
use crate::http::workers::Job;
use crate::http::{ApiError, Body, Query, Request, Response};
use crate::limits::{LOG_PATH_BYTES_MAX, LONG_JSON_BYTES_MAX, SMALL_BODY_BYTES_MAX};
use crate::log::{self, Level};
use crate::metrics::Metrics;
use crate::reserve::{Announced, Reservation};
use crate::routes::{self, Handler, Payload, Route};
use crate::store::Caller;

/// The program behind the gate.
pub struct Server {
    context: Arc<Context>,
}

impl Server {
    /// Serves from this context.
    pub fn new(context: Arc<Context>) -> Server {
        Server { context }
    }

    fn admit(
        &self, route: &'static Route, params: Vec<String>, head: &Head, who: Option<Caller>,
        peer: IpAddr,
    ) -> Result<Admission, ApiError> {
        let mut request = Request {
            params,
            query: Query::parse(head.query().unwrap_or_default())?,
            head: head.method() == "HEAD",
            wants_bytes: accepts_bytes(head),
            if_match: joined(head, "if-match"),
            if_none_match: joined(head, "if-none-match"),
            peer,
            body: Body::Empty,
        };
        let (sink, reservation) = self.sink(route, head, who.as_ref())?;
        let context = Arc::clone(&self.context);
        let handler = route.handler;
        let prepare = move |body| -> Result<Job, Response> {
            request.body = body;
            let work: Work = match handler {
                Handler::Login(begin) => begin(&context, request)?,
                Handler::Public(run) | Handler::Local(run) => {
                    Box::new(move || run(&context, request))
                }
                Handler::User(run) => Box::new(move || {
                    let _held = reservation;
                    run(&context, request, who.as_ref().ok_or_else(ApiError::unauthorized)?)
                }),
            };
            Ok(Box::new(move || work().unwrap_or_else(Response::from)))
        };
        Ok(Admission { sink, prepare: Box::new(prepare) })
    }

    /// Where the body goes, if it may come.
    fn sink(
        &self, route: &Route, head: &Head, who: Option<&Caller>,
    ) -> Result<(Sink, Option<Reservation>), ApiError> {
        let length = head.content_length().unwrap_or(0);
        let kind = kind(head);
        match (route.payload, kind) {
            (Payload::Nothing, _) | (Payload::Json | Payload::LongJson, Kind::Json) => {
                let of_route = match route.payload {
                    Payload::LongJson => LONG_JSON_BYTES_MAX,
                    _ => SMALL_BODY_BYTES_MAX,
                };
                let (most, route) = (self.context.body_bytes_max, of_route as u64);
                match length <= route.min(most) {
                    true => Ok((Sink::Memory, None)),
                    false if most < route => Err(ApiError::too_large(most, " (--max-body)")),
                    false => Err(ApiError::too_large(route, " of this route, below --max-body")),
                }
            }
            (Payload::Upload { field, skip, raw }, Kind::Json | Kind::Bytes)
                if raw || kind == Kind::Json =>
            {
                let limit = self.context.body_bytes_max;
                if length > limit {
                    return Err(ApiError::too_large(limit, " (--max-body)"));
                }
                // base64 takes four bytes for three, and a JSON body may be mostly metadata.
                let (low, high) = match kind {
                    Kind::Bytes => (length, length),
                    _ => (1, length / 4 * 3),
                };
                let conditional =
                    head.field("if-match").or_else(|| head.field("if-none-match")).is_some();
                let announced = Announced { low, high, conditional };
                let user_id = who.map(|who| who.id).ok_or_else(ApiError::unauthorized)?;
                let store = &self.context.store;
                let reservation = self.context.reservations.promise(store, user_id, announced)?;
                let upload = store.upload()?;
                let sink = match kind {
                    Kind::Bytes => Sink::RawFile(upload),
                    _ => Sink::JsonFile { upload, field, skip },
                };
                Ok((sink, Some(reservation)))
            }
            (Payload::Upload { raw: true, .. }, _) => {
                Err(unsupported("send application/json, or the bytes as application/octet-stream"))
            }
            _ => Err(unsupported("send the body as application/json")),
        }
    }

    fn who(&self, route: &Route, head: &Head, peer: IpAddr) -> Result<Option<Caller>, ApiError> {
        if !matches!(route.handler, Handler::User(_)) {
            return Ok(None);
        }
        let field = head.field("authorization");
        let bearer = self.context.accounts.authenticate(&self.context.store, field)?;
        Ok(Some(Caller { peer: Some(peer), ..bearer.who }))
    }
}

impl Service for Server {
    fn vet(&self, head: &Head, peer: IpAddr) -> Verdict {
        let mut verdict = Verdict { route: "", user: None, outcome: Err(Response::empty(500)) };
        let mut decide = || {
            let local = self.context.metrics_served && is_local(head, peer);
            let (route, params) = routes::find(head.method(), head.path(), local)?;
            verdict.route = route.pattern;
            if matches!(head.method(), "POST" | "PUT" | "PATCH") && head.content_length().is_none()
            {
                return Err(ApiError::new(
                    411,
                    "length_required",
                    "send the body with a Content-Length (0 for none)",
                ));
            }
            let who = self.who(route, head, peer)?;
            verdict.user = who.as_ref().map(|who| who.id);
            self.admit(route, params, head, who, peer)
        };
        let outcome = decide().map_err(Response::from);
        verdict.outcome = outcome;
        verdict
    }

    fn done(&self, record: &Record<'_>) {
        let metrics = &self.context.metrics;
        metrics.request(record.route, record.method, record.status, record.took);
        metrics.bytes_in.add(record.bytes_in);
        metrics.bytes_out.add(record.bytes_out);
        let path = without_secrets(record.path);
        log::event(
            Level::Info,
            "request",
            &[
                ("method", record.method.into()),
                ("path", path.get(..LOG_PATH_BYTES_MAX).unwrap_or(&path).into()),
                ("status", record.status.into()),
                ("bytes_in", record.bytes_in.into()),
                ("bytes_out", record.bytes_out.into()),
                ("ms", (record.took.as_micros() as f64 / 1000.0).into()),
                ("user", record.user.into()),
                ("peer", record.peer.to_string().into()),
                ("request_id", record.id.to_string().into()),
            ],
        );
    }

    fn connection(&self, opened: bool) {
        let Metrics { opened: began, closed: ended, .. } = &self.context.metrics;
        if opened { began.add(1) } else { ended.add(1) }
    }

    fn refused(&self) {
        self.context.metrics.refused.add(1);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Json,
    Bytes,
    Other,
}

/// The media type of a body; none means JSON.
fn kind(head: &Head) -> Kind {
    let field = head.field("content-type").unwrap_or_default();
    if field.is_empty() {
        return Kind::Json;
    }
    let mut parts = field.split(';').map(str::trim);
    let media_type = parts.next().unwrap_or_default();
    let charset = parts.find_map(|part| {
        let (name, value) = part.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
    });
    let utf8 = charset.is_none_or(|charset| charset.eq_ignore_ascii_case("utf-8"));
    if media_type.eq_ignore_ascii_case("application/json") && utf8 {
        Kind::Json
    } else if media_type.eq_ignore_ascii_case("application/octet-stream") {
        Kind::Bytes
    } else {
        Kind::Other
    }
}

/// A path in which somebody put a credential by mistake, without it.
fn without_secrets(path: &str) -> String {
    let secret = |part: &str| part.starts_with("cs_") || part.starts_with("eyJ");
    let parts = path.split('/').map(|part| if secret(part) { "(secret)" } else { part });
    parts.collect::<Vec<_>>().join("/")
}

fn unsupported(message: &str) -> ApiError {
    ApiError::new(415, "unsupported_media_type", message)
}

/// Only where the type is named, and not with the weight 0, which excludes it (RFC 9110, section
/// 12.4.2): `*/*` means JSON.
fn accepts_bytes(head: &Head) -> bool {
    head.fields("accept").flat_map(|line| line.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let named =
            parts.next().unwrap_or_default().eq_ignore_ascii_case("application/octet-stream");
        let weight = parts.find_map(|part| part.strip_prefix(['q', 'Q'])?.strip_prefix('='));
        named && !weight.is_some_and(|weight| weight.parse() == Ok(0.0))
    })
}

/// From this host, with no sign of a proxy that speaks for somebody else.
fn is_local(head: &Head, peer: IpAddr) -> bool {
    let forwards = |name: &str| {
        let name = name.to_ascii_lowercase();
        name.starts_with("x-forwarded-") || matches!(&*name, "forwarded" | "via" | "x-real-ip")
    };
    peer.is_loopback() && !head.names().any(forwards)
}

/// A list field that may stand on several lines (RFC 9110, section 5.3).
fn joined(head: &Head, name: &str) -> Option<String> {
    let lines: Vec<&str> = head.fields(name).collect();
    (!lines.is_empty()).then(|| lines.join(", "))
}
