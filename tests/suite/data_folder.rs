//! The data folder is ours only if we made it: what else lies there is left alone, no link in it is
//! followed, and one server at a time, of one user, works in it.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::process::geteuid;

use crate::fixture::{
    BINARY, Mount, NAME, SERVE, Setup, eventually, names, on, run, run_until_ready, serve, tree,
    with_machine, words,
};

/// Starts a server, which may be refused, and runs what writes or reads, which may fail.
pub fn tried(data: &Path) {
    let mut command = Command::new(BINARY);
    command.args(SERVE).args(["--keep", "1", "--min-free", "0", "--data"]).arg(data);
    run_until_ready(&mut command, |_| {
        for args in [&["prune", "--keep", "1"][..], &["check"], &["user", "list"]] {
            on(data, args);
        }
    });
}

/// Makes a file in the place of the database, or none.
type Make<'a> = &'a dyn Fn(&Path);

#[test]
fn a_folder_that_is_not_a_data_folder_is_refused_and_nothing_in_it_is_touched() {
    let made = |application: i64, version: i64| {
        move |path: &Path| {
            let database = rusqlite::Connection::open(path).unwrap();
            let sql = "CREATE TABLE theirs (x); PRAGMA application_id = ";
            let sql = format!("{sql}{application}; PRAGMA user_version = {version}");
            database.execute_batch(&sql).unwrap();
        }
    };
    let not_ours = "not a database of configsync-server";
    let newer = "version 99, this program knows 5: use the newer";
    let makers: [(Make<'_>, &str, &str); 6] = [
        (&|_| (), "is not empty and has no", "is not a data folder"),
        (
            &|path| fs::write(path, "").unwrap(),
            "its configsync.db is empty",
            "has no configsync.db",
        ),
        (&|path| fs::write(path, "x".repeat(8192)).unwrap(), not_ours, not_ours),
        (&made(0, 0), not_ours, not_ours),
        (&made(0, 5), not_ours, not_ours),
        (&made(0x6366_0007, 99), newer, newer),
    ];
    for (make, to_serve, to_others) in makers {
        let scratch = tempfile::tempdir().unwrap();
        let data = scratch.path().join("home");
        for name in ["tmp", "snapshots/00", "lost+found"] {
            fs::create_dir_all(data.join(name)).unwrap();
            fs::write(data.join(name).join(NAME), "mine").unwrap();
        }
        fs::set_permissions(&data, Permissions::from_mode(0o755)).unwrap();
        make(&data.join("configsync.db"));
        let before = tree(&data);
        let refused = on(&data, &SERVE);
        refused.fails(1, to_serve);
        assert_eq!(refused.err.lines().count(), 1, "{refused:?}");
        for line in ["check", "user list", "user add a@example.org", "audit"] {
            on(&data, &words(line)).fails(1, to_others);
        }
        assert!(tree(&data) == before);
    }
}

#[test]
fn the_lost_and_found_of_a_volume_does_not_count_and_is_not_looked_into() {
    let scratch = Arc::new(tempfile::tempdir().unwrap());
    let lost = scratch.path().join("data/lost+found");
    fs::create_dir_all(&lost).unwrap();
    let theirs = lost.join(NAME);
    fs::write(&theirs, "recovered by fsck").unwrap();
    let long_ago = SystemTime::now() - Duration::from_secs(40 * 86_400);
    fs::File::open(&theirs).unwrap().set_modified(long_ago).unwrap();
    fs::set_permissions(&lost, Permissions::from_mode(0o755)).unwrap();
    let server = Setup::on(scratch).flags(&["--keep", "1"]).start();
    server.ok(&["prune", "--keep", "1"]);
    server.ok(&["check"]);
    let mut server = server.restarted(&[]);
    assert!(theirs.exists() && lost.metadata().unwrap().permissions().mode() & 0o777 == 0o755);
    server.stop();
    assert!(!server.log_lines().iter().any(|line| line.contains("lost+found")));
}

#[test]
fn no_link_in_the_folder_is_followed() {
    let (mut server, user) = with_machine(&[]);
    user.stored("m", b"state");
    server.stop();
    let data = server.data();
    let outside = PathBuf::from(server.beside("outside"));
    fs::create_dir_all(outside.join("inner")).unwrap();
    for path in [NAME, "keep.txt", "inner/deep", "http.sock"] {
        fs::write(outside.join(path), "theirs").unwrap();
    }
    fs::set_permissions(&outside, Permissions::from_mode(0o755)).unwrap();
    let before = tree(&outside);
    let inner = ["tmp", "orphans", "snapshots/00"].map(|folder| format!("{folder}/{NAME}"));
    let outer = [
        "tmp", "run", "orphans", "snapshots", "snapshots/00", "jwt.key", "reserve", "backup.lock",
        "configsync.db", "configsync.db-wal", "configsync.db-shm", "server.lock", "run/http.sock",
        "run/elsewhere",
    ];
    for link in outer.into_iter().chain(inner.iter().map(String::as_str)) {
        let (link, aside) = (data.join(link), data.parent().unwrap().join("aside"));
        let moved = fs::rename(&link, &aside).is_ok();
        for target in [&outside, &outside.join("keep.txt"), &outside.join("new")] {
            symlink(target, &link).unwrap();
            tried(&data);
            assert!(tree(&outside) == before, "{link:?} to {target:?}");
            assert!(link.symlink_metadata().unwrap().is_symlink(), "{link:?}");
            fs::remove_file(&link).unwrap();
        }
        if moved {
            fs::rename(&aside, &link).unwrap();
        }
    }
    let _server = server.restarted(&[]);
    assert_eq!(user.pull("").body, b"state");
}

#[test]
fn what_is_not_ours_stays_and_is_named_in_one_warning() {
    let mut server = serve(&[]);
    server.stop();
    let data = server.data();
    let foreign = [
        "notes.txt", "tmp/notes", "run/notes", "snapshots/notes", "snapshots/00/notes",
        "snapshots/00/0011223344556677889", "tmp/00112233445566778899AABBCCDDEEFF",
    ];
    for name in foreign {
        fs::write(data.join(name), "mine").unwrap();
    }
    let folder = data.join("snapshots/00").join(NAME);
    fs::create_dir(&folder).unwrap();
    fs::create_dir(data.join("tmp").join(NAME)).unwrap();
    for lock in ["server.lock", "upgrade.lock"] {
        fs::write(data.join(lock), "").unwrap();
    }
    let server = server.restarted(&[]);
    assert!(foreign.iter().all(|name| fs::read(data.join(name)).unwrap() == b"mine"));
    assert!(folder.is_dir() && !data.join("server.lock").exists());
    let warnings = server.wait_for_log("left alone");
    let lines = server.log_lines();
    assert_eq!(warnings.len(), 1, "{lines:?}");
    assert!(foreign.iter().all(|name| warnings[0].contains(name)), "{warnings:?}");
    assert!(!lines.iter().any(|line| line.contains(".lock")), "old locks go in silence");
}

#[test]
fn the_names_in_a_data_folder_are_these() {
    let (server, user) = with_machine(&[]);
    user.stored("m", b"state");
    server.ok(&["backup", &server.beside("backup")]);
    let known = [
        "backup.lock", "configsync.db", "configsync.db-shm", "configsync.db-wal", "jwt.key",
        "orphans", "reserve", "run", "snapshots", "tmp",
    ];
    assert_eq!(names(server.data()), known.map(String::from).into());
    assert_eq!(server.data().join("reserve").metadata().unwrap().len(), 1024 * 1024);
    let shards: BTreeSet<_> = (0..256).map(|n| format!("{n:02x}")).collect();
    assert_eq!(names(server.data().join("snapshots")), shards);
    fs::write(server.data().join("offsite.last"), "2026-11-23T16:08:00Z").unwrap();
    let mut server = server.restarted(&[]);
    server.stop();
    assert!(!server.log_lines().iter().any(|line| line.contains("left alone")));
}

#[test]
fn uploads_must_be_on_the_file_system_of_the_snapshots() {
    let mut server = serve(&[]);
    server.stop();
    let Some(_mount) = Mount::tmpfs(&server.data().join("tmp"), "1m") else { return };
    server.cli(&SERVE).fails(1, "must be on one file system");
}

#[test]
fn a_second_server_is_refused_whatever_is_removed_and_a_look_keeps_none_from_starting() {
    let (mut server, user) = with_machine(&[]);
    server.cli(&SERVE).fails(1, "another configsync-server");
    for name in names(server.data()).iter().filter(|name| name.ends_with(".lock")) {
        fs::remove_file(server.data().join(name)).unwrap();
    }
    server.cli(&SERVE).fails(1, "another configsync-server");
    user.stored("m", b"state");
    // As `status` and `check` do it, for a moment.
    server.stop();
    let look = fs::File::open(server.data()).unwrap();
    look.lock_shared().unwrap();
    let asked = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(500));
        drop(look);
    });
    let _server = server.restarted(&[]);
    asked.join().unwrap();
    assert_eq!(user.pull("").body, b"state");
}

