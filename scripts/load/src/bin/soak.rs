//! Mixed traffic from several clients while the server is killed at random moments and started
//! again; at the end every acknowledged snapshot is pulled and compared. `scripts/soak` calls it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use configsync_load::load::Client;
use configsync_load::server::{Server, request};

const CLIENTS: u64 = 6;
const OCTETS: &str = "Content-Type: application/octet-stream\r\n";
const WANT_OCTETS: &str = "Accept: application/octet-stream\r\n";

/// What the server acknowledged: enough to make the bytes again.
#[derive(Clone, Copy)]
struct Stored {
    id: u64,
    seed: u64,
    len: usize,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    requests: AtomicU64,
    failures: Mutex<Vec<String>>,
}

fn main() {
    let mut args = std::env::args().skip(1);
    let binary = PathBuf::from(args.next().expect("the path of configsync-server"));
    let seconds: u64 = args.next().map_or(600, |text| text.parse().expect("seconds"));
    let scratch = std::env::temp_dir().join(format!("configsync-soak-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).unwrap();
    let lost = soak(&binary, &scratch, Duration::from_secs(seconds));
    let _ = std::fs::remove_dir_all(&scratch);
    std::process::exit(i32::from(lost));
}

fn soak(binary: &Path, scratch: &Path, time: Duration) -> bool {
    let data = scratch.join("data");
    let mut server = Server::start(binary, &data, "");
    let (port, token) = (server.port, server.token.clone());
    let password = scratch.join("password");
    std::fs::write(&password, "password\n").unwrap();
    let set = std::process::Command::new(binary)
        .args(["user", "passwd", "a@example.com", "--password-stdin", "--data"])
        .arg(&data)
        .stdin(std::fs::File::open(&password).unwrap())
        .output()
        .unwrap();
    assert!(set.status.success());
    let (begin, first_kib) = (Instant::now(), server.kib("VmRSS"));
    let (shared, mut random, mut kills) = (Shared::default(), Random(7), 0);
    let (mut stored, mut longest_kib) = (Vec::new(), 0);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|n| {
                let (shared, token) = (&shared, token.as_str());
                scope.spawn(move || client(shared, port, token, n))
            })
            .collect();
        while begin.elapsed() < time {
            thread::sleep(Duration::from_millis(500 + random.below(9_500)));
            longest_kib = longest_kib.max(server.kib("VmRSS"));
            server.kill();
            kills += 1;
            server = Server::start_on(binary, &data, &token, port);
        }
        shared.stop.store(true, Ordering::SeqCst);
        stored = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
    });
    let last_kib = server.kib("VmRSS");
    let mut lost = 0;
    let mut reader = Client::new(port);
    for snapshot in &stored {
        lost += u64::from(!pulled(&mut reader, &token, *snapshot).is_ok_and(|same| same));
    }
    let check = std::process::Command::new(binary).arg("check").arg("--data").arg(&data).output();
    let check = check.unwrap();
    let failures = shared.failures.into_inner().unwrap();
    println!("requests answered        {}", shared.requests.load(Ordering::SeqCst));
    println!("kills and restarts       {kills}");
    println!("acknowledged snapshots   {}", stored.len());
    println!("lost or changed          {lost}");
    println!("wrong answers            {}", failures.len());
    failures.iter().take(5).for_each(|failure| println!("  {failure}"));
    println!(
        "resident KiB             {first_kib} at first, {longest_kib} most, {last_kib} at last"
    );
    println!("check                    {}", String::from_utf8_lossy(&check.stdout).trim());
    lost > 0 || !failures.is_empty() || !check.status.success()
}

/// One machine: works until told to stop, connects again when the server was killed.
fn client(shared: &Shared, port: u16, token: &str, n: u64) -> Vec<Stored> {
    let mut random = Random(n + 1);
    let mut stored = Vec::new();
    while !shared.stop.load(Ordering::SeqCst) {
        let Ok(mut connection) = Client::connect(port) else {
            thread::sleep(Duration::from_millis(20));
            continue;
        };
        let work = || -> io::Result<()> {
            let machine = format!("{{\"machine_id\": \"m{n}\", \"name\": \"m{n}\"}}");
            let register = request(token, "POST", "/api/machines", "", machine.as_bytes());
            expect(shared, connection.exchange(&register, |_| ())?, &[200, 201], "register");
            while !shared.stop.load(Ordering::SeqCst) {
                if random.below(20) == 0 {
                    let half = push(token, n, &bytes(1, 60_000), false);
                    let cut = random.below(half.len() as u64) as usize;
                    let next = Client::connect(port)?;
                    std::mem::replace(&mut connection, next).abandon(&half[..cut]);
                }
                step(shared, &mut connection, token, n, &mut random, &mut stored)?;
            }
            Ok(())
        };
        // The server was killed.
        let _ = { work }();
    }
    stored
}

