//! The worker pool: the only module that names tiny_http.
//!
//! tiny_http listens on a private Unix socket and hands requests to a fixed set of workers. Its
//! only peer is this module, which writes it one fixed head with a route's pattern and one
//! unguessable id: no byte of a stranger, no body, no identity. What the request really is waits
//! in a table under that id, and its answer comes back through the table.
//!
//! The connections to tiny_http are a fixed set too. Each was opened and served once before the
//! next was opened, since its task pool can leave one of several connections that arrive at once
//! without a thread; and each carries one request at a time: tiny_http's own answer, of which
//! nothing is wanted, is read before the next request is written, so nothing can be out of step.

use std::collections::HashMap;
use std::fs::Permissions;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Error, Response};
use crate::util::limits::{RELAY_ANSWER_BYTES_MAX, WORKER_ANSWER_S, WORKER_WAIT_S, WORKERS};
use crate::util::log;
use crate::util::sync::{Pool, lock};
use crate::util::types::RandomId;

/// What a worker runs for one request.
pub type Job = Box<dyn FnOnce() -> Response + Send>;

/// The pool and the way to it.
pub struct Workers {
    socket: PathBuf,
    jobs: Mutex<HashMap<RandomId, (Job, SyncSender<Response>)>>,
    /// Each with one answer of tiny_http on its way.
    links: Pool<UnixStream>,
    /// How long a worker may take.
    longest: Duration,
}

const ID_FIELD: &str = "X-Request-Id";

impl Workers {
    /// Starts tiny_http on `socket` (mode 0600) with its workers and connections.
    pub fn start(socket: &Path) -> io::Result<Arc<Workers>> {
        Workers::with(socket, Duration::from_secs(WORKER_ANSWER_S))
    }

    fn with(socket: &Path, longest: Duration) -> io::Result<Arc<Workers>> {
        let listener = UnixListener::bind(socket)?;
        std::fs::set_permissions(socket, Permissions::from_mode(0o600))?;
        let server = tiny_http::Server::from_listener(listener, None).map_err(io::Error::other)?;
        let server = Arc::new(server);
        let workers = Arc::new(Workers {
            socket: socket.to_owned(),
            jobs: Mutex::default(),
            links: Pool::new(WORKERS),
            longest,
        });
        for n in 0..WORKERS {
            let (server, workers) = (Arc::clone(&server), Arc::clone(&workers));
            let thread = std::thread::Builder::new().name(format!("worker-{n}"));
            thread.spawn(move || {
                loop {
                    match server.recv() {
                        Ok(request) => workers.answer(request),
                        // Its accept loop ended; the fixed connections live on.
                        Err(_) => std::thread::sleep(Duration::from_millis(100)),
                    }
                }
            })?;
        }
        // All are taken before one is given back: each place gets its link.
        let mut places: Vec<_> = (0..WORKERS).filter_map(|_| workers.links.take(wait())).collect();
        for place in &mut places {
            place.thing = Some(workers.open()?);
        }
        drop(places);
        Ok(workers)
    }

    /// Runs a job on a worker and waits for its answer. `route` is the pattern of the route.
    pub fn run(&self, id: RandomId, route: &'static str, job: Job) -> Response {
        let Some(mut place) = self.links.take(wait()) else {
            return Error::overloaded("all workers are busy; try again").into();
        };
        // The answer to the request before came after its worker was done: mostly long ago.
        let link = place.thing.take().filter(|link| read_answer(link).is_ok());
        let link = link.map_or_else(|| self.open(), Ok);
        match link.and_then(|link| Ok((self.exchange(&link, id, route, job)?, link))) {
            Ok((response, link)) => {
                place.thing = Some(link);
                response
            }
            Err(error) => {
                log::error(&format!("a worker did not answer: {error}"));
                Error::internal().into()
            }
        }
    }

    /// Takes the socket away.
    pub fn remove_socket(&self) {
        let _ = std::fs::remove_file(&self.socket);
    }

    fn open(&self) -> io::Result<UnixStream> {
        let link = UnixStream::connect(&self.socket)?;
        link.set_read_timeout(Some(self.longest))?;
        let id = RandomId::draw().map_err(io::Error::other)?;
        self.exchange(&link, id, "/", Box::new(|| Response::empty(204)))?;
        Ok(link)
    }