/// Run as root, where the folder belongs to somebody else.
#[test]
fn root_in_another_users_folder_is_told_to_become_that_user() {
    if !geteuid().is_root() {
        println!("skipped: not root");
        return;
    }
    let (mut server, _) = with_machine(&[]);
    server.stop();
    let data = server.data();
    let nobody = Command::new("id").args(["-u", "nobody"]).output().unwrap();
    let nobody: u32 = String::from_utf8(nobody.stdout).unwrap().trim().parse().unwrap();
    for (owner, name) in [(8787, "sudo -u '#8787' "), (nobody, "sudo -u nobody ")] {
        chown(&data, Some(owner), None).unwrap();
        let before = tree(&data);
        let backup = format!("backup {}", server.beside("backup"));
        for line in [
            "serve --listen 127.0.0.1:0", "status", "check", "user list", "user add b@example.org",
            "prune --keep 1", "audit", "token revoke 1", &backup,
        ] {
            server.cli(&words(line)).fails(1, name);
        }
        assert!(!Path::new(&server.beside("backup")).exists());
        assert_eq!(tree(&data), before);
        let into = server.beside("mine");
        fs::create_dir_all(&into).unwrap();
        chown(&into, Some(owner), None).unwrap();
        for args in [&SERVE[..], &["restore", data.to_str().unwrap()]] {
            on(&into, args).fails(1, name);
            assert!(names(&into).is_empty());
        }
        for args in [&["help"][..], &["--version"], &["user", "add", "--help"]] {
            run(args, "").ok();
        }
    }
}

