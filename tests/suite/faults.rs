//! Every look at the file system and every change of it fails once, by strace on the real binary: no
//! acknowledged push is lost, nothing is moved or replaced, and there is a response or a clear exit.
//! Where there is no strace (Debian: `apt-get install strace`) these tests say so and pass.
//! `FAULTS=all` tries each call; else some of each kind are tried, the first and the last among them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::json;

use crate::fixture::{BINARY, Server, User, eventually, files, noise, run, serve, with_machine};

/// The system calls of the store: looks, changes, and what makes them durable.
const CALLS: [&str; 16] = [
    "open", "openat", "newfstatat", "statx", "fstatfs", "getdents64", "readlink", "flock", "fcntl",
    "mkdir", "mkdirat", "renameat", "unlinkat", "fsync", "fdatasync", "pwrite64",
];

fn strace() -> Option<Command> {
    let probe = Command::new("strace").args(["-qqq", "-o", "/dev/null", "true"]).output();
    if !probe.is_ok_and(|ran| ran.status.success()) {
        println!("skipped: strace is not installed, or may not trace here");
        return None;
    }
    let mut command = Command::new("strace");
    command.args(["-f", "-qqq"]).process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Some(command)
}

/// Ends strace and what it runs.
fn end(mut child: Child) {
    let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
    let _ = child.wait();
}

/// How a run under strace ended.
#[derive(Debug)]
enum Ended {
    Ready,
    Exited(i32, String),
}

/// Runs the binary until it is ready or ends, with one call of a kind failing.
fn faulted(call: &str, n: usize, args: &[&str]) -> Ended {
    let inject = format!("inject={call}:error=EIO:when={n}");
    traced(&["-e", &format!("trace={call}"), "-e", &inject], args)
}

fn traced(options: &[&str], args: &[&str]) -> Ended {
    let mut command = strace().unwrap();
    command.args(["-o", "/dev/null"]).args(options).arg(BINARY).args(args);
    let mut child = command.spawn().unwrap();
    let (mut said, mut out) = (String::new(), BufReader::new(child.stdout.take().unwrap()));
    out.read_line(&mut said).unwrap();
    if said.contains("listening on") {
        end(child);
        return Ended::Ready;
    }
    out.read_to_string(&mut said).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    Ended::Exited(child.wait().unwrap().code().unwrap_or(-1), said)
}

/// How often each call happens in a run, by the name of the call.
fn counted(args: &[&str]) -> BTreeMap<&'static str, usize> {
    let scratch = tempfile::NamedTempFile::new().unwrap();
    let mut command = strace().unwrap();
    command.arg("-o").arg(scratch.path()).args(["-e", &format!("trace={}", CALLS.join(","))]);
    let mut child = command.arg(BINARY).args(args).spawn().unwrap();
    let (mut line, mut out) = (String::new(), BufReader::new(child.stdout.take().unwrap()));
    out.read_line(&mut line).unwrap();
    match line.contains("listening on") {
        true => end(child),
        false => drop((out.read_to_string(&mut line), child.wait())),
    }
    let trace = fs::read_to_string(scratch.path()).unwrap();
    let count = |call: &str| trace.lines().filter(|l| l.contains(&format!(" {call}("))).count();
    CALLS.map(|call| (call, count(call))).into_iter().collect()
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

/// A stopped server with three snapshots.
fn with_three() -> (Server, User, Vec<Vec<u8>>) {
    let (mut server, user) = with_machine(&[]);
    let states: Vec<_> = (1..=3).map(|n| noise(n * 1000)).collect();
    for state in &states {
        user.stored("m", state);
    }
    server.stop();
    (server, user, states)
}

fn assert_all_there(server: Server, user: &User, states: &[Vec<u8>]) -> Server {
    let server = server.restarted(&[]);
    let user = user.on(&server);
    for (n, state) in states.iter().enumerate() {
        assert!(&user.pull(&format!("?id={}", n + 1)).body == state, "snapshot {}", n + 1);
    }
    server
}

