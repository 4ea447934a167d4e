//! Links between machines and projects, the sync protocol, and one long story with a restart
//! between every two of its steps.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::support::{Server, User, refused, serve};

fn add(user: &User, slug: &str) -> i64 {
    let body = json!({ "slug": slug, "name": slug, "git_branch": "main" });
    user.post("/api/projects", &body).json()["project"]["id"].as_i64().unwrap()
}

fn push(user: &User, id: i64, bytes: &[u8]) -> i64 {
    let body = json!({ "ciphertext": STANDARD.encode(bytes), "content_hash": "x" });
    let answer = user.post(&format!("/api/projects/{id}/versions"), &body);
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()["version"].as_i64().unwrap()
}

fn link(user: &User, machine: &str, id: i64) -> Value {
    let body = json!({ "project_id": id, "local_path": format!("/home/{machine}/app") });
    let answer = user.post(&format!("/api/machines/{machine}/projects"), &body);
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()["link"].clone()
}

fn plan(user: &User, machine: &str, id: i64, local: i64) -> Value {
    let body = json!({ "machine_id": machine, "entities": [{ "type": "project", "id": id,
        "local_version": local, "local_hash": "9".repeat(64) }] });
    let answer = user.post("/api/sync/plan", &body);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["actions"][0].clone()
}

fn commit(user: &User, machine: &str, id: i64, version: i64) {
    let body = json!({ "machine_id": machine, "updates": [{ "entity_type": "project",
        "entity_id": id, "new_last_synced_version": version }] });
    assert_eq!(user.post("/api/sync/commit", &body).json(), json!({ "ok": true }));
}

#[test]
fn a_link_is_made_changed_and_listed_with_its_project() {
    let server = serve(&[]);
    let user = server.user("a@example.org");
    let id = add(&user, "app");
    assert_eq!(user.read("/api/machines/m/projects"), json!({ "projects": [] }));
    push(&user, id, b"one");
    push(&user, id, b"two");
    let made = link(&user, "m", id);
    let expected =
        json!({ "project_id": id, "local_path": "/home/m/app", "last_synced_version": 2 });
    assert_eq!(made, expected, "linking syncs to the current version, on an unknown machine too");
    let row = user.read("/api/machines/m/projects")["projects"][0].clone();
    assert_eq!((&row["id"], &row["slug"]), (&json!(id), &json!("app")));
    assert_eq!(
        (&row["local_path"], &row["last_synced_version"]),
        (&json!("/home/m/app"), &json!(2))
    );
    assert_eq!(row["current_version"], 2);

    let one = format!("/api/machines/m/projects/{id}");
    let changed = user.patch(&one, &json!({ "last_synced_version": 1 })).json();
    assert_eq!(changed["link"]["last_synced_version"], 1);
    assert_eq!(changed["link"]["local_path"], "/home/m/app", "only what is there changes");
    let changed = user.patch(&one, &json!({ "local_path": null })).json();
    assert_eq!(
        (&changed["link"]["local_path"], &changed["link"]["last_synced_version"]),
        (&Value::Null, &json!(1))
    );
    refused(&user.patch(&one, &json!({ "last_synced_version": -1 })), 400, "bad_request");
    refused(&user.patch("/api/machines/other/projects/1", &json!({})), 404, "not_found");
    refused(&user.post("/api/machines/m/projects", &json!({ "project_id": 9 })), 404, "not_found");
    assert_eq!(link(&user, "m", id)["last_synced_version"], 2, "a second link is an update");
    user.delete(&format!("/api/projects/{id}"));
    assert_eq!(user.read("/api/machines/m/projects"), json!({ "projects": [] }));
}

#[test]
fn a_profile_is_marked_active_on_a_machine() {
    let server = serve(&[]);
    let user = server.user("a@example.org");
    user.post("/api/profiles", &json!({ "slug": "p", "name": "P" }));
    for active in [true, true, false] {
        let answer = user.patch("/api/machines/m/profiles/1", &json!({ "active": active }));
        let expected = json!({ "profile_id": 1, "machine_id": "m", "active": active });
        assert_eq!((answer.status, &answer.json()["link"]), (200, &expected));
    }
    refused(
        &user.patch("/api/machines/m/profiles/9", &json!({ "active": true })),
        404,
        "not_found",
    );
    refused(&user.patch("/api/machines/m/profiles/1", &json!({})), 400, "bad_request");
}

#[test]
fn the_plan_follows_the_three_versions_and_never_the_hash() {
    let server = serve(&[]);
    let user = server.user("a@example.org");
    let id = add(&user, "app");
    for bytes in [b"1", b"2", b"3"] {
        push(&user, id, bytes);
    }
    link(&user, "m", id);
    // Local version sent, version synced last, and what is to be done at version 3.
    for (local, synced, action) in [
        (3, 3, "noop"),
        (2, 2, "pull"),
        (4, 3, "push"),
        (3, 2, "conflict"),
        (1, 2, "pull"),
        (0, 3, "pull"),
    ] {
        commit(&user, "m", id, synced);
        let row = plan(&user, "m", id, local);
        assert_eq!(row["action"], action, "{local} {synced}");
        assert_eq!(
            (&row["current_version"], &row["last_synced_version"]),
            (&json!(3), &json!(synced))
        );
        assert_eq!((&row["type"], &row["id"]), (&json!("project"), &json!(id)));
    }
    assert_eq!(plan(&user, "never-linked", id, 0)["action"], "pull");
    let unknown = plan(&user, "m", 99, 1);
    assert_eq!((&unknown["action"], &unknown["error"]), (&json!("error"), &json!("not found")));
    user.delete(&format!("/api/projects/{id}"));
    assert_eq!(plan(&user, "m", id, 3)["action"], "error");
    commit(&user, "m", 99, 1);
    refused(&user.post("/api/sync/plan", &json!({ "machine_id": "m" })), 400, "bad_request");
    let bad = json!({ "machine_id": "m", "updates": [{ "entity_type": "project", "entity_id": 1,
        "new_last_synced_version": -1 }] });
    refused(&user.post("/api/sync/commit", &bad), 400, "bad_request");
}

