//! The command line: what each command prints, its exit code, and the mistakes it names.

use std::process::Command;

use crate::fixture::{BINARY, Server, run, run_with, serve, with_user};

const COMMANDS: [&str; 12] = [
    "serve", "user", "token", "machine", "status", "backup", "restore", "check", "prune", "audit",
    "environment", "healthcheck",
];

#[test]
fn every_command_explains_itself() {
    for command in COMMANDS {
        let ran = run(&[command, "--help"], "");
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{command}");
        assert!(ran.out.contains(&format!("configsync-server {command}")), "{}", ran.out);
        assert!(run(&["--help"], "").out.contains(command), "{command} stands in the list");
    }
    let version = format!("configsync-server {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(run(&["--version"], "").out, version);
}

#[test]
fn a_wrong_command_line_is_named_in_one_line_with_exit_code_2() {
    let server = serve(&[]);
    server.user("a@example.org");
    for (args, named) in [
        (&["fly"][..], "fly"),
        (&["serve", "--fly"], "--fly"),
        (&["serve", "stray"], "stray"),
        (&["serve", "--max-body", "many"], "--max-body"),
        (&["serve", "--max-body", "-1"], "--max-body"),
        (&["serve", "--max-body"], "--max-body"),
        (&["serve", "--listen", "nowhere"], "--listen"),
        (&["serve", "--head-timeout", "0"], "--head-timeout"),
        (&["serve", "--log-format", "xml"], "--log-format"),
        (&["serve", "--trusted-proxy", "10.0.0.1/8"], "--trusted-proxy"),
        (&["serve", "--init-user", "nobody"], "--init-user"),
        (&["user"], "user"),
        (&["user", "fly"], "fly"),
        (&["user", "add"], "EMAIL"),
        (&["user", "add", "nobody"], "nobody"),
        (&["user", "add", "a@b", "c@d"], "c@d"),
        (&["user", "passwd", "a@example.org"], "--password-stdin"),
        (&["user", "remove", "a@example.org"], "--yes"),
        (&["user", "quota", "a@example.org"], "BYTES"),
        (&["user", "quota", "a@example.org", "much"], "much"),
        (&["token", "create", "a@example.org"], "--name"),
        (&["token", "create", "a@example.org", "--name", "x", "--expires-days", "0"], "0"),
        (&["token", "revoke", "x"], "x"),
        (&["check", "--fly"], "--fly"),
        (&["prune"], "--keep"),
        (&["prune", "--keep", "0"], "--keep"),
        (&["prune", "--keep", "x"], "--keep"),
        (&["backup"], "DEST"),
        (&["audit", "--since", "yesterday"], "yesterday"),
        (&["environment", "restore", "a@example.org"], "NAME"),
        (&["healthcheck", "--url", "ftp://x"], "ftp://x"),
    ] {
        let ran = server.cli(args);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{args:?} {ran:?}");
        assert_eq!(ran.err.lines().count(), 1, "{args:?} {ran:?}");
        assert!(ran.err.contains(named), "{args:?} {ran:?}");
    }
}

#[test]
fn only_serve_and_restore_make_a_data_folder() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("none");
    let folder = folder.to_str().unwrap();
    for args in [
        &["user", "list"][..],
        &["status"],
        &["machine", "list"],
        &["user", "add", "a@example.org"],
        &["token", "list"],
        &["check"],
        &["prune", "--keep", "1"],
        &["audit"],
        &["backup", "/nowhere/at/all"],
    ] {
        let ran = run(&[args, &["--data", folder]].concat(), "");
        assert_eq!(ran.code, 1, "{args:?} {ran:?}");
        assert!(ran.err.contains(folder) && ran.err.contains("serve"), "{ran:?}");
    }
    assert!(!std::path::Path::new(folder).exists());
}

#[test]
fn flags_come_from_the_environment_too_and_the_flag_wins() {
    let ran = run_with(Command::new(BINARY).arg("serve").env("CONFIGSYNC_MAX_BODY", "many"), "");
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("CONFIGSYNC_MAX_BODY"), "{ran:?}");

    let scratch = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let mut command = Command::new(BINARY);
    command.args(["serve", "--max-body", "200"]).env("CONFIGSYNC_MAX_BODY", "100");
    command.env("CONFIGSYNC_DATA", scratch.path().join("data"));
    command.env("CONFIGSYNC_LISTEN", "127.0.0.1:0").env("CONFIGSYNC_LOG_FORMAT", "json");
    command
        .env("CONFIGSYNC_METRICS", "127.0.0.1:0")
        .env("CONFIGSYNC_TRUSTED_PROXY", "10.0.0.1, 10.0.0.2");
    let server = Server::spawn(scratch, command);
    let user = server.user("a@example.org");
    user.register("m");
    assert_eq!(user.push("m", &[7; 201], "").status, 413);
    assert_eq!(user.push("m", &[7; 200], "").status, 201);
    assert_eq!(server.ask_metrics("/metrics", "Host: localhost\r\n").status, 200);
}

#[test]
fn the_first_start_makes_a_user_whose_token_works_and_later_ones_do_not() {
    let server = serve(&["--init-user", "You@example.org"]);
    let printed = server.printed.join("\n");
    let token = server.printed.iter().find(|line| line.starts_with("cs_")).unwrap().clone();
    let login = format!("configsync login --api-url http://127.0.0.1:{}", server.port);
    assert!(printed.contains(&format!("{login} --token {token}")), "{printed}");
    let user = crate::fixture::User::of(&server, "you@example.org", &token);
    assert_eq!(user.read("/api/auth/verify")["email"], "you@example.org");
    let server = server.restarted(&["--init-user", "other@example.org"]);
    assert!(server.printed.is_empty(), "{:?}", server.printed);
    assert_eq!(server.ok(&["user", "list"]).lines().count(), 1);
}

