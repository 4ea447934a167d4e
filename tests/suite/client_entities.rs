//! Projects, workspaces, configs, modules and profiles: rows, versions, keys.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::support::{User, noise, refused, serve};

const KINDS: [&str; 5] = ["project", "workspace", "config", "module", "profile"];

fn add(user: &User, kind: &str, slug: &str) -> i64 {
    let answer = user.post(&format!("/api/{kind}s"), &json!({ "slug": slug, "name": slug }));
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()[kind]["id"].as_i64().unwrap()
}

fn push(user: &User, kind: &str, id: i64, bytes: &[u8]) -> i64 {
    let body = json!({ "ciphertext": STANDARD.encode(bytes), "content_hash": "6".repeat(64),
        "pushed_from_machine_id": null });
    let answer = user.post(&format!("/api/{kind}s/{id}/versions"), &body);
    assert_eq!(answer.status, 201, "{answer:?}");
    let row = answer.json();
    assert_eq!(row["size_bytes"], bytes.len());
    let version = row["version"].as_i64().unwrap();
    assert_eq!(row["r2_key"], format!("entities/{kind}/1/{id}/v{version}.enc"));
    version
}

#[test]
fn each_kind_is_added_listed_shown_renamed_and_deleted() {
    let server = serve(&[]);
    let user = server.user("a@example.org");
    for (kind, field, value) in [
        ("project", "git_url", "git@example.test:me/app.git"),
        ("workspace", "description", "the team"),
        ("config", "source_hint", "~/my.conf"),
        ("module", "module_type", "ssh"),
        ("profile", "description", "work"),
    ] {
        let path = format!("/api/{kind}s");
        assert_eq!(user.read(&path), json!({ format!("{kind}s"): [] }));
        let body = json!({ "slug": "My Slug é", "name": "Name", field: value });
        let row = user.post(&path, &body).json()[kind].clone();
        assert_eq!((&row["slug"], &row[field]), (&json!("My Slug é"), &json!(value)), "{kind}");
        assert_eq!((&row["current_version"], &row["user_id"]), (&json!(0), &json!(1)));
        assert!(row["deleted_at"].is_null() && row["created_at"].is_string());
        let again = user.post(&path, &body);
        refused(&again, 409, "conflict");
        assert!(again.json()["error"].as_str().unwrap().contains("already exists"));

        let one = format!("{path}/{}", row["id"]);
        let shown = user.read(&one);
        assert_eq!((&shown[kind], &shown["wrapped_dek"]), (&row, &Value::Null));
        assert_eq!(user.read(&path)[format!("{kind}s")], json!([row]));
        let renamed = user.patch(&one, &json!({ "name": "New", "slug": "new" })).json();
        assert_eq!(
            (&renamed[kind]["name"], &renamed[kind]["slug"]),
            (&json!("New"), &json!("new"))
        );
        assert_eq!(renamed[kind][field], value);
        let kept = user.patch(&one, &json!({ "name": "Newer" })).json();
        assert_eq!(kept[kind]["slug"], "new");
        let other = add(&user, kind, "taken");
        refused(&user.patch(&one, &json!({ "slug": "taken" })), 409, "conflict");
        assert_eq!(user.delete(&format!("{path}/{other}")).status, 200);
        assert_eq!(user.patch(&one, &json!({ "slug": "taken" })).status, 200, "free again");
    }
}

#[test]
fn projects_are_found_by_their_git_url() {
    let server = serve(&[]);
    let user = server.user("a@example.org");
    let url = "https://example.test/a?b=c&d";
    for (slug, url) in [("one", json!(url)), ("two", json!("https://example.test/other"))] {
        let body = json!({ "slug": slug, "name": "x", "git_url": url, "git_branch": "main" });
        assert_eq!(user.post("/api/projects", &body).status, 201);
    }
    add(&user, "project", "three");
    let found = user.read("/api/projects?git_url=https%3A%2F%2Fexample.test%2Fa%3Fb%3Dc%26d");
    assert_eq!(found["projects"].as_array().unwrap().len(), 1);
    assert_eq!(found["projects"][0]["slug"], "one");
    assert!(user.read("/api/projects?git_url=x")["projects"].as_array().unwrap().is_empty());
}

#[test]
fn a_git_url_or_branch_that_could_run_a_command_is_refused() {
    let server = serve(&[]);
    let user = server.user("a@example.org");
    for (field, bad) in [
        ("git_url", "-uexploit"),
        ("git_url", "--upload-pack=x"),
        ("git_url", "ext::sh -c x"),
        ("git_url", "EXT::sh"),
        ("git_url", "fd::17"),
        ("git_url", "ssh://-oProxyCommand=x/y"),
        ("git_url", "a\nb"),
        ("git_branch", "-x"),
        ("git_branch", "a\u{0}"),
    ] {
        let body = json!({ "slug": "s", "name": "n", field: bad });
        refused(&user.post("/api/projects", &body), 400, "bad_request");
    }
    assert!(user.read("/api/projects")["projects"].as_array().unwrap().is_empty());
}

