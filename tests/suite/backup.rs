//! backup and restore: the drill, under load, and what may go wrong.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::fixture::{
    BINARY, HERE, Ran, Server, Setup, User, eventually, files, noise, pruned_beside_a_backup, run,
    serve, with_machine, with_user,
};

/// Runs a command on a folder.
fn on(data: &str, args: &[&str]) -> Ran {
    run(&[args, &["--data", data]].concat(), "")
}

#[track_caller]
fn is_clean(data: &str) {
    let ran = on(data, &["check"]);
    assert_eq!(ran.code, 0, "{ran:?}");
}

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
            let (user, acknowledged, stop) = (&user, &acknowledged, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    let bytes = noise(20_000);
                    let id = user.stored(machine, &bytes);
                    acknowledged.lock().unwrap().insert(id, bytes);
                }
            });
        }
        eventually("there is something to back up", || acknowledged.lock().unwrap().len() > 40);
        // Pruned meanwhile is only what has 60 newer ones of its machine.
        let before = acknowledged.lock().unwrap().clone();
        let ran = server.cli(&["backup", &backup]);
        stop.store(true, Ordering::SeqCst);
        assert_eq!(ran.code, 0, "{ran:?}");
        before
    });
    is_clean(&backup);

    let restored = server.beside("restored");
    let ran = on(&restored, &["restore", &backup]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let copy = serve_copy(&server, &restored);
    let user = user.on(&copy);
    let kept = user.history();
    let oldest = *kept.iter().min().unwrap();
    for (id, bytes) in before.iter().filter(|(id, _)| **id >= oldest) {
        let pulled = user.pull(&format!("?id={id}"));
        assert!(pulled.status == 200 && &pulled.body == bytes, "snapshot {id}");
    }
    let next = user.stored("m0", b"after the restore");
    assert!(next > *kept.iter().max().unwrap(), "ids go on");
}

#[test]
fn a_backup_is_a_data_folder_itself_that_accepts_tokens_and_no_jwt_from_before() {
    let (server, user) = with_machine(&[]);
    user.stored("m", b"state");
    let login = server.login_from(HERE, &json!({ "token": user.bearer })).is(200);
    let backup = server.beside("backup");
    let printed = server.ok(&["backup", &backup]);
    assert!(printed.contains("1 files of 5 bytes"), "{printed}");
    let names = fs::read_dir(&backup).unwrap().map(|entry| entry.unwrap().file_name());
    let names: BTreeSet<_> = names.map(|name| name.into_string().unwrap()).collect();
    assert_eq!(names, ["configsync.db", "snapshots"].map(String::from).into());
    for file in files(Path::new(&backup)) {
        let mode = file.symlink_metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{file:?}");
    }
    // Not even with the key of before does a JWT of before count.
    fs::copy(server.data().join("jwt.key"), Path::new(&backup).join("jwt.key")).unwrap();
    let restored = server.beside("restored");
    assert_eq!(on(&restored, &["restore", &backup]).code, 0);
    assert!(!Path::new(&restored).join("jwt.key").exists());
    fs::copy(server.data().join("jwt.key"), Path::new(&restored).join("jwt.key")).unwrap();
    for copy in [&backup, &restored] {
        let copy = serve_copy(&server, copy);
        assert_eq!(user.on(&copy).pull("").body, b"state");
        let by_jwt = User::of(&copy, "a@example.org", login["token"].as_str().unwrap());
        assert_eq!(by_jwt.pull("").status, 401);
    }
}

#[test]
fn a_copy_gives_out_no_id_that_was_given_out_since() {
    let (server, a) = with_machine(&[]);
    a.stored("m", b"state");
    let (backup, restored) = (server.beside("backup"), server.beside("restored"));
    server.ok(&["backup", &backup]);
    assert_eq!(on(&restored, &["restore", &backup]).code, 0);
    for (copy, least) in [(&backup, 1_000_001), (&restored, 2_000_001)] {
        let copy = serve_copy(&server, copy);
        let a = a.on(&copy);
        assert!(a.stored("m", b"later") > least);
        let added = copy.ok(&["user", "add", "b@example.org"]);
        assert!(added.contains(&format!("user {} ", least + 1)), "{added}");
        // Of a table that never held a row.
        assert_eq!(a.add("project", "p"), least);
    }
}

#[test]
fn a_destination_that_exists_or_lies_inside_is_refused_and_nothing_is_made() {
    let server = serve(&[]);
    let there = server.beside("there");
    fs::create_dir(&there).unwrap();
    fs::write(format!("{there}/mine"), b"mine").unwrap();
    let inside = server.data().join("backup");
    let missing = server.beside("missing/at/all");
    for (dest, why) in [
        (there.as_str(), "exists"),
        (inside.to_str().unwrap(), "inside"),
        (&*missing, "missing/at"),
        ("/proc/backup", "/proc"),
    ] {
        let ran = server.cli(&["backup", dest]);
        assert!(ran.code == 1 && ran.err.contains(why), "{dest} {ran:?}");
    }
    assert_eq!(fs::read_dir(&there).unwrap().count(), 1);
    assert!(!inside.exists());
    assert!(!Path::new(&format!("{}.partial", inside.display())).exists());
}