#[test]
fn a_start_whose_looks_or_changes_fail_moves_and_replaces_nothing() {
    if strace().is_none() {
        return;
    }
    let (server, user, states) = with_three();
    let (data, before) = (server.data(), kept(&server.data()));
    let args = ["serve", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()];
    for (call, count) in counted(&args) {
        for n in picks(count, 4) {
            let ended = faulted(call, n, &args);
            match &ended {
                Ended::Ready => {}
                // Before main, the loader speaks for itself.
                Ended::Exited(1 | 127, said) if !said.is_empty() => {}
                Ended::Exited(..) => panic!("{call} {n}: {ended:?}"),
            }
            assert!(kept(&data) == before, "{call} {n} changed something: {ended:?}");
            assert_eq!(files(&data.join("orphans")), [] as [PathBuf; 0], "{call} {n}");
        }
    }
    // Every look at one name fails: none of them reads as "it is not there".
    for name in ["jwt.key", "configsync.db", "configsync.db-wal", "snapshots", "orphans", "7f"] {
        let looks = "newfstatat,statx,openat,mkdirat";
        let (trace, inject) = (format!("trace={looks}"), format!("inject={looks}:error=EIO"));
        let ended = traced(&["-P", name, "-e", &trace, "-e", &inject], &args);
        assert!(matches!(ended, Ended::Exited(1, _)), "{name}: {ended:?}");
        assert!(kept(&data) == before, "{name} changed something: {ended:?}");
    }
    assert_all_there(server, &user, &states);
}

#[test]
fn commands_whose_looks_or_changes_fail_lose_nothing_and_say_so() {
    if strace().is_none() {
        return;
    }
    let (mut server, user, states) = with_three();
    let data = server.data().to_str().unwrap().to_owned();
    let (backup, copy, restored) =
        (server.beside("backup"), server.beside("copy"), server.beside("restored"));
    assert_eq!(run(&["backup", &backup, "--data", &data], "").code, 0);
    let before = kept(&server.data());
    let commands: [(&[&str], Option<&str>); 4] = [
        (&["prune", "--keep", "3", "--data", &data], None),
        (&["check", "--data", &data], None),
        (&["backup", &copy, "--data", &data], Some(&copy)),
        (&["restore", &backup, "--data", &restored], Some(&restored)),
    ];
    for (args, dest) in commands {
        let counts = counted(args);
        dest.map(fs::remove_dir_all).transpose().unwrap();
        for (call, count) in counts {
            for n in picks(count, 2) {
                let ended = faulted(call, n, args);
                let Ended::Exited(code, said) = &ended else { panic!("{call} {n}: {ended:?}") };
                assert!(*code == 0 || !said.is_empty(), "{args:?} {call} {n}: {ended:?}");
                assert!(kept(&server.data()) == before, "{args:?} {call} {n}");
                let Some(dest) = dest.map(Path::new) else { continue };
                // What has the database of a copy is one, without what could not be read.
                if dest.join("configsync.db").exists() {
                    let check = run(&["check", "--data", dest.to_str().unwrap()], "");
                    let less = *code == 1 && said.contains("damaged and left out");
                    assert_eq!(
                        check.code,
                        i32::from(less),
                        "{args:?} {call} {n}: {ended:?} {check:?}"
                    );
                    fs::remove_dir_all(dest).unwrap();
                } else {
                    assert_ne!(*code, 0, "{args:?} {call} {n}");
                    assert!(!dest.exists(), "{args:?} {call} {n}: what it wrote stays: {ended:?}");
                }
            }
        }
    }
    server = assert_all_there(server, &user, &states);
    server.ok(&["check"]);
}

/// Attaches strace to a running server; returns when it is attached.
fn attached(server: &Server, options: &[&str]) -> Child {
    let mut command = Command::new("strace");
    command.args(["-f", "-p", &server.id().to_string()]).args(options).process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut said = BufReader::new(child.stderr.as_mut().unwrap()).lines();
    assert!(said.any(|line| line.unwrap().contains("attached")), "strace does not attach");
    child
}

/// Lets go of the server, which goes on.
fn detach(mut child: Child) {
    rustix::process::kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    child.wait().unwrap();
}

