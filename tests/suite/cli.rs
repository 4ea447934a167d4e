//! The command line: what each command prints, its exit code, and the mistakes it names.

use std::io::Write;
use std::net::TcpListener;
use std::process::Command;

use crate::fixture::{BINARY, Setup, User, eventually, on, run, run_with, serve, with_user, words};

#[test]
fn a_wrong_command_line_is_named_in_one_line_with_exit_code_2_before_anything_is_touched() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    // Each is named by its last word.
    let last = [
        "fly", "--version --frob", "serve --fly", "serve stray", "user", "user fly",
        "user add nobody", "user add a@b c@d", "user quota a@example.org much", "token revoke x",
        "check --fly", "audit --since yesterday", "healthcheck --url ftp://x", "help fly",
    ];
    let last = last.map(|line| (line, line.rsplit(' ').next().unwrap()));
    let others = [
        ("fr\nob", "fr"),
        ("serve --max-body --no-page", "--max-body"),
        ("serve --head-timeout 0", "--head-timeout"),
        ("serve --max-connections-per-ip 0", "--max-connections-per-ip"),
        ("serve --token-hours 0", "--token-hours"),
        ("user add", "EMAIL"),
        ("user passwd a@example.org", "--password-stdin"),
        ("user remove a@example.org", "--yes"),
        ("user quota a@example.org", "BYTES"),
        ("token create a@example.org", "--name"),
        ("token create a@example.org --name --expires-days", "--name"),
        ("token create a@example.org --name x --expires-days 0", "0"),
        ("check fr\nob", "fr"),
        ("prune", "--keep"),
        ("prune --keep 0", "--keep"),
        ("prune --keep x", "--keep"),
        ("backup", "DEST"),
        ("environment restore a@example.org", "NAME"),
        ("user fly --help", "user fly"),
        // Of earlier versions.
        ("check --repair", "--repair"),
        ("action add a@example.org m x {}", "action"),
        ("export there", "export"),
        ("audit --format text", "--format"),
        ("user add a@example.org --password-file x", "--password-file"),
    ];
    for (line, named) in last.into_iter().chain(others) {
        on(&data, &words(line)).is_misuse(named);
    }
    for args in [&["serve", "--max-body"][..], &["serve", "--data", "--no-page"]] {
        run(args, "").is_misuse(args[1]);
    }
    assert!(!data.exists());
}

#[test]
fn only_serve_and_restore_make_a_data_folder() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("none");
    for line in [
        "user list", "status", "machine list", "user add a@example.org", "token list", "check",
        "prune --keep 1", "audit", "backup /nowhere/at/all",
    ] {
        let ran = on(&data, &words(line));
        ran.fails(1, data.to_str().unwrap());
        ran.fails(1, "serve");
    }
    assert!(!data.exists());
}

#[test]
fn flags_come_from_the_environment_too_and_the_flag_wins() {
    let mut setup = Setup::new();
    setup.command.args(["serve", "--max-body", "200"]);
    let data = setup.data.clone();
    setup.command.env("CONFIGSYNC_DATA", data).envs([
        ("CONFIGSYNC_MAX_BODY", "100"),
        ("CONFIGSYNC_LISTEN", "127.0.0.1:0"),
        ("CONFIGSYNC_LOG_FORMAT", "json"),
        ("CONFIGSYNC_METRICS", "127.0.0.1:0"),
        ("CONFIGSYNC_TRUSTED_PROXY", "10.0.0.1, 10.0.0.2"),
    ]);
    let (server, user) = setup.with_machine();
    assert_eq!(user.push("m", &[7; 201], "").status, 413);
    assert_eq!(user.push("m", &[7; 200], "").status, 201);
    assert_eq!(server.ask_metrics("/metrics", "Host: localhost\r\n").status, 200);
}

#[test]
fn the_first_start_makes_a_user_whose_token_works() {
    let server = serve(&["--init-user", "You@example.org"]);
    let printed = server.printed.join("\n");
    let token = server.printed.iter().find(|line| line.starts_with("cs_")).unwrap().clone();
    let login = format!("configsync login --api-url http://127.0.0.1:{}", server.port);
    assert!(printed.contains(&format!("{login} --token {token}")), "{printed}");
    let user = User::of(&server, "you@example.org", &token);
    assert_eq!(user.read("/api/auth/verify")["email"], "you@example.org");
}

