//! The data folder: its modes, its lock, its place for sockets, and its upgrades.

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::sync::Arc;

use crate::fixture::{NAME, SERVE, Setup, User, assert_private, noise, on, with_machine};

#[test]
fn nobody_else_may_read_whatever_the_umask() {
    let (mut server, user) = Setup::new().after("umask 000").flags(&[]).with_machine();
    user.stored("m", b"state");
    let data = server.data();
    assert_private(&data);
    server.stop();
    for name in ["", "snapshots", "tmp", "orphans", "run"] {
        fs::set_permissions(data.join(name), Permissions::from_mode(0o755)).unwrap();
    }
    let _server = server.restarted(&[]);
    assert_private(&data);
    assert_eq!(user.pull("").body, b"state");
}

#[test]
fn no_path_is_too_long_for_the_private_socket() {
    let scratch = tempfile::tempdir().unwrap();
    let deep = scratch.path().join("x".repeat(100));
    fs::create_dir(&deep).unwrap();
    let (mut server, user) = Setup::new().data(deep.join("data")).flags(&[]).with_user();
    let socket = server.data().join("run/http.sock");
    assert!(socket.symlink_metadata().unwrap().file_type().is_socket());
    server.kill();
    let mut server = server.restarted(&[]);
    user.register("m");
    assert_eq!(server.stop().code(), Some(0));
    assert!(!socket.exists(), "the socket goes with the server");
}

#[test]
fn an_older_folder_is_migrated_by_a_start_alone_and_serves_what_it_held() {
    let setup = Setup::new();
    let data = setup.data.clone();
    fs::create_dir_all(data.join("snapshots/00")).unwrap();
    fs::write(data.join("snapshots/00").join(NAME), "state").unwrap();
    let old = rusqlite::Connection::open(data.join("configsync.db")).unwrap();
    let schema = include_str!("../../schema.sql");
    old.execute_batch(schema.split_once("-- version 5 --").unwrap().0).unwrap();
    old.execute_batch(
        "INSERT INTO users (id, email, created_at, updated_at) VALUES (7, 'a@example.org', 1, 1);
         INSERT INTO machines (user_id, machine_id, name, created_at, updated_at, last_seen_at)
         VALUES (7, 'm', 'm', 1, 1, 1);
         INSERT INTO state_snapshots (user_id, machine_ref, file, size_bytes, sha256, version,
                                      message, created_at)
         VALUES (7, 1, '00112233445566778899aabbccddeeff', 5,
                 x'4ba69735ca53765ed6a709edb56c6ea236b7193a3b29a6b390c346f0f4340e4e', '1', 'x', 1);
         PRAGMA user_version = 4;",
    )
    .unwrap();
    for args in [&["user", "list"][..], &["audit"], &["check"], &["status"]] {
        on(&data, args).fails(1, "schema version 4");
    }
    let version: i64 = old.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, 4);
    drop(old);
    // A copy is brought up to date, and so can an old backup be restored.
    let copy = data.with_extension("copy");
    on(&copy, &["restore", data.to_str().unwrap()]).ok();
    on(&copy, &["check"]).ok();
    let server = setup.flags(&[]).start();
    let user = User::of(&server, "a@example.org", &server.token("a@example.org"));
    assert_eq!(user.pull("").body, b"state");
    user.stored("m", b"later");
    server.ok(&["check"]);
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("file");
    fs::write(&file, b"x").unwrap();
    for data in [file.join("data"), file.clone()] {
        on(&data, &SERVE).fails(1, file.to_str().unwrap());
    }
    assert_eq!(fs::read(&file).unwrap(), b"x");
}

#[test]
fn a_jwt_key_may_come_from_a_file_that_the_environment_names() {
    let scratch = Arc::new(tempfile::tempdir().unwrap());
    let key = scratch.path().join("credential");
    let start = |bytes: &[u8], mode: u32| {
        fs::write(&key, bytes).unwrap();
        fs::set_permissions(&key, Permissions::from_mode(mode)).unwrap();
        Setup::on(Arc::clone(&scratch)).flags(&[]).env("CONFIGSYNC_JWT_KEY_FILE", &key)
    };
    let good = noise(32);
    for (bytes, mode, why) in [
        (&b"short"[..], 0o600, "32 random bytes"),
        (&[7; 32], 0o600, "32 random bytes"),
        (&good, 0o604, "open to other users"),
    ] {
        start(bytes, mode).refused().fails(1, why);
        assert!(!scratch.path().join("data").exists(), "nothing is made for a start that fails");
    }
    let (server, user) = start(&good, 0o440).with_user();
    user.by_jwt(&server).read("/api/machines");
    assert!(!server.data().join("jwt.key").exists());
}

#[test]
fn snapshots_without_their_database_are_not_set_aside() {
    let (mut server, user) = with_machine(&[]);
    user.stored("m", b"state");
    server.stop();
    let data = server.data();
    let database = data.join("configsync.db");
    let kept = fs::read(&database).unwrap();
    let remove = || fs::remove_file(&database).unwrap();
    let empty = || fs::write(&database, "").unwrap();
    for lose in [&remove as &dyn Fn(), &empty] {
        lose();
        for command in [&SERVE[..], &["check"], &["user", "list"]] {
            assert_eq!(server.cli(command).code, 1, "{command:?}");
        }
        assert_eq!(server.files("snapshots"), 1);
    }
    fs::write(&database, kept).unwrap();
    let _server = server.restarted(&[]);
    assert_eq!(user.pull("").body, b"state");
}
