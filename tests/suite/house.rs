//! The rooms of the source: no layer looks up, no modules import each other in a circle, and only
//! one file names tiny_http. The sources are read as text, without their unit tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::fixture::files;

/// Each room and those that it may use. Of `app`, the rooms below it may use the types alone.
const ROOMS: [(&str, &[&str]); 8] = [
    ("util", &[]),
    ("gate", &["util"]),
    ("store", &["util"]),
    ("auth", &["app", "store", "util"]),
    ("api", &["app", "auth", "store", "util"]),
    ("dialect", &["app", "auth", "store", "util"]),
    ("app", &["api", "dialect", "auth", "gate", "store", "util"]),
    ("cli", &["app", "api", "dialect", "auth", "gate", "store", "util"]),
];
/// What of `app` is not a type that handlers use.
const ABOVE_HANDLERS: [&str; 3] = ["server", "admission", "routes"];

/// Module paths such as `gate::head`, each with its source.
fn modules() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let sources =
        files(&root).into_iter().filter(|path| path.extension().is_some_and(|e| e == "rs"));
    let tests = |path: &std::path::PathBuf| path.ends_with("tests.rs");
    let module = |path: std::path::PathBuf| {
        let name = path.strip_prefix(&root).unwrap().with_extension("");
        let name = name.to_str().unwrap().replace('/', "::");
        let text = fs::read_to_string(path).unwrap();
        let code: Vec<_> = text
            .lines()
            .take_while(|line| line.trim() != "#[cfg(test)]")
            .map(|line| line.split("//").next().unwrap())
            .collect();
        (name.strip_suffix("::mod").unwrap_or(&name).to_owned(), code.join("\n"))
    };
    sources.filter(|path| !tests(path)).map(module).collect()
}

/// The paths of a use tree at the front of `text`, and what follows it.
fn paths(text: &str) -> (Vec<String>, &str) {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        let mut found = Vec::new();
        loop {
            let (more, after) = paths(rest);
            found.extend(more);
            rest = after.trim_start();
            match rest.strip_prefix(',') {
                Some(after) => rest = after,
                None => return (found, rest.strip_prefix('}').unwrap_or(rest)),
            }
        }
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    match rest.strip_prefix("::") {
        Some(inner) => {
            let (inner, rest) = paths(inner);
            (inner.iter().map(|path| format!("{name}::{path}")).collect(), rest)
        }
        None => (vec![name.to_owned()], rest),
    }
}

/// Absolute paths of everything that a module names by `crate::` or `super::`.
fn named(module: &str, source: &str) -> Vec<String> {
    let parent = module.rsplit_once("::").map_or("", |(parent, _)| parent);
    let absolute = |prefix: &str| -> Vec<String> {
        let places = source.match_indices(prefix).map(|(at, found)| &source[at + found.len()..]);
        places.flat_map(|text| paths(text).0).collect()
    };
    let of_parent =
        absolute("super::").into_iter().map(|path| match path.strip_prefix("super::") {
            Some(path) => path.to_owned(),
            None if parent.is_empty() => path,
            None => format!("{parent}::{path}"),
        });
    absolute("crate::").into_iter().chain(of_parent).collect()
}

/// The module that defines what a path names, through one re-export of a room.
fn home(path: &str, all: &BTreeMap<String, String>) -> Option<String> {
    let words: Vec<&str> = path.split("::").collect();
    let prefixes = (1..=words.len()).rev().map(|n| words[..n].join("::"));
    let module = prefixes.into_iter().find(|prefix| all.contains_key(prefix))?;
    let item = words.get(module.split("::").count())?;
    let exports = all[&module]
        .match_indices("pub use ")
        .flat_map(|(at, found)| paths(&all[&module][at + found.len()..]).0);
    let source = exports
        .filter_map(|export| Some(export.strip_suffix(&format!("::{item}"))?.to_owned()))
        .map(|child| format!("{module}::{child}"))
        .find(|child| all.contains_key(child));
    Some(source.unwrap_or(module))
}

fn room(module: &str) -> &str {
    module.split("::").next().unwrap()
}

#[test]
fn no_room_uses_what_stands_above_it() {
    let mut wrong = BTreeSet::new();
    for (module, source) in modules() {
        let Some((from, allowed)) = ROOMS.iter().find(|(name, _)| *name == room(&module)) else {
            assert!(["main", "lib"].contains(&module.as_str()), "{module} stands in no room");
            continue;
        };
        for path in named(&module, &source) {
            let mut words = path.split("::");
            let (to, item) = (words.next().unwrap(), words.next().unwrap_or_default());
            let types_alone = ["auth", "api", "dialect"].contains(from) && to == "app";
            let allowed = to == *from || allowed.contains(&to);
            if allowed && !(types_alone && ABOVE_HANDLERS.contains(&item)) {
                continue;
            }
            wrong.insert(format!("{module} uses crate::{path}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_modules_import_each_other_in_a_circle() {
    let all = modules();
    let mut uses: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (module, source) in &all {
        let homes = named(module, source).into_iter().filter_map(|path| home(&path, &all));
        // A room's own mod.rs is not counted: it is the room.
        let counts = |to: &String| to != module && to != room(module);
        uses.insert(module, homes.filter(counts).collect());
    }
    // What uses nothing that is left goes, and what nothing uses that is left: circles stay.
    loop {
        let before = uses.len();
        let left: BTreeSet<String> = uses.keys().map(|module| (*module).to_owned()).collect();
        let used: BTreeSet<String> = uses.values().flatten().cloned().collect();
        uses.retain(|module, to| used.contains(*module) && !to.is_disjoint(&left));
        if uses.len() == before {
            break;
        }
    }
    let left: BTreeSet<String> = uses.keys().map(|module| (*module).to_owned()).collect();
    let edges = |(from, to): (&&str, &BTreeSet<String>)| -> Vec<String> {
        to.intersection(&left).map(|to| format!("{from} -> {to}")).collect()
    };
    let circle: Vec<String> = uses.iter().flat_map(edges).collect();
    assert!(circle.is_empty(), "{circle:#?}");
}

#[test]
fn one_file_names_tiny_http_and_none_lies_outside_a_room() {
    let all = modules();
    let named = all.iter().filter(|(_, source)| source.contains("tiny_http"));
    assert_eq!(named.map(|(module, _)| module.as_str()).collect::<Vec<_>>(), ["app::server"]);
    let loose =
        all.keys().filter(|module| !module.contains("::") && room(module) == module.as_str());
    let rooms = ROOMS.map(|(name, _)| name);
    let loose: Vec<_> = loose.filter(|module| !rooms.contains(&module.as_str())).collect();
    assert_eq!(loose, ["lib", "main"]);
}
