//! backup and restore: the drill, under load, and what may go wrong.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::crash::push_until_the_end;
use crate::fixture::{
    NAME, SERVE, Server, Setup, assert_private, assert_says, eventually, files, names, noise, on,
    serve, with_machine, with_user,
};

fn serve_copy(server: &Server, data: &str) -> Server {
    Setup::on(Arc::clone(&server.scratch)).data(data).flags(&[]).start()
}

#[test]
fn a_backup_under_load_restores_every_push_acknowledged_before_it_began() {
    let (server, user) = with_user(&["--keep", "60"]);
    for machine in ["m0", "m1", "m2"] {
        user.register(machine);
    }
    let acknowledged = Mutex::new(HashMap::new());
    let stop = AtomicBool::new(false);
    let backup = server.beside("backup");
    let before: HashMap<i64, Vec<u8>> = std::thread::scope(|scope| {
        for machine in ["m0", "m1", "m2"] {
            scope.spawn(|| push_until_the_end(&user, machine, &acknowledged, &stop));
        }
        eventually("there is something to back up", || acknowledged.lock().unwrap().len() > 40);
        // Pruned meanwhile is only what has 60 newer ones of its machine.
        let before = acknowledged.lock().unwrap().clone();
        let ran = server.cli(&["backup", &backup]);
        stop.store(true, Ordering::SeqCst);
        ran.ok();
        before
    });
    on(&backup, &["check"]).ok();

    let restored = server.beside("restored");
    on(&restored, &["restore", &backup]).ok();
    let copy = serve_copy(&server, &restored);
    let user = user.on(&copy);
    let kept = user.history();
    let oldest = *kept.iter().min().unwrap();
    user.assert_whole(before.iter().filter(|(id, _)| **id >= oldest));
    let next = user.stored("m0", b"after the restore");
    assert!(next > *kept.iter().max().unwrap(), "ids go on");
}

#[test]
fn a_backup_is_a_data_folder_that_accepts_tokens_but_no_jwt_of_before_and_gives_out_new_ids() {
    let (server, user) = with_machine(&[]);
    user.stored("m", b"state");
    let by_jwt = user.by_jwt(&server);
    let (backup, restored) = (server.beside("backup"), server.beside("restored"));
    server.says(&["backup", &backup], &["1 files of 5 bytes"]);
    assert_eq!(names(&backup), ["configsync.db", "snapshots"].map(String::from).into());
    assert_private(Path::new(&backup));
    server.ok(&["token", "revoke", "1"]);
    // Not even with the key of before does a JWT of before count.
    let key = server.data().join("jwt.key");
    fs::copy(&key, Path::new(&backup).join("jwt.key")).unwrap();
    let ran = on(&restored, &["restore", &backup]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "no progress in a pipe");
    let sentence = ran.out.lines().find(|line| line.contains("API tokens and passwords")).unwrap();
    let how = ["token revoke ID", "token list", "user disable", "at the backup, of 20"];
    assert_says(sentence, &how);
    assert!(!names(&restored).contains("jwt.key"));
    fs::copy(&key, Path::new(&restored).join("jwt.key")).unwrap();
    for (copy, least) in [(&backup, 1_000_001), (&restored, 2_000_001)] {
        let copy = serve_copy(&server, copy);
        let user = user.on(&copy);
        assert_eq!(user.pull("").body, b"state", "its token is valid again, as it was said");
        assert_eq!(by_jwt.on(&copy).pull("").status, 401);
        assert!(user.stored("m", b"later") > least);
        copy.says(&["user", "add", "b@example.org"], &[&format!("user {} ", least + 1)]);
        // Of a table that never held a row.
        assert_eq!(user.add("project", "p"), least);
    }
}

#[test]
fn a_destination_that_is_no_new_folder_is_refused_and_left_as_it_is() {
    let server = serve(&[]);
    let mine = ["there/mine", "like/configsync.db.partial-x", &format!("b/snapshots/00/{NAME}")]
        .map(|name| server.beside(name));
    for name in &mine {
        fs::create_dir_all(Path::new(name).parent().unwrap()).unwrap();
        fs::write(name, "mine").unwrap();
    }
    let inside = server.data().join("backup");
    for (dest, why) in [
        (&*server.beside("there"), "exists"),
        (&*server.beside("like"), "not an empty folder"),
        (&*server.beside("b"), "not an empty folder"),
        (inside.to_str().unwrap(), "inside"),
        (&*server.beside("missing/at/all"), "missing/at"),
        ("/proc/backup", "/proc"),
    ] {
        server.cli(&["backup", dest]).fails(1, why);
    }
    server
        .cli(&["backup", &server.beside("new"), "--incremental-from", "nowhere"])
        .fails(1, "nowhere");
    assert!(mine.iter().all(|name| fs::read(name).unwrap() == b"mine"));
    assert_eq!((names(server.beside("there")).len(), names(server.beside("like")).len()), (1, 1));
    let made = [inside.clone(), inside.with_extension("partial"), server.beside("new").into()];
    assert!(!made.iter().any(|path| path.exists()));
}