#[test]
fn users_are_added_listed_and_removed_with_all_they_stored() {
    let (server, user) = with_user(&[]);
    let again = server.cli(&["user", "add", "A@Example.org"]);
    assert!(again.code == 1 && again.err.contains("exists"), "{again:?}");
    server.user("b@example.org").register("m");
    user.register("m");
    user.stored("m", b"state");
    let list = server.ok(&["user", "list"]);
    let rows: Vec<Vec<&str>> = list.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(rows[0][..6], ["1", "a@example.org", "enabled", "token only", "5", "default"]);
    assert!(rows[0].len() == 7 && rows[0][6].ends_with('Z'), "{list}");
    for gone in ["passwd", "disable", "enable", "remove", "quota"] {
        let mut args = vec!["user", gone, "x@example.org"];
        args.extend(match gone {
            "passwd" => Some("--password-stdin"),
            "remove" => Some("--yes"),
            "quota" => Some("1"),
            _ => None,
        });
        let ran = server.cli_with(&args, "password\n");
        assert!(ran.code == 1 && ran.err.contains("no such user"), "{ran:?}");
    }
    server.ok(&["user", "remove", "a@example.org", "--yes"]);
    assert_eq!(server.files("snapshots"), 0);
    assert_eq!(server.count("SELECT count(*) FROM users"), 1);
    assert_eq!(server.count("SELECT count(*) FROM machines"), 1);
    assert_eq!(server.user("a@example.org").read("/api/auth/verify")["user_id"], 3);
}

#[test]
fn a_password_is_the_first_line_of_standard_input() {
    let server = serve(&[]);
    let add = ["user", "add", "a@example.org", "--password-stdin"];
    assert_eq!(server.cli_with(&add, "the first line\nsecond line\n").code, 0);
    for bad in ["", "\n", &"x".repeat(1025)] {
        let ran = server.cli_with(&["user", "add", "c@example.org", "--password-stdin"], bad);
        assert!(ran.code == 1 && ran.err.contains("1 to 1024"), "{ran:?}");
    }
    let body = br#"{"email":"a@example.org","password":"the first line"}"#;
    server.ask("POST", "/api/auth/login", "", body).is(200);
    assert_eq!(server.ok(&["user", "list"]).lines().count(), 1);
}

#[test]
fn a_token_is_printed_alone_and_only_once() {
    let server = serve(&[]);
    server.ok(&["user", "add", "a@example.org"]);
    server.ok(&["user", "add", "b@example.org"]);
    let printed = server.ok(&["token", "create", "a@example.org", "--name", "the laptop"]);
    let token = printed.strip_suffix('\n').unwrap();
    assert!(token.starts_with("cs_") && token.len() >= 43 && !token.contains('\n'));
    server.token("b@example.org");
    let list = server.ok(&["token", "list"]);
    assert_eq!(list.lines().count(), 2);
    let row: Vec<&str> = list.lines().next().unwrap().split('\t').collect();
    assert_eq!(row[..4], ["1", "a@example.org", "the laptop", &token[..9]]);
    assert!(!list.contains(token));
    assert_eq!(server.ok(&["token", "list", "b@example.org"]).lines().count(), 1);
    let stored = std::fs::read(server.data().join("configsync.db")).unwrap();
    let wal = std::fs::read(server.data().join("configsync.db-wal")).unwrap_or_default();
    for bytes in [stored, wal] {
        assert!(!bytes.windows(token.len()).any(|window| window == token.as_bytes()));
    }
    assert_eq!(server.cli(&["token", "revoke", "99"]).code, 1);
    server.ok(&["token", "revoke", "1"]);
    server.ok(&["token", "revoke", "1"]);
    assert!(server.ok(&["token", "list"]).contains("revoked"));
}

#[test]
fn the_last_use_of_a_token_is_noted() {
    let (server, user) = with_user(&[]);
    assert!(server.ok(&["token", "list"]).contains("never used"));
    user.get("/api/machines");
    crate::fixture::eventually("the use is noted", || {
        !server.ok(&["token", "list"]).contains("never used")
    });
}

#[test]
fn healthcheck_tells_a_server_that_is_well_from_one_that_is_not_there() {
    let mut server = serve(&[]);
    let url = format!("http://127.0.0.1:{}", server.port);
    assert_eq!(run(&["healthcheck", "--url", &url], "").code, 0);
    let elsewhere = run(&["healthcheck", "--url", &format!("{url}/nowhere")], "");
    assert!(elsewhere.code == 1 && elsewhere.err.contains("404"), "{elsewhere:?}");
    server.stop();
    assert_eq!(run(&["healthcheck", "--url", &url], "").code, 1);
}

#[test]
fn a_flag_that_follows_is_no_value_and_an_error_is_one_line() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    let data = data.to_str().unwrap();
    for args in [
        &["serve", "--data", "--no-page"][..],
        &["token", "create", "a@example.org", "--name", "--expires-days"],
        &["serve", "--data", data, "--max-connections-per-ip", "0"],
        &["serve", "--data", data, "--token-hours", "0"],
        &["serve", "--data", data, "--token-hours", "4294967295"],
        &["check", "fr\nob"],
        &["fr\nob"],
        &["--version", "--frob"],
    ] {
        let ran = run(args, "");
        assert_eq!((ran.code, ran.err.lines().count()), (2, 1), "{args:?} {ran:?}");
    }
    assert!(!scratch.path().join("data").exists());
}