fn step(
    shared: &Shared, connection: &mut Client, token: &str, n: u64, random: &mut Random,
    stored: &mut Vec<Stored>,
) -> io::Result<()> {
    let ask = |method, path: &str, fields: &str| request(token, method, path, fields, b"");
    let newest = format!("/api/machines/snapshot?machine_id=m{n}");
    match random.below(10) {
        0..3 => {
            let (seed, len) = (random.next(), 1 + random.below(200_000) as usize);
            let request = push(token, n, &bytes(seed, len), random.below(2) == 0);
            let mut answer = Vec::new();
            let status = connection.exchange(&request, |piece| answer.extend_from_slice(piece))?;
            expect(shared, status, &[201], "push");
            let text = String::from_utf8_lossy(&answer);
            let id = text.split("\"id\":").nth(1).and_then(|rest| rest.split(',').next());
            if status == 201 {
                stored.push(Stored { id: id.unwrap().trim().parse().unwrap(), seed, len });
            }
        }
        3..6 if !stored.is_empty() => {
            let snapshot = stored[random.below(stored.len() as u64) as usize];
            let same = pulled(connection, token, snapshot)?;
            expect(shared, if same { 200 } else { 0 }, &[200], "pull of the same bytes");
        }
        6 => {
            let fields = "If-None-Match: *\r\n";
            let status = connection.exchange(&ask("GET", &newest, fields), |_| ())?;
            expect(shared, status, &[304, 404], "poll");
        }
        7 => {
            let status = connection.exchange(&ask("GET", "/api/machines/history", ""), |_| ())?;
            expect(shared, status, &[200], "history");
        }
        8 => {
            let bad = request(token, "POST", "/api/machines", "", b"{\"machine_id\": 7}");
            expect(shared, connection.exchange(&bad, |_| ())?, &[400], "bad request");
            let status =
                connection.exchange(&ask("GET", "/api/machines/snapshot?id=x", ""), |_| ())?;
            expect(shared, status, &[400], "bad id");
        }
        _ => {
            let body = b"{\"email\": \"a@example.com\", \"password\": \"password\"}";
            let login = request(token, "POST", "/api/auth/login", "", body);
            expect(shared, connection.exchange(&login, |_| ())?, &[200, 503], "login");
        }
    }
    shared.requests.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

fn expect(shared: &Shared, status: u16, wanted: &[u16], what: &str) {
    if !wanted.contains(&status) {
        shared.failures.lock().unwrap().push(format!("{what}: {status}"));
    }
}

fn push(token: &str, n: u64, state: &[u8], json: bool) -> Vec<u8> {
    if json {
        let text = STANDARD.encode(state);
        let body = format!("{{\"machine_id\":\"m{n}\",\"encrypted_state\":\"{text}\"}}");
        return request(token, "POST", "/api/machines/snapshot", "", body.as_bytes());
    }
    let path = format!("/api/machines/snapshot?machine_id=m{n}");
    request(token, "POST", &path, OCTETS, state)
}

/// Whether the server has the very bytes that it acknowledged.
fn pulled(connection: &mut Client, token: &str, snapshot: Stored) -> io::Result<bool> {
    let path = format!("/api/machines/snapshot?id={}", snapshot.id);
    let mut found = Vec::new();
    let pull = request(token, "GET", &path, WANT_OCTETS, b"");
    let status = connection.exchange(&pull, |piece| found.extend_from_slice(piece))?;
    Ok(status == 200 && found == bytes(snapshot.seed, snapshot.len))
}

fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random(seed);
    (0..len.div_ceil(8)).flat_map(|_| random.next().to_be_bytes()).take(len).collect()
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}
