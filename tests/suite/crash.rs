//! kill -9 at any moment: what was acknowledged is there, whole, and nothing else is served.

use std::collections::HashMap;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::fixture::{NAME, User, eventually, files, noise, try_ask, with_machine, with_user};

const OCTETS: &str = "Content-Type: application/octet-stream\r\n";

/// Pushes until it shall stop or the server is gone, and notes what was acknowledged.
pub fn push_until_the_end(
    user: &User, machine: &str, acknowledged: &Mutex<HashMap<i64, Vec<u8>>>, stop: &AtomicBool,
) {
    let path = format!("/api/machines/snapshot?machine_id={machine}");
    while !stop.load(Ordering::SeqCst) {
        let bytes = noise(1 + usize::from(noise(1)[0]) * 700);
        let request =
            user.request("POST", &path, &format!("{OCTETS}Connection: close\r\n"), &bytes);
        let Some(response) = try_ask(user.address(), &request) else { return };
        let id = response.is(201)["snapshot"]["id"].as_i64().unwrap();
        let known = acknowledged.lock().unwrap().insert(id, bytes);
        assert!(known.is_none(), "id {id} was given twice");
    }
}

#[test]
fn no_acknowledged_push_is_lost_in_twenty_rounds_of_kill_9() {
    let machines = ["m0", "m1", "m2", "m3"];
    let (mut server, user) = with_user(&[]);
    machines.iter().for_each(|machine| user.register(machine));
    let acknowledged = Mutex::new(HashMap::new());
    for round in 0..20_u64 {
        let stop = AtomicBool::new(false);
        let before = acknowledged.lock().unwrap().len();
        std::thread::scope(|scope| {
            for machine in machines {
                scope.spawn(|| push_until_the_end(&user, machine, &acknowledged, &stop));
            }
            let begun = || acknowledged.lock().unwrap().len() > before + 3;
            eventually("pushes are under way", begun);
            std::thread::sleep(Duration::from_millis(round * 3 % 20));
            server.kill();
            stop.store(true, Ordering::SeqCst);
        });
        server = server.restarted(&[]);
        assert_eq!(server.files("tmp"), 0, "uploads under way are gone");
        user.assert_whole(acknowledged.lock().unwrap().iter().take(50));
    }
    user.assert_whole(&*acknowledged.lock().unwrap());
    assert!(server.ok(&["check"]).starts_with("clean"));
}

#[test]
fn a_file_without_a_row_is_moved_to_orphans_before_the_server_is_ready() {
    let (mut server, user) = with_machine(&[]);
    user.stored("m", b"state");
    server.stop();
    // What a crash between rename and commit leaves, and what somebody else might.
    for (folder, bytes) in [
        ("snapshots/00", "whole, but nobody's"),
        ("snapshots/ff", "in the wrong place"),
        ("tmp", "half"),
    ] {
        fs::write(server.data().join(folder).join(NAME), bytes).unwrap();
    }
    let server = server.restarted(&[]);
    let files = ["orphans", "tmp", "snapshots"].map(|folder| server.files(folder));
    assert_eq!(files, [2, 0, 1]);
    assert_eq!(fs::read(server.data().join("orphans").join(NAME)).unwrap().len(), 19);
    server.wait_for_log("2 files without a row");
    assert_eq!(user.pull("").body, b"state");
    assert_eq!(server.ok(&["check"]).lines().count(), 1, "nothing but that all is well");
}

#[test]
fn a_newer_folder_with_an_older_database_loses_no_file() {
    let (mut server, user) = with_machine(&[]);
    user.stored("m", b"old");
    server.stop();
    let database = server.data().join("configsync.db");
    let older = fs::read(&database).unwrap();
    let mut server = server.restarted(&[]);
    user.stored("m", b"new");
    server.stop();
    fs::write(&database, older).unwrap();
    let wal = server.data().join("configsync.db-wal");
    assert_eq!(wal.metadata().map_or(0, |m| m.len()), 0, "a clean stop leaves one whole file");
    let server = server.restarted(&[]);
    assert_eq!((user.history(), user.pull("").body), (vec![1], b"old".to_vec()));
    let lost = files(&server.data().join("orphans"));
    assert_eq!(lost.iter().map(|file| fs::read(file).unwrap()).collect::<Vec<_>>(), [b"new"]);
}
