//! Every look at the file system and every change of it fails once, by strace on the real binary: no
//! acknowledged push is lost, nothing is moved or replaced, and there is a response or a clear exit.
//! Where there is no strace (Debian: `apt-get install strace`) these tests say so and pass.
//! `FAULTS=all` tries each call; else some of each kind are tried, the first and the last among them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::fixture::{
    BINARY, NAME, Ran, SERVE, Server, User, eventually, files, names, noise, on, run_until_ready,
    serve, with_machine, with_three_snapshots,
};

/// The system calls of the store: looks, changes, and what makes them durable.
const CALLS: [&str; 16] = [
    "open", "openat", "newfstatat", "statx", "fstatfs", "getdents64", "readlink", "flock", "fcntl",
    "mkdir", "mkdirat", "renameat", "unlinkat", "fsync", "fdatasync", "pwrite64",
];
const SYNCS: &str = "fsync,fdatasync";

/// strace(1), whose options are separated by spaces here.
struct Strace;

impl Strace {
    fn found() -> Option<Strace> {
        let probe = Command::new("strace").args(["-qqq", "-o", "/dev/null", "true"]).output();
        let found = probe.is_ok_and(|ran| ran.status.success());
        if !found {
            println!("skipped: strace is not installed, or may not trace here");
        }
        found.then_some(Strace)
    }

    /// Runs a command on a data folder until it is ready or ends.
    fn run(&self, options: &str, data: &Path, args: &[&str]) -> Ran {
        let mut command = Command::new("strace");
        command.args(["-f", "-qqq"]).args(options.split(' ')).arg(BINARY).args(args);
        run_until_ready(command.arg("--data").arg(data), |_| ())
    }

    /// Watches a running server while something is done.
    fn during<T>(&self, server: &Server, options: &str, action: impl FnOnce() -> T) -> T {
        let mut command = Command::new("strace");
        command.args(["-f", "-p", &server.id().to_string()]).args(options.split(' '));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap();
        let mut said = BufReader::new(child.stderr.as_mut().unwrap()).lines();
        assert!(said.any(|line| line.unwrap().contains("attached")), "strace does not attach");
        let done = action();
        // It lets go of the server, which goes on.
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        child.wait().unwrap();
        done
    }

    /// How often each call happens in a run, by the name of the call.
    fn counted(&self, data: &Path, args: &[&str]) -> BTreeMap<&'static str, usize> {
        let scratch = tempfile::NamedTempFile::new().unwrap();
        let trace = scratch.path().display();
        self.run(&format!("-o {trace} -e trace={}", CALLS.join(",")), data, args);
        let trace = fs::read_to_string(scratch.path()).unwrap();
        let count = |call: &str| trace.lines().filter(|l| l.contains(&format!(" {call}("))).count();
        CALLS.map(|call| (call, count(call))).into_iter().collect()
    }
}

/// Options that make these calls fail so.
fn failing(calls: &str, how: &str) -> String {
    format!("-o /dev/null -e trace={calls} -e inject={calls}:error={how}")
}

/// Asserts that a trace has lines with all of these words, one after the other.
fn assert_in_order(trace: &str, steps: &[&[&str]]) {
    let mut lines = trace.lines();
    for step in steps {
        let found = lines.any(|line| step.iter().all(|word| line.contains(word)));
        assert!(found, "{step:?} is missing or out of order:\n{trace}");
    }
}

/// Which of so many calls fail.
fn picks(count: usize, some: usize) -> Vec<usize> {
    let all = std::env::var_os("FAULTS").is_some_and(|value| value == "all");
    let step = if all { 1 } else { (count / some).max(1) };
    let mut picks: Vec<_> = (1..=count).step_by(step).collect();
    picks.extend((count > 0).then_some(count));
    picks.dedup();
    picks
}

