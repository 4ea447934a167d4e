//! Tests that need the store's internals. One checks that no query of a request scans a table: it
//! asks SQLite for the plan of every statement that a run of all client operations prepares.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use rusqlite::types::Value;
use rusqlite::{Transaction, params};

use super::audit::Event;
use super::data_dir::DATABASE;
use super::db::{connect, connect_immutable, execute, query_one, query_rows, query_scalar};
use super::entities::Target;
use super::error::ErrorKind;
use super::prune::Retention;
use super::snapshots::{Condition, PushBody, PushMode, Selector};
use super::status::Fact;
use super::users::NewToken;
use super::{Policy, RowSink, Store, StoreError, User};
use crate::util::limits::{AUDIT_CHANGES_PER_DAY_MAX, AUDIT_READS_PER_DAY_MAX, IN_DOUBT_MAX};
use crate::util::sync::lock;
use crate::util::time::now_ms;
use crate::util::types::{Digest, Email, MachineId, Name, RandomId};

thread_local! {
    /// The statements of this test: each test runs in a thread of its own.
    static SEEN: RefCell<BTreeSet<String>> = RefCell::default();
}

/// Records a prepared statement.
pub fn note(sql: &str) {
    SEEN.with_borrow_mut(|seen| seen.insert(sql.to_owned()));
}

