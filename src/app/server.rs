//! The application server: a plain tiny_http server with a fixed set of workers. This is the only
//! module that names tiny_http.
//!
//! Its only peer is the gate, so what reaches it is always printable ASCII with a length of the
//! gate's own, a whole body of at most 1 MiB, and one request at a time on each link. A worker
//! waits for the disk and never for a network.
//!
//! What safety needs of tiny_http, and which tests would see it change:
//! - `url()` is the target as it was sent, neither decoded nor normalized: admission and handler
//!   find the same route
//!   (`client_variables::a_variable_is_written_read_and_deleted_by_tier_name_and_visibility`).
//! - `TE: identity` wins over its threshold for chunks: a response of any length declares it
//!   (`application::a_body_at_the_bound_of_its_route_arrives_whole_and_its_response_too`).
//! - A response to HEAD, a 204 and a 304 carry no body, so that a link stays in step
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

/// Starts tiny_http on a private socket with its workers, and opens the gate's way to them.
/// `on_lost` is called if tiny_http leaves a worker without requests: no request would get a
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

/// The standard phrase of a status.
pub fn reason_phrase(status: u16) -> &'static str {
    tiny_http::StatusCode(status).default_reason_phrase()
}

/// Responds to one request.
fn respond(app: &App, handoff: &Handoff<Ticket>, mut request: tiny_http::Request) {
    let id = field(&request, ID_FIELD).and_then(|id| RandomId::parse(&id));
    // A panic is logged by its hook, without what was given to it.
    let run = || dispatch(app, handoff, id, &mut request).unwrap_or_else(Response::from);
    let response = catch_unwind(AssertUnwindSafe(run));
    let mut response = response.unwrap_or_else(|_| Error::internal().into());
    // Where the entry is gone, the gate has given up on this request.
    if let Some(id) = id
        && let Some(waiting) = lock(handoff).get_mut(&id)
    {
        (waiting.refusal, waiting.file) = (response.refusal.take(), response.attachment.take());
    }
    // Its only reader is the gate, which logs what it does not get.
    let _ = request.respond(into_tiny(response));
}

/// Finds the handler and calls it.
fn dispatch(
    app: &App, handoff: &Handoff<Ticket>, id: Option<RandomId>, request: &mut tiny_http::Request,
) -> HandlerResult {
    // Without a ticket it did not come through admission: a probe of `Upstream::connect`, say.
    let ticket = id.and_then(|id| lock(handoff).get_mut(&id)?.ticket.take());
    let Some(ticket) = ticket else { return Ok(Response::empty(204)) };
    let target = request.url().to_owned();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    // The same route as the ticket's, with what stands in its path.
    let found = routes::find(request.method().as_str(), path)?;
    let (route, params) = found.ok_or_else(Error::internal)?;
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
    response.spool(app, user.map(|user| user.id))
}

/// The value of a field that the gate forwarded.
fn field(request: &tiny_http::Request, name: &'static str) -> Option<String> {
    let field = request.headers().iter().find(|header| header.field.equiv(name));
    field.map(|header| header.value.to_string())
}

/// The whole small body.
fn body(request: &mut tiny_http::Request) -> Result<Vec<u8>, Error> {
    let length = request.body_length().unwrap_or(0);
    let mut bytes = vec![0; length.min(LONG_JSON_BYTES_MAX)];
    let cut = |error| Error::caused_by(format_args!("a worker got no whole body: {error}"));
    request.as_reader().read_exact(&mut bytes).map_err(cut)?;
    Ok(bytes)
}

/// What of a response goes through tiny_http.
fn into_tiny(response: Response) -> tiny_http::Response<io::Cursor<Vec<u8>>> {
    let mut tiny = tiny_http::Response::from_data(response.body).with_status_code(response.status);
    for (name, value) in response.fields {
        // Printable ASCII alone: no value can begin a second line, whoever wrote it.
        let value: String = printable(&value).collect();
        if let Ok(header) = tiny_http::Header::from_bytes(name, value) {
            tiny.add_header(header);
        }
    }
    tiny
}
