//! What the gate asks before it reads a body: is there such a route, who is it, may it be that
//! large, is there room; and who answers it.

use std::net::IpAddr;
use std::sync::Arc;

use crate::app::routes::{self, Handler, Payload, Route};
use crate::app::server::Workers;
use crate::app::{App, Work};
use crate::app::{Body, Error, Query, Request, Response};
use crate::gate::access_log::AccessRecord;
use crate::gate::head::Head;
use crate::gate::{Answer, Sink, Vet};
use crate::store::User;
use crate::store::space::{Announced, Reservation};
use crate::util::limits::{LONG_JSON_BYTES_MAX, SMALL_BODY_BYTES_MAX};
use crate::util::types::RandomId;

/// The program behind the gate.
pub struct Server {
    context: Arc<App>,
    workers: Arc<Workers>,
}

impl Server {
    /// Serves from this context, with these workers.
    pub fn new(context: Arc<App>, workers: Arc<Workers>) -> Server {
        Server { context, workers }
    }

    /// What makes the answer once the body is there.
    fn answer(
        &self, id: RandomId, route: &'static Route, mut request: Request, who: Option<User>,
        reservation: Option<Reservation>,
    ) -> Answer {
        let (context, workers) = (Arc::clone(&self.context), Arc::clone(&self.workers));
        Box::new(move |body| {
            request.body = body;
            let work: Work = match route.handler {
                Handler::Login(begin) => match begin(&context, &request) {
                    Ok(work) => work,
                    Err(error) => return error.into(),
                },
                Handler::Public(run) | Handler::Local(run) => {
                    Box::new(move || run(&context, &request))
                }
                Handler::User(run) => Box::new(move || {
                    let _held = reservation;
                    run(&context, &request, who.as_ref().ok_or_else(Error::unauthorized)?)
                }),
                Handler::Upload(run) => Box::new(move || {
                    let _held = reservation;
                    let upload = uploaded(&mut request)?;
                    run(&context, &request, who.as_ref().ok_or_else(Error::unauthorized)?, upload)
                }),
            };
            let job = Box::new(move || work().unwrap_or_else(Response::from));
            workers.run(id, route.pattern, job)
        })
    }

    /// Where the body goes, if it may come.
    fn sink(
        &self, route: &Route, head: &Head, who: Option<&User>,
    ) -> Result<(Sink, Option<Reservation>), Error> {
        let length = head.content_length.unwrap_or(0);
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
                    false if most < route => Err(Error::too_large(most, " (--max-body)")),
                    false => Err(Error::too_large(route, " of this route, below --max-body")),
                }
            }
            (Payload::Upload { field, skip, raw }, Kind::Json | Kind::Bytes)
                if raw || kind == Kind::Json =>
            {
                let limit = self.context.body_bytes_max;
                if length > limit {
                    return Err(Error::too_large(limit, " (--max-body)"));
                }
                // base64 takes four bytes for three, and a JSON body may be mostly metadata.
                let (low, high) = match kind {
                    Kind::Bytes => (length, length),
                    _ => (1, length / 4 * 3),
                };
                let conditional =
                    head.field("if-match").or_else(|| head.field("if-none-match")).is_some();
                let announced = Announced { low, high, conditional };
                let user_id = who.map(|who| who.id).ok_or_else(Error::unauthorized)?;
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

    fn who(&self, route: &Route, head: &Head, peer: IpAddr) -> Result<Option<User>, Error> {
        if !matches!(route.handler, Handler::User(_) | Handler::Upload(_)) {
            return Ok(None);
        }
        let field = head.field("authorization");
        let bearer = self.context.accounts.authenticate(&self.context.store, field)?;
        Ok(Some(User { peer: Some(peer), ..bearer.user }))
    }
}

impl Vet for Server {
    fn vet(&self, head: &Head, record: &mut AccessRecord<'_>) -> Result<(Sink, Answer), Error> {
        let peer = record.peer;
        let local = self.context.metrics_served && is_local(head, peer);
        let (route, params) = routes::find(&head.method, &head.path, local)?;
        record.route = route.pattern;
        if matches!(&*head.method, "POST" | "PUT" | "PATCH") && head.content_length.is_none() {
            let needed = "send the body with a Content-Length (0 for none)";
            return Err(Error::new(411, "length_required", needed));
        }
        let who = self.who(route, head, peer)?;
        record.user = who.as_ref().map(|who| who.id);
        let request = Request {
            params,
            query: Query::parse(head.query.as_deref().unwrap_or_default())?,
            head: head.method == "HEAD",
            wants_bytes: accepts_bytes(head),
            if_match: joined(head, "if-match"),
            if_none_match: joined(head, "if-none-match"),
            peer,
            body: Body::Empty,
        };
        let (sink, reservation) = self.sink(route, head, who.as_ref())?;
        let answer = self.answer(record.id, route, request, who, reservation);
        Ok((sink, answer))
    }
}

/// The file that came with a request; an empty one is none.
fn uploaded(request: &mut Request) -> Result<crate::store::Upload, Error> {
    let body = std::mem::take(&mut request.body);
    let (body, upload) = match body {
        Body::File(upload) => (Body::Empty, upload),
        Body::JsonFile { rest, upload } => (Body::Bytes(rest), upload),
        _ => return Err(Error::malformed("the encrypted bytes are missing or empty")),
    };
    request.body = body;
    match upload.is_empty() {
        true => Err(Error::malformed("the encrypted bytes are missing or empty")),
        false => Ok(upload),
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

fn unsupported(message: &str) -> Error {
    Error::new(415, "unsupported_media_type", message)
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
    peer.is_loopback() && !head.lines.iter().any(|(name, _)| forwards(name))
}

/// A list field that may stand on several lines (RFC 9110, section 5.3).
fn joined(head: &Head, name: &'static str) -> Option<String> {
    let lines: Vec<&str> = head.fields(name).collect();
    (!lines.is_empty()).then(|| lines.join(", "))
}