/// Counts the rows of a list.
fn count(list: impl FnOnce(RowSink<'_>) -> super::Result<()>) -> usize {
    let mut rows = 0;
    list(&mut |_| {
        rows += 1;
        Ok(())
    })
    .unwrap();
    rows
}

fn upload(store: &Store, bytes: &[u8]) -> super::Upload {
    let mut upload = store.upload(1, 1000, false).unwrap();
    upload.append(bytes).unwrap();
    upload
}

/// Runs the database access of every route.
fn do_everything(store: &Store) {
    let email = Email::parse("a@example.com").unwrap();
    let token = NewToken { digest: Digest([1; 32]), prefix: "cs_", name: "t", expires_at: None };
    let token_id = store.add_token(&email, &token, true, || Ok(())).unwrap();
    let user = store.user_by_token(Digest([1; 32])).unwrap();
    store.user_by_claims(user.id, 1, Some(token_id), i64::MAX).unwrap();
    store.password_of(&email).unwrap().unwrap();
    let machine: MachineId = "m".to_owned().try_into().unwrap();
    let registration = serde_json::from_str(r#"{"machine_id": "m", "name": "m"}"#).unwrap();
    SEEN.with_borrow_mut(BTreeSet::clear);
    store.register_machine(&user, &registration).unwrap();
    snapshots(store, &user, &machine);
    entities(store, &user, &machine);
    store.write_deferred_rows();
    store.totals().unwrap();
}

fn snapshots(store: &Store, user: &User, machine: &MachineId) {
    let may_be_retry = PushMode::Idempotent(Condition::default());
    for bytes in ["a", "b", "b"] {
        store
            .push(
                user,
                machine,
                &PushBody::default(),
                &may_be_retry,
                upload(store, bytes.as_bytes()),
            )
            .unwrap();
    }
    store
        .push(user, machine, &PushBody::default(), &PushMode::Append, upload(store, b"b"))
        .unwrap();
    store.usage(user.id).unwrap();
    for of in [None, Some(machine.clone())] {
        for id in [None, Some(1)] {
            let which = Selector { id, machine: of.clone(), before: None };
            let found = store.snapshot(user.id, &which).unwrap();
            store.open_snapshot(&found).unwrap();
            store.history(user.id, &which, 1).unwrap();
        }
    }
    assert_eq!(count(|rows| store.machines(user.id, rows)), 1);
}

fn entities(store: &Store, user: &User, machine: &MachineId) {
    let body = serde_json::from_str(r#"{"slug": "p", "name": "p", "is_default": true}"#).unwrap();
    for kind in ["profile", "project"] {
        store.add_entity(user, kind, &body).unwrap();
        count(|rows| store.entities(user.id, kind, Some("x"), rows));
    }
    let project = Target { user, kind: "project", id: 2 };
    let about = serde_json::from_str("{}").unwrap();
    store.push_version(project, &about, upload(store, b"v")).unwrap();
    count(|rows| store.versions(project, rows));
    store.open_version(project, None).unwrap();
    store.change_entity(project, &body).unwrap();
    store.add_entity_key(project, &"AAAA".to_owned().try_into().unwrap()).unwrap();
    store.entity(project).unwrap();
    let path = "/p".to_owned().try_into().unwrap();
    store.link_project(project, machine, Some(&path)).unwrap();
    let change = serde_json::from_str(r#"{"last_synced_version": 0}"#).unwrap();
    store.change_link(project, machine, &change).unwrap();
    assert_eq!(count(|rows| store.linked_projects(user.id, machine, rows)), 1);
    assert_eq!(store.sync_state(user.id, machine, 2).unwrap(), Some((1, 0)));
    let synced = r#"{"entity_type": "project", "entity_id": 2, "new_last_synced_version": 1}"#;
    store.commit_sync(user, machine, &[serde_json::from_str(synced).unwrap()]).unwrap();
    let profile = Target { kind: "profile", id: 1, ..project };
    store.set_profile_active(profile, machine, true).unwrap();
    let key =
        serde_json::from_str(r#"{"layer_id": "shared:2:dev", "wrapped_dek": "AAAA"}"#).unwrap();
    store.add_layer_key(project, &key).unwrap();
    count(|rows| store.layer_keys(project, Some("shared:2:dev"), rows));
    let name: Name = "DB_URL".to_owned().try_into().unwrap();
    let variable = serde_json::from_str(r#"{"environment_tier": "dev"}"#).unwrap();
    store.set_variable(project, &name, &variable).unwrap();
    assert_eq!(count(|rows| store.variables(project, Some("dev"), None, rows)), 1);
    let environment = serde_json::from_str(r#"{"name": "dev", "tier": "dev"}"#).unwrap();
    store.sync_environments(user, &[environment], true).unwrap();
    assert_eq!(count(|rows| store.environments(user.id, rows)), 1);
    assert!(store.keypair(user.id).is_err());
    let keypair = r#"{"public_key": "AAAA", "encrypted_private_key": "AAAA", "kek_salt": "AAAA",
                      "kek_iterations": 1}"#;
    for _ in ["stored", "the same again"] {
        store.add_keypair(user, &serde_json::from_str(keypair).unwrap()).unwrap();
    }
    store.remove_from_profile(profile, 3).unwrap();
    store.delete_variable(project, "dev", "shared", &name).unwrap();
    store.delete_entity(project).unwrap();
    store.hide_machine(user, machine).unwrap();
}

#[test]
fn the_counter_of_a_users_text_is_the_sum_over_all_rows_after_every_kind_of_change() {
    let scratch = tempfile::tempdir().unwrap();
    let (store, _) = Store::start(scratch.path(), Policy::default()).unwrap();
    let of_a = "SELECT text_bytes, (SELECT coalesce(sum(text_bytes), 0) FROM counted_texts
                  WHERE user_id = users.id) FROM users WHERE email = 'a@example.com'";
    let both = || {
        let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
        store.db.read(|c| query_one(c, "user", of_a, [], read)).unwrap()
    };
    do_everything(&store);
    let (counted, sum) = both();
    assert!(counted == sum && sum > 5000, "{counted} {sum}");
    // Links, active marks, members, variables and keys are deleted with their owner.
    let email = Email::parse("a@example.com").unwrap();
    store.remove_machine(&email, "m").unwrap();
    let (counted, sum) = both();
    assert!(counted == sum && sum > 2000, "{counted} {sum}");
    for table in ["entities", "environments"] {
        store.write(|tx| Ok(tx.execute(&format!("DELETE FROM {table}"), [])?)).unwrap();
        let (counted, sum) = both();
        assert_eq!(counted, sum, "{table}");
    }
    store.write(|tx| Ok(tx.execute("DELETE FROM keypairs", [])?)).unwrap();
    assert_eq!(both().1, 0);
}

#[test]
fn a_migration_adds_up_what_the_rows_of_an_older_database_take() {
    let (older, newer) = include_str!("../../schema.sql").split_once("\n-- version 5").unwrap();
    let database = rusqlite::Connection::open_in_memory().unwrap();
    database.execute_batch(older).unwrap();
    let rows = "INSERT INTO users (id, email, created_at, updated_at) VALUES (1, 'a', 0, 0), (2, 'b', 0, 0);
        INSERT INTO machines (user_id, machine_id, name, created_at, updated_at, last_seen_at)
          VALUES (1, 'm', 'é', 0, 0, 0);
        INSERT INTO entities (user_id, kind, slug, name, created_at, updated_at, deleted_at)
          VALUES (1, 'project', 'p', 'p', 0, 0, 7);
        INSERT INTO machine_projects VALUES (1, 1, '/home', 0);";
    database.execute_batch(rows).unwrap();
    database.execute_batch(newer.split_once('\n').unwrap().1).unwrap();
    let mut users = database.prepare("SELECT text_bytes FROM users ORDER BY id").unwrap();
    let counted: Vec<i64> = users.query_map([], |row| row.get(0)).unwrap().flatten().collect();
    assert_eq!(counted, [3 * 1024 + 3 + 2 + 5, 0]);
}

#[test]
fn audit_rows_of_reads_and_of_changes_are_bounded_a_day_and_user() {
    let scratch = tempfile::tempdir().unwrap();
    let (store, _) = Store::start(scratch.path(), Policy::default()).unwrap();
    let [a, b] = ["a@example.com", "b@example.com"].map(|email| {
        let email = Email::parse(email).unwrap();
        store.add_user(&email, None).unwrap();
        store.password_of(&email).unwrap().unwrap().0
    });
    let rows = |user: &User, event: &str| -> i64 {
        let sql = "SELECT count(*) FROM audit_log WHERE user_id = ?1 AND event = ?2";
        store.db.read(|c| query_scalar(c, sql, (user.id, event))).unwrap()
    };
    for n in 0..AUDIT_READS_PER_DAY_MAX + 10 {
        store.audit_later(Event::of(&a, "snapshot.pull"));
        if n % 4000 == 0 {
            store.write_deferred_rows();
        }
    }
    store.audit_later(Event::of(&b, "snapshot.pull"));
    store.write_deferred_rows();
    let reads = i64::from(AUDIT_READS_PER_DAY_MAX);
    assert_eq!((rows(&a, "snapshot.pull"), rows(&a, "audit.limited")), (reads, 1));
    assert_eq!((rows(&b, "snapshot.pull"), rows(&b, "audit.limited")), (1, 0));
    // Changes have their own limit.
    let many = AUDIT_CHANGES_PER_DAY_MAX + 10;
    let change = |tx: &Transaction<'_>| store.audit(tx, Event::of(&a, "entity.change"));
    store.write(|tx| (0..many).try_for_each(|_| change(tx))).unwrap();
    let changes = i64::from(AUDIT_CHANGES_PER_DAY_MAX);
    assert_eq!((rows(&a, "entity.change"), rows(&a, "audit.limited")), (changes, 2));
}

fn started(scratch: &std::path::Path) -> Store {
    Store::start(scratch, Policy::default()).unwrap().0
}

#[test]
fn every_connection_syncs_fully_and_trusts_no_schema() {
    let scratch = tempfile::tempdir().unwrap();
    let store = started(scratch.path());
    let told = |c: &rusqlite::Connection| {
        for (pragma, wanted) in [
            ("synchronous", "2"),
            ("journal_mode", "wal"),
            ("foreign_keys", "1"),
            ("trusted_schema", "0"),
            ("cell_size_check", "1"),
        ] {
            let sql = format!("SELECT CAST({pragma} AS TEXT) FROM pragma_{pragma}");
            assert_eq!(query_scalar::<String>(c, &sql, [])?, wanted, "{pragma}");
        }
        Ok(())
    };
    store.db.read(told).unwrap();
    store.write(|tx| told(tx)).unwrap();
}

#[test]
fn a_jwt_that_expires_while_the_body_comes_writes_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let store = started(scratch.path());
    store.add_user(&Email::parse("a@example.com").unwrap(), None).unwrap();
    let registration = serde_json::from_str(r#"{"machine_id": "m", "name": "m"}"#).unwrap();
    for (ends_in_ms, kind) in [(60_000, None), (0, Some(ErrorKind::Unauthorized("expired")))] {
        let user = store.user_by_claims(1, 1, None, now_ms() + ends_in_ms).unwrap();
        let refused = store.register_machine(&user, &registration).err();
        assert_eq!(refused.map(|error| error.kind), kind);
    }
}

#[test]
fn a_checkpoint_that_a_reader_holds_up_stops_no_write() {
    let scratch = tempfile::tempdir().unwrap();
    let store = started(scratch.path());
    let write = |sql: &str| store.write(|tx| Ok(tx.execute_batch(sql)?));
    write("CREATE TABLE bulk (n INTEGER PRIMARY KEY, bytes BLOB NOT NULL)").unwrap();
    let rows = "WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 300)";
    write(&format!("INSERT INTO bulk {rows} SELECT n, randomblob(4000) FROM c")).unwrap();
    let reading = |reader: &rusqlite::Connection| {
        let held = reader.unchecked_transaction()?;
        query_scalar::<i64>(&held, "SELECT count(*) FROM bulk", [])?;
        // More than the thousand WAL pages at which SQLite checkpoints.
        (0..4).for_each(|_| write("UPDATE bulk SET bytes = randomblob(4000)").unwrap());
        let alone = connect_immutable(&scratch.path().join(DATABASE));
        let size = alone.and_then(|c| query_scalar::<i64>(&c, "SELECT count(*) FROM bulk", []));
        assert_eq!(size.unwrap_err().kind, ErrorKind::Corrupt, "pages are still in the log alone");
        (0..2).for_each(|_| write("UPDATE bulk SET bytes = randomblob(4000)").unwrap());
        Ok(())
    };
    store.db.read(reading).unwrap();
    write("DROP TABLE bulk").unwrap();
}

#[test]
fn no_more_files_of_commits_in_doubt_are_taken_than_are_remembered() {
    let scratch = tempfile::tempdir().unwrap();
    let store = started(scratch.path());
    let email = Email::parse("a@example.com").unwrap();
    store.add_user(&email, None).unwrap();
    let user = store.password_of(&email).unwrap().unwrap().0;
    let push = || {
        let (machine, body) = ("m".to_owned().try_into().unwrap(), PushBody::default());
        store.push(&user, &machine, &body, &PushMode::Append, upload(&store, b"x"))
    };
    push().unwrap();
    let doubts: Vec<_> = (0..IN_DOUBT_MAX).map(|_| RandomId::draw().unwrap()).collect();
    *lock(&store.in_doubt) = doubts;
    assert!(push().is_err());
    // A successful commit settles them.
    store.write(|_| Ok(())).unwrap();
    let settled = i64::try_from(IN_DOUBT_MAX).unwrap();
    assert_eq!(store.fact(Fact::IN_DOUBT, "files").unwrap(), Some(settled), "it wrote something");
    push().unwrap();
}

#[test]
fn a_checkpoint_that_a_reader_holds_up_is_reported() {
    let scratch = tempfile::tempdir().unwrap();
    let store = started(scratch.path());
    let reader = connect(&scratch.path().join(DATABASE)).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM users").unwrap();
    store.write(|tx| Event::new("backup").insert(tx)).unwrap();
    store.db.wait_at_most(Duration::from_millis(10)).unwrap();
    assert_eq!(store.db.checkpoint("TRUNCATE").unwrap_err().kind, ErrorKind::Busy);
    reader.execute_batch("COMMIT").unwrap();
    store.db.checkpoint("TRUNCATE").unwrap();
}

#[test]
fn a_file_whose_row_is_there_in_spite_of_the_error_stays() {
    let scratch = tempfile::tempdir().unwrap();
    let store = started(scratch.path());
    do_everything(&store);
    let user = store.password_of("a@example.com").unwrap().unwrap().0;
    let stored = store.store_blob(&user, upload(&store, b"x"), Event::new("backup"), |tx, blob| {
        let sql = "INSERT INTO state_snapshots (user_id, machine_ref, file, size_bytes, sha256,
                                                version, created_at)
                   SELECT ?1, min(id), ?2, ?3, ?4, '1', 1 FROM machines WHERE user_id = ?1";
        let (file, digest) = (blob.file.to_string(), blob.digest.0);
        execute(tx, sql, params![user.id, file, blob.size, digest])?;
        execute(tx, "COMMIT", [])?;
        Err::<((), bool), _>(StoreError::busy())
    });
    assert_eq!(stored.unwrap_err().kind, ErrorKind::Busy);
    for _ in 0..2 {
        let newest = store.snapshot(user.id, &Selector::default()).unwrap();
        store.open_snapshot(&newest).unwrap();
        // A good commit looks again.
        store.write(|_| Ok(())).unwrap();
    }
    assert!(lock(&store.in_doubt).is_empty());
}

#[test]
fn without_a_rule_no_snapshot_is_old() {
    let scratch = tempfile::tempdir().unwrap();
    let store = started(scratch.path());
    do_everything(&store);
    for (keep, gone) in [(0, 0), (3, 0), (1, 2)] {
        let retention = Retention { keep, ..Retention::default() };
        assert_eq!(store.prune(retention, true).unwrap().snapshots, gone, "keep {keep}");
    }
}

#[test]
fn every_query_of_a_request_finds_its_rows_by_an_index() {
    let scratch = tempfile::tempdir().unwrap();
    let (store, _) = Store::start(scratch.path(), Policy { keep: 9, ..Policy::default() }).unwrap();
    do_everything(&store);
    let seen = SEEN.take();
    assert!(seen.len() > 40, "{} statements", seen.len());
    for sql in seen {
        // `/metrics` sums over a few users and machines, not over their snapshots.
        if sql.contains("FROM users),") {
            continue;
        }
        let explain = format!("EXPLAIN QUERY PLAN {sql}");
        let plan = store.db.read(|c| {
            let parameters = c.prepare(&explain)?.parameter_count();
            let values = rusqlite::params_from_iter(vec![Value::Null; parameters]);
            query_rows(c, &explain, values, |row| row.get::<_, String>(3))
        });
        for step in plan.unwrap() {
            let walks = step.starts_with("SCAN")
                && !["SCAN CONSTANT ROW", "SCAN json_each VIRTUAL TABLE INDEX 1:"]
                    .contains(&&*step);
            assert!(!walks, "{sql}\n{step}");
        }
    }
}