/// All files of a data folder that hold what was acknowledged, by path and content.
fn kept(data: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let stored = files(&data.join("snapshots")).into_iter().chain([data.join("jwt.key")]);
    stored.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn assert_all_there(server: Server, user: &User, states: &[Vec<u8>]) {
    let server = server.restarted(&[]);
    user.assert_whole([1, 2, 3].iter().zip(states));
    server.ok(&["check"]);
}

#[test]
fn a_start_whose_looks_or_changes_fail_moves_and_replaces_nothing() {
    let Some(strace) = Strace::found() else { return };
    let (mut server, user, states) = with_three_snapshots();
    server.stop();
    let (data, before) = (server.data(), kept(&server.data()));
    for (call, count) in strace.counted(&data, &SERVE) {
        for n in picks(count, 4) {
            let ran = strace.run(&failing(call, &format!("EIO:when={n}")), &data, &SERVE);
            // Before main, the loader speaks for itself.
            let refused =
                matches!(ran.code, 1 | 127) && !(ran.out.is_empty() && ran.err.is_empty());
            assert!(ran.was_ready() || refused, "{call} {n}: {ran:?}");
            assert!(kept(&data) == before, "{call} {n} changed something: {ran:?}");
            assert_eq!(server.files("orphans"), 0, "{call} {n}");
        }
    }
    let ran = strace.run(&failing("flock", "ENOLCK"), &data, &SERVE);
    ran.fails(1, &format!("{} cannot be locked", data.display()));
    // Every look at one name fails: none of them reads as "it is not there".
    let names = ["jwt.key", "configsync.db", "configsync.db-wal", "snapshots", "orphans", "7f"];
    let every = names.map(|name| (name, "newfstatat,statx,openat,mkdirat"));
    for (name, looks) in every.into_iter().chain([("jwt.key", "newfstatat,statx")]) {
        let ran = strace.run(&format!("-P {name} {}", failing(looks, "EIO")), &data, &SERVE);
        assert!(ran.code == 1 && ran.err.contains(name), "{name}: {ran:?}");
        assert!(kept(&data) == before, "{name} changed something: {ran:?}");
    }
    assert_all_there(server, &user, &states);
}

#[test]
fn commands_whose_looks_or_changes_fail_lose_nothing_and_say_so() {
    let Some(strace) = Strace::found() else { return };
    let (mut server, user, states) = with_three_snapshots();
    server.stop();
    let data = server.data();
    let [backup, copy, restored] = ["backup", "copy", "restored"].map(|name| server.beside(name));
    on(&data, &["backup", &backup]).ok();
    let before = kept(&data);
    for (data, args, dest) in [
        (&*data, &["prune", "--keep", "3"][..], None),
        (&data, &["check"], None),
        (&data, &["backup", &copy], Some(Path::new(&copy))),
        (Path::new(&restored), &["restore", &backup], Some(Path::new(&restored))),
    ] {
        let counts = strace.counted(data, args);
        dest.map(fs::remove_dir_all).transpose().unwrap();
        for (call, count) in counts {
            for n in picks(count, 2) {
                let ran = strace.run(&failing(call, &format!("EIO:when={n}")), data, args);
                let about = format!("{args:?} {call} {n}: {ran:?}");
                let is_said = !(ran.out.is_empty() && ran.err.is_empty());
                assert!(ran.code == 0 || is_said, "{about}");
                assert!(kept(&server.data()) == before, "{about}");
                let Some(dest) = dest else { continue };
                // What has the database of a copy is one, without what could not be read.
                if dest.join("configsync.db").exists() {
                    let less = ran.code == 1 && ran.out.contains("damaged and left out");
                    let check = on(dest, &["check"]);
                    assert_eq!(check.code, i32::from(less), "{about} {check:?}");
                    fs::remove_dir_all(dest).unwrap();
                } else {
                    assert!(ran.code != 0 && !dest.exists(), "what it wrote stays: {about}");
                }
            }
        }
    }
    assert_all_there(server, &user, &states);
}

#[test]
fn a_push_whose_looks_or_changes_fail_is_answered_and_never_acknowledged_and_lost() {
    let Some(strace) = Strace::found() else { return };
    let (mut server, user) = with_machine(&[]);
    server.errors_expected = true;
    user.stored("m", b"the first");
    let mut acknowledged = BTreeMap::new();
    let calls = [
        "openat", "newfstatat", "fstatfs", "renameat", "unlinkat", "fsync", "fdatasync", "pwrite64",
    ];
    for (call, error) in calls.iter().flat_map(|call| [(call, "EIO"), (call, "ENOSPC")]) {
        for n in 1..=if std::env::var_os("FAULTS").is_some() { 12 } else { 3 } {
            let options = failing(call, &format!("{error}:when={n}"));
            let state = noise(2000);
            let response = strace.during(&server, &options, || user.push("m", &state, ""));
            match response.status {
                201 => {
                    let id = response.json()["snapshot"]["id"].as_i64().unwrap();
                    acknowledged.insert(id, state);
                }
                500 | 503 | 507 => {}
                status => panic!("{call} {error} {n}: {status}"),
            }
            user.stored("m", &noise(10));
        }
    }
    let server = server.restarted(&[]);
    user.assert_whole(&acknowledged);
    server.ok(&["check"]);
}

#[test]
fn a_push_is_on_disk_step_by_step_before_it_is_acknowledged() {
    let Some(strace) = Strace::found() else { return };
    let (server, user) = with_machine(&[]);
    let trace = server.beside("trace");
    let calls = "fsync,fdatasync,renameat,renameat2,write,writev,sendto,sendmsg";
    let options = format!("-y -s 64 -o {trace} -e trace={calls}");
    strace.during(&server, &options, || user.stored("m", b"state"));
    let trace = fs::read_to_string(trace).unwrap();
    let below = |name: &str| format!("<{}/{name}", server.data().display());
    let steps: [&[&str]; 5] = [
        &["fsync(", &below("tmp/")],
        &["rename", &below("snapshots/")],
        &["fsync(", &below("snapshots/")],
        &["sync(", &below("configsync.db-wal>")],
        &["HTTP/1.1 201"],
    ];
    assert_in_order(&trace, &steps);
    let (_, after) = trace.split_once("HTTP/1.1 201").unwrap();
    assert!(!after.contains("rename"), "{trace}");
}

#[test]
fn a_delete_is_committed_before_a_file_is_unlinked() {
    let Some(strace) = Strace::found() else { return };
    let (server, user) = with_machine(&["--keep", "1"]);
    user.stored("m", b"older");
    let trace = server.beside("trace");
    let options = format!("-y -o {trace} -e trace=fsync,fdatasync,unlinkat");
    strace.during(&server, &options, || user.stored("m", b"newer"));
    let trace = fs::read_to_string(trace).unwrap();
    assert_in_order(&trace, &[&["sync(", "configsync.db-wal>"], &["unlinkat(", "/snapshots/"]]);
    assert_eq!(server.files("snapshots"), 1);
}

#[test]
fn a_new_data_folder_is_synced_into_its_parent_and_its_sub_folders_before_the_ready_line() {
    let Some(strace) = Strace::found() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let parent = scratch.path().canonicalize().unwrap().display().to_string();
    let (data, trace) = (format!("{parent}/data"), format!("{parent}/trace"));
    let options = format!("-y -o {trace} -e trace=mkdir,mkdirat,fsync,write");
    assert!(strace.run(&options, Path::new(&data), &SERVE).was_ready());
    let steps: [&[&str]; 5] = [
        &[&format!("mkdir(\"{data}\"")],
        &[&format!("<{parent}>)")],
        &["\"ff\", 0700) = 0"],
        &[&format!("<{data}/snapshots>)")],
        &["listening on"],
    ];
    assert_in_order(&fs::read_to_string(trace).unwrap(), &steps);
}

#[test]
fn where_a_file_system_has_no_sockets_the_private_one_is_in_a_closed_folder_elsewhere() {
    let Some(strace) = Strace::found() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let (data, temp) = (scratch.path().join("data"), scratch.path().join("temp"));
    fs::create_dir(&temp).unwrap();
    // The first bind is that of the listening address.
    let options = format!("-E TMPDIR={} {}", temp.display(), failing("bind", "EOPNOTSUPP:when=2"));
    let ran = strace.run(&options, &data, &SERVE);
    assert!(ran.was_ready(), "{ran:?}");
    let made = temp.join(names(&temp).first().unwrap());
    assert!(made.join("http.sock").symlink_metadata().is_ok());
    assert_eq!(made.metadata().unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn an_orphan_that_cannot_be_moved_is_a_warning_and_is_not_served() {
    let Some(strace) = Strace::found() else { return };
    let (mut server, ..) = with_three_snapshots();
    server.stop();
    let orphan = server.data().join("snapshots/00").join(NAME);
    fs::write(&orphan, "whole, but nobody's").unwrap();
    let ran = strace.run(&failing("renameat", "EIO"), &server.data(), &SERVE);
    assert!(ran.was_ready() && ran.err.contains("a file without a row stays"), "{ran:?}");
    assert!(orphan.exists());
}

/// A commit whose sync fails is in doubt: its file stays until the next good commit settles it.
#[test]
fn the_file_of_a_commit_in_doubt_goes_after_the_next_good_commit() {
    let Some(strace) = Strace::found() else { return };
    let (mut server, user) = with_machine(&[]);
    server.errors_expected = true;
    user.stored("m", b"first");
    // No row is left that the housekeeper would write meanwhile, which would settle the first one.
    let used = "SELECT count(*) FROM api_tokens WHERE last_used_at IS NOT NULL";
    eventually("the use of the token is noted", || server.count(used) == 1);
    for (error, status) in [("EIO", 500), ("ENOSPC", 507), ("EDQUOT", 507)] {
        // Of each thread: the first two are of the file and of its folder; the third is of SQLite's
        // log.
        let options = failing(SYNCS, &format!("{error}:when=3+"));
        let response = strace.during(&server, &options, || {
            let response = user.push("m", b"in doubt", "");
            if error == "EIO" {
                assert_eq!(server.files("snapshots"), 2, "it stays while nobody knows");
            }
            response
        });
        assert_eq!(response.status, status, "{error} {response:?}");
        user.stored("m", error.as_bytes());
        let stored = user.history().len();
        eventually("the file is gone", || server.files("snapshots") == stored);
    }
    let server = server.restarted(&[]);
    assert_eq!(user.history().len(), 4);
    server.ok(&["check"]);
    assert_eq!(server.files("orphans"), 0);
}

#[test]
fn health_is_red_after_a_write_that_failed_until_one_succeeds() {
    let Some(strace) = Strace::found() else { return };
    let (mut server, user) = with_machine(&[]);
    server.errors_expected = true;
    assert_eq!(server.health().0, 200);
    for (error, status, code) in [("EIO", 500, "database"), ("EDQUOT", 507, "disk_full")] {
        strace.during(&server, &failing(SYNCS, error), || {
            let machine = json!({ "machine_id": error, "name": "n" });
            assert_eq!(user.post("/api/machines", &machine).status, status);
            eventually("it is red", || server.health() == (503, code.to_owned()));
        });
        user.register("m");
        eventually("it is green", || server.health().0 == 200);
    }
}

#[test]
fn a_degenerate_key_is_never_replaced() {
    let mut server = serve(&[]);
    server.stop();
    let key = server.data().join("jwt.key");
    for bytes in [vec![0; 32], vec![0xff; 32], vec![1; 31], Vec::new()] {
        fs::write(&key, &bytes).unwrap();
        server.cli(&SERVE).fails(1, "jwt.key must hold 32 random bytes");
        assert_eq!(fs::read(&key).unwrap(), bytes);
    }
}
