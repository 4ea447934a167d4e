//! Many at once: memory, threads and descriptors stay bounded, and others are served.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::fixture::{
    ELSEWHERE, HERE, Logged, Server, alone, eventually, serve, serve_with_descriptors, within,
};
use super::wire::{Answer, Client, PATIENCE, get, request};

const MIB: usize = 1024 * 1024;
const KIB_OF_MIB: u64 = 1024;

/// Shown with `--nocapture`: the figures that the limits of these tests are compared with.
fn report(what: &str, server: &Server, before_kib: u64) {
    println!(
        "{what}: peak {} KiB, before {before_kib} KiB, now {:?}",
        server.peak_kib(),
        server.usage()
    );
}

/// Whether it was sent does not matter: the server may have closed already.
fn ignore(_sent: bool) {}

#[test]
fn hundreds_of_dripping_connections_delay_nobody_and_are_gone_after_the_head_timeout() {
    let _alone = alone();
    let flags =
        ["--head-timeout", "2", "--max-connections", "700", "--max-connections-per-ip", "650"];
    let server = serve(&flags);
    let before = server.usage_at_rest();
    let mut clients: Vec<Client> = (0..600).map(|_| server.connect()).collect();
    let start = Instant::now();
    let mut most = before;
    for byte in ["G", "E", "T", " "] {
        clients.iter_mut().for_each(|client| ignore(client.try_send(byte)));
        let next = Instant::now() + Duration::from_millis(900);
        while Instant::now() < next {
            server.assert_serves(ELSEWHERE);
            let now = server.usage();
            most.threads = most.threads.max(now.threads);
            most.resident_kib = most.resident_kib.max(now.resident_kib);
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    println!("600 dripping: most {most:?}, before {before:?}, {:?}", start.elapsed());
    assert!(most.threads > before.threads + 500, "they did not stand: {most:?}");
    assert!(most.threads <= before.threads + 602);
    assert!(most.resident_kib < before.resident_kib + 600 * 32);
    server.assert_settles(before);
    for client in &mut clients {
        assert_eq!(client.answer().status, 408);
        client.assert_closed("dripping");
    }
}

#[test]
fn hundreds_of_connections_from_one_address_get_its_slots_and_the_rest_is_refused() {
    let server = serve(&["--head-timeout", "2"]);
    let before = server.usage_at_rest();
    let mut clients: Vec<Client> = (0..600).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| ignore(client.try_send("G")));
    server.assert_serves(ELSEWHERE);
    assert!(server.usage().threads <= before.threads + 34);
    let mut statuses: Vec<u16> = clients.iter_mut().map(|client| client.answer().status).collect();
    clients.iter_mut().for_each(|client| client.assert_closed("dripping"));
    statuses.sort_unstable();
    assert_eq!(statuses.iter().filter(|status| **status == 408).count(), 32);
    assert_eq!(statuses.iter().filter(|status| **status == 503).count(), 600 - 32);
    drop(clients);
    server.assert_settles(before);
}

#[test]
fn readers_that_do_not_read_and_writers_that_do_not_write_delay_nobody_and_are_dropped() {
    let _alone = alone();
    let server = serve(&["--body-grace", "2", "--max-connections-per-ip", "100"]);
    server.store(&vec![7; 8 * MIB]);
    server.assert_serves(ELSEWHERE);
    let before = server.usage_at_rest();
    let logged = server.wait_for_requests(4).len();
    let mut readers: Vec<Client> = (0..40).map(|_| server.connect_narrow(HERE)).collect();
    for (n, client) in readers.iter_mut().enumerate() {
        client.send(server.pull(n % 2 == 0));
    }
    let register = server.post("/api/machines", "");
    let register = register.replacen("Content-Length: 0", "Content-Length: 100", 1);
    let mut writers: Vec<Client> = (0..20).map(|_| server.connect()).collect();
    for (n, client) in writers.iter_mut().enumerate() {
        match n % 2 {
            0 => client.send(server.push_head(MIB as u64, "")),
            _ => client.send(&register),
        }
    }
    eventually("all of them stand", || server.usage().threads >= before.threads + 60);
    let mut other = server.connect_from(ELSEWHERE);
    for _ in 0..20 {
        other.send(server.pull(true));
        let answer = other.answer();
        assert_eq!((answer.status, answer.body.len()), (200, 8 * MIB));
    }
    drop(other);
    for client in &mut writers {
        assert_eq!(client.answer().status, 408);
        client.assert_closed("a writer that does not write");
    }
    report("40 readers, 20 writers", &server, before.resident_kib);
    drop(writers);
    server.assert_settles(before);
    for client in &mut readers {
        assert!(client.rest().len() < 8 * MIB, "the answer ended early");
    }
    let requests = server.wait_for_requests(logged + 80);
    assert_eq!(requests.len(), logged + 80);
    let of_attackers: Vec<Logged> =
        requests[logged..].iter().filter(|r| r.peer == "127.0.0.1").cloned().collect();
    assert_dropped(&of_attackers);
    server.assert_no_upload_left();
    assert!(server.peak_kib() < before.resident_kib + 24 * KIB_OF_MIB);
}

#[test]
fn a_reader_that_trickles_is_dropped() {
    let _alone = alone();
    let server = serve(&["--body-grace", "1"]);
    server.store(&vec![7; 8 * MIB]);
    let before = server.usage_at_rest();
    let dropped = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for raw in [true, false] {
            let mut client = server.connect_narrow(HERE);
            client.send(server.pull(raw));
            // Some 400 bytes a second, read all the time.
            let dropped = &dropped;
            scope.spawn(move || {
                while !dropped.load(Ordering::Relaxed)
                    && client.stream.read(&mut [0; 100]).is_ok_and(|n| n > 0)
                {
                    std::thread::sleep(Duration::from_millis(250));
                }
            });
        }
        eventually("both are dropped", || server.requests().len() >= 4);
        dropped.store(true, Ordering::Relaxed);
    });
    assert_dropped(&server.requests()[2..]);
    server.assert_settles(before);
}

