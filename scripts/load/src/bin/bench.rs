//! Measures configsync-server against bare servers, and nginx where it is installed, in interleaved
//! rounds of one run, and prints each figure beside its goal. Ratios count; absolute figures move
//! with the machine. `scripts/bench` builds and calls it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use configsync_load::load::{Client, Times, run};
use configsync_load::server::{BASIC, Nginx, Server};

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_millis(800);
const STATE: usize = 4 << 20;
const OCTETS: &str = "Content-Type: application/octet-stream\r\n";
const WANT_OCTETS: &str = "Accept: application/octet-stream\r\n";
const PUSH: &str = "/api/machines/snapshot?machine_id=m";
const PULL: &str = "/api/machines/snapshot";

fn main() {
    let binary = PathBuf::from(std::env::args().nth(1).expect("the path of configsync-server"));
    let scratch = std::env::temp_dir().join(format!("configsync-bench-{}", std::process::id()));
    fs::create_dir_all(&scratch).unwrap();
    let begin = Instant::now();
    println!("{:<58} {:>10} {:>10}", "what", "figure", "goal");
    measure(&binary, &scratch);
    println!("took {:.0} s", begin.elapsed().as_secs_f64());
    let _ = fs::remove_dir_all(&scratch);
}

fn row(what: &str, figure: impl std::fmt::Display, goal: &str) {
    println!("{what:<58} {figure:>10} {goal:>10}");
}

fn ratio(what: &str, figure: f64, goal: &str) {
    row(what, format!("{figure:.2}"), goal);
}

/// Runs each in turn, round after round; the medians of p50 and of requests a second.
fn compare(runs: &[&dyn Fn() -> (Times, f64)]) -> Vec<(f64, f64)> {
    let mut found = vec![(Vec::new(), Vec::new()); runs.len()];
    for _ in 0..ROUNDS {
        for (run, found) in runs.iter().zip(&mut found) {
            let (times, per_second) = run();
            found.0.push(times.at(0.5));
            found.1.push(per_second);
        }
    }
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    found.into_iter().map(|(p50, rate)| (median(p50), median(rate))).collect()
}

/// Bytes that differ from call to call in their first places, so that no push is a retry.
fn state(base: &[u8], client: usize, n: usize) -> Vec<u8> {
    let mut bytes = base.to_vec();
    bytes[..8].copy_from_slice(&((client << 32 | n) as u64 ^ now()).to_be_bytes());
    bytes
}

fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    since.as_nanos() as u64
}

fn measure(binary: &Path, scratch: &Path) {
    let base: Vec<u8> = (0..STATE).map(|n| (n * 31 % 251) as u8).collect();
    let server = Server::start(binary, &scratch.join("data"), "");
    row("start on an empty folder, ms", format!("{:.1}", server.ready_ms), "<= 20");
    std::thread::sleep(Duration::from_millis(500));
    row("resident memory idle, KiB", server.kib("VmRSS"), "<= 8192");
    let mut client = Client::new(server.port);
    let machine = br#"{"machine_id": "m", "name": "m"}"#;
    assert_eq!(client.ask(&server.request("POST", "/api/machines", "", machine)).0, 201);
    for n in 0..20 {
        let push = server.request("POST", PUSH, OCTETS, &state(&base[..4096], 0, n));
        assert_eq!(client.ask(&push).0, 201);
    }
    small(&server, scratch);
    memory(&server, &base);
    pulls(&server, scratch, &base);
    pushes(&server, scratch, &base);
    login(binary, scratch, &server);
    stalls(&server, &base);
    drop(server);
    growth(binary, scratch);
}