#[test]
fn versions_count_up_and_old_ones_stay() {
    let server = serve(&[]);
    let user = server.user("a@example.org");
    for kind in KINDS {
        let id = add(&user, kind, "s");
        let path = format!("/api/{kind}s/{id}");
        refused(&user.get(&format!("{path}/blob")), 404, "not_found");
        let blobs: Vec<_> = [100, 70_000, 3].into_iter().map(noise).collect();
        for (n, blob) in blobs.iter().enumerate() {
            assert_eq!(push(&user, kind, id, blob), n as i64 + 1);
        }
        let newest = user.get(&format!("{path}/blob"));
        assert_eq!(newest.field("content-type"), Some("application/octet-stream"));
        assert!(newest.body == blobs[2]);
        for (n, blob) in blobs.iter().enumerate() {
            assert!(&user.get(&format!("{path}/versions/{}", n + 1)).body == blob);
        }
        for none in ["0", "4", "99999"] {
            refused(&user.get(&format!("{path}/versions/{none}")), 404, "not_found");
        }
        let list = user.read(&format!("{path}/versions"))["versions"].clone();
        let numbers: Vec<_> = (0..3).map(|n| list[n]["version"].as_i64().unwrap()).collect();
        assert_eq!(numbers, [3, 2, 1]);
        assert_eq!(list[1]["size_bytes"], 70_000);
        assert_eq!(list[0]["content_hash"], "6".repeat(64));
        assert!(list[0]["created_at"].is_string() && list[0]["pushed_from_machine_id"].is_null());
        assert_eq!(user.read(&path)[kind]["current_version"], 3);
    }
    assert_eq!(server.files("snapshots"), 15);
    server.ok(&["check"]);
}

#[test]
fn a_version_without_its_bytes_is_refused_and_gets_no_number() {
    let server = serve(&[]);
    let user = server.user("a@example.org");
    let id = add(&user, "project", "s");
    let path = format!("/api/projects/{id}/versions");
    for bad in [
        json!({}),
        json!({ "ciphertext": "" }),
        json!({ "ciphertext": null }),
        json!({ "ciphertext": "AA" }),
        json!({ "ciphertext": "AAAA", "content_hash": 7 }),
        json!({ "ciphertext": "AAAA", "content_hash": "x".repeat(129) }),
    ] {
        refused(&user.post(&path, &bad), 400, "bad_request");
    }
    assert_eq!((server.files("snapshots"), server.files("tmp")), (0, 0));
    assert_eq!(push(&user, "project", id, b"x"), 1);
}

