//! Settings from flags and environment, and the help that is made from the same table.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::fixture::{BINARY, Ran, Server, Setup, files, run, run_with, serve, with_two_users};

/// Runs `serve` with settings that must be refused.
fn refused(args: &[&str], env: &[(&str, &str)]) -> Ran {
    let scratch = tempfile::tempdir().unwrap();
    let mut command = Command::new(BINARY);
    command.current_dir(&scratch).arg("serve").args(args).envs(env.iter().copied());
    let ran = run_with(&mut command, "");
    ran.is_misuse("configsync-server: ");
    let left = std::fs::read_dir(&scratch).unwrap().count();
    assert_eq!(left, 0, "{args:?} {env:?}: something was touched");
    ran
}

#[test]
fn a_refused_value_says_what_would_be_taken() {
    let size = "a size such as 500M or 5G\n";
    let address = "an address and port such as 127.0.0.1:8787 or [::1]:8787\n";
    for (flag, value, takes) in [
        ("--max-body", "1X", size),
        ("--quota", "-1", size),
        ("--max-body", "8388608T", "from 1 to 9223372036854775807\n"),
        ("--head-timeout", "1m", "a number of seconds such as 30\n"),
        ("--keep", "all", "a whole number such as 10\n"),
        ("--listen", "8787", address),
        ("--metrics", "yes", address),
        ("--trusted-proxy", "home", "an address"),
        ("--log-format", "xml", "text or json\n"),
        ("--init-user", "nobody", "must be an address such as you@example.com\n"),
        ("--max-connections", "0", "from 1 to 4294967295\n"),
        ("--token-hours", "876001", "from 1 to 876000\n"),
    ] {
        let ran = refused(&[flag, value], &[]);
        let wanted = format!("configsync-server: {flag}: invalid value `{value}`: {takes}");
        assert!(ran.err.starts_with(&wanted), "{wanted}: {ran:?}");
    }
    // A variable is named as a flag is.
    for (name, value) in [
        ("CONFIGSYNC_MAX_BODY", "1X"),
        ("CONFIGSYNC_NO_PAGE", "maybe"),
        ("CONFIGSYNC_TRUSTED_PROXY", "10.0.0.1,nowhere"),
        ("CONFIGSYNC_BODY_GRACE", "0"),
    ] {
        let ran = refused(&[], &[(name, value)]);
        assert!(ran.err.starts_with(&format!("configsync-server: {name}: ")), "{ran:?}");
    }
}

/// Lists the users with a variable of the environment.
fn list_users(server: &Server, name: &str, value: &str) -> Ran {
    run_with(server.command(&["user", "list"]).env(name, value), "")
}

#[test]
fn an_empty_data_folder_is_refused_and_the_flag_wins_over_the_variable() {
    for args in [&["serve", "--init-user", ""][..], &["serve", "--metrics="], &["backup", ""]] {
        run(args, "").is_misuse("");
    }
    for (args, env) in [
        (&["--data", ""][..], &[][..]),
        (&["--data="], &[]),
        (&[], &[("CONFIGSYNC_DATA", "")]),
        (&["--data", ""], &[("CONFIGSYNC_DATA", "data")]),
    ] {
        assert!(refused(args, env).err.contains("--data"));
    }
    let server = serve(&[]);
    for value in ["", "/nowhere"] {
        list_users(&server, "CONFIGSYNC_DATA", value).ok();
    }
    for command in [&["status"][..], &["user", "list"], &["backup", "x"], &["restore", "x"]] {
        assert_eq!(run(&[command, &["--data", ""]].concat(), "").code, 2, "{command:?}");
    }
}

