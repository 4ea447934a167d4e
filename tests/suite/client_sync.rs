//! Links between machines and projects, the sync protocol, and one long story with a restart
//! between every two of its steps.

use serde_json::{Value, json};

use crate::fixture::{User, assert_has, refused, with_user};

fn push(user: &User, id: i64, bytes: &[u8]) -> i64 {
    user.push_version("project", id, bytes)
}

fn blob(user: &User, id: i64) -> Vec<u8> {
    user.get(&format!("/api/projects/{id}/blob")).body
}

fn link(user: &User, machine: &str, id: i64) -> Value {
    let body = json!({ "project_id": id, "local_path": format!("/home/{machine}/app") });
    user.post(&format!("/api/machines/{machine}/projects"), &body).is(201)["link"].clone()
}

fn plan(user: &User, machine: &str, id: i64, local: i64) -> Value {
    let body = json!({ "machine_id": machine, "entities": [{ "type": "project", "id": id,
        "local_version": local, "local_hash": "9".repeat(64) }] });
    user.post("/api/sync/plan", &body).is(200)["actions"][0].clone()
}

/// Notes that a machine has a version of a project.
pub fn commit(user: &User, machine: &str, id: i64, version: i64) {
    let body = json!({ "machine_id": machine, "updates": [{ "entity_type": "project",
        "entity_id": id, "new_last_synced_version": version }] });
    assert_eq!(user.post("/api/sync/commit", &body).json(), json!({ "ok": true }));
}

#[test]
fn a_link_is_made_changed_and_listed_with_its_project() {
    let (_server, user) = with_user(&[]);
    let id = user.add("project", "app");
    let list = "/api/machines/m/projects";
    assert_eq!(user.read(list), json!({ "projects": [] }));
    push(&user, id, b"one");
    push(&user, id, b"two");
    let made = json!({ "project_id": id, "local_path": "/home/m/app", "last_synced_version": 2 });
    assert_eq!(link(&user, "m", id), made, "to the current version, of an unknown machine");
    let expected = json!({ "id": id, "slug": "app", "local_path": "/home/m/app",
        "last_synced_version": 2, "current_version": 2 });
    assert_has(&user.read(list)["projects"][0], expected);

    let one = "/api/machines/m/projects/1";
    let change = |body: Value| user.patch(one, &body).json()["link"].clone();
    let mut expected = made;
    for (field, value) in [
        ("last_synced_version", json!(1)),
        ("local_path", json!("/home/m/moved")),
        ("local_path", Value::Null),
    ] {
        expected[field] = value.clone();
        assert_has(&change(json!({ field: value })), expected.clone());
    }
    refused(&user.patch("/api/machines/other/projects/1", &json!({})), 404, "not_found");
    refused(&user.post(list, &json!({ "project_id": 9 })), 404, "not_found");
    let other_kind = json!({ "machine_id": "m", "updates": [{ "entity_type": "config",
        "entity_id": id, "new_last_synced_version": 7 }] });
    user.post("/api/sync/commit", &other_kind).is(200);
    assert_eq!(user.read(list)["projects"][0]["last_synced_version"], 1, "of another kind");
    assert_eq!(link(&user, "m", id)["last_synced_version"], 2, "a second link is an update");
    user.delete("/api/machines/m").is(200);
    link(&user, "m", id);
    assert_eq!(user.read("/api/machines")["machines"], json!([]), "only a registration shows it");
    user.delete("/api/projects/1").is(200);
    assert_eq!(user.read(list), json!({ "projects": [] }));
}

#[test]
fn a_profile_is_marked_active_on_a_machine() {
    let (_server, user) = with_user(&[]);
    user.add("profile", "p");
    for active in [true, true, false] {
        let expected = json!({ "profile_id": 1, "machine_id": "m", "active": active });
        let marked = user.patch("/api/machines/m/profiles/1", &json!({ "active": active })).is(200);
        assert_eq!(marked["link"], expected);
    }
}

#[test]
fn the_plan_follows_the_three_versions_and_never_the_hash() {
    let (_server, user) = with_user(&[]);
    let id = user.add("project", "app");
    (1..=3).for_each(|n| assert_eq!(push(&user, id, &[n as u8]), n));
    link(&user, "m", id);
    // The unit test has every other case.
    commit(&user, "m", id, 2);
    let expected = json!({ "action": "conflict", "current_version": 3, "last_synced_version": 2,
        "type": "project", "id": id });
    assert_has(&plan(&user, "m", id, 3), expected);
    assert_eq!(plan(&user, "never-linked", id, 0)["action"], "pull");
    let unknown = json!({ "action": "error", "error": "not found" });
    assert_has(&plan(&user, "m", 99, 1), unknown.clone());
    user.delete("/api/projects/1").is(200);
    assert_has(&plan(&user, "m", id, 3), unknown);
    commit(&user, "m", 99, 1);
    refused(&user.post("/api/sync/plan", &json!({ "machine_id": "m" })), 400, "bad_request");
}

#[test]
fn one_project_goes_from_machine_to_machine_with_a_restart_between_every_two_steps() {
    let (mut server, user) = with_user(&[]);
    let expect = |machine: &str, local: i64, action: &str| {
        assert_eq!(plan(&user, machine, 1, local)["action"], action, "{machine}");
    };
    let key = json!({ "user_id": 1, "wrapped_dek": "BBBB" });
    let here = json!({ "last_synced_version": 1, "local_path": "/home/desktop/app" });
    let steps: [&dyn Fn(); 18] = [
        // Project add on the first machine.
        &|| assert_eq!(user.add("project", "app"), 1),
        &|| drop(user.post("/api/projects/1/keys", &key).is(201)),
        &|| assert_eq!(push(&user, 1, b"first"), 1),
        &|| assert_eq!(link(&user, "laptop", 1)["last_synced_version"], 1),
        &|| expect("laptop", 1, "noop"),
        // Pull on the second.
        &|| assert_eq!(user.read("/api/projects/1")["wrapped_dek"], "BBBB"),
        &|| assert_eq!(blob(&user, 1), b"first"),
        &|| drop(link(&user, "desktop", 1)),
        &|| drop(user.patch("/api/machines/desktop/projects/1", &here).is(200)),
        // An edit there, and a sync here.
        &|| assert_eq!(push(&user, 1, b"second"), 2),
        &|| commit(&user, "desktop", 1, 2),
        &|| expect("laptop", 1, "pull"),
        &|| expect("desktop", 2, "noop"),
        &|| assert_eq!(blob(&user, 1), b"second"),
        &|| commit(&user, "laptop", 1, 2),
        // A rollback: old content as a new version.
        &|| assert_eq!(push(&user, 1, &user.get("/api/projects/1/versions/1").body), 3),
        &|| expect("laptop", 3, "conflict"),
        &|| assert_eq!(blob(&user, 1), b"first"),
    ];
    for step in steps {
        server = server.restarted(&[]);
        step();
    }
    server.ok(&["check"]);
}
