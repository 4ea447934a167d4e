//! Projects, workspaces, configs, modules and profiles: rows, versions, keys.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::access::{KINDS, routes};
use crate::fixture::{
    User, assert_has, assert_says, at_once, noise, refused, with_two_users, with_user,
};

#[test]
fn each_kind_is_added_listed_shown_renamed_and_deleted() {
    let (_server, user) = with_user(&[]);
    for (kind, field, value) in [
        ("project", "git_url", "git@example.test:me/app.git"),
        ("workspace", "description", "the team\nof two"),
        ("config", "source_hint", "~/my.conf"),
        ("module", "module_type", "ssh"),
        ("profile", "description", "work"),
    ] {
        let path = format!("/api/{kind}s");
        assert_eq!(user.read(&path), json!({ format!("{kind}s"): [] }));
        let body = json!({ "slug": "My Slug é", "name": "Name", field: value });
        let row = user.post(&path, &body).is(201)[kind].clone();
        let expected = json!({ field: value, "slug": "My Slug é", "current_version": 0,
            "user_id": 1, "deleted_at": null });
        assert_has(&row, expected);
        assert!(row["created_at"].is_string());
        let one = format!("{path}/{}", row["id"]);
        assert_has(&user.read(&one), json!({ kind: row, "wrapped_dek": null }));
        assert_eq!(user.read(&path)[format!("{kind}s")], json!([row]));
        let renamed = user.patch(&one, &json!({ "name": "New", "slug": "new" })).is(200);
        assert_has(&renamed[kind], json!({ "name": "New", "slug": "new", field: value }));
        assert_eq!(user.patch(&one, &json!({ "name": "Newer" })).is(200)[kind]["slug"], "new");
        let other = user.add(kind, "taken");
        user.push_version(kind, other, b"version");
        let taken = json!({ "slug": "taken", "name": "x" });
        for again in [user.patch(&one, &taken), user.post(&path, &taken)] {
            let sentence = refused(&again, 409, "conflict");
            assert_says(&sentence, &["'taken' already exists", "choose another slug"]);
        }
        user.delete(&format!("{path}/{other}")).is(200);
        user.patch(&one, &taken).is(200);
    }
}

#[test]
fn a_git_url_or_branch_that_could_run_a_command_is_refused() {
    let (_server, user) = with_user(&[]);
    for (field, bad) in [
        ("git_url", "--upload-pack=x"),
        ("git_url", "ext::sh -c x"),
        ("git_url", "a\nb"),
        ("git_branch", "-x"),
        ("git_branch", "a\u{0}"),
    ] {
        let body = json!({ "slug": "s", "name": "n", field: bad });
        refused(&user.post("/api/projects", &body), 400, "bad_request");
    }
    assert_eq!(user.read("/api/projects"), json!({ "projects": [] }));
    // By a good one, projects are found.
    for (slug, url) in [("one", "https://example.test/a?b=c&d"), ("two", "https://x.test/other")] {
        let body = json!({ "slug": slug, "name": "x", "git_url": url, "git_branch": "main" });
        user.post("/api/projects", &body).is(201);
    }
    user.add("project", "three");
    let found = user.read("/api/projects?git_url=https%3A%2F%2Fexample.test%2Fa%3Fb%3Dc%26d");
    assert_eq!(found["projects"].as_array().unwrap().len(), 1);
    assert_eq!(found["projects"][0]["slug"], "one");
    assert_eq!(user.read("/api/projects?git_url=x"), json!({ "projects": [] }));
}