#[test]
fn sizes_and_switches_have_the_usual_spellings() {
    let server = Setup::new().flags(&[]).env("CONFIGSYNC_NO_PAGE", "TRUE").start();
    server.ask("GET", "/", "", b"").is(404);
    // Past its settings a start finds that its port is taken.
    let taken = server.address().to_string();
    for word in ["1", "0", "true", "False", "YES", "no", "on", "off"] {
        let mut command = Command::new(BINARY);
        command.args(["serve", "--data", &server.beside("unmade"), "--listen", &taken]);
        run_with(command.env("CONFIGSYNC_NO_PAGE", word), "").fails(1, &taken);
    }
    let setup = Setup::new().flags(&["--max-body", "1K", "--quota=1GiB"]);
    let server = setup.env("CONFIGSYNC_NO_PAGE", "off").env("CONFIGSYNC_MIN_FREE", "1MiB").start();
    server.ask("GET", "/", "", b"").is(200);
    let user = server.user("a@example.org");
    user.register("m");
    user.push("m", &[7; 1024], "").is(201);
    user.push("m", &[7; 1025], "").is(413);
    // A lower bound than the one of a route holds for it too.
    for method in ["GET", "POST"] {
        let refused =
            user.raw(method, "/api/machines", "", &[b' '; 1025]).is(413)["error"].to_string();
        assert!(refused.contains("1024") && refused.contains("--max-body"), "{refused}");
    }
    assert_eq!(user.read("/api/usage")["quota_bytes"], 1 << 30);
}

