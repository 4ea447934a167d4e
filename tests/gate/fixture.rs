//! The real binary on a free port with a scratch folder, killed when it goes.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal};
use serde_json::Value;
use tempfile::TempDir;

use super::wire::{Answer, Client, PATIENCE, connect, request};

/// Where clients come from unless a test says otherwise, and an address beside it.
pub const HERE: [u8; 4] = [127, 0, 0, 1];
pub const ELSEWHERE: [u8; 4] = [127, 0, 0, 2];

/// Lines of a server's log that are kept.
const LOG_LINES_MAX: usize = 50_000;
/// SQLite's readers are opened when they are first needed and stay open: database, WAL and a
/// little more for each of four.
const SQLITE_DESCRIPTORS: u64 = 12;

/// A running server with one user.
pub struct Server {
    child: Child,
    _stdout: BufReader<ChildStdout>,
    port: u16,
    pub token: String,
    pub folder: Arc<TempDir>,
    log: Arc<Mutex<Vec<String>>>,
    /// Threads without any connection.
    threads: u64,
    ended: bool,
}

/// A request as the log shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Logged {
    pub method: String,
    pub path: String,
    pub status: u64,
    pub peer: String,
    pub ms: f64,
}

/// What a server uses.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    pub threads: u64,
    pub descriptors: u64,
    pub resident_kib: u64,
}

/// Tests that measure memory or load both cores run one after the other.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until it is so, looking again and again.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    within(PATIENCE, what, &mut is_so);
}

/// The same with its own limit; returns how long it took.
pub fn within(limit: Duration, what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
    start.elapsed()
}

/// Starts a server with these flags on a fresh folder.
pub fn serve(flags: &[&str]) -> Server {
    Server::start(Arc::new(tempfile::tempdir().unwrap()), None, flags, None)
}

/// The same with at most so many descriptors.
pub fn serve_with_descriptors(descriptors: u32, flags: &[&str]) -> Server {
    Server::start(Arc::new(tempfile::tempdir().unwrap()), None, flags, Some(descriptors))
}

