//! The application server: a plain tiny_http server with a fixed set of workers. This is the only
//! module that uses tiny_http.
//!
//! Its only peer is the gate, so every request is printable ASCII with a length that the gate
//! declared, a whole body of at most 1 MiB, and the only request in flight on its link. A worker
//! waits for the disk, never for a network.
//!
//! Safety depends on this behaviour of tiny_http; the named tests fail if it changes:
//! - `url()` is the target as sent, neither decoded nor normalized: admission and handler find the
//!   same route
//!   (`client_variables::a_variable_is_written_read_and_deleted_by_tier_name_and_visibility`).
//! - `TE: identity` overrides the threshold for chunking: a response of any length declares it
//!   (`application::a_body_at_the_bound_of_its_route_arrives_whole_and_its_response_too`).
//! - A response to HEAD, a 204 and a 304 carry no body, so that a link stays in sync
//!   (`application::the_private_socket_serves_nothing_to_who_has_no_ticket`,
//!   `application::thousands_of_requests_over_the_fixed_links_are_each_answered_with_their_own`).

use std::io;
use std::os::unix::net::UnixListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::thread::Builder;

use super::admission::Ticket;
use super::request::Query;
use super::routes::{self, Handler};
use super::{App, Error, HandlerResult, Request, Response};
use crate::gate::response::printable;
use crate::gate::upstream::{Handoff, ID_FIELD, Upstream};
use crate::util::limits::{LONG_JSON_BYTES_MAX, WORKERS};
use crate::util::log;
use crate::util::sync::lock;
use crate::util::types::RandomId;

/// Starts tiny_http with its workers on a private socket, and connects the gate's links to it.
/// Calls `on_lost` if tiny_http stops delivering requests to a worker: no request would get a
/// response any more.
pub fn start(
    app: &Arc<App>, listener: UnixListener, socket: &Path,
    on_lost: impl Fn() + Clone + Send + Sync + 'static,
) -> io::Result<Upstream<Ticket>> {
    let server = tiny_http::Server::from_listener(listener, None).map_err(io::Error::other)?;
    let (server, handoff) = (Arc::new(server), Arc::new(Handoff::default()));
    for n in 0..WORKERS {
        let (app, server, handoff) = (Arc::clone(app), Arc::clone(&server), Arc::clone(&handoff));
        let on_lost = on_lost.clone();
        Builder::new().name(format!("worker-{n}")).spawn(move || {
            while let Ok(request) = server.recv() {
                respond(&app, &handoff, request);
            }
            log::error("tiny_http accepts nothing any more: the server stops");
            on_lost();
        })?;
    }
    Upstream::connect(socket, handoff, Box::new(on_lost))
}

/// The standard reason phrase of a status code.
pub fn reason_phrase(status: u16) -> &'static str {
    tiny_http::StatusCode(status).default_reason_phrase()
}

/// Responds to one request.
fn respond(app: &App, handoff: &Handoff<Ticket>, mut request: tiny_http::Request) {
    let id = field(&request, ID_FIELD).and_then(|id| RandomId::parse(&id));
    // The panic hook logs a panic without its payload.
    let run = || dispatch(app, handoff, id, &mut request).unwrap_or_else(Response::from);
    let response = catch_unwind(AssertUnwindSafe(run));
    let mut response = response.unwrap_or_else(|_| Error::internal().into());
    // If the entry is gone, the gate has given up on this request.
    if let Some(id) = id
        && let Some(waiting) = lock(handoff).get_mut(&id)
    {
        (waiting.refusal, waiting.file) = (response.refusal.take(), response.attachment.take());
    }
    // The only reader is the gate, which logs a response that does not arrive.
    let _ = request.respond(into_tiny(response));
}

/// Finds the handler and calls it.
fn dispatch(
    app: &App, handoff: &Handoff<Ticket>, id: Option<RandomId>, request: &mut tiny_http::Request,
) -> HandlerResult {
    // Without a ticket, it did not pass admission: for example a probe of `Upstream::connect`.
    let ticket = id.and_then(|id| lock(handoff).get_mut(&id)?.ticket.take());
    let Some(ticket) = ticket else { return Ok(Response::empty(204)) };
    let target = request.url().to_owned();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    // The ticket's route again, now with its path parameters.
    let found = routes::find(request.method().as_str(), path)?;
    let found = found.filter(|(route, _)| std::ptr::eq(*route, ticket.route));
    let (route, params) =
        found.ok_or_else(|| Error::caused_by("a request reached another route than admitted"))?;
    let (user, upload) = (ticket.user.as_ref(), ticket.upload);
    let request = Request {
        params,
        query: Query::parse(query)?,
        head: *request.method() == tiny_http::Method::Head,
        accept: field(request, "Accept"),
        if_match: field(request, "If-Match"),
        if_none_match: field(request, "If-None-Match"),
        body: body(request)?,
    };
    let signed_in = user.ok_or_else(Error::internal);
    let response = match route.handler {
        Handler::Anyone(run) | Handler::Metrics(run) => run(app, &request),
        Handler::Login(run) => run(app, signed_in?),
        Handler::SignedIn(run) => run(app, &request, signed_in?),
        Handler::SignedInUpload(run) => {
            let empty = || Error::malformed("the encrypted bytes are missing or empty");
            let upload = upload.filter(|upload| !upload.is_empty()).ok_or_else(empty)?;
            run(app, &request, signed_in?, upload)
        }
    }?;
    response.into_file_if_long(app, user.map(|user| user.id))
}

/// The value of a field that the gate forwarded.
fn field(request: &tiny_http::Request, name: &'static str) -> Option<String> {
    let field = request.headers().iter().find(|header| header.field.equiv(name));
    field.map(|header| header.value.to_string())
}

/// Reads the whole body, which admission has bounded.
fn body(request: &mut tiny_http::Request) -> Result<Vec<u8>, Error> {
    let length = request.body_length().unwrap_or(0);
    let mut bytes = vec![0; length.min(LONG_JSON_BYTES_MAX)];
    let cut = |error| Error::caused_by(format_args!("a worker got no whole body: {error}"));
    request.as_reader().read_exact(&mut bytes).map_err(cut)?;
    Ok(bytes)
}

/// The part of a response that goes through tiny_http: all but its refusal and its file.
fn into_tiny(response: Response) -> tiny_http::Response<io::Cursor<Vec<u8>>> {
    let mut tiny = tiny_http::Response::from_data(response.body).with_status_code(response.status);
    for (name, value) in response.fields {
        // Printable ASCII only: no value can begin a second line, whoever wrote it.
        let value: String = printable(&value).collect();
        if let Ok(header) = tiny_http::Header::from_bytes(name, value) {
            tiny.add_header(header);
        }
    }
    tiny
}
