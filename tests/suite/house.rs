//! The rooms of the source: no layer looks up, no modules import each other in a circle, and only
//! one file names tiny_http. The sources are read as text, without their unit tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::fixture::files;

/// Each room and those that it may use. Of `app`, the rooms below it may use the types alone.
const ROOMS: [(&str, &[&str]); 8] = [
    ("util", &[]),
    ("gate", &["util"]),
    ("store", &["util"]),
    ("auth", &["app", "store", "util"]),
    ("api", &["app", "auth", "store", "util"]),
    ("client_routes", &["app", "auth", "store", "util"]),
    ("app", &["api", "client_routes", "auth", "gate", "store", "util"]),
    ("cli", &["app", "api", "client_routes", "auth", "gate", "store", "util"]),
];
/// What of `app` is not a type that handlers use.
const ABOVE_HANDLERS: [&str; 3] = ["server", "admission", "routes"];

/// Paths such as `gate/head.rs` below src/, each with its source.
fn sources() -> BTreeMap<String, String> {
    let root = Path::new("src");
    let name = |path: &Path| path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
    let all = files(root).into_iter().map(|path| (name(&path), path));
    let ours = all.filter(|(name, _)| name.ends_with(".rs") && !name.ends_with("tests.rs"));
    let code = |path| {
        let text = fs::read_to_string(path).unwrap();
        let lines = text.lines().take_while(|line| line.trim() != "#[cfg(test)]");
        lines.map(|line| line.split("//").next().unwrap().to_owned() + "\n").collect()
    };
    ours.map(|(name, path)| (name, code(path))).collect()
}

/// The room of each path that begins with `crate::`, and the names that follow it: of a tree of
/// imports all of them.
fn uses(source: &str) -> Vec<(&str, Vec<&str>)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let paths = source.split("crate::").skip(1);
    let split = paths.map(|path| path.split_once("::").unwrap_or((path, "")));
    split
        .map(|(room, rest)| {
            let end =
                if rest.starts_with('{') { rest.find(';') } else { rest.find(|c| !is_word(c)) };
            let names = &rest[..end.unwrap_or(rest.len())];
            (room, names.split(|c| !is_word(c)).collect())
        })
        .collect()
}

#[test]
fn no_room_uses_what_stands_above_it() {
    let mut wrong = BTreeSet::new();
    for (file, source) in sources() {
        let (from, inner) = file.split_once('/').unwrap_or((&file, ""));
        let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == from) else {
            assert!(["main.rs", "lib.rs"].contains(&from), "{file} stands in no room");
            continue;
        };
        // By these a room would be left without its name.
        let leaves = if inner == "mod.rs" { "super::" } else { "super::super::" };
        assert!(!source.contains(leaves), "{file} names {leaves}");
        for (to, names) in uses(&source) {
            let types_alone = ["auth", "api", "client_routes"].contains(&from) && to == "app";
            let looks_up = types_alone && names.iter().any(|name| ABOVE_HANDLERS.contains(name));
            if looks_up || to != from && !allowed.contains(&to) {
                wrong.insert(format!("{file} uses crate::{to}::{}", names.join(" ")));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_modules_import_each_other_in_a_circle() {
    let ran = Command::new("python3").arg("scripts/count").output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(said.contains("modules in import circles: none; loose files: 0"), "{said}");
}

#[test]
fn one_file_names_tiny_http() {
    let all = sources();
    let named = all.iter().filter(|(_, source)| source.contains("tiny_http"));
    assert_eq!(named.map(|(file, _)| file.as_str()).collect::<Vec<_>>(), ["app/server.rs"]);
}