#[test]
fn a_database_that_is_moved_or_replaced_is_written_no_more_and_health_is_red() {
    type Fault = fn(&Path, &Path);
    let faults: [(&str, Fault); 7] = [
        ("replaced", |data, database| {
            fs::copy(database, data.join("other")).unwrap();
            fs::rename(data.join("other"), database).unwrap();
        }),
        ("removed", |_, database| fs::remove_file(database).unwrap()),
        ("log removed", |data, _| fs::remove_file(data.join("configsync.db-wal")).unwrap()),
        // Every command would make another one, with locks that this server does not see.
        ("index removed", |data, _| fs::remove_file(data.join("configsync.db-shm")).unwrap()),
        ("an older one copied over it", |data, database| {
            fs::write(database, fs::read(data.with_extension("older")).unwrap()).unwrap();
        }),
        ("a backup of this run copied over it", |data, database| {
            let backup = data.with_extension("backup");
            on(data, &["backup", backup.to_str().unwrap()]).ok();
            // With pages in the log, SQLite itself would find that they do not fit.
            std::thread::sleep(Duration::from_secs(1));
            let opened = rusqlite::Connection::open(database).unwrap();
            opened.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
            fs::write(database, fs::read(backup.join("configsync.db")).unwrap()).unwrap();
        }),
        ("folder moved", |data, _| fs::rename(data, data.with_extension("moved")).unwrap()),
    ];
    for (what, fault) in faults {
        let (mut server, user) = with_machine(&[]);
        server.stop();
        let data = server.data();
        fs::copy(data.join("configsync.db"), data.with_extension("older")).unwrap();
        let mut server = server.restarted(&[]);
        server.errors_expected = true;
        user.stored("m", b"one");
        fault(&data, &data.join("configsync.db"));
        assert_eq!(user.push("m", b"two", "").status, 500, "{what}");
        eventually("health is red", || server.health() == (503, "database".to_owned()));
        server.wait_for_log("restore a backup");
        // What lies there now may be somebody's only good copy: the stop leaves it alone.
        let there = || fs::read(data.join("configsync.db")).ok();
        let before = there();
        server.stop();
        assert_eq!(there(), before, "{what}");
    }
}

