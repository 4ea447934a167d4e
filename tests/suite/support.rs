//! The real binary on a free port with a scratch folder, its command line, and its users.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::wire::{Answer, PATIENCE, connect};

pub const BINARY: &str = env!("CARGO_BIN_EXE_configsync-server");
/// Where requests come from unless a test says otherwise, and an address beside it.
pub const HERE: [u8; 4] = [127, 0, 0, 1];
pub const ELSEWHERE: [u8; 4] = [127, 0, 0, 2];

/// A running server, killed when it goes.
pub struct Server {
    child: Child,
    _stdout: BufReader<ChildStdout>,
    pub port: u16,
    pub scratch: Arc<TempDir>,
    /// What it printed before the ready line.
    pub printed: Vec<String>,
    log: Arc<Mutex<Vec<String>>>,
    ended: bool,
    /// The test breaks what the server stores, so that its log has errors.
    pub errors_expected: bool,
}

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// Waits until it is so, looking again and again.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "never came true: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs the binary with these arguments and this standard input.
pub fn run(args: &[&str], stdin: &str) -> Ran {
    run_with(Command::new(BINARY).args(args), stdin)
}

/// The same, with what the test set before.
pub fn run_with(command: &mut Command, stdin: &str) -> Ran {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A command that reads nothing may have ended already.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let (pid, ended) = (Pid::from_child(&child), Arc::new(AtomicBool::new(false)));
    // A command that never ends must not hang the suite.
    let watched = Arc::clone(&ended);
    std::thread::spawn(move || {
        std::thread::sleep(PATIENCE);
        if !watched.load(Ordering::SeqCst) {
            let _ = kill_process(pid, Signal::KILL);
        }
    });
    let done = child.wait_with_output().unwrap();
    ended.store(true, Ordering::SeqCst);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: done.status.code().unwrap_or(-1), out: text(done.stdout), err: text(done.stderr) }
}

/// Starts a server on a fresh folder.
pub fn serve(flags: &[&str]) -> Server {
    Server::start(Arc::new(tempfile::tempdir().unwrap()), flags)
}

impl Server {
    /// Starts a server on the folder `data` in a scratch folder.
    pub fn start(scratch: Arc<TempDir>, flags: &[&str]) -> Server {
        let mut command = Command::new(BINARY);
        command.args(["serve", "--listen", "127.0.0.1:0", "--data"]);
        command.arg(scratch.path().join("data")).args(flags);
        if !flags.contains(&"--log-format") {
            command.args(["--log-format", "json"]);
        }
        Server::spawn(scratch, command)
    }

    /// Starts what the test set up, which listens on 127.0.0.1.
    pub fn spawn(scratch: Arc<TempDir>, mut command: Command) -> Server {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        drain(BufReader::new(child.stderr.take().unwrap()), Arc::clone(&log));
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut printed = Vec::new();
        let port = loop {
            let mut line = String::new();
            let n = stdout.read_line(&mut line).unwrap();
            assert!(n > 0, "the server did not start: {:?}", log.lock().unwrap());
            let line = line.trim_end();
            let address = line.strip_prefix("configsync-server listening on http://127.0.0.1:");
            match address {
                Some(port) => break port.parse().unwrap(),
                None => printed.push(line.to_owned()),
            }
        };
        let (ended, errors_expected) = (false, false);
        Server { child, _stdout: stdout, port, scratch, printed, log, ended, errors_expected }
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.ended = true;
    }

    /// Asks it to stop and waits.
    pub fn stop(&mut self) -> ExitStatus {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let status = self.child.wait().unwrap();
        self.ended = true;
        status
    }

    /// Ends it and starts another on its folder.
    pub fn restarted(mut self, flags: &[&str]) -> Server {
        if !self.ended {
            self.kill();
        }
        Server::start(Arc::clone(&self.scratch), flags)
    }

    /// The data folder.
    pub fn data(&self) -> PathBuf {
        self.scratch.path().join("data")
    }

    /// Runs a command on the data folder.
    pub fn cli(&self, args: &[&str]) -> Ran {
        self.cli_with(args, "")
    }