#[test]
fn links_save_the_bytes_that_an_older_backup_or_the_folder_has() {
    let (server, user) = with_machine(&[]);
    user.stored("m", &noise(50_000));
    let (one, two, three) = (server.beside("one"), server.beside("two"), server.beside("three"));
    server.ok(&["backup", &one]);
    user.stored("m", &noise(60_000));
    let printed = server.ok(&["backup", &two, "--incremental-from", &one]);
    assert!(printed.contains("2 files") && printed.contains("1 of them linked"), "{printed}");
    let printed = server.ok(&["backup", &three, "--hard-link"]);
    assert!(printed.contains("2 of them linked"), "{printed}");
    for copy in [&two, &three] {
        is_clean(copy);
    }
}

#[test]
fn the_outcome_of_a_backup_and_of_a_check_is_kept() {
    let (server, user) = with_machine(&[]);
    user.stored("m", b"state");
    let dest = server.beside("backup");
    server.ok(&["backup", &dest]);
    fs::write(Path::new(&dest).join("mine"), "mine").unwrap();
    assert_eq!(server.cli(&["backup", &dest]).code, 1);
    let events = server.ok(&["audit", "--event", "backup"]);
    let outcomes: Vec<_> = events
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["outcome"].clone())
        .collect();
    assert_eq!(outcomes, ["ok", "failed"]);
    let fact = |name: &str| -> Value {
        let sql = format!("SELECT value FROM server_state WHERE name = '{name}'");
        let text: String = server.database().query_row(&sql, [], |row| row.get(0)).unwrap();
        serde_json::from_str(&text).unwrap()
    };
    assert_eq!(fact("last_backup"), json!({ "files": 1, "bytes": 5 }));
    assert!(fact("failed_backup")["reason"].as_str().unwrap().contains("not an empty folder"));
    server.ok(&["check"]);
    assert_eq!(fact("last_check")["damaged"], 0);
    fs::write(&files(&server.data().join("snapshots"))[0], "wrong").unwrap();
    assert_eq!(server.cli(&["check"]).code, 1);
    assert_eq!(fact("last_check")["damaged"], 1);
}

#[test]
fn an_older_backup_that_rotted_is_not_linked() {
    let (server, user) = with_machine(&[]);
    user.stored("m", &noise(50_000));
    let (one, two) = (server.beside("one"), server.beside("two"));
    server.ok(&["backup", &one]);
    let file = files(&Path::new(&one).join("snapshots")).remove(0);
    fs::write(file, vec![0; 50_000]).unwrap();
    let printed = server.ok(&["backup", &two, "--incremental-from", &one]);
    assert!(printed.contains("0 of them linked"), "{printed}");
    is_clean(&two);
}

#[test]
fn what_is_damaged_is_left_out_and_said() {
    let (server, user) = with_machine(&[]);
    user.stored("m", &noise(1000));
    user.stored("m", &noise(2000));
    let is_first = |path: &std::path::PathBuf| path.metadata().unwrap().len() == 1000;
    let first = files(&server.data().join("snapshots")).into_iter().find(is_first).unwrap();
    fs::write(first, vec![0; 1000]).unwrap();
    let ran = server.cli(&["backup", &server.beside("backup")]);
    assert_eq!(ran.code, 1);
    assert!(ran.out.contains("snapshot 1 is damaged"), "{ran:?}");
    assert!(ran.out.contains("1 files of 2000 bytes"), "{ran:?}");
}

#[test]
fn a_backup_killed_at_any_moment_is_no_backup_and_the_next_one_is() {
    let (server, user) = with_machine(&[]);
    for _ in 0..30 {
        user.stored("m", &noise(300_000));
    }
    let dest = server.beside("backup");
    for wait_ms in [0, 2, 5, 10, 15, 20, 30] {
        let mut command = Command::new(BINARY);
        command.args(["backup", &dest, "--data"]).arg(server.data()).stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        std::thread::sleep(Duration::from_millis(wait_ms));
        child.kill().unwrap();
        child.wait().unwrap();
        if Path::new(&dest).join("configsync.db").exists() {
            is_clean(&dest);
            fs::remove_dir_all(&dest).unwrap();
            continue;
        }
        let begun = Path::new(&dest).join("configsync.db.partial").exists();
        let serve = if begun { &["serve", "--listen", "127.0.0.1:0"][..] } else { &["check"] };
        for args in [serve, &["check"], &["user", "list"]] {
            let ran = on(&dest, args);
            assert_eq!(ran.code, 1, "after {wait_ms} ms {ran:?}");
        }
        let to = server.beside("restored");
        assert_eq!(on(&to, &["restore", &dest]).code, 1, "after {wait_ms} ms");
    }
    server.ok(&["backup", &dest]);
    is_clean(&dest);
}