#[test]
fn a_push_whose_looks_or_changes_fail_is_answered_and_never_acknowledged_and_lost() {
    if strace().is_none() {
        return;
    }
    let (mut server, user) = with_machine(&[]);
    server.errors_expected = true;
    user.stored("m", b"the first");
    let mut acknowledged = Vec::new();
    let calls = [
        "openat", "newfstatat", "fstatfs", "renameat", "unlinkat", "fsync", "fdatasync", "pwrite64",
    ];
    for call in calls {
        for error in ["EIO", "ENOSPC"] {
            for n in 1..=if std::env::var_os("FAULTS").is_some() { 12 } else { 3 } {
                let inject = format!("inject={call}:error={error}:when={n}");
                let trace = format!("trace={call}");
                let options = ["-o", "/dev/null", "-e", &trace, "-e", &inject];
                let child = attached(&server, &options);
                let state = noise(2000);
                let response = user.push("m", &state, "");
                detach(child);
                match response.status {
                    201 => {
                        let id = response.json()["snapshot"]["id"].as_i64().unwrap();
                        acknowledged.push((id, state));
                    }
                    500 | 503 | 507 => {}
                    status => panic!("{call} {error} {n}: {status}"),
                }
                acknowledged.push((user.stored("m", &noise(10)), Vec::new()));
                acknowledged.pop();
            }
        }
    }
    server.kill();
    let server = server.restarted(&[]);
    let user = user.on(&server);
    for (id, state) in &acknowledged {
        assert!(&user.pull(&format!("?id={id}")).body == state, "snapshot {id}");
    }
    server.ok(&["check"]);
}

#[test]
fn a_push_is_on_disk_step_by_step_before_it_is_acknowledged() {
    if strace().is_none() {
        return;
    }
    let (server, user) = with_machine(&[]);
    let trace = server.beside("trace");
    let calls = "trace=fsync,fdatasync,renameat,renameat2,write,writev,sendto,sendmsg";
    let child = attached(&server, &["-y", "-s", "64", "-o", &trace, "-e", calls]);
    user.stored("m", b"state");
    detach(child);
    let trace = fs::read_to_string(trace).unwrap();
    let data = server.data().display().to_string();
    let steps: [&dyn Fn(&str) -> bool; 5] = [
        &|l| l.contains("fsync(") && l.contains(&format!("<{data}/tmp/")),
        &|l| l.contains("rename") && l.contains(&format!("<{data}/snapshots/")),
        &|l| l.contains("fsync(") && l.contains(&format!("<{data}/snapshots/")),
        &|l| l.contains("sync(") && l.contains(&format!("<{data}/configsync.db-wal>")),
        &|l| l.contains("HTTP/1.1 201"),
    ];
    let mut lines = trace.lines();
    for (n, step) in steps.iter().enumerate() {
        assert!(lines.any(step), "step {n} of a push is missing or out of order:\n{trace}");
    }
    let acknowledged = trace.lines().take_while(|line| !line.contains("HTTP/1.1 201")).count();
    let after: Vec<_> = trace.lines().skip(acknowledged).collect();
    assert!(!after.iter().any(|line| line.contains("rename")), "{trace}");
}

#[test]
fn a_delete_is_committed_before_a_file_is_unlinked() {
    if strace().is_none() {
        return;
    }
    let (server, user) = with_machine(&["--keep", "1"]);
    user.stored("m", b"older");
    let trace = server.beside("trace");
    let child = attached(&server, &["-y", "-o", &trace, "-e", "trace=fsync,fdatasync,unlinkat"]);
    user.stored("m", b"newer");
    detach(child);
    let trace = fs::read_to_string(trace).unwrap();
    let mut lines = trace.lines();
    assert!(lines.any(|l| l.contains("sync(") && l.contains("configsync.db-wal>")), "{trace}");
    assert!(lines.any(|l| l.contains("unlinkat(") && l.contains("/snapshots/")), "{trace}");
    assert_eq!(server.files("snapshots"), 1);
}

