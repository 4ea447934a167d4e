//! `scripts/export.py`: everything in a backup as plain files.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::fixture::{files, with_machine, with_two_users};

/// None where there is no Python.
fn export(args: &[&str]) -> Option<Output> {
    let done = Command::new("python3").arg("scripts/export.py").args(args).output();
    if done.is_err() {
        println!("skipped: no python3 here");
    }
    done.ok()
}

#[test]
fn a_backup_becomes_plain_files_with_an_index() {
    let (server, a, b) = with_two_users(&[]);
    for user in [&a, &b] {
        user.register("m");
        user.stored("m", user.email.as_bytes());
    }
    a.post("/api/projects", &json!({ "slug": "app", "name": "App" }));
    a.post("/api/projects/1/versions", &json!({ "ciphertext": "AAAA" }));
    a.post("/api/projects/1/keys", &json!({ "wrapped_dek": "BBBB" }));
    a.put("/api/projects/1/env/X", &json!({ "environment_tier": "d", "encrypted_value": "CCCC" }));
    let (copy, dest) = (server.beside("copy"), server.beside("export"));
    server.ok(&["backup", &copy]);
    let Some(done) = export(&[&copy, &dest]) else { return };
    assert!(done.status.success(), "{done:?}");

    let folder = Path::new(&dest).join("user-1");
    let index: Value =
        serde_json::from_slice(&fs::read(folder.join("index.json")).unwrap()).unwrap();
    let file = |row: &Value| fs::read(folder.join(row["file"].as_str().unwrap())).unwrap();
    assert_eq!(index["user"], json!({ "id": 1, "email": "a@example.org" }));
    let machines = a.read("/api/machines");
    assert_eq!(index["machines"], machines["machines"], "as the API shows them");
    let mut snapshot = a.read("/api/machines/history")["snapshots"][0].clone();
    snapshot["file"] = json!("snapshots/1.bin");
    assert_eq!(index["snapshots"], json!([snapshot]));
    assert_eq!(file(&index["snapshots"][0]), b"a@example.org");
    let project = &index["entities"][0];
    assert_eq!((&project["kind"], &project["slug"]), (&json!("project"), &json!("app")));
    assert_eq!(project["wrapped_dek"], "BBBB");
    assert_eq!(project["variables"][0]["encrypted_value"], "CCCC");
    assert_eq!(file(&project["versions"][0]), [0, 0, 0]);
    assert!(Path::new(&dest).join("user-2/index.json").exists());

    let again = export(&[&copy, &dest]).unwrap();
    assert_eq!(again.status.code(), Some(1), "{again:?}");
    let one = server.beside("one");
    assert!(export(&[&copy, &one, "B@example.org"]).unwrap().status.success());
    assert!(!Path::new(&one).join("user-1").exists() && Path::new(&one).join("user-2").exists());
}

#[test]
fn what_is_damaged_is_named_and_left_out_and_a_folder_in_use_is_refused() {
    let (server, user) = with_machine(&[]);
    user.stored("m", b"state");
    let (copy, dest) = (server.beside("copy"), server.beside("export"));
    let data = server.data();
    let Some(used) = export(&[data.to_str().unwrap(), &dest]) else { return };
    assert!(String::from_utf8(used.stderr).unwrap().contains("backup DEST"));
    assert!(!Path::new(&dest).exists());
    server.ok(&["backup", &copy]);
    fs::write(files(&Path::new(&copy).join("snapshots")).remove(0), b"wrong").unwrap();
    let done = export(&[&copy, &dest]).unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(done.status.code() == Some(1) && said.contains("snapshots/1.bin"), "{said}");
    let index = fs::read(Path::new(&dest).join("user-1/index.json")).unwrap();
    let index: Value = serde_json::from_slice(&index).unwrap();
    assert!(index["snapshots"][0]["file"].is_null());
    assert_eq!(files(Path::new(&dest)).len(), 1);
}
