//! Damaged files are reported by name and never served.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::fixture::{NAME, SERVE, assert_says, noise, refused, with_three_snapshots};

#[test]
fn damage_of_any_kind_is_reported_by_id_and_never_served() {
    type Damage = fn(&Path);
    let kinds: [(&str, Damage); 5] = [
        ("a flipped bit", |path| {
            let mut bytes = fs::read(path).unwrap();
            bytes[10_000] ^= 1;
            fs::write(path, bytes).unwrap();
        }),
        ("a cut file", |path| fs::write(path, &fs::read(path).unwrap()[..9]).unwrap()),
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
        let (mut server, user, _) = with_three_snapshots();
        server.errors_expected = true;
        // Verified a moment ago, or never.
        if n % 2 == 0 {
            user.pull("?id=2").is(200);
        }
        damage(&server.snapshot_file(2));
        for fields in ["", "Accept: application/octet-stream\r\n"] {
            let response = user.raw("GET", "/api/machines/snapshot?id=2", fields, b"");
            let error = refused(&response, 500, "snapshot_damaged");
            assert!(error.contains("snapshot 2"), "{kind}: {error}");
            let inside = ["snapshots/", "os error"].map(|inside| error.contains(inside));
            assert_eq!(inside, [false; 2], "paths and the system's words: {error}");
        }
        for good in ["?id=1", "?id=3"] {
            user.pull(good).is(200);
        }
        let check = server.cli(&["check"]);
        assert_eq!(check.code, 1, "{kind}");
        let said = ["snapshot 2 is damaged", "a@example.org, machine m, 20", "to mend it"];
        assert_says(&check.out, &said);
        assert!(!check.out.contains("snapshot 1 ") && !check.out.contains("snapshot 3 "));
    }
}

#[test]
fn an_orphan_is_reported_unless_it_may_be_a_push_under_way() {
    let (mut server, ..) = with_three_snapshots();
    let orphan = server.data().join("snapshots/00").join(NAME);
    fs::write(&orphan, b"x").unwrap();
    server.ok(&["check"]);
    let ago = |minutes: u64| {
        let time = SystemTime::now() - Duration::from_secs(minutes * 60);
        fs::File::open(&orphan).unwrap().set_modified(time).unwrap();
        server.cli(&["check"])
    };
    assert_eq!(ago(9).code, 0, "young, and a server runs");
    let found = ago(11);
    assert!(found.code == 1 && found.out.contains(NAME), "{found:?}");
    fs::write(&orphan, b"x").unwrap();
    server.stop();
    assert_eq!(server.cli(&["check"]).code, 1, "no server runs");
    assert!(orphan.exists());
}

#[test]
fn a_retry_of_what_was_damaged_since_is_stored_again() {
    let (server, user, _) = with_three_snapshots();
    let state = noise(31_000);
    user.stored("m", &state);
    fs::write(server.snapshot_file(4), b"cut").unwrap();
    user.push("m", &state, "").is(201);
    assert!(user.pull("?machine_id=m").body == state);
    user.push("m", &state, "").is(200);
}

#[test]
fn a_server_does_not_start_on_a_damaged_database_and_check_says_what_it_can() {
    let (mut server, user, _) = with_three_snapshots();
    (0..200).for_each(|n| user.register(&format!("machine-{n}")));
    server.stop();
    let database = server.data().join("configsync.db");
    let good = fs::read(&database).unwrap();
    let page = 4096;
    for from in [0, page, 5 * page, good.len() / 2 / page * page] {
        let mut bad = good.clone();
        bad[from..from + page].fill(0xff);
        fs::write(&database, bad).unwrap();
        let serve = server.cli(&SERVE);
        serve.fails(1, if from == 0 { "is damaged" } else { "configsync-server check" });
        serve.fails(1, "configsync-server restore");
        assert_eq!(server.cli(&["check"]).code, 1, "{from}");
    }
    fs::write(&database, good).unwrap();
    let _server = server.restarted(&[]);
    user.pull("?id=1").is(200);
}