/// Long before the whole of it could have gone at the lowest rate.
fn assert_dropped(requests: &[Logged]) {
    let slowest = requests.iter().map(|request| request.ms).fold(0.0, f64::max);
    println!("{} dropped, the last after {slowest} ms", requests.len());
    assert!(slowest < PATIENCE.as_secs_f64() * 1000.0, "{slowest} ms");
}

/// Pushes at once from small buffers; every one is stored or told to come again.
fn push_at_once(server: &Server, count: usize, push: impl Fn(&mut Client, usize) + Sync) -> usize {
    let push = &push;
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let pushing: Vec<_> = (0..count)
            .map(|n| {
                scope.spawn(move || {
                    let mut client = server.connect();
                    push(&mut client, n);
                    client.answer()
                })
            })
            .collect();
        pushing.into_iter().map(|push| push.join().unwrap()).collect()
    });
    let stored = answers.iter().filter(|answer| answer.status == 201).count();
    let refused = answers.iter().filter(|answer| answer.status == 503).count();
    println!("{stored} of {count} stored, {refused} told to come again");
    assert_eq!(stored + refused, count, "{answers:?}");
    assert!(stored > 0);
    stored
}

#[test]
fn large_raw_pushes_at_once_take_little_memory() {
    let _alone = alone();
    let server = serve(&[]);
    server.register();
    let before = server.usage_at_rest().resident_kib;
    let stored = push_at_once(&server, 16, |client, n| {
        let piece = vec![n as u8; 64 * 1024];
        client.send(server.push_head(30 * MIB as u64, ""));
        (0..30 * 16).for_each(|_| client.send(&piece));
    });
    report("16 raw pushes of 30 MiB", &server, before);
    assert!(server.peak_kib() < 48 * KIB_OF_MIB, "{} KiB", server.peak_kib());
    let snapshots = server.snapshots();
    assert_eq!(snapshots.len(), stored);
    assert!(snapshots.iter().all(|(_, size)| *size == 30 * MIB as u64));
    server.assert_no_upload_left();
}