#[test]
fn versions_count_up_and_old_ones_stay() {
    let (server, user) = with_user(&[]);
    let hash = "6".repeat(64);
    for kind in KINDS {
        let id = user.add(kind, "s");
        let path = format!("/api/{kind}s/{id}");
        refused(&user.get(&format!("{path}/blob")), 404, "not_found");
        let blobs: Vec<_> = [100, 70_000, 3].into_iter().map(noise).collect();
        for (n, blob) in (1..).zip(&blobs) {
            let body = json!({ "ciphertext": STANDARD.encode(blob), "content_hash": hash });
            let made = user.post(&format!("{path}/versions"), &body).is(201);
            let key = format!("entities/{kind}/1/{id}/v{n}.enc");
            assert_has(&made, json!({ "version": n, "size_bytes": blob.len(), "r2_key": key }));
        }
        let newest = user.get(&format!("{path}/blob"));
        assert_eq!(newest.field("content-type"), Some("application/octet-stream"));
        assert!(newest.body == blobs[2]);
        let list = user.read(&format!("{path}/versions"))["versions"].clone();
        assert_eq!(list.as_array().unwrap().len(), 3);
        for (n, blob) in (1..).zip(&blobs) {
            assert!(&user.get(&format!("{path}/versions/{n}")).body == blob);
            let row = json!({ "version": n, "size_bytes": blob.len(), "content_hash": hash,
                "pushed_from_machine_id": null });
            assert_has(&list[3 - n], row);
            assert!(list[3 - n]["created_at"].is_string());
        }
        for none in ["0", "4", "99999"] {
            refused(&user.get(&format!("{path}/versions/{none}")), 404, "not_found");
        }
        assert_eq!(user.read(&path)[kind]["current_version"], 3);
    }
    assert_eq!(server.files("snapshots"), 15);
    server.ok(&["check"]);
}

#[test]
fn ten_pushes_at_once_get_ten_numbers_and_keep_ten_blobs() {
    let (_server, user) = with_user(&[]);
    let id = user.add("config", "s");
    let blobs: Vec<Vec<u8>> = (0..10).map(|_| noise(50_000)).collect();
    let pushed = at_once(10, |n| user.push_version("config", id, &blobs[n]));
    for (n, blob) in pushed.iter().zip(&blobs) {
        assert!(&user.get(&format!("/api/configs/{id}/versions/{n}")).body == blob, "version {n}");
    }
    assert_eq!(BTreeSet::from_iter(pushed), (1..=10).collect());
}

#[test]
fn the_first_key_stays() {
    let (_server, user) = with_user(&[]);
    let (first, other) = (STANDARD.encode(noise(80)), STANDARD.encode(noise(80)));
    for kind in KINDS {
        let path = format!("/api/{kind}s/{}", user.add(kind, "s"));
        let keys = format!("{path}/keys");
        for _ in 0..2 {
            user.post(&keys, &json!({ "user_id": 1, "wrapped_dek": first })).is(201);
        }
        for (bad, status, code) in [
            (json!({ "user_id": 1, "wrapped_dek": other }), 409, "key_exists"),
            (json!({ "user_id": 2, "wrapped_dek": first }), 403, "not_yours"),
        ] {
            refused(&user.post(&keys, &bad), status, code);
        }
        assert_eq!(user.read(&path)["wrapped_dek"], first);
    }
}

#[test]
fn a_deleted_entity_is_gone_everywhere_and_its_slug_is_free_for_a_new_id() {
    let (server, user) = with_user(&[]);
    for kind in KINDS {
        let id = user.add(kind, "s");
        let path = format!("/api/{kind}s/{id}");
        user.push_version(kind, id, b"state");
        let body = json!({ "ciphertext": "AAAA", "wrapped_dek": "AAAA", "name": "x" });
        user.post(&format!("{path}/keys"), &body).is(201);
        assert_eq!(user.delete(&path).json(), json!({ "ok": true }));
        let of_one = routes().into_iter().filter(|(_, of)| of.starts_with("/api/{kinds}/{}"));
        for (method, pattern) in of_one {
            let gone = pattern.replace("{kinds}/{}", &format!("{kind}s/{id}")).replace("{}", "1");
            let body = if matches!(method, "GET" | "DELETE") { "" } else { &body.to_string() };
            refused(&user.raw(method, &gone, "", body.as_bytes()), 404, "not_found");
        }
        let new = user.add(kind, "s");
        assert!(new > id);
        let row = user.read(&format!("/api/{kind}s/{new}"));
        assert_eq!((&row[kind]["current_version"], &row["wrapped_dek"]), (&json!(0), &Value::Null));
    }
    assert_eq!(server.files("snapshots"), 5, "the bytes wait for a prune");
}

