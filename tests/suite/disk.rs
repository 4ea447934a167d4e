//! A full disk: 507, nothing lost, and service goes on.

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::sync::Arc;

use crate::data_folder::tried;
use crate::fixture::{
    HERE, Mount, Setup, assert_says, eventually, fill, noise, refused, with_two_users, words,
};
use crate::responses::{ask, long_list};

#[test]
fn a_full_disk_answers_507_and_serves_on_when_there_is_room_again() {
    let scratch = Arc::new(tempfile::tempdir().unwrap());
    let Some(_mount) = Mount::tmpfs(scratch.path(), "8m") else { return };
    let (mut server, user) = Setup::on(scratch).flags(&["--min-free", "0"]).with_machine();
    // Rows of the audit log that nobody waits for cannot be written meanwhile, and that is said.
    server.errors_expected = true;
    let mut kept = HashMap::new();
    let full = loop {
        let bytes = noise(1_000_000);
        let response = user.push("m", &bytes, "");
        match response.status {
            201 => _ = kept.insert(response.json()["snapshot"]["id"].as_i64().unwrap(), bytes),
            _ => break response,
        }
        assert!(kept.len() < 10);
    };
    refused(&full, 507, "disk_full");
    assert!(kept.len() >= 3, "{}", kept.len());
    assert_eq!(server.files("tmp"), 0);
    user.assert_whole(&kept);
    // To the last byte: now the database cannot grow either.
    let filler = server.scratch.path().join("filler");
    fill(&filler);
    let small = user.push("m", b"small", "");
    assert!(matches!(small.status, 201 | 507), "{small:?}");
    let kept_now = user.history().len();
    assert_eq!(user.get("/api/machines").status, 200, "reading goes on");
    user.assert_whole(&kept);
    fs::remove_file(&filler).unwrap();
    let server = server.restarted(&["--min-free", "0"]);
    assert_eq!(user.history().len(), kept_now);
    user.assert_whole(&kept);
    server.ok(&["prune", "--keep", "1"]);
    user.push("m", &noise(1_000_000), "").is(201);
    server.ok(&["check"]);
}

#[test]
fn where_the_disk_refuses_a_long_response_one_at_a_time_waits_in_memory() {
    let scratch = Arc::new(tempfile::tempdir().unwrap());
    let Some(_mount) = Mount::tmpfs(scratch.path(), "48m") else { return };
    let (server, user) =
        Setup::on(scratch).flags(&["--min-free", "0", "--body-grace", "60"]).with_user();
    let path = long_list(&user, 8);
    let whole = user.get(&path).body;
    let filler = server.scratch.path().join("filler");
    // A beginning fits into the file.
    fill(&filler);
    let file = fs::File::options().write(true).open(&filler).unwrap();
    file.set_len(file.metadata().unwrap().len() - 2_000_000).unwrap();
    assert!(user.get(&path).body == whole);
    let mut reader = ask(&server, &user, &path, HERE);
    reader.stream.read_exact(&mut [0; 12]).unwrap();
    let refusal = user.get(&path);
    refused(&refusal, 503, "overloaded");
    assert_eq!(refusal.field("retry-after"), Some("2"));
    drop(reader);
    eventually("the place is given back", || user.get(&path).body == whole);
    // The space that pushes may not take is not for responses either.
    drop(file);
    fs::remove_file(&filler).unwrap();
    let server = server.restarted(&["--min-free", "1000T", "--body-grace", "60"]);
    let mut reader = ask(&server, &user, &path, HERE);
    reader.stream.read_exact(&mut [0; 12]).unwrap();
    refused(&user.get(&path), 503, "overloaded");
    drop(reader);
    eventually("one is served", || user.get(&path).body == whole);
}

#[test]
fn a_quota_counts_every_stored_byte_of_one_user() {
    let (server, a, b) = with_two_users(&["--quota", "1000"]);
    for user in [&a, &b] {
        user.register("m");
        user.stored("m", &noise(600));
    }
    let over = a.push("m", &noise(401), "");
    assert_says(&refused(&over, 507, "quota_exceeded"), &["600", "1000"]);
    a.stored("m", &noise(400));
    let usage = a.read("/api/usage");
    assert_eq!((&usage["stored_bytes"], &usage["quota_bytes"]), (&1000.into(), &1000.into()));
    server.ok(&["user", "quota", "a@example.org", "2000"]);
    a.stored("m", &noise(1000));
    refused(&a.push("m", b"x", ""), 507, "quota_exceeded");
    server.ok(&["user", "quota", "a@example.org", "0"]);
    a.stored("m", &noise(5000));
    server.ok(&["user", "quota", "a@example.org", "default"]);
    refused(&a.push("m", b"x", ""), 507, "quota_exceeded");
    assert_eq!(b.read("/api/usage")["stored_bytes"], 600);
}

#[test]
fn a_disk_full_to_the_last_byte_has_a_way_out() {
    for running in [true, false] {
        let scratch = Arc::new(tempfile::tempdir().unwrap());
        let Some(_mount) = Mount::tmpfs(scratch.path(), "12m") else { return };
        let (mut server, user) =
            Setup::on(Arc::clone(&scratch)).flags(&["--min-free", "0"]).with_user();
        server.errors_expected = true;
        for n in 0..4 {
            user.register(&format!("m{n}"));
            user.stored(&format!("m{n}"), b"older");
            user.stored(&format!("m{n}"), b"newer");
        }
        let other = server.user("b@example.org");
        if !running {
            server.stop();
        }
        let (reserve, filler) = (server.data().join("reserve"), scratch.path().join("filler"));
        // Whole: one that is still being written is given up again when the disk is full.
        let is_kept = || fs::metadata(&reserve).is_ok_and(|file| file.len() >= 1 << 20);
        for line in [
            "prune --keep 1", "machine remove a@example.org m0 --yes", "token revoke 1",
            "user disable b@example.org", "user remove b@example.org --yes",
        ] {
            assert!(is_kept(), "{line}");
            fill(&filler);
            if running {
                eventually("health is red, whatever --min-free says", || {
                    // What the server still gave back after the last command is taken too.
                    fill(&filler);
                    server.health() == (503, "disk_full".to_owned())
                });
            }
            server.ok(&words(line));
            fs::remove_file(&filler).unwrap();
            if !running {
                tried(&server.data());
            }
            eventually("the reserve is made anew", is_kept);
        }
        let server = server.restarted(&["--min-free", "0"]);
        assert_eq!(server.count("SELECT count(*) FROM state_snapshots"), 3);
        assert_eq!(other.get("/api/machines").status, 401);
        server.ok(&["check"]);
    }
}

#[test]
fn a_file_that_may_not_grow_is_a_full_disk_for_one_push() {
    let (server, user) = Setup::new().after("ulimit -f 2000").flags(&[]).with_machine();
    refused(&user.push("m", &noise(3_000_000), ""), 507, "disk_full");
    server.assert_no_upload_left();
    user.stored("m", &noise(500_000));
    assert_eq!((server.files("snapshots"), user.history().len()), (1, 1));
}