impl Server {
    fn start(
        folder: Arc<TempDir>, token: Option<String>, flags: &[&str], descriptors: Option<u32>,
    ) -> Server {
        raise_descriptors();
        let binary = env!("CARGO_BIN_EXE_configsync-server");
        let mut command = match descriptors {
            None => Command::new(binary),
            Some(n) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("ulimit -n {n}; exec \"$@\""), "sh", binary]);
                shell
            }
        };
        command.args(["serve", "--listen", "127.0.0.1:0", "--init-user", "a@example.org"]);
        command.args(["--log-format", "json", "--data"]).arg(folder.path().join("data"));
        command.args(flags).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        drain(BufReader::new(child.stderr.take().unwrap()), Arc::clone(&log));
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let (mut token, mut port) = (token, None);
        while port.is_none() {
            let mut line = String::new();
            let n = stdout.read_line(&mut line).unwrap();
            assert!(n > 0, "the server did not start: {:?}", log.lock().unwrap());
            let line = line.trim_end();
            if line.starts_with("cs_") {
                token = Some(line.to_owned());
            }
            let address = line.strip_prefix("configsync-server listening on http://127.0.0.1:");
            port = address.map(|port| port.parse().unwrap());
        }
        let (token, port) = (token.unwrap(), port.unwrap());
        let (threads, ended) = (0, false);
        let mut server =
            Server { child, _stdout: stdout, port, token, folder, log, threads, ended };
        server.threads = server.usage().threads;
        server
    }

    /// Starts another server on the folder of this one, which has ended.
    pub fn again(&self) -> Server {
        assert!(self.ended);
        Server::start(Arc::clone(&self.folder), Some(self.token.clone()), &[], None)
    }

    pub fn address(&self) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.port)
    }

    pub fn connect(&self) -> Client {
        self.connect_from(HERE)
    }

    pub fn connect_from(&self, from: [u8; 4]) -> Client {
        connect(from, self.address(), None)
    }

    /// A client whose receive buffer holds little.
    pub fn connect_narrow(&self, from: [u8; 4]) -> Client {
        connect(from, self.address(), Some(8 * 1024))
    }

    /// The field line that signs in.
    pub fn auth(&self) -> String {
        format!("Authorization: Bearer {}\r\n", self.token)
    }

    /// The head of a raw push of `m` with more field lines.
    pub fn push_head(&self, length: u64, fields: &str) -> String {
        let fields = format!(
            "{}Content-Type: application/octet-stream\r\nContent-Length: {length}\r\n{fields}",
            self.auth()
        );
        request("POST", "/api/machines/snapshot?machine_id=m", &fields)
    }

    /// The head of a pull; raw bytes or JSON.
    pub fn pull(&self, raw: bool) -> String {
        let accept = if raw { "Accept: application/octet-stream\r\n" } else { "" };
        request("GET", "/api/machines/snapshot", &format!("{}{accept}", self.auth()))
    }

    /// A request with a JSON body, signed in.
    pub fn post(&self, path: &str, body: &str) -> String {
        let fields = format!("{}Content-Length: {}\r\n", self.auth(), body.len());
        request("POST", path, &fields) + body
    }

    /// Asks on a fresh connection.
    pub fn ask(&self, bytes: impl AsRef<[u8]>) -> Answer {
        let mut client = self.connect();
        client.send(bytes);
        client.answer()
    }

    /// Registers the machine `m`.
    pub fn register(&self) {
        let answer =
            self.ask(self.post("/api/machines", r#"{"machine_id": "m", "name": "machine"}"#));
        assert!(matches!(answer.status, 200 | 201), "{answer:?}");
    }

    /// Registers `m` and pushes these bytes.
    pub fn store(&self, bytes: &[u8]) {
        self.register();
        let push = [self.push_head(bytes.len() as u64, "").as_bytes(), bytes].concat();
        let answer = self.ask(push);
        assert_eq!(answer.status, 201, "{answer:?}");
    }

    /// Ids and sizes of all snapshots, newest first.
    pub fn snapshots(&self) -> Vec<(i64, u64)> {
        let answer = self.ask(request("GET", "/api/machines/history?limit=200", &self.auth()));
        assert_eq!(answer.status, 200, "{answer:?}");
        let number = |row: &Value, name: &str| row[name].as_u64().unwrap();
        let rows = answer.json()["snapshots"].as_array().unwrap().clone();
        rows.iter().map(|r| (number(r, "id") as i64, number(r, "size_bytes"))).collect()
    }

    /// The database, as another process opens it.
    pub fn database(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.folder.path().join("data/configsync.db")).unwrap()
    }

    /// Uploads under way.
    pub fn uploads(&self) -> usize {
        fs::read_dir(self.folder.path().join("data/tmp")).unwrap().count()
    }

    /// Waits until no upload is under way.
    pub fn assert_no_upload_left(&self) {
        eventually("tmp/ is empty", || self.uploads() == 0);
    }

    /// Every line logged so far.
    pub fn log_lines(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Every request logged so far, in the order of their ends.
    pub fn requests(&self) -> Vec<Logged> {
        let lines = self.log.lock().unwrap();
        let parsed = lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let word = |value: &Value| value.as_str().unwrap().to_owned();
        parsed
            .filter(|line| line["msg"] == "request")
            .map(|line| Logged {
                method: word(&line["method"]),
                path: word(&line["path"]),
                status: line["status"].as_u64().unwrap(),
                peer: word(&line["peer"]),
                ms: line["ms"].as_f64().unwrap(),
            })
            .collect()
    }

    /// Waits until so many requests were logged, and returns them.
    pub fn wait_for_requests(&self, count: usize) -> Vec<Logged> {
        eventually(&format!("{count} requests logged"), || self.requests().len() >= count);
        self.requests()
    }

    fn proc(&self, name: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{name}", self.child.id())).unwrap()
    }

    fn number(&self, file: &str, name: &str) -> u64 {
        let text = self.proc(file);
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_start_matches(':').split_whitespace().next().unwrap().parse().unwrap()
    }

    pub fn usage(&self) -> Usage {
        let descriptors = fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap();
        Usage {
            threads: self.number("status", "Threads"),
            descriptors: descriptors.count() as u64,
            resident_kib: self.number("smaps_rollup", "Rss"),
        }
    }

    /// The same once no connection is left.
    pub fn usage_at_rest(&self) -> Usage {
        eventually("no connection is left", || self.usage().threads <= self.threads);
        self.usage()
    }

    /// The most resident memory so far.
    pub fn peak_kib(&self) -> u64 {
        self.number("status", "VmHWM")
    }

    /// Waits until threads and descriptors are back where they were.
    pub fn assert_settles(&self, before: Usage) {
        eventually("threads and descriptors are back", || {
            let now = self.usage();
            let descriptors = before.descriptors + SQLITE_DESCRIPTORS;
            now.threads <= before.threads && now.descriptors <= descriptors
        });
    }

    /// Asserts that two requests from this address are served.
    pub fn assert_serves(&self, from: [u8; 4]) {
        let mut client = self.connect_from(from);
        client.assert_reusable("a fresh connection");
        client.assert_reusable("the same connection");
    }

    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Stops all of its threads where they are for a moment.
    pub fn halt(&self) {
        self.signal(Signal::STOP);
        std::thread::sleep(Duration::from_millis(100));
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end after a signal.
    pub fn wait(&mut self) -> ExitStatus {
        self.ended = true;
        let mut status = None;
        eventually("the server ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

/// What holds of every server after every test: it lives, and nothing went wrong inside.
impl Drop for Server {
    fn drop(&mut self) {
        let alive = matches!(self.child.try_wait(), Ok(None));
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let lines = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            let newest = lines.len().saturating_sub(20);
            eprintln!("the end of the server's log:\n{}", lines[newest..].join("\n"));
            return;
        }
        assert!(alive || self.ended, "the server ended by itself");
        let lines = self.log_lines();
        let bad = lines.iter().find(|line| line.contains(r#""level":"error""#));
        assert_eq!(bad, None, "an error in the log");
    }
}

/// Reads lines until the end, so that the server never waits for its log.
fn drain(mut from: impl BufRead + Send + 'static, into: Arc<Mutex<Vec<String>>>) {
    std::thread::spawn(move || {
        let mut line = String::new();
        while from.read_line(&mut line).is_ok_and(|n| n > 0) {
            let mut lines = into.lock().unwrap_or_else(PoisonError::into_inner);
            if lines.len() < LOG_LINES_MAX && line.starts_with('{') {
                lines.push(line.trim_end().to_owned());
            }
            line.clear();
        }
    });
}

/// Hundreds of clients need more than the usual 1024 descriptors.
fn raise_descriptors() {
    let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
    let _ = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}