#[test]
fn links_save_the_bytes_that_an_older_backup_or_the_folder_has_if_they_are_whole() {
    let (server, user) = with_machine(&[]);
    user.stored("m", &noise(50_000));
    let (one, two, three) = (server.beside("one"), server.beside("two"), server.beside("three"));
    server.ok(&["backup", &one]);
    user.stored("m", &noise(60_000));
    server.says(&["backup", &two, "--incremental-from", &one], &["2 files", "1 of them linked"]);
    server.says(&["backup", &three, "--hard-link"], &["2 of them linked"]);
    // Rotted: another file, since the first one is linked into the copies.
    let file = files(&Path::new(&one).join("snapshots")).remove(0);
    fs::remove_file(&file).unwrap();
    fs::write(file, vec![0; 50_000]).unwrap();
    let four = server.beside("four");
    server.says(&["backup", &four, "--incremental-from", &one], &["0 of them linked"]);
    for copy in [&two, &three, &four] {
        on(copy, &["check"]).ok();
    }
}

#[test]
fn what_is_damaged_is_left_out_and_said_and_each_outcome_is_kept() {
    let (server, user) = with_machine(&[]);
    user.stored("m", b"state");
    user.stored("m", &noise(2000));
    let dest = server.beside("backup");
    server.ok(&["backup", &dest]);
    fs::write(Path::new(&dest).join("mine"), "mine").unwrap();
    server.cli(&["backup", &dest]).fails(1, "not an empty folder");
    let fact = |name: &str| -> Value {
        let sql = format!("SELECT value FROM server_state WHERE name = '{name}'");
        let text: String = server.database().query_row(&sql, [], |row| row.get(0)).unwrap();
        serde_json::from_str(&text).unwrap()
    };
    assert_eq!(fact("last_backup"), json!({ "files": 2, "bytes": 2005 }));
    assert!(fact("failed_backup")["reason"].as_str().unwrap().contains("not an empty folder"));
    server.ok(&["check"]);
    assert_eq!(fact("last_check")["damaged"], 0);
    fs::write(server.snapshot_file(1), "wrong").unwrap();
    assert_eq!(server.cli(&["check"]).code, 1);
    assert_eq!(fact("last_check")["damaged"], 1);
    let ran = server.cli(&["backup", &server.beside("less")]);
    assert_eq!(ran.code, 1);
    assert_says(&ran.out, &["snapshot 1 is damaged", "1 files of 2000 bytes"]);
    let rows = server.audit(&["--event", "backup"]);
    let outcomes: Vec<_> = rows.iter().map(|row| &row["outcome"]).collect();
    assert_eq!(outcomes, ["ok", "failed", "failed"]);
}

#[test]
fn a_backup_killed_at_any_moment_is_no_backup_and_the_next_one_is() {
    let (server, user) = with_machine(&[]);
    for _ in 0..30 {
        user.stored("m", &noise(300_000));
    }
    let dest = server.beside("backup");
    for wait_ms in [0, 2, 5, 10, 15, 20, 30] {
        let mut command = server.command(&["backup", &dest]);
        let mut child = command.stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(wait_ms));
        child.kill().unwrap();
        child.wait().unwrap();
        if Path::new(&dest).join("configsync.db").exists() {
            on(&dest, &["check"]).ok();
            fs::remove_dir_all(&dest).unwrap();
            continue;
        }
        let begun = Path::new(&dest).join("configsync.db.partial").exists();
        let serve = if begun { &SERVE[..] } else { &["check"] };
        for args in [serve, &["check"], &["user", "list"]] {
            let ran = on(&dest, args);
            assert_eq!(ran.code, 1, "after {wait_ms} ms {ran:?}");
        }
        let restore = on(server.beside("restored"), &["restore", &dest]);
        assert_eq!(restore.code, 1, "after {wait_ms} ms");
    }
    server.ok(&["backup", &dest]);
    on(&dest, &["check"]).ok();
}

#[test]
fn a_restore_takes_only_a_backup_and_only_an_empty_place_and_completes_what_was_cut_off() {
    let (server, user) = with_machine(&[]);
    user.stored("m", b"state");
    let (backup, there) = (server.beside("backup"), server.beside("there"));
    server.ok(&["backup", &(backup.clone() + "/")]);
    on(server.beside("x"), &["restore", &server.beside("none")]).fails(1, "is not a data folder");
    on(server.data(), &["restore", &backup]).fails(1, "exists");
    // As the root of a volume looks.
    fs::create_dir_all(there.clone() + "/lost+found").unwrap();
    let restore = || on(there.clone() + "/", &["restore", &backup]);
    let held = fs::File::open(&there).unwrap();
    held.lock().unwrap();
    assert_eq!(restore().code, 1, "not where a server starts");
    drop(held);
    restore().ok();
    on(&there, &["check"]).ok();
    assert_eq!(fs::metadata(&there).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(restore().code, 1, "not over a data folder");
    // Cut off before the database got its name: the next one begins anew.
    let database = there.clone() + "/configsync.db";
    fs::rename(&database, database.clone() + ".partial").unwrap();
    fs::create_dir_all(there.clone() + "/snapshots/00").unwrap();
    fs::write(format!("{there}/snapshots/00/{NAME}"), "half a file").unwrap();
    restore().ok();
    on(&there, &["check"]).ok();
    fs::create_dir(server.beside("empty")).unwrap();
    for name in ["empty", "new/folders/above"] {
        on(server.beside(name), &["restore", &backup]).ok();
        on(server.beside(name), &["check"]).ok();
    }
    fs::write(files(&Path::new(&backup).join("snapshots")).remove(0), b"wrong").unwrap();
    let damaged = on(server.beside("y"), &["restore", &backup]);
    assert!(damaged.code == 1 && damaged.out.contains("snapshot 1"), "{damaged:?}");
}
