//! The rooms of the source: no layer looks up, no modules import each other in a circle, and only
//! one file names tiny_http. scripts/count reads the sources, without their unit tests.

use std::process::Command;

/// Asserts that this line is what scripts/count prints.
#[track_caller]
fn is_counted(line: &str) {
    let ran = Command::new("python3").arg("scripts/count").output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(said.lines().any(|found| found == line), "{line} in {said} {ran:?}");
}

#[test]
fn no_room_uses_what_stands_above_it() {
    is_counted("uses of a room above: none");
}

#[test]
fn no_modules_import_each_other_in_a_circle() {
    is_counted("modules in import circles: none; loose files: 0");
}

#[test]
fn one_file_names_tiny_http() {
    is_counted("tiny_http is named by: app::server");
}
