//! `status`: what it shows, what it asks to look at, and that it only reads.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::fixture::{BINARY, Ran, Server, assert_has, assert_says, on, serve, tree, with_user};

const DAY_MS: i64 = 86_400_000;

/// A server that has all it needs: a user with a machine that pushed, and a fresh backup.
fn well() -> Server {
    let (server, user) = with_user(&["--min-free", "1K"]);
    user.register("laptop");
    user.stored("laptop", b"state");
    fact(&server, "last_backup", json!({ "files": 1, "bytes": 5 }), 0);
    server
}

/// Leaves a fact that is so many days old.
fn fact(server: &Server, name: &str, value: Value, days: i64) {
    let sql = "INSERT OR REPLACE INTO server_state (name, value, updated_at)
               VALUES (?1, ?2, CAST(unixepoch('subsec') * 1000 AS INTEGER) - ?3)";
    let values = rusqlite::params![name, value.to_string(), days * DAY_MS];
    server.database().execute(sql, values).unwrap();
}

/// Asserts that there is a line that begins with `!` for each of these, with its words in this
/// order where `…` stands between them, and that `--json` has the same.
#[track_caller]
fn attention(server: &Server, args: &[&str], says: &[&str]) {
    let ran = server.cli(&[&["status"], args].concat());
    let found: Vec<&str> = ran.out.lines().filter_map(|line| line.strip_prefix("! ")).collect();
    let json = server.cli(&[&["status", "--json"], args].concat());
    let code = i32::from(!says.is_empty());
    assert_eq!((ran.code, json.code, ran.err.as_str()), (code, code, ""), "{ran:?} {json:?}");
    // The free space moves between two runs.
    let words = |list: Value| list.to_string().replace(|c: char| c.is_ascii_digit(), "");
    assert_eq!(words(parsed(&json)["attention"].clone()), words(json!(found)));
    assert_eq!(found.len(), says.len(), "{found:?}");
    for (line, says) in found.iter().zip(says) {
        let mut rest = *line;
        for word in says.split(" … ") {
            rest = rest.split_once(word).unwrap_or_else(|| panic!("{word} in {line}")).1;
        }
    }
}

fn parsed(ran: &Ran) -> Value {
    serde_json::from_str(&ran.out).unwrap()
}

#[test]
fn all_well_exits_0_and_shows_what_there_is_on_one_screen() {
    let server = well();
    attention(&server, &[], &[]);
    let shown = server.ok(&["status"]);
    assert!(shown.lines().count() <= 24, "{shown}");
    let version = env!("CARGO_PKG_VERSION");
    let wanted = [
        &*format!("configsync-server {version}, running, on {}", server.data().display()),
        "--min-free 1024",
        "last check: never",
        "a@example.org\tenabled\t5\t-",
        "a@example.org\tlaptop\tlaptop\t-\t1\t5\t",
    ];
    assert_says(&shown, &wanted);
    let backup = shown.lines().find(|line| line.starts_with("last good backup: "));
    assert!(backup.unwrap().ends_with(" ago"), "{shown}");
    assert!(!shown.contains('!') && !shown.contains('\u{1b}'), "{shown}");
}

