//! kill -9 at any moment: what was acknowledged is there, whole, and nothing else is served.

use std::collections::HashMap;
use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::support::{Server, User, noise, serve};

/// Pushes until the server is gone, and notes what was acknowledged.
fn push_until_the_end(
    user: &User, port: u16, machine: &str, acknowledged: &Mutex<HashMap<i64, Vec<u8>>>,
    stop: &AtomicBool,
) {
    while !stop.load(Ordering::SeqCst) {
        let bytes = noise(1 + usize::from(noise(1)[0]) * 700);
        let path = format!("/api/machines/snapshot?machine_id={machine}");
        let octets = "Content-Type: application/octet-stream\r\n";
        let request = user.request("POST", &path, octets, &bytes);
        let Some(answer) = exchange(port, &request) else { return };
        let text = String::from_utf8(answer).unwrap();
        assert!(text.starts_with("HTTP/1.1 201 "), "{text}");
        let body: serde_json::Value =
            serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap();
        let id = body["snapshot"]["id"].as_i64().unwrap();
        let known = acknowledged.lock().unwrap().insert(id, bytes);
        assert!(known.is_none(), "id {id} was given twice");
    }
}

/// A whole answer, or None if the server died before its end.
fn exchange(port: u16, request: &[u8]) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(super::wire::PATIENCE)).unwrap();
    stream.write_all(request).ok()?;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match std::io::Read::read(&mut stream, &mut piece) {
            Ok(n) if n > 0 => answer.extend_from_slice(&piece[..n]),
            _ => return None,
        }
        let text = String::from_utf8_lossy(&answer);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|l| l.strip_prefix("Content-Length: ")).unwrap();
            if body.len() == length.parse::<usize>().unwrap() {
                return Some(answer);
            }
        }
    }
}

#[test]
fn no_acknowledged_push_is_lost_in_twenty_rounds_of_kill_9() {
    let mut server = serve(&[]);
    let mut user = server.user("a@example.org");
    for machine in ["m0", "m1", "m2", "m3"] {
        user.register(machine);
    }
    let acknowledged = Arc::new(Mutex::new(HashMap::new()));
    for round in 0..20_u64 {
        let stop = Arc::new(AtomicBool::new(false));
        let before = acknowledged.lock().unwrap().len();
        let threads: Vec<_> = (0..4)
            .map(|n| {
                let (user, port) = (user.clone(), server.port);
                let (acknowledged, stop) = (Arc::clone(&acknowledged), Arc::clone(&stop));
                std::thread::spawn(move || {
                    push_until_the_end(&user, port, &format!("m{n}"), &acknowledged, &stop);
                })
            })
            .collect();
        super::support::eventually("pushes are under way", || {
            acknowledged.lock().unwrap().len() > before + 3
        });
        std::thread::sleep(Duration::from_millis(round * 3 % 20));
        server.kill();
        stop.store(true, Ordering::SeqCst);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        server = server.restarted(&[]);
        user = user.on(&server);
        assert_eq!(server.files("tmp"), 0, "uploads under way are gone");
        let known: Vec<_> = acknowledged.lock().unwrap().keys().copied().collect();
        for id in known.iter().rev().take(50) {
            let pulled = user.pull(&format!("?id={id}"));
            assert_eq!(pulled.status, 200, "snapshot {id} after round {round}");
            assert!(pulled.body == acknowledged.lock().unwrap()[id], "snapshot {id}");
        }
    }
    let known = acknowledged.lock().unwrap();
    for (id, bytes) in known.iter() {
        assert!(&user.pull(&format!("?id={id}")).body == bytes, "snapshot {id} at the end");
    }
    let clean = server.ok(&["check"]);
    assert!(clean.starts_with("clean"), "{clean}");
}

#[test]
fn a_file_without_a_row_is_moved_to_orphans_before_the_server_is_ready() {
    let mut server = serve(&[]);
    let user = server.user("a@example.org");
    user.register("m");
    user.stored("m", b"state");
    server.stop();
    // What a crash between rename and commit leaves, and what a stranger might.
    let name = "00112233445566778899aabbccddeeff";
    let dir = server.data().join("snapshots/00");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join(name), b"whole, but nobody's").unwrap();
    let other = server.data().join("snapshots/ff").join(name);
    std::fs::write(&other, b"in the wrong place").unwrap();
    let half = "ffeeddccbbaa99887766554433221100";
    std::fs::write(server.data().join("tmp").join(half), b"half").unwrap();
    let server = server.restarted(&[]);
    let lost = super::support::files(&server.data().join("orphans"));
    assert_eq!(lost.len(), 2, "{lost:?}");
    assert_eq!(std::fs::read(server.data().join("orphans").join(name)).unwrap().len(), 19);
    assert_eq!((server.files("tmp"), server.files("snapshots")), (0, 1));
    server.wait_for_log("2 files without a row");
    assert_eq!(user.on(&server).pull("").body, b"state");
}

#[test]
fn a_newer_folder_with_an_older_database_loses_no_file() {
    let mut server = serve(&[]);
    let user = server.user("a@example.org");
    user.register("m");
    user.stored("m", b"old");
    server.stop();
    let database = server.data().join("configsync.db");
    let older = std::fs::read(&database).unwrap();
    let mut server = server.restarted(&[]);
    user.on(&server).stored("m", b"new");
    server.stop();
    std::fs::write(&database, older).unwrap();
    let wal = server.data().join("configsync.db-wal");
    assert_eq!(wal.metadata().map_or(0, |m| m.len()), 0, "a clean stop leaves one whole file");
    let server = server.restarted(&[]);
    let user = user.on(&server);
    assert_eq!(user.history(), [1]);
    let lost = super::support::files(&server.data().join("orphans"));
    assert_eq!(lost.iter().map(|f| std::fs::read(f).unwrap()).collect::<Vec<_>>(), [b"new"]);
    assert_eq!(user.pull("").body, b"old");
}

#[test]
fn a_push_cut_short_leaves_nothing() {
    let server: Server = serve(&[]);
    let user = server.user("a@example.org");
    user.register("m");
    let path = "/api/machines/snapshot?machine_id=m";
    let octets = "Content-Type: application/octet-stream\r\n";
    let whole = user.request("POST", path, octets, &noise(300_000));
    for cut in [100_000, 299_000, whole.len() - 1] {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        stream.write_all(&whole[..cut]).unwrap();
        drop(stream);
    }
    super::support::eventually("the uploads are gone", || server.files("tmp") == 0);
    assert_eq!(server.files("snapshots"), 0);
    assert!(user.history().is_empty());
}
