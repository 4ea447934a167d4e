//! `scripts/export.py`: everything in a backup as plain files.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::fixture::{files, names, with_machine, with_two_users};

fn export(args: &[&str]) -> Output {
    Command::new("python3").arg("scripts/export.py").args(args).output().unwrap()
}

/// The index of the first user.
fn index_in(dest: &str) -> Value {
    let index = fs::read(Path::new(dest).join("user-1/index.json")).unwrap();
    serde_json::from_slice(&index).unwrap()
}

#[test]
fn a_backup_becomes_plain_files_with_an_index() {
    let (server, a, b) = with_two_users(&[]);
    for user in [&a, &b] {
        user.register("m");
        user.stored("m", user.email.as_bytes());
    }
    a.add("project", "app");
    a.push_version("project", 1, b"version");
    a.post("/api/projects/1/keys", &json!({ "wrapped_dek": "BBBB" })).is(201);
    a.put_variable("X", "CCCC").is(200);
    let (copy, dest) = (server.beside("copy"), server.beside("export"));
    server.ok(&["backup", &copy]);
    let done = export(&[&copy, &dest]);
    assert!(done.status.success(), "{done:?}");

    let folder = Path::new(&dest).join("user-1");
    let index = index_in(&dest);
    let file = |row: &Value| fs::read(folder.join(row["file"].as_str().unwrap())).unwrap();
    assert_eq!(index["user"], json!({ "id": 1, "email": "a@example.org" }));
    assert_eq!(index["machines"], a.read("/api/machines")["machines"], "as the API shows them");
    let mut snapshot = a.read("/api/machines/history")["snapshots"][0].clone();
    snapshot["file"] = json!("snapshots/1.bin");
    assert_eq!(index["snapshots"], json!([snapshot]));
    assert_eq!(file(&index["snapshots"][0]), b"a@example.org");
    let project = &index["entities"][0];
    assert_eq!((&project["kind"], &project["slug"]), (&json!("project"), &json!("app")));
    assert_eq!(project["wrapped_dek"], "BBBB");
    assert_eq!(project["variables"][0]["encrypted_value"], "CCCC");
    assert_eq!(file(&project["versions"][0]), b"version");
    let again = export(&[&copy, &dest]);
    assert_eq!(again.status.code(), Some(1), "{again:?}");
    let one = server.beside("one");
    assert!(export(&[&copy, &one, "B@example.org"]).status.success());
    assert_eq!(names(&dest), ["user-1", "user-2"].map(String::from).into());
    assert_eq!(names(&one), ["user-2".to_owned()].into());
}

#[test]
fn what_is_damaged_is_named_and_left_out_and_a_folder_in_use_is_refused() {
    let (server, user) = with_machine(&[]);
    user.stored("m", b"state");
    let (copy, dest) = (server.beside("copy"), server.beside("export"));
    let used = export(&[&server.beside("data"), &dest]);
    assert!(String::from_utf8(used.stderr).unwrap().contains("backup DEST"));
    assert!(!Path::new(&dest).exists());
    server.ok(&["backup", &copy]);
    fs::write(files(&Path::new(&copy).join("snapshots")).remove(0), b"wrong").unwrap();
    let done = export(&[&copy, &dest]);
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(done.status.code() == Some(1) && said.contains("snapshots/1.bin"), "{said}");
    assert!(index_in(&dest)["snapshots"][0]["file"].is_null());
    assert_eq!(files(Path::new(&dest)).len(), 1);
}