#[test]
fn a_database_that_is_found_damaged_is_written_no_more() {
    let (server, user) = with_machine(&[]);
    (0..300).for_each(|n| user.register(&format!("machine-{n}")));
    let mut server = server.restarted(&[]);
    server.errors_expected = true;
    server.ok(&["check"]);
    let database = server.data().join("configsync.db");
    let whole = fs::read(&database).unwrap();
    let mut torn = whole.clone();
    torn[4096..].fill(0xff);
    fs::write(&database, torn).unwrap();
    eventually("the damage is met", || user.get("/api/machines").status == 500);
    fs::write(&database, whole).unwrap();
    assert_eq!(user.push("m", b"state", "").status, 500, "what was met once is not trusted again");
    eventually("health is red", || server.health().0 == 503);
}

#[test]
fn commands_that_read_work_on_a_read_only_medium_and_change_nothing_there() {
    let scratch = tempfile::tempdir().unwrap();
    let Some(_mount) = Mount::tmpfs(scratch.path(), "64m") else { return };
    let (mut server, user) = with_machine(&[]);
    user.stored("m", b"state");
    let (copy, killed) = (scratch.path().join("copy"), scratch.path().join("killed"));
    server.ok(&["backup", copy.to_str().unwrap()]);
    // A folder whose server was killed has a log, without which its database is of long ago.
    user.stored("m", b"in the log alone");
    server.kill();
    let copied = Command::new("cp").arg("-r").args([server.data(), killed.clone()]).status();
    assert!(copied.unwrap().success());
    assert!(killed.join("configsync.db-wal").metadata().unwrap().len() > 0);
    let remounted = Command::new("mount").args(["-o", "remount,ro"]).arg(scratch.path()).status();
    assert!(remounted.unwrap().success());
    for (folder, snapshots) in [(&copy, 1), (&killed, 2)] {
        let before = tree(folder);
        for line in
            ["user list", "token list", "machine list", "audit", "environment list a@example.org"]
        {
            on(folder, &words(line)).ok();
        }
        let check = on(folder, &["check"]);
        assert!(check.out.contains(&format!("clean: {snapshots} snapshots")), "{check:?}");
        let backup = on(folder, &["backup", &server.beside(&format!("again-{snapshots}"))]);
        assert!(backup.out.contains(&format!("{snapshots} files")), "{backup:?}");
        on(folder, &["user", "add", "b@example.org"]).fails(1, "can only be read");
        assert!(tree(folder) == before);
    }
}

#[test]
fn one_file_that_cannot_be_unlinked_does_not_keep_the_others() {
    let (server, user) = with_machine(&[]);
    for n in 0..5 {
        user.stored("m", &[n]);
    }
    let first = server.snapshot_file(1);
    fs::remove_file(&first).unwrap();
    fs::create_dir(&first).unwrap();
    server.says(
        &["prune", "--keep", "1"],
        &["deleted 4 snapshots", "1 files stay until the next prune"],
    );
    assert_eq!(server.files("snapshots"), 1);
    fs::remove_dir(&first).unwrap();
    server.says(&["prune", "--keep", "1"], &[" 1 bytes freed"]);
    assert_eq!(server.count("SELECT count(*) FROM deleted_files"), 0);
}

#[test]
fn what_shall_be_linked_is_not_copied_to_another_file_system() {
    let (server, user) = with_machine(&[]);
    user.stored("m", b"state");
    let elsewhere = tempfile::tempdir().unwrap();
    let Some(_mount) = Mount::tmpfs(elsewhere.path(), "8m") else { return };
    let dest = elsewhere.path().join("copy");
    let refused = server.cli(&["backup", dest.to_str().unwrap(), "--hard-link"]);
    refused.fails(1, "on another file system");
    assert!(!dest.exists());
    // What only saves room is copied where it cannot be linked.
    let older = server.beside("older");
    server.ok(&["backup", &older]);
    server.says(
        &["backup", dest.to_str().unwrap(), "--incremental-from", &older],
        &["0 of them linked"],
    );
}
