//! What the person who hosts it needs: prune, retention, the audit log, metrics.

use std::fs;
use std::time::{Duration, SystemTime};

use serde_json::json;

use crate::fixture::{
    assert_has, eventually, noise, refused, serve, with_machine, with_two_users, with_user,
};

#[test]
fn prune_deletes_what_fails_every_rule_and_never_a_machines_newest() {
    let (server, a, b) = with_two_users(&[]);
    for (user, machine, count) in [(&a, "m", 5), (&a, "n", 1), (&b, "m", 3)] {
        user.register(machine);
        for n in 0..count {
            user.stored(machine, format!("{machine}{n}").as_bytes());
        }
    }
    // Everything of a's but the newest two ids is a week old.
    let old = "UPDATE state_snapshots SET created_at = created_at - 7 * 86400000 WHERE id < 5";
    server.database().execute(old, []).unwrap();
    let both = ["prune", "--keep", "3", "--older-than-days", "6"];
    server.says(&[&both[..], &["--dry-run"]].concat(), &["would delete 2 snapshots", "4 bytes"]);
    assert_eq!(server.count("SELECT count(*) FROM state_snapshots"), 9);
    server.says(&both, &["deleted 2 snapshots", "4 bytes freed"]);
    assert_eq!(a.history(), [6, 5, 4, 3]);
    assert_eq!(b.history(), [9, 8, 7]);
    assert_eq!(server.files("snapshots"), 7);
    server.ok(&["prune", "--older-than-days", "0"]);
    assert_eq!((a.history(), b.history()), (vec![6, 5], vec![9]));
    assert_eq!(a.read("/api/usage")["stored_bytes"], 4);
    refused(&a.pull("?id=1"), 404, "no_snapshot");
    let pruned = server.audit(&["--event", "snapshot.prune"]);
    assert_eq!(pruned.len(), 6);
    assert_has(&pruned[0], json!({ "user": "a@example.org", "machine": "m" }));
}

#[test]
fn a_server_told_to_keep_a_number_keeps_that_many_of_each_machine() {
    let (server, user) = with_user(&["--keep", "2"]);
    for machine in ["m", "n"] {
        user.register(machine);
        for n in 0..4 {
            user.stored(machine, format!("{machine}{n}").as_bytes());
        }
    }
    assert_eq!(user.history(), [8, 7, 4, 3]);
    assert_eq!(server.files("snapshots"), 4);
    assert_eq!(user.read("/api/usage")["stored_bytes"], 4 * 2);
}

#[test]
fn a_running_backup_keeps_the_files_of_what_is_pruned() {
    let (server, user) = with_machine(&[]);
    (0..3).for_each(|n| _ = user.stored("m", &[n]));
    // As a backup holds it while it copies.
    let held = fs::File::create(server.data().join("backup.lock")).unwrap();
    held.lock_shared().unwrap();
    server.says(&["prune", "--keep", "1"], &["2 files stay until the next prune"]);
    assert_eq!((user.history().len(), server.files("snapshots")), (1, 3));
    server.ok(&["check"]);
    let server = server.restarted(&[]);
    assert_eq!((server.files("snapshots"), server.files("orphans")), (3, 0), "no orphans");
    drop(held);
    let server = server.restarted(&[]);
    eventually("they go once nobody copies", || server.files("snapshots") == 1);
    assert_eq!(server.files("orphans"), 0);
}

#[test]
fn what_was_soft_deleted_and_what_was_set_aside_goes_after_thirty_days() {
    let (server, user) = with_user(&[]);
    let project = user.add("project", "app");
    user.push_version("project", project, b"x");
    user.delete("/api/projects/1").is(200);
    for environments in [json!([{ "name": "dev", "tier": "custom" }]), json!([])] {
        user.sync_environments(environments).is(200);
    }
    let orphan = |name: &str, days: u64| {
        let path = server.data().join("orphans").join(name);
        fs::write(&path, b"xyz").unwrap();
        let at = SystemTime::now() - Duration::from_secs(days * 86_400);
        fs::File::open(&path).unwrap().set_modified(at).unwrap();
        path
    };
    let (old, young) = (orphan(&"0".repeat(32), 31), orphan(&"1".repeat(32), 29));
    let foreign = orphan("not-ours", 31);
    server.says(&["prune", "--keep", "1", "--dry-run"], &["1 files of orphans/, and free 3 bytes"]);
    server.ok(&["prune", "--older-than-days", "0"]);
    assert_eq!(server.files("snapshots"), 1, "deleted today");
    assert!(!old.exists() && young.exists() && foreign.exists());
    for table in ["entities", "environments"] {
        let sql = format!("UPDATE {table} SET deleted_at = deleted_at - 31 * 86400000");
        server.database().execute(&sql, []).unwrap();
    }
    server.says(&["prune", "--keep", "1"], &["2 deleted entities and environments"]);
    assert_eq!(server.files("snapshots"), 0);
    assert_eq!(user.read("/api/usage")["stored_bytes"], 0);
}