#[test]
fn ten_pushes_at_once_get_ten_numbers_and_keep_ten_blobs() {
    let server = serve(&[]);
    let user = server.user("a@example.org");
    let id = add(&user, "config", "s");
    let pushed: Vec<(i64, Vec<u8>)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..10)
            .map(|_| {
                scope.spawn(|| {
                    let bytes = noise(50_000);
                    (push(&user, "config", id, &bytes), bytes)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut numbers: Vec<_> = pushed.iter().map(|(n, _)| *n).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=10).collect::<Vec<_>>());
    for (n, bytes) in pushed {
        assert!(user.get(&format!("/api/configs/{id}/versions/{n}")).body == bytes, "version {n}");
    }
}

#[test]
fn the_first_key_stays() {
    let server = serve(&[]);
    let user = server.user("a@example.org");
    for kind in KINDS {
        let path = format!("/api/{kind}s/{}", add(&user, kind, "s"));
        let keys = format!("{path}/keys");
        let first = STANDARD.encode(noise(80));
        let key = json!({ "user_id": 1, "wrapped_dek": first });
        assert_eq!(user.post(&keys, &key).status, 201);
        assert_eq!(user.post(&keys, &key).status, 201, "the same again");
        let other = json!({ "user_id": 1, "wrapped_dek": STANDARD.encode(noise(80)) });
        refused(&user.post(&keys, &other), 409, "key_exists");
        refused(
            &user.post(&keys, &json!({ "user_id": 2, "wrapped_dek": first })),
            403,
            "not_yours",
        );
        refused(&user.post(&keys, &json!({ "user_id": 1 })), 400, "bad_request");
        refused(&user.post(&keys, &json!({ "wrapped_dek": "!" })), 400, "bad_request");
        assert_eq!(user.read(&path)["wrapped_dek"], first);
    }
}

#[test]
fn a_deleted_entity_is_gone_everywhere_and_its_slug_is_free_for_a_new_id() {
    let server = serve(&[]);
    let user = server.user("a@example.org");
    for kind in KINDS {
        let id = add(&user, kind, "s");
        push(&user, kind, id, b"state");
        user.post(&format!("/api/{kind}s/{id}/keys"), &json!({ "wrapped_dek": "AAAA" }));
        let path = format!("/api/{kind}s/{id}");
        assert_eq!(user.delete(&path).json(), json!({ "ok": true }));
        for gone in ["", "/blob", "/versions", "/versions/1"] {
            refused(&user.get(&format!("{path}{gone}")), 404, "not_found");
        }
        refused(&user.delete(&path), 404, "not_found");
        refused(&user.patch(&path, &json!({ "name": "x" })), 404, "not_found");
        let version = json!({ "ciphertext": "AAAA" });
        refused(&user.post(&format!("{path}/versions"), &version), 404, "not_found");
        let key = json!({ "wrapped_dek": "AAAA" });
        refused(&user.post(&format!("{path}/keys"), &key), 404, "not_found");
        let new = add(&user, kind, "s");
        assert!(new > id);
        let row = user.read(&format!("/api/{kind}s/{new}"));
        assert_eq!((&row[kind]["current_version"], &row["wrapped_dek"]), (&json!(0), &Value::Null));
    }
    assert_eq!(server.files("snapshots"), 5, "the bytes wait for a prune");
}

#[test]
fn the_default_mark_moves() {
    let server = serve(&[]);
    let user = server.user("a@example.org");
    for slug in ["one", "two"] {
        let body = json!({ "slug": slug, "name": "x", "is_default": true });
        assert_eq!(user.post("/api/profiles", &body).json()["profile"]["is_default"], true);
    }
    let list = user.read("/api/profiles")["profiles"].clone();
    let marks: Vec<_> = list.as_array().unwrap().iter().map(|p| &p["is_default"]).collect();
    assert_eq!(marks, [false, true]);
}

#[test]
fn workspaces_go_into_profiles_and_out_twice_as_well_as_once() {
    let server = serve(&[]);
    let user = server.user("a@example.org");
    let (profile, workspace) = (add(&user, "profile", "p"), add(&user, "workspace", "w"));
    let path = format!("/api/profiles/{profile}/workspaces");
    for _ in 0..2 {
        let body = json!({ "workspace_id": workspace });
        assert_eq!(user.post(&path, &body).json(), json!({ "ok": true }));
    }
    for _ in 0..2 {
        assert_eq!(user.delete(&format!("{path}/{workspace}")).status, 200);
    }
    refused(&user.post(&path, &json!({ "workspace_id": 99 })), 404, "not_found");
    refused(&user.post(&path, &json!({})), 400, "bad_request");
    refused(
        &user.post("/api/profiles/99/workspaces", &json!({ "workspace_id": 1 })),
        404,
        "not_found",
    );
}

#[test]
fn a_damaged_version_is_named_and_not_served() {
    let mut server = serve(&[]);
    server.errors_expected = true;
    let user = server.user("a@example.org");
    let id = add(&user, "module", "s");
    push(&user, "module", id, &noise(1000));
    let file = super::support::files(&server.data().join("snapshots")).remove(0);
    std::fs::write(file, vec![0; 1000]).unwrap();
    let answer = user.get(&format!("/api/modules/{id}/blob"));
    refused(&answer, 500, "snapshot_damaged");
    assert!(answer.json()["error"].as_str().unwrap().contains("module 1 version 1"));
    assert!(server.cli(&["check"]).out.contains("module 1 version 1 is damaged"));
}

#[test]
fn versions_count_against_the_quota() {
    let server = serve(&["--quota", "100"]);
    let user = server.user("a@example.org");
    let id = add(&user, "project", "s");
    push(&user, "project", id, &[7; 100]);
    let answer =
        user.post(&format!("/api/projects/{id}/versions"), &json!({ "ciphertext": "AAAA" }));
    refused(&answer, 507, "quota_exceeded");
    assert_eq!(user.read("/api/usage")["stored_bytes"], 100);
}

#[test]
fn a_list_stays_one_answer_of_a_few_megabytes() {
    let server = serve(&[]);
    let user = server.user("a@example.org");
    let long = "é".repeat(4096);
    let mut status = 201;
    let mut added = 0;
    while status == 201 && added < 1000 {
        let config = json!({ "slug": format!("c{added}"), "name": "c", "description": long,
                             "source_hint": long });
        status = user.post("/api/configs", &config).status;
        added += 1;
    }
    assert!(status == 409 && (200..400).contains(&added), "{status} after {added}");
    assert_eq!(user.read("/api/configs")["configs"].as_array().unwrap().len(), added - 1);
    let other = json!({ "slug": "w", "name": "w" });
    assert_eq!(user.post("/api/workspaces", &other).status, 201, "a list of its own");
}