#[test]
fn a_new_data_folder_is_synced_into_its_parent_and_its_sub_folders_before_the_ready_line() {
    let Some(mut command) = strace() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let (data, trace) = (scratch.path().join("data"), scratch.path().join("trace"));
    command.args(["-y", "-o"]).arg(&trace).args(["-e", "trace=mkdir,mkdirat,fsync,write", BINARY]);
    command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(&data);
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    end(child);
    let trace = fs::read_to_string(trace).unwrap();
    let mut lines = trace.lines();
    let parent = scratch.path().canonicalize().unwrap().display().to_string();
    for step in [
        format!("mkdir(\"{}\"", data.display()),
        format!("<{parent}>)"),
        "\"ff\", 0700) = 0".to_owned(),
        format!("<{parent}/data/snapshots>)"),
        "listening on".to_owned(),
    ] {
        assert!(lines.any(|line| line.contains(&step)), "{step} in {trace}");
    }
}

#[test]
fn where_a_folder_cannot_be_locked_no_server_starts() {
    if strace().is_none() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data").to_str().unwrap().to_owned();
    let mut command = strace().unwrap();
    command.args(["-o", "/dev/null", "-e", "trace=flock", "-e", "inject=flock:error=ENOLCK"]);
    command.args([BINARY, "serve", "--listen", "127.0.0.1:0", "--data", &data]);
    let ran = command.output().unwrap();
    let said = String::from_utf8(ran.stderr).unwrap();
    assert_eq!(ran.status.code(), Some(1), "{said}");
    assert!(said.contains(&data) && said.contains("cannot be locked"), "{said}");
}

#[test]
fn where_a_file_system_has_no_sockets_the_private_one_is_in_a_closed_folder_elsewhere() {
    let Some(mut command) = strace() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let temp = scratch.path().join("temp");
    fs::create_dir(&temp).unwrap();
    command.env("TMPDIR", &temp);
    // The first bind is that of the listening address.
    command
        .args(["-o", "/dev/null", "-e", "trace=bind", "-e", "inject=bind:error=EOPNOTSUPP:when=2"]);
    command.args([BINARY, "serve", "--listen", "127.0.0.1:0", "--data"]);
    let mut child = command.arg(scratch.path().join("data")).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("listening on"), "{line}");
    let made = fs::read_dir(&temp).unwrap().next().unwrap().unwrap();
    assert!(made.path().join("http.sock").symlink_metadata().is_ok());
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(made.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    end(child);
}

#[test]
fn an_orphan_that_cannot_be_moved_is_a_warning_and_is_not_served() {
    if strace().is_none() {
        return;
    }
    let (server, ..) = with_three();
    let orphan = server.data().join("snapshots/00/00112233445566778899aabbccddeeff");
    fs::write(&orphan, "whole, but nobody's").unwrap();
    let mut command = strace().unwrap();
    command.args(["-o", "/dev/null", "-e", "trace=renameat", "-e", "inject=renameat:error=EIO"]);
    command.args([BINARY, "serve", "--listen", "127.0.0.1:0", "--data"]).arg(server.data());
    let mut child = command.spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    let warned = said.any(|line| line.unwrap().contains("a file without a row stays"));
    end(child);
    assert!(warned && orphan.exists());
}

/// A commit whose sync fails is in doubt: its file stays until the next good commit settles it.
#[test]
fn the_file_of_a_commit_in_doubt_goes_after_the_next_good_commit() {
    if strace().is_none() {
        return;
    }
    let (mut server, user) = with_machine(&[]);
    server.errors_expected = true;
    user.stored("m", b"first");
    // No row is left that the housekeeper would write meanwhile, which would settle the first one.
    let used = "SELECT count(*) FROM api_tokens WHERE last_used_at IS NOT NULL";
    eventually("the use of the token is noted", || server.count(used) == 1);
    for (error, status) in [("EIO", 500), ("ENOSPC", 507), ("EDQUOT", 507)] {
        // Of each thread: the first two are of the file and of its folder; the third is of SQLite's
        // log.
        let inject = format!("inject=fsync,fdatasync:error={error}:when=3+");
        let trace = "trace=fsync,fdatasync";
        let child = attached(&server, &["-o", "/dev/null", "-e", trace, "-e", &inject]);
        let response = user.push("m", b"in doubt", "");
        if error == "EIO" {
            assert_eq!(server.files("snapshots"), 2, "it stays while nobody knows");
        }
        detach(child);
        assert_eq!(response.status, status, "{error} {response:?}");
        user.stored("m", error.as_bytes());
        let stored = user.history().len();
        eventually("the file is gone", || server.files("snapshots") == stored);
    }
    server.kill();
    let server = server.restarted(&[]);
    assert_eq!(user.on(&server).history().len(), 4);
    server.ok(&["check"]);
    assert_eq!(server.files("orphans"), 0);
}

