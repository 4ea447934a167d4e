//! Damaged files are reported by name and never served.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::fixture::{Server, User, files, noise, refused, run, serve, with_machine};

/// A server that holds three snapshots, and the file of the second.
fn with_three() -> (Server, User, PathBuf) {
    let (mut server, user) = with_machine(&[]);
    server.errors_expected = true;
    (1..=3).for_each(|n| assert!(user.stored("m", &noise(n * 10_000)) > 0));
    let of_second = |path: &PathBuf| path.metadata().unwrap().len() == 20_000;
    let file = files(&server.data().join("snapshots")).into_iter().find(of_second).unwrap();
    (server, user, file)
}

/// A way to damage a file.
type Damage = fn(&Path);

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn damage_of_any_kind_is_reported_by_id_and_never_served() {
    let kinds: [(&str, Damage); 5] = [
        ("a flipped bit", |path| flip(path, 10_000)),
        ("a cut file", |path| {
            fs::File::options().write(true).open(path).unwrap().set_len(9).unwrap();
        }),
        ("a missing file", |path| fs::remove_file(path).unwrap()),
        ("a folder in its place", |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        }),
        ("a link in its place", |path| {
            let other = path.with_extension("other");
            fs::rename(path, &other).unwrap();
            std::os::unix::fs::symlink(other, path).unwrap();
        }),
    ];
    for (n, (kind, damage)) in kinds.into_iter().enumerate() {
        let (server, user, file) = with_three();
        // Verified a moment ago, or never.
        if n % 2 == 0 {
            user.pull("?id=2").is(200);
        }
        damage(&file);
        for fields in ["", "Accept: application/octet-stream\r\n"] {
            let response = user.raw("GET", "/api/machines/snapshot?id=2", fields, b"");
            refused(&response, 500, "snapshot_damaged");
            let error = response.json()["error"].as_str().unwrap().to_owned();
            assert!(error.contains("snapshot 2"), "{kind}: {error}");
            assert!(!error.contains("snapshots/"), "a path is nobody's business: {error}");
        }
        for good in ["?id=1", "?id=3"] {
            user.pull(good).is(200);
        }
        let check = server.cli(&["check"]);
        assert_eq!(check.code, 1, "{kind}");
        for said in ["snapshot 2 is damaged", "a@example.org, machine m, 20", "to mend it"] {
            assert!(check.out.contains(said), "{kind}: {check:?}");
        }
        assert!(!check.out.contains("snapshot 1 ") && !check.out.contains("snapshot 3 "));
        let status = server.cli(&["status"]);
        assert!(status.code == 1 && status.out.contains("\n! "), "kept for status: {status:?}");
    }
}

#[test]
fn an_orphan_is_reported_unless_it_may_be_a_push_under_way_and_moved_by_the_next_start() {
    let (mut server, user, _) = with_three();
    let orphan = server.data().join("snapshots/00/00112233445566778899aabbccddeeff");
    fs::write(&orphan, b"x").unwrap();
    server.ok(&["check"]);
    let ago = |minutes: u64| {
        let time = SystemTime::now() - Duration::from_secs(minutes * 60);
        fs::File::open(&orphan).unwrap().set_modified(time).unwrap();
        server.cli(&["check"])
    };
    assert_eq!(ago(9).code, 0, "young, and a server runs");
    let found = ago(11);
    assert!(found.code == 1 && found.out.contains("00112233445566778899"), "{found:?}");
    fs::write(&orphan, b"x").unwrap();
    server.stop();
    assert_eq!(server.cli(&["check"]).code, 1, "no server runs");
    assert!(orphan.exists());
    let server = server.restarted(&[]);
    assert!(!orphan.exists());
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
    assert!(ran.err.contains("is damaged") && ran.err.contains("restore"), "{ran:?}");
}

#[test]
fn a_retry_of_what_was_damaged_since_is_stored_again() {
    let (server, user, _) = with_three();
    let state = noise(31_000);
    user.stored("m", &state);
    let files = files(&server.data().join("snapshots"));
    let newest = files.iter().find(|path| path.metadata().unwrap().len() == 31_000).unwrap();
    fs::write(newest, b"cut").unwrap();
    user.push("m", &state, "").is(201);
    assert!(user.pull("?machine_id=m").body == state);
    user.push("m", &state, "").is(200);
}

#[test]
fn a_server_does_not_start_on_a_damaged_database_and_check_says_what_it_can() {
    let (mut server, user, _) = with_three();
    (0..200).for_each(|n| user.register(&format!("machine-{n}")));
    server.stop();
    let (data, database) = (server.data(), server.data().join("configsync.db"));
    let data = data.to_str().unwrap();
    let good = fs::read(&database).unwrap();
    let page = 4096;
    for from in [page, 5 * page, good.len() / 2 / page * page] {
        let mut bad = good.clone();
        bad[from..from + page].fill(0xff);
        fs::write(&database, bad).unwrap();
        let serve = run(&["serve", "--data", data, "--listen", "127.0.0.1:0"], "");
        assert_eq!(serve.code, 1, "{from} {serve:?}");
        assert!(serve.err.contains("check") && serve.err.contains("restore"), "{serve:?}");
        let check = run(&["check", "--data", data], "");
        assert_eq!(check.code, 1, "{from} {check:?}");
    }
    fs::write(&database, good).unwrap();
    let server = server.restarted(&[]);
    user.on(&server).pull("?id=1").is(200);
}