#[test]
fn a_variable_that_is_not_a_setting_is_warned_of_by_name() {
    let setup = Setup::new().flags(&[]).env("CONFIGSYNC_MAX_BODDY", "1").env("CONFIGSYNC_URL", "");
    let server = setup.env("CONFIGSYNC_KEEP", "").start();
    let warning = server.wait_for_log("CONFIGSYNC_MAX_BODDY").remove(0);
    assert!(warning.contains(r#""level":"warn""#), "{warning}");
    for known in ["CONFIGSYNC_URL", "CONFIGSYNC_KEEP"] {
        assert!(!server.log_lines().iter().any(|line| line.contains(known)));
    }
    let ran = list_users(&server, "CONFIGSYNC_KEEPS", "1");
    assert!(ran.code == 0 && ran.err.contains("CONFIGSYNC_KEEPS"), "{ran:?}");
}

/// Every flag of the contract, with its default.
const FLAGS: [&str; 19] = [
    "--data=configsync-data", "--listen=127.0.0.1:8787", "--init-user=", "--max-body=67108864",
    "--max-connections=256", "--max-connections-per-ip=32", "--head-timeout=10",
    "--idle-timeout=30", "--body-grace=10", "--stop-timeout=10", "--token-hours=24", "--keep=0",
    "--quota=0", "--min-free=67108864", "--audit-days=365", "--trusted-proxy=", "--metrics=",
    "--no-page=", "--log-format=text",
];

#[test]
fn the_help_of_serve_has_every_flag_with_its_default() {
    let help = run(&["serve", "--help"], "").out;
    for (flag, default) in FLAGS.map(|flag| flag.split_once('=').unwrap()) {
        let begins = format!("  {flag} ");
        let line = help.lines().find(|line| line.starts_with(&begins));
        let line = line.unwrap_or_else(|| panic!("{flag} in {help}"));
        match default {
            "" => assert!(!line.ends_with(']'), "{line}"),
            _ => assert!(line.ends_with(&format!("[{default}]")), "{line}"),
        }
    }
    assert_eq!(help.lines().filter(|line| line.starts_with("  --")).count(), FLAGS.len());
    assert!(help.lines().all(|line| line.chars().count() <= 104), "{help}");
}

const COMMANDS: [&str; 12] = [
    "serve", "user", "token", "machine", "status", "backup", "restore", "check", "prune", "audit",
    "environment", "healthcheck",
];

#[test]
fn the_help_of_a_command_shows_that_command_alone() {
    for args in [["user", "add", "--help"], ["help", "user", "add"], ["user", "--help", "add"]] {
        let help = run(&args, "");
        assert_eq!((help.code, help.err.as_str()), (0, ""));
        assert!(help.out.starts_with("configsync-server user add EMAIL [--password-stdin]"));
        assert!(!help.out.contains("passwd") && !help.out.contains("token create"), "{help:?}");
    }
    let group = run(&["user", "--help"], "").out;
    assert!(group.contains("user add") && group.contains("user remove"));
    assert!(!group.contains("token create"));
    let all = run(&["help"], "").ok();
    assert_eq!(all, run(&["--help"], "").ok());
    let version = format!("configsync-server {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(run(&["--version"], "").ok(), version);
    let commands = all.lines().filter_map(|line| line.strip_prefix("  "));
    let names: Vec<&str> = commands.map(|line| line.split("  ").next().unwrap()).collect();
    let first: BTreeSet<&str> = names.iter().map(|name| name.split(' ').next().unwrap()).collect();
    assert!(names.len() >= 22 && COMMANDS.iter().all(|command| first.contains(command)), "{all}");
    for name in names {
        let words: Vec<&str> = name.split(' ').chain(["--help"]).collect();
        let ran = run(&words, "");
        let begins = format!("configsync-server {name}");
        assert!(ran.code == 0 && ran.out.starts_with(&begins), "{name}: {ran:?}");
        assert!(ran.out.lines().count() >= 3, "it says what it does: {ran:?}");
    }
}

#[test]
fn an_unknown_event_is_refused_with_the_list_and_every_event_of_the_code_is_in_it() {
    let server = serve(&[]);
    let ran = server.cli(&["audit", "--event", "user.fly"]);
    ran.is_misuse("user.fly");
    let listed = |name: &str| ran.err.split([' ', ',', '\n']).any(|word| word == name);
    for name in ["login.ok", "user.remove", "snapshot.push", "machine.remove", "backup"] {
        assert!(listed(name), "{name}: {ran:?}");
    }
    // What looks like the name of an event.
    const AREAS: [&str; 9] = [
        "login", "user", "token", "machine", "snapshot", "entity", "keypair", "environment",
        "audit",
    ];
    let is_event = |text: &&str| {
        let (area, what) = text.split_once('.').unwrap_or_default();
        AREAS.contains(&area) && !what.is_empty() && what.bytes().all(|b| b.is_ascii_lowercase())
    };
    for file in files(Path::new("src")) {
        let code = std::fs::read_to_string(&file).unwrap();
        for text in code.split(['"', '\'']).filter(is_event) {
            assert!(listed(text), "{text} of {}", file.display());
        }
    }
}

#[test]
fn machines_are_listed_and_removed_with_all_they_stored() {
    let (server, a, b) = with_two_users(&[]);
    for user in [&a, &b] {
        user.register("m");
        user.stored("m", b"state");
    }
    a.register("quiet");
    a.delete("/api/machines/quiet");
    let list = server.ok(&["machine", "list"]);
    let rows: Vec<Vec<&str>> = list.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[0][..6], ["a@example.org", "m", "m", "-", "1", "5"]);
    assert!(rows[0][6].ends_with('Z') && rows[0][7] == "listed", "{list}");
    assert_eq!(rows[1][..], ["a@example.org", "quiet", "quiet", "-", "0", "0", "never", "hidden"]);
    assert_eq!(server.ok(&["machine", "list", "b@example.org"]).lines().count(), 1);
    assert_eq!(server.cli(&["machine", "list", "x@example.org"]).code, 1);
    server.cli(&["machine", "remove", "a@example.org", "m"]).is_misuse("--yes");
    let remove = ["machine", "remove", "a@example.org", "m", "--yes"];
    server.says(&remove, &["1 snapshots"]);
    assert_eq!((a.history(), b.history()), (vec![], vec![2]), "another user's stays");
    assert_eq!(server.files("snapshots"), 1);
    assert_eq!(a.read("/api/usage")["stored_bytes"], 0);
    server.cli(&remove).fails(1, "no such machine");
    b.delete("/api/machines/m").is(200);
    server.ok(&["machine", "remove", "b@example.org", "m", "--yes"]);
    a.register("m");
    let _server = server.restarted(&[]);
    assert_eq!(a.stored("m", b"state"), 3, "no id is used twice");
}