#[test]
fn an_entity_whose_first_version_never_came_is_no_dead_end() {
    let (_server, a, b) = with_two_users(&[]);
    let create = |user: &User, kind: &str, name: &str| -> i64 {
        let body = json!({ "slug": "s", "name": name });
        user.post(&format!("/api/{kind}s"), &body).is(201)[kind]["id"].as_i64().unwrap()
    };
    for kind in KINDS {
        let path = format!("/api/{kind}s");
        let of_b = create(&b, kind, "of b");
        // Without a key it is taken over.
        let first = create(&a, kind, "first");
        assert_eq!(create(&a, kind, "second"), first);
        assert_eq!(a.read(&path)[format!("{kind}s")][0]["name"], "second");
        // With a key it is replaced: who put the key there may still encrypt with it. A profile has
        // none of this: clients fill it later, and read its key first.
        a.post(&format!("{path}/{first}/keys"), &json!({ "wrapped_dek": "AAAA" })).is(201);
        let third = create(&a, kind, "third");
        if kind == "profile" {
            assert_eq!(third, first);
        } else {
            assert!(third > first);
            refused(&a.get(&format!("{path}/{first}")), 404, "not_found");
            a.post(&format!("{path}/{third}/keys"), &json!({ "wrapped_dek": "BBBB" })).is(201);
        }
        a.push_version(kind, third, b"version");
        // With a version it stays.
        let again = a.post(&path, &json!({ "slug": "s", "name": "fourth" }));
        refused(&again, 409, "conflict");
        assert_eq!(a.read(&path)[format!("{kind}s")].as_array().unwrap().len(), 1);
        assert_eq!(b.read(&format!("{path}/{of_b}"))[kind]["name"], "of b");
    }
}

#[test]
fn a_profile_that_is_added_again_keeps_what_it_has() {
    let (_server, user) = with_user(&[]);
    let first = json!({ "slug": "p", "name": "P", "description": "mine", "is_default": true });
    let id = user.post("/api/profiles", &first).is(201)["profile"]["id"].clone();
    user.post(&format!("/api/profiles/{id}/keys"), &json!({ "wrapped_dek": "AAAA" })).is(201);
    let again = json!({ "slug": "p", "name": "Again", "is_default": false });
    let row = user.post("/api/profiles", &again).is(201);
    let kept = json!({ "id": id, "name": "Again", "description": "mine", "is_default": true });
    for (name, value) in kept.as_object().unwrap() {
        assert_eq!(&row["profile"][name], value, "{name}");
    }
    assert_eq!(row["wrapped_dek"], "AAAA");
}

#[test]
fn profiles_have_one_default_mark_and_hold_a_workspace_once() {
    let (_server, user) = with_user(&[]);
    for slug in ["one", "two"] {
        let body = json!({ "slug": slug, "name": "x", "is_default": true });
        assert_eq!(user.post("/api/profiles", &body).is(201)["profile"]["is_default"], true);
    }
    let list = user.read("/api/profiles")["profiles"].clone();
    assert_eq!((&list[0]["is_default"], &list[1]["is_default"]), (&json!(false), &json!(true)));
    let (path, body) = ("/api/profiles/1/workspaces", json!({ "workspace_id": 3 }));
    assert_eq!(user.add("workspace", "w"), 3);
    for _ in 0..2 {
        assert_eq!(user.post(path, &body).json(), json!({ "ok": true }));
    }
    for _ in 0..2 {
        user.delete(&format!("{path}/3")).is(200);
    }
    refused(&user.post(path, &json!({ "workspace_id": 99 })), 404, "not_found");
}

#[test]
fn a_damaged_version_is_named_and_not_served() {
    let (mut server, user) = with_user(&[]);
    server.errors_expected = true;
    let id = user.add("module", "s");
    user.push_version("module", id, &noise(1000));
    let file = crate::fixture::files(&server.data().join("snapshots")).remove(0);
    std::fs::write(file, vec![0; 1000]).unwrap();
    let blob = user.get(&format!("/api/modules/{id}/blob"));
    assert_says(&refused(&blob, 500, "snapshot_damaged"), &["module 1 version 1"]);
    assert!(server.cli(&["check"]).out.contains("module 1 version 1 is damaged"));
}

#[test]
fn versions_count_against_the_quota() {
    let (_server, user) = with_user(&["--quota", "100"]);
    let id = user.add("project", "s");
    user.push_version("project", id, &[7; 60]);
    // Its head does not tell how much of a JSON body is the version.
    let larger = json!({ "ciphertext": STANDARD.encode([7; 60]) });
    refused(&user.post("/api/projects/1/versions", &larger), 507, "quota_exceeded");
    user.push_version("project", id, &[7; 40]);
    let more = user.post("/api/projects/1/versions", &json!({ "ciphertext": "AAAA" }));
    refused(&more, 507, "quota_exceeded");
    assert_eq!(user.read("/api/usage")["stored_bytes"], 100);
}
