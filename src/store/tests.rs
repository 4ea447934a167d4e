//! A test that no query of a request walks through a table: SQLite is asked for the plan of every
//! statement that one run of all that clients do has prepared.

use std::collections::BTreeSet;
use std::sync::Mutex;

use rusqlite::types::Value;

use super::db::query_rows;
use super::entities::{Kind, Target};
use super::links::OnMachine;
use super::snapshots::{About, Condition, Rules, Selector};
use super::tokens::NewToken;
use super::variables::Visibility;
use super::{Policy, RowSink, Store, User};
use crate::util::sync::lock;
use crate::util::types::{Digest, Email, MachineId, Name};

static SEEN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Remembers a statement.
pub fn note(sql: &str) {
    lock(&SEEN).insert(sql.to_owned());
}

/// How many rows a list has.
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
    let mut upload = store.upload().unwrap();
    upload.write(bytes).unwrap();
    upload
}

/// What a request of any route asks the database.
fn do_everything(store: &Store) {
    let email = Email::parse("a@example.com").unwrap();
    let token = NewToken { digest: Digest([1; 32]), prefix: "cs_", name: "t", expires_at: None };
    let token_id = store.add_token(&email, &token, true).unwrap();
    let who = store.principal_by_token(Digest([1; 32])).unwrap().user;
    store.principal_by_claims(who.id, 1, Some(token_id)).unwrap();
    store.password_of(&email).unwrap().unwrap();
    let machine: MachineId = "m".to_owned().try_into().unwrap();
    let registration = serde_json::from_str(r#"{"machine_id": "m", "name": "m"}"#).unwrap();
    lock(&SEEN).clear();
    store.register_machine(&who, &registration).unwrap();
    snapshots(store, &who, &machine);
    entities(store, &who, &machine);
    store.write_pending();
    store.totals().unwrap();
}

fn snapshots(store: &Store, who: &User, machine: &MachineId) {
    let strict = Rules::Strict(Condition::default());
    for bytes in ["a", "b", "b"] {
        store
            .push(who, machine, &About::default(), &strict, upload(store, bytes.as_bytes()))
            .unwrap();
    }
    store.push(who, machine, &About::default(), &Rules::Always, upload(store, b"b")).unwrap();
    store.could_be_repeated(who.id, 1, 9).unwrap();
    store.usage(who.id).unwrap();
    store.snapshot_count(who.id).unwrap();
    for of in [None, Some(machine.clone())] {
        for id in [None, Some(1)] {
            let which = Selector { id, machine: of.clone(), before: None };
            let found = store.snapshot(who.id, &which).unwrap();
            store.open_snapshot(&found).unwrap();
            store.history(who.id, &which, 1).unwrap();
        }
    }
    assert_eq!(count(|rows| store.machines(who.id, false, rows)), 1);
}

fn entities(store: &Store, who: &User, machine: &MachineId) {
    let body = serde_json::from_str(r#"{"slug": "p", "name": "p", "is_default": true}"#).unwrap();
    for kind in [Kind::PROFILE, Kind::PROJECT] {
        store.add_entity(who, kind, &body).unwrap();
        count(|rows| store.entities(who.id, kind, Some("x"), rows));
    }
    let project = Target { who, kind: Kind::PROJECT, id: 2 };
    let about = serde_json::from_str("{}").unwrap();
    store.push_version(project, &about, upload(store, b"v")).unwrap();
    count(|rows| store.versions(project, rows));
    store.open_version(project, None).unwrap();
    store.change_entity(project, &body).unwrap();
    store.add_entity_key(project, &"AAAA".to_owned().try_into().unwrap()).unwrap();
    let on = OnMachine { who, machine };
    store.link_project(on, 2, Some("/p")).unwrap();
    store.change_link(on, 2, None, Some(1)).unwrap();
    assert_eq!(count(|rows| store.linked_projects(on, rows)), 1);
    store.sync_state(on, &[2]).unwrap();
    store.commit_sync(on, &[(2, 1)]).unwrap();
    store.set_profile_active(on, 1, true).unwrap();
    let key =
        serde_json::from_str(r#"{"layer_id": "shared:2:dev", "wrapped_dek": "AAAA"}"#).unwrap();
    store.add_layer_key(project, &key).unwrap();
    count(|rows| store.layer_keys(project, Some("shared:2:dev"), rows));
    let name: Name = "DB_URL".to_owned().try_into().unwrap();
    let variable = serde_json::from_str(r#"{"environment_tier": "dev"}"#).unwrap();
    store.set_variable(project, &name, &variable).unwrap();
    assert_eq!(count(|rows| store.variables(project, Some("dev"), None, rows)), 1);
    let environment = serde_json::from_str(r#"{"name": "dev", "tier": "dev"}"#).unwrap();
    store.sync_environments(who, &[environment], true).unwrap();
    assert_eq!(count(|rows| store.environments(who.id, rows)), 1);
    assert!(store.keypair(who.id).is_err());
    let keypair = r#"{"public_key": "AAAA", "encrypted_private_key": "AAAA", "kek_salt": "AAAA",
                      "kek_iterations": 1}"#;
    for _ in ["stored", "the same again"] {
        store.add_keypair(who, &serde_json::from_str(keypair).unwrap()).unwrap();
    }
    let profile = Target { kind: Kind::PROFILE, id: 1, ..project };
    store.set_profile_workspace(profile, 3, false).unwrap();
    store.delete_variable(project, "dev", Visibility::Shared, &name).unwrap();
    store.delete_entity(project).unwrap();
    store.hide_machine(who, machine).unwrap();
}

#[test]
fn every_query_of_a_request_finds_its_rows_by_an_index() {
    let scratch = tempfile::tempdir().unwrap();
    let (store, _) = Store::start(scratch.path(), Policy::default()).unwrap();
    do_everything(&store);
    let seen = lock(&SEEN).clone();
    assert!(seen.len() > 50, "{} statements", seen.len());
    for sql in seen {
        // `/metrics` adds up a few users and machines, not their snapshots.
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
            let walks = step.starts_with("SCAN") && step != "SCAN CONSTANT ROW";
            assert!(!walks, "{sql}\n{step}");
        }
    }
}