    fn exchange(
        &self, mut link: &UnixStream, id: RandomId, route: &'static str, job: Job,
    ) -> io::Result<Response> {
        let (answer, answered) = sync_channel(1);
        lock(&self.jobs).insert(id, (job, answer));
        let head = format!("GET {route} HTTP/1.1\r\nTE: identity\r\n{ID_FIELD}: {id}\r\n\r\n");
        let done = link
            .write_all(head.as_bytes())
            .and_then(|()| answered.recv_timeout(self.longest).map_err(io::Error::other));
        // Still there only if no worker took it: then its guards undo what it held.
        lock(&self.jobs).remove(&id);
        done
    }

    fn answer(&self, request: tiny_http::Request) {
        let id = request.headers().iter().find(|field| field.field.equiv(ID_FIELD));
        let id = id.and_then(|field| RandomId::parse(field.value.as_str()));
        let job = id.and_then(|id| lock(&self.jobs).remove(&id));
        let status = match job {
            None => 404,
            Some((job, answer)) => {
                // A panic is logged by its hook, without what was given to it.
                let response = catch_unwind(AssertUnwindSafe(job))
                    .unwrap_or_else(|_| Error::internal().into());
                let _ = answer.try_send(response);
                204
            }
        };
        let _ = request.respond(tiny_http::Response::empty(status));
    }
}

fn wait() -> Duration {
    Duration::from_secs(WORKER_WAIT_S)
}

/// Reads tiny_http's answer: a head of status 204, which has no body.
fn read_answer(mut link: &UnixStream) -> io::Result<()> {
    let mut head = Vec::with_capacity(256);
    let mut piece = [0; 256];
    while !head.ends_with(b"\r\n\r\n") {
        let n = link.read(&mut piece)?;
        if n == 0 || head.len() + n > RELAY_ANSWER_BYTES_MAX {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.extend_from_slice(piece.get(..n).unwrap_or_default());
    }
    match head.starts_with(b"HTTP/1.1 204 ") {
        true => Ok(()),
        false => Err(io::Error::other("tiny_http refused the request")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> (tempfile::TempDir, Arc<Workers>) {
        let dir = tempfile::tempdir().unwrap();
        let workers = Workers::start(&dir.path().join("http.sock")).unwrap();
        (dir, workers)
    }

    #[test]
    fn every_request_gets_its_own_answer_however_many_come_at_once() {
        let (_dir, workers) = pool();
        let threads: Vec<_> = (0..32_u16)
            .map(|n| {
                let workers = Arc::clone(&workers);
                std::thread::spawn(move || {
                    for k in 0..50 {
                        let status = 1000 + n * 50 + k;
                        let job: Job = Box::new(move || Response::empty(status));
                        let answer = workers.run(RandomId::draw().unwrap(), "/x", job);
                        assert_eq!(answer.status, status);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let links = (0..WORKERS).filter_map(|_| workers.links.take(Duration::ZERO));
        assert_eq!(links.filter(|place| place.thing.is_some()).count(), WORKERS);
        assert!(lock(&workers.jobs).is_empty());
    }

    #[test]
    fn a_panic_costs_one_answer_and_no_worker() {
        let (_dir, workers) = pool();
        for _ in 0..WORKERS * 3 {
            let job: Job = Box::new(|| std::panic::resume_unwind(Box::new("test")));
            assert_eq!(workers.run(RandomId::draw().unwrap(), "/x", job).status, 500);
        }
        let job: Job = Box::new(|| Response::empty(200));
        assert_eq!(workers.run(RandomId::draw().unwrap(), "/x", job).status, 200);
    }

    #[test]
    fn after_all_workers_hung_the_pool_is_whole_again() {
        let dir = tempfile::tempdir().unwrap();
        let longest = Duration::from_millis(50);
        let workers = Workers::with(&dir.path().join("http.sock"), longest).unwrap();
        let run = |job: Job| workers.run(RandomId::draw().unwrap(), "/x", job).status;
        std::thread::scope(|scope| {
            for _ in 0..3 * WORKERS {
                let hang = || {
                    std::thread::sleep(Duration::from_millis(300));
                    Response::empty(200)
                };
                scope.spawn(move || assert_eq!(run(Box::new(hang)), 500));
            }
        });
        std::thread::sleep(Duration::from_millis(1000));
        for _ in 0..3 * WORKERS {
            assert_eq!(run(Box::new(|| Response::empty(200))), 200);
        }
    }

    #[test]
    fn an_id_that_no_request_was_given_runs_nothing() {
        let (_dir, workers) = pool();
        let mut stream = UnixStream::connect(&workers.socket).unwrap();
        let head = format!("POST / HTTP/1.1\r\nHost: x\r\n{ID_FIELD}: {}\r\n\r\n", RandomId(1));
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 404");
    }
}
