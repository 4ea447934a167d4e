//! Damaged files are reported by name and never served.

use std::fs;
use std::path::PathBuf;

use super::support::{Server, User, files, noise, refused, run, serve};

/// A server that holds three snapshots, and the file of the second.
fn with_three() -> (Server, User, PathBuf) {
    let mut server = serve(&[]);
    server.errors_expected = true;
    let user = server.user("a@example.org");
    user.register("m");
    for n in 1..=3 {
        user.stored("m", &noise(n * 10_000));
    }
    let of_second = |path: &PathBuf| path.metadata().unwrap().len() == 20_000;
    let file = files(&server.data().join("snapshots")).into_iter().find(of_second).unwrap();
    (server, user, file)
}

fn assert_reported(server: &Server, user: &User) {
    for fields in ["", "Accept: application/octet-stream\r\n"] {
        let answer = user.raw("GET", "/api/machines/snapshot?id=2", fields, b"");
        refused(&answer, 500, "snapshot_damaged");
        let error = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains("snapshot 2"), "{error}");
        assert!(!error.contains("snapshots/"), "a path is nobody's business: {error}");
    }
    for good in [1, 3] {
        assert_eq!(user.pull(&format!("?id={good}")).status, 200);
    }
    let check = server.cli(&["check"]);
    assert_eq!(check.code, 1);
    assert!(check.out.contains("snapshot 2 is damaged"), "{check:?}");
    assert!(!check.out.contains("snapshot 1") && !check.out.contains("snapshot 3"), "{check:?}");
}

#[test]
fn a_flipped_bit_is_found() {
    let (server, user, file) = with_three();
    let mut bytes = fs::read(&file).unwrap();
    bytes[10_000] ^= 1;
    fs::write(&file, bytes).unwrap();
    assert_reported(&server, &user);
}

#[test]
fn a_flipped_bit_is_found_after_the_snapshot_was_served() {
    let (server, user, file) = with_three();
    assert_eq!(user.pull("?id=2").status, 200);
    let mut bytes = fs::read(&file).unwrap();
    bytes[0] ^= 1;
    fs::write(&file, bytes).unwrap();
    assert_reported(&server, &user);
}

#[test]
fn a_cut_file_is_found() {
    let (server, user, file) = with_three();
    fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(19_999).unwrap();
    assert_reported(&server, &user);
}

#[test]
fn a_missing_file_is_found() {
    let (server, user, file) = with_three();
    fs::remove_file(&file).unwrap();
    assert_reported(&server, &user);
}

#[test]
fn a_folder_in_the_place_of_a_file_is_found() {
    let (server, user, file) = with_three();
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert_reported(&server, &user);
}

#[test]
fn an_orphan_is_reported_by_check_and_moved_by_the_next_start() {
    let (mut server, user, _) = with_three();
    let young = server.data().join("snapshots/00/00112233445566778899aabbccddeeff");
    fs::write(&young, b"x").unwrap();
    assert_eq!(server.cli(&["check"]).code, 0, "young, and a server runs");
    server.stop();
    let found = server.cli(&["check"]);
    assert!(found.code == 1 && found.out.contains("00112233445566778899"), "{found:?}");
    assert!(young.exists());
    let server = server.restarted(&[]);
    assert!(!young.exists());
    assert_eq!(server.ok(&["check"]).lines().count(), 1);
    assert_eq!(user.on(&server).history().len(), 3);
}

#[test]
fn a_corrupt_database_is_refused_with_the_way_out() {
    let mut server = serve(&[]);
    server.stop();
    let database = server.data().join("configsync.db");
    let mut bytes = fs::read(&database).unwrap();
    bytes[..4096].fill(0x5a);
    fs::write(&database, bytes).unwrap();
    // It could mend what it has a newer copy of.
    for name in ["configsync.db-wal", "configsync.db-shm"] {
        let _ = fs::remove_file(server.data().join(name));
    }
    let ran = server.cli(&["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("check") && ran.err.contains("restore"), "{ran:?}");
}

#[test]
fn a_retry_of_what_was_damaged_since_is_stored_again() {
    let (server, user, _) = with_three();
    let state = noise(31_000);
    user.stored("m", &state);
    let files = files(&server.data().join("snapshots"));
    let newest = files.iter().find(|path| path.metadata().unwrap().len() == 31_000).unwrap();
    fs::write(newest, b"cut").unwrap();
    assert_eq!(user.push("m", &state, "").status, 201);
    assert!(user.pull("?machine_id=m").body == state);
    assert_eq!(user.push("m", &state, "").status, 200, "a retry of what is whole");
}

#[test]
fn a_server_does_not_start_on_a_damaged_database_and_check_says_what_it_can() {
    let (mut server, user, _) = with_three();
    for n in 0..200 {
        user.register(&format!("machine-{n}"));
    }
    server.stop();
    let database = server.data().join("configsync.db");
    let good = fs::read(&database).unwrap();
    let page = 4096;
    for from in [page, 5 * page, good.len() / 2 / page * page] {
        let mut bad = good.clone();
        bad[from..from + page].fill(0xff);
        fs::write(&database, bad).unwrap();
        let data = server.data();
        let data = data.to_str().unwrap();
        let serve = run(&["serve", "--data", data, "--listen", "127.0.0.1:0"], "");
        assert_eq!(serve.code, 1, "{from} {serve:?}");
        assert!(serve.err.contains("check") && serve.err.contains("restore"), "{serve:?}");
        let check = run(&["check", "--data", data], "");
        assert_eq!(check.code, 1, "{from} {check:?}");
    }
    fs::write(&database, good).unwrap();
    let server = server.restarted(&[]);
    assert_eq!(user.on(&server).pull("?id=1").status, 200);
}