    /// The same with standard input.
    pub fn cli_with(&self, args: &[&str], stdin: &str) -> Ran {
        run_with(Command::new(BINARY).args(args).arg("--data").arg(self.data()), stdin)
    }

    /// Runs a command that must succeed, and returns what it printed.
    pub fn ok(&self, args: &[&str]) -> String {
        let ran = self.cli(args);
        assert_eq!(ran.code, 0, "{args:?}: {ran:?}");
        ran.out
    }

    /// Adds a user with a token.
    pub fn user(&self, email: &str) -> User {
        self.ok(&["user", "add", email]);
        User::of(self, email, &self.token(email))
    }

    /// Makes a token.
    pub fn token(&self, email: &str) -> String {
        self.ok(&["token", "create", email, "--name", "test"]).trim_end().to_owned()
    }

    /// Sends a request from an address and takes the answer.
    pub fn send(&self, from: [u8; 4], head: &str, body: &[u8], no_body: bool) -> Answer {
        let to = SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.port);
        let mut client = connect(from, to, None);
        client.send([head.as_bytes(), body].concat());
        client.answer_or_end(no_body).expect("an answer, not the end")
    }

    /// A request without credentials.
    pub fn ask(&self, method: &str, path: &str, fields: &str, body: &[u8]) -> Answer {
        ask(self, HERE, method, path, fields, body)
    }

    /// Every line logged so far.
    pub fn log_lines(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// How many files lie under a folder of the data folder, at any depth.
    pub fn files(&self, name: &str) -> usize {
        files(&self.data().join(name)).len()
    }

    /// How many rows a query counts, asked of the database itself.
    pub fn count(&self, sql: &str) -> i64 {
        self.database().query_row(sql, [], |row| row.get(0)).unwrap()
    }

    /// The database itself.
    pub fn database(&self) -> rusqlite::Connection {
        let database = rusqlite::Connection::open(self.data().join("configsync.db")).unwrap();
        database.busy_timeout(PATIENCE).unwrap();
        database
    }
}

fn ask(
    server: &Server, from: [u8; 4], method: &str, path: &str, fields: &str, body: &[u8],
) -> Answer {
    let length = match (method, body.len()) {
        ("GET" | "HEAD" | "DELETE", 0) => String::new(),
        (_, length) => format!("Content-Length: {length}\r\n"),
    };
    let head = format!("{method} {path} HTTP/1.1\r\nHost: t\r\n{length}{fields}\r\n");
    server.send(from, &head, body, method == "HEAD")
}

/// All files under a folder.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// What holds of every server after every test: it lives, and nothing went wrong inside.
impl Drop for Server {
    fn drop(&mut self) {
        let alive = matches!(self.child.try_wait(), Ok(None));
        let _ = self.child.kill();
        let _ = self.child.wait();
        let lines = self.log.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if std::thread::panicking() {
            let newest = lines.len().saturating_sub(20);
            eprintln!("the end of the server's log:\n{}", lines[newest..].join("\n"));
            return;
        }
        assert!(alive || self.ended, "the server ended by itself");
        let bad = lines.iter().find(|line| line.contains(r#""level":"error""#));
        assert!(bad.is_none() || self.errors_expected, "an error in the log: {bad:?}");
    }
}

/// Reads lines until the end, so that the server never waits for its log.
fn drain(mut from: impl BufRead + Send + 'static, into: Arc<Mutex<Vec<String>>>) {
    std::thread::spawn(move || {
        let mut line = String::new();
        while from.read_line(&mut line).is_ok_and(|n| n > 0) {
            into.lock().unwrap_or_else(PoisonError::into_inner).push(line.trim_end().to_owned());
            line.clear();
        }
    });
}

/// A user with a bearer token, who keeps it when the server restarts.
#[derive(Clone)]
pub struct User {
    pub email: String,
    pub bearer: String,
    port: u16,
}

impl User {
    /// With this bearer token.
    pub fn of(server: &Server, email: &str, bearer: &str) -> User {
        User { email: email.to_owned(), bearer: bearer.to_owned(), port: server.port }
    }

    /// The same user on a server that was started again.
    pub fn on(&self, server: &Server) -> User {
        User::of(server, &self.email, &self.bearer)
    }

    /// A request with more field lines and these bytes.
    pub fn raw(&self, method: &str, path: &str, fields: &str, body: &[u8]) -> Answer {
        let to = SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.port);
        let mut client = connect(HERE, to, None);
        client.send(self.request(method, path, fields, body));
        client.answer_or_end(method == "HEAD").expect("an answer, not the end")
    }

    /// The bytes of a request.
    pub fn request(&self, method: &str, path: &str, fields: &str, body: &[u8]) -> Vec<u8> {
        let length = match (method, body.len()) {
            ("GET" | "HEAD" | "DELETE", 0) => String::new(),
            (_, length) => format!("Content-Length: {length}\r\n"),
        };
        let bearer = &self.bearer;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {bearer}\r\n\
             {length}{fields}\r\n"
        );
        [head.as_bytes(), body].concat()
    }