#[test]
fn large_json_pushes_at_once_take_little_memory() {
    let _alone = alone();
    let server = serve(&[]);
    server.register();
    let before = server.usage_at_rest().resident_kib;
    // 22 MiB, rounded down to whole groups of base64.
    let groups = 22 * MIB / 3;
    let metadata = "[1,\"]\"],".repeat(16 * 1024);
    let stored = push_at_once(&server, 16, |client, n| {
        let start = format!(r#"{{"machine_id":"m","encrypted_state":"{n:04}"#);
        let end = format!(r#"","metadata":[{metadata}0]}}"#);
        let length = start.len() + (groups - 1) * 4 + end.len();
        let fields = format!("{}Content-Length: {length}\r\n", server.auth());
        client.send(request("POST", "/api/machines/snapshot", &fields) + &start);
        let piece = "QUJD".repeat(16 * 1024);
        let mut left = (groups - 1) * 4;
        while left > 0 {
            let now = left.min(piece.len());
            client.send(&piece[..now]);
            left -= now;
        }
        client.send(end);
    });
    report("16 JSON pushes of 22 MiB of state", &server, before);
    assert!(server.peak_kib() < 64 * KIB_OF_MIB, "{} KiB", server.peak_kib());
    let snapshots = server.snapshots();
    assert_eq!(snapshots.len(), stored);
    assert!(snapshots.iter().all(|(_, size)| *size == groups as u64 * 3));
    server.assert_no_upload_left();
}

#[test]
fn a_head_that_never_ends_takes_no_memory() {
    let _alone = alone();
    let server = serve(&[]);
    server.assert_serves(HERE);
    let before = server.usage_at_rest();
    let start = "GET /healthz HTTP/1.1\r\nHost: t\r\n";
    let field = "X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(1024);
    for (name, piece) in [("a line", "x".repeat(64 * 1024)), ("fields", field)] {
        let mut client = server.connect();
        client.send(start);
        let sent = (0..1024).take_while(|_| client.try_send(&piece)).count();
        assert!(sent < 1024, "{name}: the server took 64 MiB");
        let answer = client.answer_or_end(false);
        assert!(answer.is_none_or(|answer| answer.status == 431), "{name}");
        client.assert_closed(name);
    }
    server.assert_settles(before);
    report("heads without end", &server, before.resident_kib);
    assert!(server.peak_kib() < before.resident_kib + 4 * KIB_OF_MIB);
    assert_eq!(server.wait_for_requests(4).len(), 4);
}

#[test]
fn pipelined_requests_whose_answers_nobody_reads_take_no_memory() {
    let _alone = alone();
    let server = serve(&["--body-grace", "2", "--max-connections-per-ip", "64"]);
    server.assert_serves(ELSEWHERE);
    let before = server.usage_at_rest();
    let flood = get("/api/machines").repeat(4000);
    let mut clients: Vec<(Client, &[u8])> =
        (0..50).map(|_| (server.connect_narrow(HERE), flood.as_bytes())).collect();
    clients.iter().for_each(|(client, _)| client.stream.set_nonblocking(true).unwrap());
    let end = Instant::now() + Duration::from_secs(3);
    let mut served = 0;
    while Instant::now() < end {
        for (client, left) in &mut clients {
            if let Ok(n) = client.stream.write(left) {
                *left = &left[n..];
            }
        }
        server.assert_serves(ELSEWHERE);
        served += 1;
    }
    let unsent = clients.iter().filter(|(_, left)| !left.is_empty()).count();
    println!("{served} others served, {unsent} of 50 could not send all");
    report("4,000 pipelined requests on each of 50", &server, before.resident_kib);
    assert!(server.peak_kib() < before.resident_kib + 16 * KIB_OF_MIB);
    assert!(served > 0);
    drop(clients);
    server.assert_settles(before);
}

#[test]
fn exhausted_descriptors_end_nothing() {
    let _alone = alone();
    let server = serve_with_descriptors(96, &[]);
    server.assert_serves(HERE);
    let before = server.usage_at_rest();
    let from = |n: usize| [127, 0, 1, 1 + (n % 40) as u8];
    let mut clients: Vec<Client> = (0..400).map(|n| server.connect_from(from(n))).collect();
    clients.iter_mut().for_each(|client| ignore(client.try_send(get("/healthz"))));
    let statuses: Vec<u16> = clients.iter_mut().map(|client| client.answer().status).collect();
    let served = statuses.iter().filter(|status| **status == 200).count();
    let refused = statuses.iter().filter(|status| **status == 503).count();
    println!("96 descriptors: {served} served, {refused} refused, {:?}", server.usage());
    assert!((1..96).contains(&served) && served + refused == 400);
    drop(clients);
    let took = within(Duration::from_secs(3), "it serves again", || {
        let mut client = server.connect();
        client.try_send(get("/healthz")) && client.answer().status == 200
    });
    println!("served again after {took:?}");
    server.assert_settles(before);
}

#[test]
fn as_many_pushes_as_few_descriptors_admit_are_stored() {
    let _alone = alone();
    let server = serve_with_descriptors(96, &[]);
    server.register();
    // More than there are slots: refused before a byte of body, so sending may fail.
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let server = &server;
        let push = |n: u8| {
            let mut client = server.connect();
            let _ = client.try_send(server.push_head(MIB as u64, ""))
                && (0..16).all(|_| client.try_send(vec![n; MIB / 16]));
            client.answer().status
        };
        let pushing: Vec<_> = (0..20).map(|n| scope.spawn(move || push(n))).collect();
        pushing.into_iter().map(|push| push.join().unwrap()).collect()
    });
    println!("pushes under 96 descriptors: {statuses:?}");
    assert!(statuses.iter().all(|status| matches!(status, 201 | 503)), "{statuses:?}");
    assert!(statuses.contains(&201));
    server.assert_no_upload_left();
}

