//! The server as a process: what it says at its start, signals, limits, standard streams.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::fixture::{
    BINARY, SERVE, Server, Setup, assert_says, on, run, run_until_ready, run_with, serve,
};

/// The start's own lines, once it is ready.
fn said(server: &Server) -> String {
    server.wait_for_log("machines");
    // One more response: its line comes after all of the start's.
    server.ask("GET", "/healthz", "", b"");
    server.wait_for_log("/healthz");
    server.log_lines().join("\n")
}

/// A server that is ready must be well.
fn assert_well(url: Option<&str>) {
    if let Some(url) = url {
        run(&["healthcheck", "--url", url], "").ok();
    }
}

#[test]
fn a_start_says_what_it_serves_and_what_to_look_at() {
    let server = serve(&[]);
    let lines = said(&server);
    let (version, data) = (env!("CARGO_PKG_VERSION"), server.data());
    let first = format!("configsync-server {version} on {}: 0 users, 0 machines", data.display());
    assert_says(&lines, &[&first, "was made new"]);
    let none = lines.lines().find(|line| line.contains("no users")).unwrap();
    assert_says(none, &["user add", r#""level":"warn""#]);
    let user = server.user("a@example.org");
    user.register("m");
    for n in 0..3 {
        user.stored("m", &[n]);
    }
    let flags = ["--keep", "1", "--min-free", "1000T", "--init-user", "b@example.org"];
    let server = server.restarted(&flags);
    let lines = said(&server);
    assert!(!lines.contains("no users") && !lines.contains("made new"), "{lines}");
    assert_says(&lines, &["1 users, 1 machines", "--min-free", "--init-user did nothing"]);
    assert!(server.printed.is_empty(), "{:?}", server.printed);
    server.wait_for_log("deleted 2 snapshots");
    assert_eq!(server.ok(&["user", "list"]).lines().count(), 1);
}

#[test]
fn a_start_that_cannot_listen_makes_no_data_folder() {
    let other = serve(&[]);
    let used = format!("127.0.0.1:{}", other.port);
    let data = other.beside("unmade");
    for flags in [&["--listen", &used][..], &["--listen", "127.0.0.1:0", "--metrics", &used]] {
        on(&data, &[&["serve"], flags].concat()).fails(1, &used);
        assert!(!Path::new(&data).exists());
    }
}

#[test]
fn a_hangup_under_nohup_and_what_disks_and_pipes_send_change_nothing() {
    let server = Setup::new().after("trap '' HUP").flags(&[]).start();
    for signal in [Signal::HUP, Signal::XFSZ, Signal::PIPE] {
        server.signal(signal);
        assert_eq!(server.ask("GET", "/healthz", "", b"").status, 200, "{signal:?}");
    }
    assert!(!server.log_lines().iter().any(|line| line.contains("stopping")));
}

#[test]
fn the_soft_descriptor_limit_is_raised_to_the_hard_one_which_may_be_too_low() {
    let server = Setup::new().after("ulimit -Sn 100; ulimit -Hn 1000").flags(&[]).start();
    let limits = fs::read_to_string(server.proc("limits")).unwrap();
    let open = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(open.split_whitespace().nth(3), open.split_whitespace().nth(4), "{open}");
    // 256 connections need more than 1000.
    server.wait_for_log("--max-connections");
    for descriptors in [24, 34, 60] {
        let limit = format!("ulimit -n {descriptors}");
        Setup::new().after(&limit).flags(&[]).refused().fails(1, "descriptor limit");
    }
}

#[test]
fn standard_output_on_a_full_disk_keeps_nobody_from_serving_and_gives_out_no_token() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    let on_full_disk = |args: &[&str]| {
        let mut command = Command::new("sh");
        // What it logs is what the test reads.
        command.args(["-c", "exec \"$@\" 2>&1 >/dev/full", "sh", BINARY]).args(args);
        run_until_ready(command.arg("--data").arg(&data), assert_well)
    };
    let init = on_full_disk(&[&SERVE[..], &["--init-user", "a@example.org"]].concat());
    assert!(init.code == 1 && init.out.contains("nothing was created"), "{init:?}");
    let served = on_full_disk(&SERVE);
    assert!(served.was_ready(), "{served:?}");
    assert_eq!(on(&data, &["user", "list"]).ok(), "");
    on(&data, &["user", "add", "a@example.org"]).ok();
    let created = on_full_disk(&["token", "create", "a@example.org", "--name", "x"]);
    assert_eq!(created.code, 1, "{created:?}");
    assert_eq!(on(&data, &["token", "list"]).ok(), "");
}

#[test]
fn lines_for_the_journal_carry_their_priority() {
    for format in ["text", "json"] {
        let setup = Setup::new().flags(&["--log-format", format]).env("JOURNAL_STREAM", "9:1");
        let server = setup.start();
        server.login("a@example.org", "x").is(401);
        for (priority, words) in [("<6>", "/api/auth/login"), ("<4>", "login failed")] {
            let lines = server.wait_for_log(words);
            assert!(lines.iter().any(|line| line.starts_with(priority)), "{lines:?}");
        }
        if format == "text" {
            let words = " info  request method=POST path=/api/auth/login status=401 ";
            assert_says(&server.wait_for_log(words)[0], &[" ms=", " code=invalid_credentials"]);
        }
    }
    let plain = serve(&[]);
    let mut command = plain.command(&["user", "enable", "x@example.org"]);
    let ran = run_with(command.env("JOURNAL_STREAM", "9:1"), "");
    assert!(ran.code == 1 && ran.err.starts_with("<3>configsync-server: "), "{ran:?}");
    plain.wait_for_log("configsync-server");
    assert!(plain.log_lines().iter().all(|line| line.starts_with('{')));
}

/// As another user, whose limit of threads counts: root has none.
#[test]
fn a_start_that_cannot_have_its_threads_ends_whatever_the_limit() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can be another user");
        return;
    }
    let uid = 61_000 + std::process::id() % 4_000;
    let scratch = tempfile::tempdir().unwrap();
    fs::set_permissions(&scratch, fs::Permissions::from_mode(0o755)).unwrap();
    // Where every user may run it.
    let binary = scratch.path().join("configsync-server");
    fs::copy(BINARY, &binary).unwrap();
    let (mut ready, mut refused) = (0, 0);
    for threads in [1, 2, 4, 8, 12, 16, 18, 20, 21, 22, 23, 40] {
        let dir = scratch.path().join(threads.to_string());
        fs::create_dir(&dir).unwrap();
        chown(&dir, Some(uid), Some(uid)).unwrap();
        let line = format!(
            "ulimit -u {threads} 2>&- || ulimit -p {threads}; exec \"$0\" serve --listen 127.0.0.1:0 --data data"
        );
        let mut command = Command::new("sh");
        command.args(["-c", &line]).arg(&binary).current_dir(&dir).uid(uid).gid(uid);
        let ran = run_until_ready(&mut command, assert_well);
        if ran.was_ready() {
            ready += 1;
        } else {
            refused += 1;
            ran.fails(1, "configsync-server: could not");
        }
    }
    assert!(ready > 0 && refused > 0, "{ready} {refused}");
}