    pub fn get(&self, path: &str) -> Answer {
        self.raw("GET", path, "", b"")
    }

    pub fn delete(&self, path: &str) -> Answer {
        self.raw("DELETE", path, "", b"")
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.json("POST", path, body)
    }

    pub fn put(&self, path: &str, body: &Value) -> Answer {
        self.json("PUT", path, body)
    }

    pub fn patch(&self, path: &str, body: &Value) -> Answer {
        self.json("PATCH", path, body)
    }

    fn json(&self, method: &str, path: &str, body: &Value) -> Answer {
        self.raw(method, path, "Content-Type: application/json\r\n", body.to_string().as_bytes())
    }

    /// A GET that must answer 200, as JSON.
    pub fn read(&self, path: &str) -> Value {
        let answer = self.get(path);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }

    /// Registers a machine.
    pub fn register(&self, machine: &str) {
        let body = serde_json::json!({ "machine_id": machine, "name": machine });
        let answer = self.post("/api/machines", &body);
        assert!(matches!(answer.status, 200 | 201), "{answer:?}");
    }

    /// Pushes raw bytes, with more field lines.
    pub fn push(&self, machine: &str, bytes: &[u8], fields: &str) -> Answer {
        let path = format!("/api/machines/snapshot?machine_id={machine}");
        let fields = format!("Content-Type: application/octet-stream\r\n{fields}");
        self.raw("POST", &path, &fields, bytes)
    }

    /// Pushes bytes that must be stored; the snapshot's id.
    pub fn stored(&self, machine: &str, bytes: &[u8]) -> i64 {
        let answer = self.push(machine, bytes, "");
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()["snapshot"]["id"].as_i64().unwrap()
    }

    /// Pulls raw bytes.
    pub fn pull(&self, query: &str) -> Answer {
        let path = format!("/api/machines/snapshot{query}");
        self.raw("GET", &path, "Accept: application/octet-stream\r\n", b"")
    }

    /// All snapshot ids, newest first.
    pub fn history(&self) -> Vec<i64> {
        let page = self.read("/api/machines/history?limit=200");
        page["snapshots"].as_array().unwrap().iter().map(|s| s["id"].as_i64().unwrap()).collect()
    }
}

/// Asserts status and machine word of an error, and that its sentence is one.
#[track_caller]
pub fn refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{answer:?} {}", String::from_utf8_lossy(&answer.body));
    let body = answer.json();
    assert_eq!(body["code"], code, "{body}");
    assert!(body["error"].as_str().is_some_and(|text| text.len() > 10), "{body}");
}

/// Bytes that no two calls share.
pub fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

/// A server whose machine `m` had three snapshots and was pruned to one while a backup copies, as
/// the returned lock says: the two files stay.
pub fn pruned_beside_a_backup() -> (Server, User, std::fs::File) {
    let server = serve(&[]);
    let user = server.user("a@example.org");
    user.register("m");
    for n in 0..3 {
        user.stored("m", &[n]);
    }
    let held = std::fs::File::create(server.data().join("backup.lock")).unwrap();
    held.lock_shared().unwrap();
    let done = server.ok(&["prune", "--keep", "1"]);
    assert!(done.contains("2 files stay until the next prune"), "{done}");
    (server, user, held)
}