#[test]
fn two_prunes_at_once_and_pulls_beside_them_end_well() {
    let (server, user) = with_machine(&[]);
    let bytes: Vec<Vec<u8>> = (0..40).map(|_| noise(100_000)).collect();
    bytes.iter().for_each(|state| _ = user.stored("m", state));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| server.ok(&["prune", "--keep", "1"]));
        }
        for (n, state) in bytes.iter().enumerate() {
            let pulled = user.pull(&format!("?id={}", n + 1));
            match pulled.status {
                200 => assert!(&pulled.body == state, "torn"),
                status => assert_eq!(status, 404),
            }
        }
    });
    assert_eq!((user.history(), server.files("snapshots")), (vec![40], 1));
    server.ok(&["check"]);
}

#[test]
fn the_audit_log_tells_who_did_what_and_when() {
    let (server, user) = with_user(&[]);
    server.cli_with(&["user", "passwd", "a@example.org", "--password-stdin"], "right\n");
    server.login("a@example.org", "wrong").is(401);
    server.login("a@example.org", "right").is(200);
    server.login("typed@example.org", "x").is(401);
    user.register("m");
    user.stored("m", b"state");
    user.pull("");
    user.delete("/api/machines/m");
    server.ok(&["token", "revoke", "1"]);
    let pulls = ["--event", "snapshot.pull"];
    eventually("the batch is written", || !server.audit(&pulls).is_empty());
    let rows = server.audit(&[]);
    let find = |event: &str| rows.iter().find(|row| row["event"] == event).unwrap().clone();
    for event in [
        "server.start", "user.add", "token.create", "user.passwd", "login.ok", "login.failed",
        "machine.register", "snapshot.push", "snapshot.pull", "machine.remove", "token.revoke",
    ] {
        let row = find(event);
        assert!(row["time"].as_str().unwrap().ends_with('Z'), "{row}");
        assert_eq!(row["outcome"], if event == "login.failed" { "failed" } else { "ok" });
    }
    let push = json!({ "user": "a@example.org", "machine": "m", "peer": "127.0.0.1",
        "subject_id": 1 });
    assert_has(&find("snapshot.push"), push);
    let failed: Vec<_> = rows.iter().filter(|row| row["event"] == "login.failed").collect();
    assert_eq!(failed.len(), 2);
    assert!(failed[0]["user"] == "a@example.org" && failed[1]["user"].is_null());
    assert!(!server.ok(&["audit"]).contains("typed"), "what was typed is kept nowhere");
    assert!(find("user.add")["peer"].is_null() && find("server.start")["user"].is_null());
    let times: Vec<_> = rows.iter().map(|row| row["time"].as_str().unwrap()).collect();
    assert!(times.is_sorted(), "oldest first, also where a row was written later");
}

#[test]
fn the_audit_log_is_filtered_by_time_user_and_event() {
    let server = serve(&[]);
    server.user("a@example.org");
    server.user("b@example.org");
    assert_eq!(server.audit(&["--user", "B@example.org"]).len(), 2);
    assert_eq!(server.audit(&["--event", "user.add"]).len(), 2);
    let at = server.audit(&["--event", "user.add"])[1]["time"].as_str().unwrap().to_owned();
    let since = server.audit(&["--since", &at]);
    assert!(since.iter().all(|row| row["time"].as_str().unwrap() >= at.as_str()));
    assert!(server.audit(&["--since", "2999-01-01"]).is_empty());
    let events = |until: &str| server.audit(&["--until", until, "--event", "token.create"]).len();
    let later = "UPDATE audit_log SET created_at = created_at + 60000 WHERE event = 'token.create'";
    server.database().execute(later, []).unwrap();
    assert_eq!((events(&at), events("2999-01-01")), (0, 2));
    assert!(server.audit(&["--until", &at]).contains(&since[0]), "the moment itself counts");
    assert!(server.audit(&["--since", &at, "--until", "1970-01-01"]).is_empty());
    assert_eq!(server.cli(&["audit", "--until", "tomorrow"]).code, 2);
    server.ok(&["user", "remove", "b@example.org", "--yes"]);
    assert_eq!(server.audit(&["--user", "b@example.org"]).len(), 3, "rows outlive the user");
}