fn small(server: &Server, scratch: &Path) {
    let get = server.request("GET", "/api/machines/history", "", b"");
    let verify = server.request("GET", "/api/auth/verify", "", b"");
    let (_, body) = Client::new(server.port).ask(&get);
    let (_, tiny) = Client::new(server.port).ask(&verify);
    let tiny = configsync_load::bare::tiny(tiny.into_bytes());
    let nginx = Nginx::start(&scratch.join("nginx-small"), &[("small", body.as_bytes())]);
    let basic = format!("GET /small HTTP/1.1\r\nHost: b\r\n{BASIC}\r\n").into_bytes();
    for clients in [1, 8] {
        let ours = || run(server.port, clients, ROUND, &|_, _| verify.clone());
        let bare = || run(tiny, clients, ROUND, &|_, _| verify.clone());
        let history = || run(server.port, clients, ROUND, &|_, _| get.clone());
        let peer = || match &nginx {
            Some(nginx) => run(nginx.port, clients, ROUND, &|_, _| basic.clone()),
            None => (Times::default(), f64::NAN),
        };
        let found = compare(&[&ours, &bare, &history, &peer]);
        let name = format!("signed-in GET of 50 B, {clients} client(s)");
        row(&format!("{name}: requests a second"), format!("{:.0}", found[0].1), "");
        ratio(&format!("{name}: p50 / bare tiny_http's"), found[0].0 / found[1].0, "<= 2.5");
        ratio(&format!("{name}: rate / bare tiny_http's"), found[0].1 / found[1].1, ">= 0.25");
        let name = format!("history of 20, {clients} client(s)");
        row(&format!("{name}: requests a second"), format!("{:.0}", found[2].1), "");
        let goal = if clients == 1 { ">= 0.5" } else { ">= 0.3" };
        ratio(&format!("{name}: rate / nginx, static file"), found[2].1 / found[3].1, goal);
    }
}

fn pulls(server: &Server, scratch: &Path, base: &[u8]) {
    let push = server.request("POST", PUSH, OCTETS, &state(base, 1, 1));
    assert_eq!(Client::new(server.port).ask(&push).0, 201);
    let path = scratch.join("blob");
    fs::write(&path, base).unwrap();
    let bare = configsync_load::bare::sendfile(path);
    let nginx = Nginx::start(&scratch.join("nginx-pull"), &[("blob", base)]);
    let raw = server.request("GET", PULL, WANT_OCTETS, b"");
    let json = server.request("GET", PULL, "", b"");
    let basic = format!("GET /blob HTTP/1.1\r\nHost: b\r\n{BASIC}\r\n").into_bytes();
    // A file is remembered as verified once it has rested for two seconds.
    std::thread::sleep(Duration::from_millis(2500));
    for clients in [1, 8] {
        let ours = || run(server.port, clients, ROUND, &|_, _| raw.clone());
        let floor = || run(bare, clients, ROUND, &|_, _| raw.clone());
        let as_json = || run(server.port, clients, ROUND, &|_, _| json.clone());
        let peer = || match &nginx {
            Some(nginx) => run(nginx.port, clients, ROUND, &|_, _| basic.clone()),
            None => (Times::default(), f64::NAN),
        };
        let found = compare(&[&ours, &floor, &as_json, &peer]);
        let name = format!("raw pull 4 MiB, {clients} client(s)");
        row(&format!("{name}: requests a second"), format!("{:.0}", found[0].1), "");
        ratio(&format!("{name}: rate / bare sendfile's"), found[0].1 / found[1].1, ">= 0.8");
        let goal = if clients == 1 { ">= 0.95" } else { ">= 1.1" };
        ratio(&format!("{name}: rate / nginx, sendfile"), found[0].1 / found[3].1, goal);
        let name = format!("JSON pull, {clients} client(s): rate / raw pull's");
        ratio(&name, found[2].1 / found[0].1, ">= 0.6");
    }
}