#[test]
fn users_are_added_listed_and_removed_with_all_they_stored() {
    let (server, user) = with_user(&[]);
    server.cli(&["user", "add", "A@Example.org"]).fails(1, "exists");
    server.user("b@example.org").register("m");
    user.register("m");
    user.stored("m", b"state");
    let list = server.ok(&["user", "list"]);
    let rows: Vec<Vec<&str>> = list.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(rows[0][..6], ["1", "a@example.org", "enabled", "token only", "5", "default"]);
    assert!(rows[0].len() == 7 && rows[0][6].ends_with('Z'), "{list}");
    for (change, more) in [
        ("passwd", &["--password-stdin"][..]),
        ("disable", &[]),
        ("enable", &[]),
        ("remove", &["--yes"]),
        ("quota", &["1"]),
    ] {
        let args = [&["user", change, "x@example.org"], more].concat();
        server.cli_with(&args, "password\n").fails(1, "no such user");
    }
    server.ok(&["user", "remove", "a@example.org", "--yes"]);
    assert_eq!(server.files("snapshots"), 0);
    let left = ["users", "machines"].map(|table| format!("SELECT count(*) FROM {table}"));
    assert_eq!(left.map(|sql| server.count(&sql)), [1, 1]);
    assert_eq!(server.user("a@example.org").read("/api/auth/verify")["user_id"], 3);
}

#[test]
fn a_password_is_the_first_line_of_standard_input() {
    let server = serve(&[]);
    let add =
        |email, input: &str| server.cli_with(&["user", "add", email, "--password-stdin"], input);
    add("a@example.org", "the first line\nsecond line\n").ok();
    for bad in ["", "\n", &"x".repeat(1025)] {
        add("c@example.org", bad).fails(1, "1 to 1024");
    }
    server.login("a@example.org", "the first line").is(200);
    assert_eq!(server.ok(&["user", "list"]).lines().count(), 1);
}

#[test]
fn a_token_is_printed_alone_and_only_once() {
    let server = serve(&[]);
    for email in ["a@example.org", "b@example.org"] {
        server.ok(&["user", "add", email]);
    }
    let printed = server.ok(&["token", "create", "a@example.org", "--name", "the laptop"]);
    let token = printed.strip_suffix('\n').unwrap();
    assert!(token.starts_with("cs_") && token.len() >= 43 && !token.contains('\n'));
    server.token("b@example.org");
    let of_a = || server.ok(&["token", "list", "a@example.org"]);
    assert!(of_a().contains("never used"));
    User::of(&server, "a@example.org", token).read("/api/machines");
    eventually("its use is noted", || !of_a().contains("never used"));
    let list = server.ok(&["token", "list"]);
    assert_eq!(list.lines().count(), 2);
    let row: Vec<&str> = list.lines().next().unwrap().split('\t').collect();
    assert_eq!(row[..4], ["1", "a@example.org", "the laptop", &token[..9]]);
    assert!(!list.contains(token));
    assert_eq!(server.ok(&["token", "list", "b@example.org"]).lines().count(), 1);
    assert!(!server.holds(token.as_bytes()), "its digest alone is kept");
    assert_eq!(server.cli(&["token", "revoke", "99"]).code, 1);
    server.ok(&["token", "revoke", "1"]);
    server.ok(&["token", "revoke", "1"]);
    assert!(server.ok(&["token", "list"]).contains("revoked"));
}

#[test]
fn healthcheck_tells_a_server_that_is_well_from_one_that_fails_or_is_not_there() {
    let server = serve(&[]);
    let url = format!("http://127.0.0.1:{}", server.port);
    run(&["healthcheck", "--url", &url], "").ok();
    run(&["healthcheck", "--url", &format!("{url}/nowhere")], "").fails(1, "404");
    let mut server = server.restarted(&["--min-free", "1000T"]);
    let url = format!("http://127.0.0.1:{}", server.port);
    run(&["healthcheck", "--url", &url], "").fails(1, "disk_full");
    server.stop();
    assert_eq!(run(&["healthcheck", "--url", &url], "").code, 1);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    for (response, code) in
        [("HTTP/1.1 200 OK\r\n", 0), ("HTTP/1.1 2000 OK\r\n", 1), ("SSH-2.0-x200 lala\r\n", 1)]
    {
        let check = std::thread::spawn({
            let url = url.clone();
            move || run(&["healthcheck", "--url", &url], "").code
        });
        // It is not waited for until this peer closes.
        let (mut peer, _) = listener.accept().unwrap();
        peer.write_all(response.as_bytes()).unwrap();
        assert_eq!(check.join().unwrap(), code, "{response}");
    }
}

#[test]
fn a_reader_that_has_enough_changes_no_exit_code() {
    let server = serve(&[]);
    let data = server.data();
    for (command, code) in [("status", 1), ("user list", 0), ("audit", 0)] {
        let line = format!(
            "{BINARY} {command} --data {} | (exec <&-; sleep 0.5); exit ${{PIPESTATUS[0]}}",
            data.display()
        );
        let ran = run_with(Command::new("bash").args(["-c", &line]), "");
        assert_eq!((ran.code, &*ran.err), (code, ""), "{command}");
    }
}