#[test]
fn a_hundred_guesses_from_an_address_are_enough_and_their_audit_rows_are_bounded() {
    let server = serve(&[]);
    server.user_with_password("a@example.org", "right");
    // An address that is sent as a token is nobody's.
    let statuses =
        || server.login_from([127, 0, 1, 99], &json!({ "token": "a@example.org" })).status;
    assert_eq!((0..11).map(|_| statuses()).max(), Some(429));
    for from in 1..=13 {
        for n in 0..103 {
            let token = json!({ "token": format!("cs_{from:020}{n:020}") });
            let status = server.login_from([127, 0, 1, from], &token).status;
            assert_eq!(status, if n < 100 { 401 } else { 429 }, "100 for one address");
        }
    }
    // A good token is not a guess, and passwords are counted apart.
    let good = json!({ "token": server.token("a@example.org") });
    let right = json!({ "email": "a@example.org", "password": "right" });
    for body in [good, right] {
        server.login_from([127, 0, 1, 1], &body).is(200);
    }
    server.login("a@example.org", "wrong").is(401);
    eventually("the failure at a real account is not drowned", || {
        !server.audit(&["--event", "login.failed", "--user", "a@example.org"]).is_empty()
    });
    let failed = server.audit(&["--event", "login.failed"]).len();
    assert!((900..=1020).contains(&failed), "{failed}");
    let throttled = server.audit(&["--event", "login.throttled"]);
    let of_first = throttled.iter().filter(|row| row["peer"] == "127.0.1.1");
    assert_eq!(of_first.count(), 1, "noted once");
    assert!(throttled.iter().any(|row| row["peer"] == "127.0.1.99"));
    assert!(throttled.iter().all(|row| row["user"].is_null()), "{throttled:?}");
    let all_but_the_newest = "UPDATE audit_log SET created_at = 1
                               WHERE id < (SELECT max(id) FROM audit_log)";
    server.database().execute(all_but_the_newest, []).unwrap();
    let server = server.restarted(&["--audit-days", "1"]);
    let throttled = ["--event", "login.throttled"];
    eventually("old rows are gone", || server.audit(&throttled).is_empty());
}

#[test]
fn metrics_have_a_listener_of_their_own_that_serves_an_address_or_localhost() {
    let (server, user) = with_machine(&["--metrics", "127.0.0.1:0"]);
    let metrics = || {
        let response = server.ask_metrics("/metrics", "Host: localhost\r\n");
        assert_eq!(response.status, 200);
        assert!(response.field("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
        String::from_utf8(response.body).unwrap()
    };
    user.stored("m", &[7; 1000]);
    user.register("never");
    user.pull("");
    user.get("/api/projects/7");
    server.ask("BREW", "/%3Cscript%3E", "", b"");
    server.login("x@example.org", "x");
    let text = metrics();
    let assert_lines = |text: &str, lines: &[&str]| {
        for line in lines {
            assert!(text.contains(&format!("\nconfigsync_{line}\n")), "{line} in\n{text}");
        }
    };
    let whole_lines = [
        "pushes_total 1",
        "pulls_total 1",
        "login_failures_total 1",
        "snapshots 1",
        "stored_bytes 1000",
        "user_stored_bytes{user=\"a@example.org\"} 1000",
        "last_backup_timestamp_seconds 0",
        "last_check_timestamp_seconds 0",
        "last_offsite_timestamp_seconds 0",
        "damaged_snapshots 0",
        "last_push_timestamp_seconds{user=\"a@example.org\",machine=\"never\"} 0",
        "http_requests_total{route=\"/api/{kinds}/{}\",method=\"GET\",status=\"404\"} 1",
        "http_requests_total{route=\"none\",method=\"other\",status=\"404\"} 1",
        "http_request_duration_seconds_count{route=\"/api/machines/snapshot\"} 2",
    ];
    assert_lines(&text, &whole_lines);
    for name in [
        "configsync_connections_open", "configsync_connections_refused_total",
        "configsync_database_bytes", "configsync_disk_free_bytes", "configsync_build_info",
    ] {
        assert!(text.contains(&format!("\n{name}")), "{name} in\n{text}");
    }
    assert!(!text.contains("script") && !text.contains("BREW"));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    let pushed = "configsync_last_push_timestamp_seconds{user=\"a@example.org\",machine=\"m\"} ";
    let pushed = text.lines().find_map(|line| line.strip_prefix(pushed)).unwrap();
    assert!((now - pushed.parse::<f64>().unwrap()).abs() < 600.0, "{pushed}");
    let facts = "INSERT INTO server_state VALUES ('last_backup', '{}', 1500),
                 ('last_check', '{\"damaged\": 2}', 2000)";
    server.database().execute(facts, []).unwrap();
    fs::write(server.data().join("offsite.last"), "1970-01-01T00:00:03Z").unwrap();
    let facts = [
        "last_backup_timestamp_seconds 1.5", "last_check_timestamp_seconds 2",
        "last_offsite_timestamp_seconds 3", "damaged_snapshots 2",
    ];
    assert_lines(&metrics(), &facts);
    for host in ["evil.example", "evil.example:9100", "localhost.evil.example", "", "127.0.0.1.x"] {
        let response = server.ask_metrics("/metrics", &format!("Host: {host}\r\n"));
        refused(&response, 403, "forbidden_host");
    }
    server.ask_metrics("/metrics", "Host: 127.0.0.1:9100\r\n").is(200);
    server.ask_metrics("/healthz", "Host: x\r\n").is(200);
    refused(&server.ask_metrics("/api/machines", "Host: [::1]\r\n"), 404, "not_found");
    refused(&server.ask("GET", "/metrics", "", b""), 404, "not_found");
}