#[test]
fn json_has_the_keys_and_types_that_scripts_rely_on() {
    let server = well();
    server.user("b@example.org");
    server.ok(&["user", "quota", "b@example.org", "5G"]);
    let status: Value = serde_json::from_str(&server.ok(&["status", "--json"])).unwrap();
    let keys: Vec<&String> = status.as_object().unwrap().keys().collect();
    let wanted = [
        "attention", "data", "disk", "last_backup", "last_check", "last_offsite", "machines",
        "running", "users", "version",
    ];
    assert_eq!(keys, wanted);
    let expected = json!({ "version": env!("CARGO_PKG_VERSION"), "running": true,
        "last_check": null, "last_offsite": null, "attention": [] });
    assert_has(&status, expected);
    assert!(status["last_backup"].as_str().unwrap().ends_with('Z'));
    assert_eq!(status["disk"]["min_free_bytes"], 1024);
    assert!(status["disk"]["free_bytes"].as_u64().unwrap() > 0);
    let a = json!({ "email": "a@example.org", "state": "enabled", "stored_bytes": 5,
        "quota_bytes": null });
    assert_eq!(status["users"][0], a);
    assert_eq!(status["users"][1]["quota_bytes"], 5_u64 << 30);
    let machine = &status["machines"][0];
    let expected = json!({ "user": "a@example.org", "machine_id": "laptop", "snapshots": 1,
        "stored_bytes": 5, "state": "listed", "platform": null });
    assert_has(machine, expected);
    assert!(machine["last_push_at"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn a_new_server_has_no_users_and_no_backup() {
    let server = serve(&["--min-free", "1K"]);
    attention(&server, &[], &["no users … user add", "backup never … backup DEST"]);
}

#[test]
fn a_backup_is_too_old_after_8_days_and_damage_that_the_last_check_found_is_reported() {
    let server = well();
    let check = |damaged: u64| json!({ "damaged": damaged, "orphans": 0, "database": 0 });
    for (name, value, days, says) in [
        ("last_backup", json!({}), 7, &[][..]),
        ("last_backup", json!({}), 9, &["backup 9 days ago … backup DEST"]),
        ("last_backup", json!({}), 0, &[]),
        ("last_check", check(0), 0, &[]),
        ("last_check", check(2), 3, &["2 snapshots … configsync-server check"]),
    ] {
        fact(&server, name, value, days);
        attention(&server, &[], says);
    }
    fact(&server, "failed_backup", json!({ "reason": "full" }), 0);
    let shown = server.cli(&["status"]).out;
    assert_says(&shown, &["last check: 3 days ago", "last backup that failed: "]);
}

#[test]
fn a_short_disk_is_below_twice_what_the_last_start_said() {
    let server = well();
    let status = parsed(&server.cli(&["status", "--json"]));
    let free = status["disk"]["free_bytes"].as_u64().unwrap();
    let server = server.restarted(&["--min-free", &(free / 4 * 3).to_string()]);
    attention(&server, &[], &["disk is short … prune"]);
    let server = server.restarted(&["--min-free", &(free / 4).to_string()]);
    attention(&server, &[], &[]);
}

#[test]
fn a_user_is_short_above_90_percent_of_the_own_quota_or_that_of_serve() {
    let server = well();
    server.user("b@example.org").register("m");
    server.ok(&["user", "quota", "a@example.org", "6"]);
    attention(&server, &[], &[]);
    server.ok(&["user", "quota", "a@example.org", "5"]);
    attention(&server, &[], &["a@example.org uses 100 % … user quota"]);
    server.ok(&["user", "quota", "a@example.org", "0"]);
    attention(&server, &[], &[]);
    server.ok(&["user", "quota", "a@example.org", "default"]);
    let server = server.restarted(&["--min-free", "1K", "--quota", "5"]);
    attention(&server, &[], &["a@example.org uses 100 %"]);
}

#[test]
fn a_machine_is_silent_only_where_days_are_given() {
    let server = well();
    server.user("b@example.org").register("quiet");
    attention(&server, &[], &[]);
    attention(&server, &["--stale-days", "0"], &[]);
    attention(&server, &["--stale-days", "3"], &["quiet of b@example.org … never"]);
    let sql = "UPDATE machines SET last_push_at = last_push_at - ?1 WHERE machine_id = 'laptop'";
    server.database().execute(sql, [4 * DAY_MS]).unwrap();
    attention(&server, &["--stale-days", "3"], &["laptop", "quiet"]);
    attention(&server, &["--stale-days", "5"], &["quiet"]);
    let hide = "UPDATE machines SET hidden_at = 1 WHERE machine_id = 'quiet'";
    server.database().execute(hide, []).unwrap();
    attention(&server, &["--stale-days", "3"], &["laptop of a@example.org … 4 days ago"]);
}

#[test]
fn off_site_copies_are_looked_at_only_where_they_are_set_up() {
    let server = well();
    let file = server.data().join("offsite.last");
    fs::write(&file, "2999-01-01T00:00:00Z\n").unwrap();
    attention(&server, &[], &[]);
    assert!(server.cli(&["status"]).out.contains("last off-site copy"));
    for old in
        [&b"2026-01-01T00:00:00Z"[..], b"nonsense", b"\xff", b"2999-01-01T00:00:00Z more", b""]
    {
        fs::write(&file, old).unwrap();
        attention(&server, &[], &["off-site copy"]);
    }
    let status = parsed(&server.cli(&["status", "--json"]));
    assert_eq!(status["last_offsite"], "1970-01-01T00:00:00.000Z");
}

#[test]
fn it_works_on_a_backup_and_on_a_stopped_server_and_changes_nothing() {
    let mut server = well();
    let copy = server.beside("copy");
    server.ok(&["backup", &copy]);
    let status = parsed(&on(&copy, &["status", "--json"]));
    assert_has(&status, json!({ "data": copy, "running": false }));
    assert_eq!(status["machines"][0]["machine_id"], "laptop");
    server.stop();
    let state = || {
        let mut state = tree(&server.data());
        // SQLite makes these two anew for a reader.
        state.remove(&server.data().join("configsync.db-shm"));
        let wal = state.remove(&server.data().join("configsync.db-wal"));
        assert!(wal.is_none_or(|(_, bytes)| bytes.is_empty()));
        state
    };
    let before = state();
    server.says(&["status"], &[", not running, on "]);
    assert_eq!(parsed(&server.cli(&["status", "--json"]))["running"], false);
    assert!(before == state(), "status changed the data folder");
}

/// Runs a command with a terminal for its standard output, through util-linux's `script`.
fn on_a_terminal(server: &Server, command: &str, env: &[(&str, &str)]) -> Option<String> {
    let line = format!("{BINARY} {command} --data {}", server.data().display());
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).env_remove("NO_COLOR").envs(env.iter().copied());
    match script.output() {
        Ok(done) => Some(String::from_utf8(done.stdout).unwrap().replace("\r\n", "\n")),
        Err(_) => {
            println!("skipped: no script(1) here");
            None
        }
    }
}

#[test]
fn a_terminal_gets_columns_units_and_colour_unless_no_color_says_no() {
    let server = well();
    fact(&server, "last_backup", json!({}), 9);
    let Some(shown) = on_a_terminal(&server, "status", &[]) else { return };
    let colour = "\u{1b}[1;31m! last good";
    assert_says(&shown, &["--min-free 1.0 KiB", "EMAIL  ", "LAST PUSH", "5 B", colour]);
    let plain = on_a_terminal(&server, "status", &[("NO_COLOR", "1")]).unwrap();
    assert!(plain.contains("\n! last good") && !plain.contains('\u{1b}'), "{plain}");
    let list = on_a_terminal(&server, "user list", &[]).unwrap();
    let header = "ID  EMAIL          STATE    SIGN IN     STORED  QUOTA    CREATED\n";
    assert!(list.starts_with(header), "{list}");
    // A backup takes long enough to say how far it is: every file is synced.
    let user = server.user("b@example.org");
    user.register("m");
    for n in 0..40 {
        user.stored("m", &vec![n; 1 << 20]);
    }
    let copy = server.beside("copy");
    let shown = on_a_terminal(&server, &format!("backup {copy}"), &[]).unwrap();
    let quick = shown.contains("copied") || !shown.contains('\r');
    assert!(quick && shown.contains("41 files of"), "{shown}");
}
