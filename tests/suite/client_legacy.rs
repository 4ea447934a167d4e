//! What the older released command line calls, and the requests of its login.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::fixture::{User, assert_has, noise, refused, with_two_users, with_user};

const MID: &str = "16c78290597fde1e";

fn register(user: &User, machine: &str) -> Value {
    let body = json!({ "machine_id": machine, "name": "laptop", "platform": "linux", "arch": "x64",
        "python_version": "v20.20.2" });
    user.post("/api/machines/register", &body).is(200)["machine"].clone()
}

fn push(user: &User, machine: &str, bytes: &[u8]) -> i64 {
    let body = json!({ "machine_id": machine, "encrypted_state": STANDARD.encode(bytes),
        "timestamp": "2026-03-01T10:21:00.344Z", "version": "1.0",
        "metadata": { "machine_vars": { "K": "clear-1x9" } } });
    let made = user.post(&format!("/api/machines/{machine}/push"), &body).is(200);
    assert_eq!(made["success"], true);
    made["snapshot_id"].as_i64().unwrap()
}

#[test]
fn verify_tells_a_good_token_from_a_bad_one_and_nobody_signs_up() {
    let (server, _, user) = with_two_users(&[]);
    let expected = json!({ "valid": true, "user_id": 2, "email": "b@example.org" });
    assert_eq!(user.read("/api/auth/verify"), expected);
    refused(&User::of(&server, "", "cs_x").get("/api/auth/verify"), 401, "unauthorized");
    let body = br#"{"email":"x@y","password":"z"}"#;
    let response = server.ask("POST", "/api/auth/register", "", body);
    assert!(refused(&response, 403, "registration_closed").contains("user add"));
    assert_eq!(server.count("SELECT count(*) FROM users"), 2);
}

#[test]
fn a_login_for_the_first_time_and_again() {
    let (server, user) = with_user(&[]);
    assert_has(&register(&user, MID), json!({ "machine_id": MID, "user_id": 1 }));
    let keypair = json!({ "public_key": STANDARD.encode(noise(32)),
        "encrypted_private_key": STANDARD.encode(noise(60)),
        "kek_salt": STANDARD.encode(noise(32)), "kek_iterations": 600_000, "key_algorithm": "x25519" });
    refused(&user.get("/api/auth/keypair"), 404, "not_found");
    let profile = json!({ "slug": "default", "name": "Default", "is_default": true });
    for time in ["for the first time", "the same again"] {
        assert_eq!(user.post("/api/auth/keypair", &keypair).status, 201, "{time}");
        assert_eq!(user.post("/api/profiles", &profile).is(201)["profile"]["id"], 1, "{time}");
    }
    let noted = "SELECT count(*) FROM audit_log WHERE event = 'keypair.add'";
    assert_eq!(server.count(noted), 1, "what changes nothing is no event");
    let stored = user.read("/api/auth/keypair");
    assert_has(&stored, keypair.clone());
    assert!(stored["created_at"].is_string() && stored["key_version"] == 1);
    for part in ["public_key", "encrypted_private_key", "kek_salt"] {
        let mut other = keypair.clone();
        other[part] = json!(STANDARD.encode(noise(32)));
        refused(&user.post("/api/auth/keypair", &other), 409, "key_exists");
    }
    assert_eq!(user.read("/api/auth/keypair"), stored);
    assert_has(&user.read("/api/profiles")["profiles"][0], profile);
}

#[test]
fn a_push_is_always_a_new_snapshot_of_the_one_history_without_its_metadata() {
    let (server, user) = with_user(&[]);
    register(&user, MID);
    let (one, two) = (push(&user, MID, b"state"), push(&user, MID, b"state"));
    assert!(two > one, "equal content too");
    let three = user.stored(MID, b"by the six endpoints");
    assert_eq!(user.history(), [three, two, one]);
    assert!(!server.holds(b"clear-1x9"), "the metadata beside a state is dropped");

    assert_eq!(user.read("/api/machines/latest")["id"], three);
    let expected = json!({ "encrypted_state": STANDARD.encode(b"state"), "version": "1.0",
        "timestamp": "2026-03-01T10:21:00.344Z", "machine_name": "laptop" });
    assert_has(&user.read(&format!("/api/machines/snapshot/{one}")), expected);
    let page = user.read(&format!("/api/machines/history?limit=20&machine_id={MID}"));
    assert_eq!(page["snapshots"][0]["size_bytes"], 20);
    for none in ["snapshot/99", "snapshot/x", "latest?machine_id=other"] {
        refused(&user.get(&format!("/api/machines/{none}")), 404, "no_snapshot");
    }
}

#[test]
fn a_push_from_an_unknown_machine_registers_it_and_a_hidden_one_comes_back() {
    let (_server, user) = with_user(&[]);
    push(&user, "new", b"one");
    let machines = || user.read("/api/machines")["machines"].as_array().unwrap().clone();
    assert_has(&machines()[0], json!({ "machine_id": "new", "name": "new" }));
    user.delete("/api/machines/new").is(200);
    assert!(machines().is_empty());
    refused(&user.delete("/api/machines/new"), 404, "not_found");
    assert_eq!(user.history().len(), 1, "its snapshots stay");
    push(&user, "new", b"two");
    assert_eq!(machines()[0]["snapshot_count"], 2);
    user.delete("/api/machines/new");
    register(&user, "new");
    assert_eq!((machines().len(), &machines()[0]["name"]), (1, &json!("laptop")));
}

#[test]
fn no_action_is_ever_queued_and_what_no_command_reads_is_empty() {
    let (_server, user) = with_user(&[]);
    for list in ["actions", "configs", "modules"] {
        let path = format!("/api/machines/{MID}/{list}");
        assert_eq!(user.read(&path), json!({ list: [] }), "of a machine never registered");
    }
    let path = format!("/api/machines/{MID}/actions");
    assert_eq!(user.delete(&path).json(), json!({ "ok": true }));
}

#[test]
fn environments_are_replaced_as_a_whole_and_the_operator_brings_them_back() {
    let (server, user) = with_user(&[]);
    assert_eq!(user.read("/api/environments"), json!({ "environments": [] }));
    let dev = json!({ "name": "dev", "tier": "development", "color": "#22c55e", "protect": false });
    let prod = json!({ "name": "prod", "tier": "production", "color": null, "protect": true });
    let names = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|e| e["name"].as_str().unwrap().to_owned()).collect()
    };
    let both = user.sync_environments(json!([dev, prod])).json()["environments"].clone();
    assert_has(&both[0], dev);
    assert_has(&both[1], prod);
    let changed = json!({ "name": "dev", "tier": "custom", "color": null, "protect": true });
    let body = json!({ "environments": [changed], "delete_missing": false });
    let changed = user.put("/api/environments/sync", &body).json();
    assert_eq!(changed["environments"][0]["tier"], "custom");
    assert_eq!(names(&user.read("/api/environments")["environments"]), ["dev", "prod"]);
    let none = user.sync_environments(json!([])).json();
    assert_eq!(none["environments"], json!([]), "a sync on a fresh machine");
    let list =
        |args: &[&str]| server.ok(&[&["environment", "list", "a@example.org"], args].concat());
    assert_eq!(list(&[]), "");
    assert_eq!(list(&["--deleted"]).lines().count(), 2);
    server.ok(&["environment", "restore", "a@example.org", "prod"]);
    let back = user.read("/api/environments")["environments"].clone();
    assert_eq!((names(&back), &back[0]["protect"]), (vec!["prod".to_owned()], &json!(true)));
    server.cli(&["environment", "restore", "a@example.org", "prod"]).fails(1, "no such");
}