#[test]
fn no_more_than_so_many_files_wait_for_a_good_commit() {
    if strace().is_none() {
        return;
    }
    let (mut server, user) = with_machine(&[]);
    server.errors_expected = true;
    let log = server.data().join("configsync.db-wal").display().to_string();
    let (trace, inject) = ("trace=fsync,fdatasync", "inject=fsync,fdatasync:error=EIO");
    let options = ["-o", "/dev/null", "-P", &log, "-e", trace, "-e", inject];
    let child = attached(&server, &options);
    for _ in 0..70 {
        assert_eq!(user.push("m", &noise(10), "").status, 500);
    }
    assert_eq!(server.files("snapshots"), 64);
    detach(child);
    user.register("m");
    assert_eq!(server.files("snapshots"), 0, "settled by the next good commit");
    user.stored("m", b"state");
}

#[test]
fn health_is_red_after_a_write_that_failed_until_one_succeeds() {
    if strace().is_none() {
        return;
    }
    let (mut server, user) = with_machine(&[]);
    server.errors_expected = true;
    let health = || {
        let response = server.ask("GET", "/healthz", "", b"");
        (response.status, response.json()["code"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(health().0, 200);
    for (error, status, code) in [("EIO", 500, "database"), ("EDQUOT", 507, "disk_full")] {
        let inject = format!("inject=fsync,fdatasync:error={error}");
        let trace = "trace=fsync,fdatasync";
        let child = attached(&server, &["-o", "/dev/null", "-e", trace, "-e", &inject]);
        let machine = json!({ "machine_id": error, "name": "n" });
        assert_eq!(user.post("/api/machines", &machine).status, status);
        eventually("it is red", || health() == (503, code.to_owned()));
        detach(child);
        user.register("m");
        eventually("it is green", || health().0 == 200);
    }
}

#[test]
fn a_degenerate_or_unreadable_key_is_never_replaced() {
    let mut server = serve(&[]);
    server.stop();
    let key = server.data().join("jwt.key");
    for bytes in [vec![0; 32], vec![0xff; 32], vec![1; 31], Vec::new()] {
        fs::write(&key, &bytes).unwrap();
        let ran = server.cli(&["serve", "--listen", "127.0.0.1:0"]);
        assert!(ran.code == 1 && ran.err.contains("jwt.key must hold 32 random bytes"), "{ran:?}");
        assert_eq!(fs::read(&key).unwrap(), bytes);
    }
}

#[test]
fn a_key_that_cannot_be_looked_at_is_never_replaced() {
    let Some(mut command) = strace() else { return };
    let mut server = serve(&[]);
    server.stop();
    let key = server.data().join("jwt.key");
    let before = fs::read(&key).unwrap();
    // The path as the call has it: below the descriptor of the folder.
    command.args(["-o", "/dev/null", "-P", "jwt.key", "-e", "trace=newfstatat,statx"]);
    command.args(["-e", "inject=newfstatat,statx:error=EIO", BINARY, "serve", "--data"]);
    command.arg(server.data()).args(["--listen", "127.0.0.1:0"]);
    let mut child = command.spawn().unwrap();
    let (mut line, mut said) = (String::new(), String::new());
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    if line.is_empty() {
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(1), "{said}");
    } else {
        end(child);
    }
    assert!(line.is_empty() && said.contains("jwt.key"), "{line}{said}");
    assert!(fs::read(&key).unwrap() == before);
}
