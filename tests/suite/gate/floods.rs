//! Many at once: memory, threads and descriptors stay bounded, and others are served.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use crate::fixture::{
    Client, ELSEWHERE, HERE, Server, Setup, Usage, User, alone, at_once, eventually, get, request,
    serve, with_machine,
};

const MIB: usize = 1024 * 1024;

/// What a server used before a flood, which is alone.
struct Before<'a> {
    server: &'a Server,
    usage: Usage,
    _alone: MutexGuard<'static, ()>,
}

impl<'a> Before<'a> {
    fn of(server: &'a Server) -> Before<'a> {
        let _alone = alone();
        server.assert_serves(ELSEWHERE);
        Before { server, usage: server.usage_at_rest(), _alone }
    }

    #[track_caller]
    fn grew_less_than(&self, mib: usize, what: &str) {
        let (peak, before) = (self.server.peak_kib(), self.usage.resident_kib);
        println!("{what}: peak {peak} KiB, before {before} KiB, now {:?}", self.server.usage());
        assert!(peak < before + mib as u64 * 1024, "{peak} KiB, before {before} KiB");
    }

    /// Waits until threads, descriptors and uploads are back where they were.
    fn is_back(&self) {
        self.server.assert_settles(self.usage);
        self.server.assert_no_upload_left();
    }
}

/// How many of the next responses have each of these statuses, which are all there are.
#[track_caller]
fn tally<const N: usize>(clients: &mut [Client], expected: [u16; N]) -> [usize; N] {
    let found: Vec<u16> = clients.iter_mut().map(|client| client.response().status).collect();
    let counts = expected.map(|status| found.iter().filter(|one| **one == status).count());
    println!("{expected:?}: {counts:?}");
    assert_eq!(counts.iter().sum::<usize>(), found.len(), "{found:?}");
    counts
}

#[test]
fn hundreds_of_dripping_connections_delay_nobody_and_are_gone_after_the_head_timeout() {
    let flags =
        ["--head-timeout", "4", "--max-connections", "700", "--max-connections-per-ip", "650"];
    let server = serve(&flags);
    let before = Before::of(&server);
    let mut clients: Vec<Client> = (0..600).map(|_| server.connect()).collect();
    let mut most = 0;
    for byte in ["G", "E", "T"] {
        clients.iter_mut().for_each(|client| _ = client.try_send(byte));
        let next = Instant::now() + Duration::from_millis(900);
        while Instant::now() < next {
            server.assert_serves(ELSEWHERE);
            most = most.max(server.usage().threads - before.usage.threads);
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    assert!((501..=602).contains(&most), "{most} threads");
    before.is_back();
    before.grew_less_than(19, "600 dripping");
    for client in &mut clients {
        assert_eq!(client.response().status, 408);
        client.assert_closed("dripping");
    }
}

#[test]
fn readers_that_do_not_read_and_writers_that_do_not_write_delay_nobody_and_are_dropped() {
    let (server, user) = with_machine(&["--body-grace", "2", "--max-connections-per-ip", "100"]);
    user.stored("m", &vec![7; 8 * MIB]);
    let before = Before::of(&server);
    let mut readers: Vec<Client> = (0..40).map(|_| server.connect_narrow(HERE)).collect();
    for (n, client) in readers.iter_mut().enumerate() {
        client.send(user.pull_request(n % 2 == 0));
    }
    let register = user.post_request("/api/machines", "").replacen("Length: 0", "Length: 100", 1);
    let mut writers: Vec<Client> = (0..20).map(|_| server.connect()).collect();
    for (n, client) in writers.iter_mut().enumerate() {
        client.send(if n % 2 == 0 { user.push_head(MIB as u64, "") } else { register.clone() });
    }
    eventually("all of them stand", || server.usage().threads >= before.usage.threads + 60);
    let mut other = server.connect_from(ELSEWHERE);
    for _ in 0..20 {
        other.send(user.pull_request(true));
        let response = other.response();
        assert_eq!((response.status, response.body.len()), (200, 8 * MIB));
    }
    drop(other);
    assert_eq!(tally(&mut writers, [408]), [20]);
    writers.iter_mut().for_each(|client| client.assert_closed("a writer that does not write"));
    drop(writers);
    before.is_back();
    for client in &mut readers {
        assert!(client.rest().len() < 8 * MIB, "the response ended early");
    }
    // Two before, two for the look at rest, and each of these once.
    assert_eq!(server.wait_for_requests(4 + 80).len(), 4 + 80);
    before.grew_less_than(24, "40 readers, 20 writers");
}

#[test]
fn a_reader_that_trickles_is_dropped() {
    let (server, user) = with_machine(&["--body-grace", "1"]);
    user.stored("m", &vec![7; 8 * MIB]);
    let before = Before::of(&server);
    let mut readers = [true, false].map(|raw| {
        let mut client = server.connect_narrow(HERE);
        client.send(user.pull_request(raw));
        client
    });
    // Hours before the whole of it could have gone at the lowest rate.
    eventually("both are dropped", || {
        // Some 400 bytes a second, read all the time.
        std::thread::sleep(Duration::from_millis(250));
        readers.iter_mut().for_each(|client| _ = client.stream.read(&mut [0; 100]));
        server.requests().len() == 4 + 2
    });
    drop(readers);
    before.is_back();
}

/// Pushes at once; every one is stored, whole, or told to come again, and some are stored.
fn push_at_once(
    server: &Server, count: usize, size: u64, push: impl Fn(&mut Client, usize) + Sync,
) {
    let mut clients = at_once(count, |n| {
        let mut client = server.connect();
        push(&mut client, n);
        client
    });
    let [stored, _] = tally(&mut clients, [201, 503]);
    let whole = format!("SELECT count(*) FROM state_snapshots WHERE size_bytes = {size}");
    assert!(stored > 0 && server.count(&whole) == stored as i64);
    let all = server.count("SELECT count(*) FROM state_snapshots");
    assert_eq!(server.files("snapshots") as i64, all);
    server.assert_no_upload_left();
}

#[test]
fn large_pushes_at_once_take_little_memory_raw_and_as_json() {
    let (server, user) = with_machine(&[]);
    let before = Before::of(&server);
    push_at_once(&server, 16, 8 * MIB as u64, |client, n| {
        let piece = vec![n as u8; 64 * 1024];
        client.send(user.push_head(8 * MIB as u64, ""));
        (0..8 * 16).for_each(|_| client.send(&piece));
    });
    before.grew_less_than(24, "16 raw pushes of 8 MiB");
    let metadata = "[1,\"]\"],".repeat(16 * 1024);
    push_at_once(&server, 16, 6 * MIB as u64 + 3, |client, n| {
        let start = format!(r#"{{"machine_id":"m","encrypted_state":"{n:04}"#);
        let end = format!(r#"","metadata":[{metadata}0]}}"#);
        let length = start.len() + 8 * MIB + end.len();
        let fields = format!("{}Content-Length: {length}\r\n", user.auth());
        client.send(request("POST", "/api/machines/snapshot", &fields) + &start);
        let piece = "QUJD".repeat(16 * 1024);
        (0..8 * 16).for_each(|_| client.send(&piece));
        client.send(end);
    });
    before.grew_less_than(24, "16 JSON pushes of 6 MiB of state");
}

#[test]
fn a_head_that_never_ends_takes_no_memory() {
    let server = serve(&[]);
    let before = Before::of(&server);
    let field = format!("X: {}\r\n", "y".repeat(58)).repeat(1024);
    for (name, piece) in [("a line", "x".repeat(64 * 1024)), ("fields", field)] {
        let mut client = server.connect();
        client.send("GET /healthz HTTP/1.1\r\nHost: t\r\n");
        let sent = (0..1024).take_while(|_| client.try_send(&piece)).count();
        assert!(sent < 1024, "{name}: the server took 64 MiB");
        let response = client.response_or_end(false);
        assert!(response.is_none_or(|response| response.status == 431), "{name}");
        client.assert_closed(name);
    }
    before.is_back();
    before.grew_less_than(4, "heads without end");
    assert_eq!(server.wait_for_requests(4).len(), 4);
}

#[test]
fn pipelined_requests_whose_responses_nobody_reads_take_no_memory() {
    let server = serve(&["--body-grace", "2", "--max-connections-per-ip", "64"]);
    let before = Before::of(&server);
    let flood = get("/api/machines").repeat(4000);
    let mut clients: Vec<(Client, &[u8])> =
        (0..50).map(|_| (server.connect_narrow(HERE), flood.as_bytes())).collect();
    clients.iter().for_each(|(client, _)| client.stream.set_nonblocking(true).unwrap());
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        for (client, left) in &mut clients {
            if let Ok(n) = client.stream.write(left) {
                *left = &left[n..];
            }
        }
        server.assert_serves(ELSEWHERE);
    }
    before.grew_less_than(16, "4,000 pipelined requests on each of 50");
    drop(clients);
    before.is_back();
}

#[test]
fn exhausted_descriptors_end_nothing() {
    let (server, user) = Setup::new().after("ulimit -n 96").flags(&[]).with_user();
    let before = Before::of(&server);
    let from = |n: usize| [127, 0, 1, 1 + (n % 40) as u8];
    let mut clients: Vec<Client> = (0..400).map(|n| server.connect_from(from(n))).collect();
    clients.iter_mut().for_each(|client| _ = client.try_send(get("/healthz")));
    let [served, _] = tally(&mut clients, [200, 503]);
    assert!((1..96).contains(&served));
    drop(clients);
    eventually("it serves again", || {
        let mut client = server.connect();
        client.try_send(get("/healthz")) && client.response().status == 200
    });
    before.is_back();
    user.register("m");
    // More than there are slots: refused before a byte of body, so sending may fail.
    push_at_once(&server, 20, MIB as u64, |client, n| {
        let _ = client.try_send(user.push_head(MIB as u64, ""))
            && (0..16).all(|_| client.try_send(vec![n as u8; MIB / 16]));
    });
}

#[test]
fn wrong_passwords_at_once_take_bounded_memory_and_delay_no_pull() {
    let (server, user) = with_machine(&["--max-connections-per-ip", "90"]);
    user.stored("m", b"state");
    let login = |body: &str| user.post_request("/api/auth/login", body);
    let wrong = |n: usize| login(&format!(r#"{{"email":"{n}@x.org","password":"x"}}"#));
    let before = Before::of(&server);
    let mut clients: Vec<Client> = (0..90).map(|_| server.connect()).collect();
    clients.iter_mut().enumerate().for_each(|(n, client)| client.send(wrong(n)));
    let trade = login(&format!(r#"{{"token":"{}"}}"#, user.bearer));
    let mut other = server.connect_from(ELSEWHERE);
    for request in [&vec![trade; 10][..], &[user.pull_request(false)]].concat() {
        other.send(request);
        assert_eq!(other.response().status, 200);
    }
    drop(other);
    let [wrong, _] = tally(&mut clients, [401, 503]);
    assert!(wrong > 2);
    let logged = server.wait_for_requests(2 + 2 + 11 + 90);
    let pulled = logged.iter().rposition(|r| r.path == "/api/machines/snapshot").unwrap();
    let last_login = logged.iter().rposition(|r| r.path == "/api/auth/login").unwrap();
    assert!(pulled < last_login, "the pull waited for every login");
    drop(clients);
    before.is_back();
    before.grew_less_than(80, "90 wrong passwords");
    let most = before.usage.resident_kib + 6 * 1024;
    eventually("memory is back", || server.usage().resident_kib < most);
}

#[test]
fn an_idle_connection_takes_little_memory() {
    let _alone = alone();
    let server = serve(&["--max-connections-per-ip", "256"]);
    server.assert_serves(HERE);
    let mut clients = Vec::new();
    let mut usage = Vec::new();
    // The first ones pay for what all share.
    for _ in 0..4 {
        usage.push(server.usage());
        let mut more: Vec<Client> = (0..60).map(|_| server.connect()).collect();
        more.iter_mut().for_each(|client| client.assert_reusable("to be idle"));
        clients.append(&mut more);
    }
    let each = (server.usage().resident_kib - usage[1].resident_kib) / 180;
    println!("an idle connection: {each} KiB, {usage:?}, {:?}", server.usage());
    // Without optimisation a thread's stack is deeper.
    assert!(each <= if cfg!(debug_assertions) { 48 } else { 24 }, "{each} KiB");
}

/// Opens a connection and leaves it at one of ten stages of a request.
fn abandon(server: &Server, user: &User, n: usize) -> Client {
    let mut client = server.connect_from([127, 0, 2, 1 + (n % 16) as u8]);
    let push = user.push_head(100_000, "");
    let bytes = match n % 10 {
        0 => String::new(),
        1 => "GET /heal".to_owned(),
        2 => push[..push.len() / 2].to_owned(),
        3 => push,
        4 => push + &"x".repeat(50_000),
        5 | 6 => user.pull_request(n % 20 < 10),
        7 => user.push_head(100_000, "Expect: 100-continue\r\n"),
        8 => user.push_head(5, "") + "state",
        _ => "BAD\0".to_owned(),
    };
    client.try_send(bytes);
    if n % 10 == 6 {
        let _ = client.stream.read(&mut [0; 1000]);
    }
    client
}

/// Abandons connections, some of them at the same time, every other one with a reset.
fn churn(server: &Server, user: &User, count: usize) {
    let mut open = VecDeque::new();
    for n in 0..count {
        open.push_back(abandon(server, user, n));
        if open.len() > 48 {
            let oldest: Option<Client> = open.pop_front();
            oldest.filter(|_| n % 4 < 2).into_iter().for_each(Client::reset);
        }
    }
    drop(open);
    server.usage_at_rest();
}

#[test]
fn thousands_of_connections_dropped_at_every_stage_leave_nothing_behind() {
    let (server, user) = with_machine(&[]);
    user.stored("m", &vec![7; MIB]);
    let mut before = Before::of(&server);
    // Let caches and allocator reach the size that this load keeps them at.
    churn(&server, &user, 400);
    before.usage = server.usage_at_rest();
    churn(&server, &user, 2000);
    before.is_back();
    let (now, then) = (server.usage().resident_kib, before.usage.resident_kib);
    assert!(now < then + 4 * 1024, "{now} KiB, {then} before");
    server.assert_serves(ELSEWHERE);
}