#[test]
fn a_restore_takes_only_a_backup_and_only_an_empty_place() {
    let (server, user) = with_machine(&[]);
    user.stored("m", b"state");
    let backup = server.beside("backup");
    server.ok(&["backup", &backup]);
    let none = on(&server.beside("x"), &["restore", &server.beside("none")]);
    assert!(none.code == 1 && none.err.contains("is not a data folder"), "{none:?}");
    let over = on(server.data().to_str().unwrap(), &["restore", &backup]);
    assert!(over.code == 1 && over.err.contains("exists"), "{over:?}");
    let empty = server.beside("empty");
    fs::create_dir(&empty).unwrap();
    assert_eq!(on(&empty, &["restore", &backup]).code, 0);
    is_clean(&empty);
    let file = files(&Path::new(&backup).join("snapshots")).remove(0);
    fs::write(file, b"wrong").unwrap();
    let damaged = on(&server.beside("y"), &["restore", &backup]);
    assert!(damaged.code == 1 && damaged.out.contains("snapshot 1"), "{damaged:?}");
}

#[test]
fn a_restore_fills_an_empty_folder_and_completes_what_was_cut_off() {
    let (server, user) = with_machine(&[]);
    user.stored("m", b"state");
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
    fs::create_dir(path("there")).unwrap();
    server.ok(&["backup", &(path("copy") + "/")]);
    // As the root of a volume looks.
    fs::create_dir(path("there/lost+found")).unwrap();
    let restore = || on(&(path("there") + "/"), &["restore", &path("copy")]);
    let held = fs::File::open(path("there")).unwrap();
    held.lock().unwrap();
    assert_eq!(restore().code, 1, "not where a server starts");
    drop(held);
    assert_eq!(restore().code, 0);
    is_clean(&path("there"));
    assert_eq!(fs::metadata(path("there")).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(restore().code, 1, "not over a data folder");
    assert_eq!(on(&path("new/folders/above"), &["restore", &path("copy")]).code, 0);
    is_clean(&path("new/folders/above"));
    // Cut off before the database got its name: the next one begins anew.
    let rename = |from: &str, to: &str| fs::rename(path(from), path(to)).unwrap();
    rename("there/configsync.db", "there/configsync.db.partial");
    let stale = path("there/snapshots/00");
    fs::create_dir_all(&stale).unwrap();
    fs::write(stale + "/00112233445566778899aabbccddeeff", "half a file").unwrap();
    let again = restore();
    assert_eq!(again.code, 0, "{again:?}");
    is_clean(&path("there"));
}

#[test]
fn a_folder_that_only_looks_like_an_unfinished_backup_is_left_alone() {
    let server = serve(&[]);
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
    for name in ["b/snapshots/00/00112233445566778899aabbccddeeff", "c/configsync.db.partial-x"] {
        fs::create_dir_all(Path::new(&path(name)).parent().unwrap()).unwrap();
        fs::write(path(name), "mine").unwrap();
        let refused = server.cli(&["backup", &path(&name[..1])]);
        assert!(refused.code == 1 && refused.err.contains("not an empty folder"), "{refused:?}");
        assert!(fs::exists(path(name)).unwrap());
    }
    let typo = server.cli(&["backup", &path("d"), "--incremental-from", &path("nowhere")]);
    assert!(typo.code == 1 && typo.err.contains("nowhere"), "{typo:?}");
}

#[test]
fn files_that_a_backup_kept_from_a_prune_are_no_orphans_at_the_next_start() {
    let (server, _, held) = pruned_beside_a_backup();
    let server = server.restarted(&[]);
    assert_eq!((server.files("snapshots"), server.files("orphans")), (3, 0));
    drop(held);
    let server = server.restarted(&[]);
    eventually("they go once nobody copies", || server.files("snapshots") == 1);
    assert_eq!(server.files("orphans"), 0);
}

#[test]
fn a_restore_says_what_is_valid_again_since_when_and_how_to_revoke_it() {
    let server = serve(&[]);
    let user = server.user("a@example.org");
    let copy = server.beside("copy");
    server.ok(&["backup", &copy]);
    server.ok(&["token", "revoke", "1"]);
    let there = server.beside("there");
    let ran = run(&["restore", &copy, "--data", &there], "");
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "no progress in a pipe");
    let sentence = ran.out.lines().find(|line| line.contains("API tokens and passwords")).unwrap();
    for wanted in ["token revoke ID", "token list", "user disable", "at the backup, of 20"] {
        assert!(sentence.contains(wanted), "{wanted} in {sentence}");
    }
    let server = Setup::on(server.scratch.clone()).data(&there).flags(&[]).start();
    let again = User::of(&server, "a@example.org", &user.bearer);
    assert_eq!(again.read("/api/auth/verify")["email"], "a@example.org", "as it says");
}