fn pushes(server: &Server, scratch: &Path, base: &[u8]) {
    let dir = scratch.join("durable");
    fs::create_dir_all(&dir).unwrap();
    let bare = configsync_load::bare::durable(dir);
    let nginx = Nginx::start(&scratch.join("nginx-push"), &[]);
    let raw = |c: usize, n: usize| server.request("POST", PUSH, OCTETS, &state(base, c, n));
    let json = |c: usize, n: usize| {
        let text = STANDARD.encode(state(base, c, n));
        let body = format!("{{\"machine_id\": \"m\", \"encrypted_state\": \"{text}\"}}");
        server.request("POST", PULL, "", body.as_bytes())
    };
    let put = |c: usize, n: usize| {
        let name = format!("{c}-{n}-{}", now());
        let length = base.len();
        let head =
            format!("PUT /{name} HTTP/1.1\r\nHost: b\r\n{BASIC}Content-Length: {length}\r\n\r\n");
        [head.as_bytes(), base].concat()
    };
    for clients in [1, 4] {
        let ours = || run(server.port, clients, ROUND, &raw);
        let floor = || run(bare, clients, ROUND, &raw);
        let as_json = || run(server.port, clients, ROUND, &json);
        let peer = || match &nginx {
            Some(nginx) => run(nginx.port, clients, ROUND, &put),
            None => (Times::default(), f64::NAN),
        };
        let found = compare(&[&ours, &floor, &as_json, &peer]);
        let name = format!("raw push 4 MiB, {clients} client(s)");
        row(&format!("{name}: p50 ms"), format!("{:.2}", found[0].0), "");
        ratio(&format!("{name}: p50 / bare durable server's"), found[0].0 / found[1].0, "<= 1.4");
        ratio(&format!("{name}: rate / nginx DAV (no sync)"), found[0].1 / found[3].1, ">= 1.2");
        ratio(
            &format!("JSON push, {clients} client(s): rate / raw push's"),
            found[2].1 / found[0].1,
            ">= 0.8",
        );
    }
}

fn memory(server: &Server, base: &[u8]) {
    let large = [base, base].concat();
    for (what, goal, json) in [
        ("peak memory, 16 raw pushes of 8 MiB at once, KiB", "<= 16384", false),
        ("peak memory, 16 JSON pushes of 8 MiB at once, KiB", "<= 24576", true),
    ] {
        server.reset_peak();
        std::thread::scope(|scope| {
            for client in 0..16 {
                let large = &large;
                scope.spawn(move || {
                    let bytes = state(large, client, 0);
                    let request = match json {
                        false => server.request("POST", PUSH, OCTETS, &bytes),
                        true => {
                            let text = STANDARD.encode(bytes);
                            let body =
                                format!("{{\"machine_id\":\"m\",\"encrypted_state\":\"{text}\"}}");
                            server.request("POST", PULL, "", body.as_bytes())
                        }
                    };
                    assert_eq!(Client::new(server.port).ask(&request).0, 201);
                });
            }
        });
        row(what, server.kib("VmHWM"), goal);
    }
    std::thread::sleep(Duration::from_millis(300));
    let before = server.kib("VmRSS");
    let idle: Vec<_> = (0..30)
        .map(|_| {
            let mut client = Client::new(server.port);
            client.ask(&server.request("GET", "/healthz", "", b""));
            client
        })
        .collect();
    let each = server.kib("VmRSS").saturating_sub(before) as f64 / idle.len() as f64;
    row("resident memory of an idle connection, KiB", format!("{each:.0}"), "<= 24");
}

fn login(binary: &Path, scratch: &Path, server: &Server) {
    let password = scratch.join("password");
    fs::write(&password, "password\n").unwrap();
    let done = std::process::Command::new(binary)
        .args(["user", "passwd", "a@example.com", "--password-stdin", "--data"])
        .arg(scratch.join("data"))
        .stdin(fs::File::open(&password).unwrap())
        .output()
        .unwrap();
    assert!(done.status.success());
    let body = br#"{"email": "a@example.com", "password": "password"}"#;
    let request = server.request("POST", "/api/auth/login", "", body);
    let mut client = Client::new(server.port);
    let params = argon2::Params::new(19_456, 2, 1, None).unwrap();
    let bare = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    for _ in 0..15 {
        let begin = Instant::now();
        assert_eq!(client.ask(&request).0, 200);
        ours.push(begin.elapsed().as_secs_f64() * 1000.0);
        let begin = Instant::now();
        bare.hash_password_into(b"password", &[7; 16], &mut [0; 32]).unwrap();
        floor.push(begin.elapsed().as_secs_f64() * 1000.0);
    }
    ours.sort_by(f64::total_cmp);
    floor.sort_by(f64::total_cmp);
    ratio("login / bare argon2id", ours[7] / floor[7], "<= 1.15");
}