#[test]
fn wrong_passwords_at_once_take_bounded_memory_and_delay_no_pull() {
    let _alone = alone();
    let server = serve(&["--max-connections-per-ip", "64"]);
    server.store(b"state");
    let login = |n: usize| {
        let body = format!(r#"{{"email":"u{n}@example.org","password":"wrong"}}"#);
        let fields = format!("Content-Length: {}\r\n", body.len());
        request("POST", "/api/auth/login", &fields) + &body
    };
    server.assert_serves(HERE);
    let before = server.usage_at_rest();
    let mut clients: Vec<Client> = (0..60).map(|_| server.connect()).collect();
    clients.iter_mut().enumerate().for_each(|(n, client)| client.send(login(n)));
    let mut other = server.connect_from(ELSEWHERE);
    other.send(server.pull(false));
    assert_eq!(other.answer().status, 200);
    drop(other);
    let statuses: Vec<u16> = clients.iter_mut().map(|client| client.answer().status).collect();
    let wrong = statuses.iter().filter(|status| **status == 401).count();
    let busy = statuses.iter().filter(|status| **status == 503).count();
    println!("60 logins: {wrong} answered 401, {busy} answered 503");
    assert_eq!(wrong + busy, 60, "{statuses:?}");
    assert!(wrong > 2);
    let logged = server.wait_for_requests(2 + 2 + 61);
    let is_pull = |path: &str| path == "/api/machines/snapshot";
    let pulled = logged.iter().rposition(|r| is_pull(&r.path) && r.method == "GET").unwrap();
    let last_login = logged.iter().rposition(|r| r.path == "/api/auth/login").unwrap();
    assert!(pulled < last_login, "the pull waited for every login");
    drop(clients);
    server.assert_settles(before);
    report("60 wrong passwords", &server, before.resident_kib);
    assert!(server.peak_kib() < 90 * KIB_OF_MIB, "{} KiB", server.peak_kib());
    eventually("memory is back", || {
        server.usage().resident_kib < before.resident_kib + 6 * KIB_OF_MIB
    });
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
fn abandon(server: &Server, n: usize) -> Client {
    let mut client = server.connect_from([127, 0, 2, 1 + (n % 16) as u8]);
    let push = server.push_head(100_000, "");
    let half = "x".repeat(50_000);
    let bytes = match n % 10 {
        0 => String::new(),
        1 => "GET /heal".to_owned(),
        2 => push[..push.len() / 2].to_owned(),
        3 => push,
        4 => push + &half,
        5 | 6 => server.pull(n % 20 < 10),
        7 => server.push_head(100_000, "Expect: 100-continue\r\n"),
        8 => server.push_head(5, "") + "state",
        _ => "BAD\0".to_owned(),
    };
    client.try_send(bytes);
    if n % 10 == 6 {
        let _ = client.stream.read(&mut [0; 1000]);
    }
    client
}

#[test]
fn thousands_of_connections_dropped_at_every_stage_leave_nothing_behind() {
    let _alone = alone();
    let server = serve(&[]);
    server.store(&vec![7; MIB]);
    // Let caches and allocator reach the size that this load keeps them at.
    churn(&server, 400);
    let before = server.usage_at_rest();
    let start = Instant::now();
    churn(&server, 2000);
    server.assert_settles(before);
    server.assert_no_upload_left();
    report("2,000 dropped", &server, before.resident_kib);
    println!("took {:?}", start.elapsed());
    assert!(server.usage().resident_kib < before.resident_kib + 4 * KIB_OF_MIB);
    server.assert_serves(ELSEWHERE);
}

/// Abandons connections, some of them at the same time, every other one with a reset.
fn churn(server: &Server, count: usize) {
    let mut open = VecDeque::new();
    let leave = |open: &mut VecDeque<Client>, n: usize| match (open.pop_front(), n % 4 < 2) {
        (Some(client), true) => client.reset(),
        (client, _) => drop(client),
    };
    for n in 0..count {
        open.push_back(abandon(server, n));
        if open.len() > 48 {
            leave(&mut open, n);
        }
    }
    (0..open.len()).for_each(|n| leave(&mut open, n));
    server.usage_at_rest();
}