#[test]
fn one_project_goes_from_machine_to_machine_with_a_restart_between_every_two_steps() {
    let server = serve(&[]);
    let user = server.user("a@example.org");
    let mut world = (server, user);
    let step = |world: (Server, User)| -> (Server, User) {
        let server = world.0.restarted(&[]);
        let user = world.1.on(&server);
        (server, user)
    };
    // Project add on the first machine.
    let id = add(&world.1, "app");
    world = step(world);
    let key = json!({ "user_id": 1, "wrapped_dek": "BBBB" });
    assert_eq!(world.1.post(&format!("/api/projects/{id}/keys"), &key).status, 201);
    world = step(world);
    assert_eq!(push(&world.1, id, b"first"), 1);
    world = step(world);
    assert_eq!(link(&world.1, "laptop", id)["last_synced_version"], 1);
    world = step(world);
    assert_eq!(plan(&world.1, "laptop", id, 1)["action"], "noop");
    // Pull on the second.
    let shown = world.1.read(&format!("/api/projects/{id}"));
    assert_eq!(shown["wrapped_dek"], "BBBB");
    world = step(world);
    assert_eq!(world.1.get(&format!("/api/projects/{id}/blob")).body, b"first");
    world = step(world);
    link(&world.1, "desktop", id);
    world = step(world);
    let body = json!({ "last_synced_version": 1, "local_path": "/home/desktop/app" });
    assert_eq!(world.1.patch(&format!("/api/machines/desktop/projects/{id}"), &body).status, 200);
    // An edit there, and a sync here.
    world = step(world);
    assert_eq!(push(&world.1, id, b"second"), 2);
    world = step(world);
    commit(&world.1, "desktop", id, 2);
    world = step(world);
    assert_eq!(plan(&world.1, "laptop", id, 1)["action"], "pull");
    assert_eq!(plan(&world.1, "desktop", id, 2)["action"], "noop");
    world = step(world);
    assert_eq!(world.1.get(&format!("/api/projects/{id}/blob")).body, b"second");
    commit(&world.1, "laptop", id, 2);
    // A rollback: old content as a new version.
    world = step(world);
    let old = world.1.get(&format!("/api/projects/{id}/versions/1")).body;
    assert_eq!(push(&world.1, id, &old), 3);
    world = step(world);
    assert_eq!(plan(&world.1, "laptop", id, 3)["action"], "conflict");
    assert_eq!(world.1.get(&format!("/api/projects/{id}/blob")).body, b"first");
    world.0.ok(&["check"]);
}

#[test]
fn two_users_on_one_computer_never_meet() {
    let server = serve(&[]);
    let (a, b) = (server.user("a@example.org"), server.user("b@example.org"));
    let (of_a, of_b) = (add(&a, "app"), add(&b, "app"));
    push(&a, of_a, b"of a");
    push(&b, of_b, b"of b");
    link(&a, "shared", of_a);
    link(&b, "shared", of_b);
    let ids = |user: &User| user.read("/api/machines/shared/projects")["projects"][0]["id"].clone();
    assert_eq!((ids(&a), ids(&b)), (json!(of_a), json!(of_b)));
    assert_eq!(plan(&a, "shared", of_b, 1)["action"], "error");
    commit(&a, "shared", of_b, 0);
    assert_eq!(plan(&b, "shared", of_b, 1)["action"], "noop", "nothing of it happened");
    refused(&a.get(&format!("/api/projects/{of_b}/blob")), 404, "not_found");
}

#[test]
fn a_plan_of_thousands_of_projects_fits_into_one_request() {
    let server = serve(&[]);
    let user = server.user("a@example.org");
    let entity = |id| {
        json!({ "type": "project", "id": id, "local_version": 1,
                              "local_hash": "0".repeat(64) })
    };
    let plan = json!({ "machine_id": "m", "entities": (0..4000).map(entity).collect::<Vec<_>>() });
    let answer = user.post("/api/sync/plan", &plan);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["actions"].as_array().unwrap().len(), 4000);
}

#[test]
fn environments_deleted_again_and_again_do_not_use_up_their_bound() {
    let server = serve(&[]);
    let user = server.user("a@example.org");
    for round in 0..4 {
        let named = |n| {
            json!({ "name": format!("{round}-{n}"), "tier": "custom", "color": null,
                                "protect": false })
        };
        let body = json!({ "environments": (0..500).map(named).collect::<Vec<_>>(),
                           "delete_missing": true });
        assert_eq!(user.put("/api/environments/sync", &body).status, 200, "{round}");
    }
    let live = "SELECT count(*) FROM environments WHERE deleted_at IS NULL";
    assert_eq!(
        (server.count(live), server.count("SELECT count(*) FROM environments")),
        (500, 1500)
    );
}