/// Answers of many sizes, raw and as JSON, and the slowest of them.
fn stalls(server: &Server, base: &[u8]) {
    let mut client = Client::new(server.port);
    let mut worst = 0.0_f64;
    for size in [100, 500, 1000, 1400, 2000, 5000, 10_000, 20_000, 50_000, 100_000] {
        let push = server.request("POST", PUSH, OCTETS, &state(&base[..size], 2, size));
        assert_eq!(client.ask(&push).0, 201);
        for fields in ["", WANT_OCTETS] {
            let get = server.request("GET", PULL, fields, b"");
            let mut times: Vec<f64> = (0..30)
                .map(|_| {
                    let begin = Instant::now();
                    assert_eq!(client.ask(&get).0, 200);
                    begin.elapsed().as_secs_f64() * 1000.0
                })
                .collect();
            times.sort_by(f64::total_cmp);
            worst = worst.max(times[15]);
        }
    }
    row("answers of 100 B to 100 KB: worst median, ms", format!("{worst:.2}"), "< 40");
    let held: Vec<_> = (0..24).map(|_| Client::new(server.port)).collect();
    let get = server.request("GET", "/api/machines/history", "", b"");
    let (times, _) = run(server.port, 1, Duration::from_secs(2), &|_, _| get.clone());
    row("slowest small GET of one client, ms", format!("{:.1}", times.at(1.0)), "<= 35");
    row("  of so many", times.count(), "");
    drop(held);
}

/// The same requests at one user with ten snapshots and at a hundred users with a thousand each.
fn growth(binary: &Path, scratch: &Path) {
    let data = scratch.join("grown");
    let token = {
        let server = Server::start(binary, &data, "");
        let mut client = Client::new(server.port);
        let machine = br#"{"machine_id": "m", "name": "m"}"#;
        client.ask(&server.request("POST", "/api/machines", "", machine));
        for n in 0..10 {
            client.ask(&server.request("POST", PUSH, OCTETS, &state(&[0; 64], 0, n)));
        }
        server.token.clone()
    };
    let few = timed(binary, &data, &token);
    let fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 99)
        INSERT INTO users (email, created_at, updated_at) SELECT 'u' || i || '@x', 1, 1 FROM n;
        INSERT INTO machines (user_id, machine_id, name, created_at, updated_at, last_seen_at)
          SELECT id, 'm', 'm', 1, 1, 1 FROM users WHERE id > 1;
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
        INSERT INTO state_snapshots (user_id, machine_ref, file, size_bytes, sha256, version, created_at)
          SELECT m.user_id, m.id, lower(hex(randomblob(16))), 1000, randomblob(32), '1.0', 1
            FROM machines m, n;";
    // The user's newest must be one that has its file: pushed below, before anything is timed.
    let filled =
        std::process::Command::new("sqlite3").arg(data.join("configsync.db")).arg(fill).status();
    if !filled.is_ok_and(|status| status.success()) {
        println!("growth: needs the sqlite3 command");
        return;
    }
    let server = Server::start(binary, &data, &token);
    row("start with 100,000 snapshots, ms", format!("{:.1}", server.ready_ms), "<= 300");
    drop(server);
    let many = timed(binary, &data, &token);
    for (what, few, many) in [
        ("history page", few[0], many[0]),
        ("machine list", few[1], many[1]),
        ("pull", few[2], many[2]),
        ("push", few[3], many[3]),
    ] {
        ratio(&format!("{what}: 100 users x 1000 / 1 user x 10"), many / few, "<= 1.2");
    }
}

fn timed(binary: &Path, data: &Path, token: &str) -> [f64; 4] {
    let server = Server::start(binary, data, token);
    let port = server.port;
    let newest = server.request("POST", PUSH, OCTETS, &state(&[0; 64], 4, 0));
    assert_eq!(Client::new(port).ask(&newest).0, 201);
    let get = |path: &str| {
        let request = server.request("GET", path, "", b"");
        compare(&[&|| run(port, 1, ROUND, &|_, _| request.clone())])[0].0
    };
    let push = |_: usize, n: usize| server.request("POST", PUSH, OCTETS, &state(&[0; 64], 3, n));
    let (history, list, pull) =
        (get("/api/machines/history?limit=10"), get("/api/machines"), get(PULL));
    let push = compare(&[&|| run(port, 1, ROUND, &push)])[0].0;
    [history, list, pull, push]
}
