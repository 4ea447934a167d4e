//! What the pages say of the code: every test, file and constant that they name is there, and every
//! number is that of the code. Two pages have counts of lines, which scripts/count compares; it reads
//! the imports too.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::fixture::assert_says;

/// Bounds that no client can meet.
const INTERNAL: [&str; 3] = ["UPSTREAM_HEAD_BYTES_MAX", "WAL_BYTES_MAX", "NAMES_SHOWN_MAX"];
const PAGES: [&str; 4] = ["SECURITY.md", "docs/design.md", "docs/hardening.md", "docs/audit.md"];

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// True if a file of this module has a function of this name.
fn has_test(name: &str) -> bool {
    let (module, test) = name.rsplit_once("::").unwrap();
    let path = module.replace("::", "/");
    let homes = ["tests/suite/{}.rs", "tests/{}.rs", "src/{}.rs", "src/{}/tests.rs"];
    homes.iter().any(|home| {
        let source = fs::read_to_string(home.replace("{}", &path)).unwrap_or_default();
        source.contains(&format!("fn {test}("))
    })
}

/// Asserts that the pages name more than so many of a kind, and that each of them is there.
#[track_caller]
fn assert_named(least: usize, is_kind: fn(&str) -> bool, is_there: fn(&str) -> bool) {
    let pages = PAGES.map(read).join("\n");
    let named: Vec<&str> =
        pages.split('`').skip(1).step_by(2).filter(|span| is_kind(span)).collect();
    let missing: Vec<&&str> = named.iter().filter(|span| !is_there(span)).collect();
    assert!(missing.is_empty() && named.len() > least, "{missing:?} of {}", named.len());
}

#[test]
fn every_test_and_file_that_a_page_names_is_there() {
    let is_name = |span: &str| {
        let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_:".contains(&b);
        span.contains("::") && span.bytes().all(is_plain)
    };
    assert_named(150, is_name, has_test);
    let is_path = |span: &str| ["src/", "tests/", "docs/"].iter().any(|top| span.starts_with(top));
    assert_named(50, is_path, |span| Path::new(span).exists());
}

/// The value of each constant of limits.rs that is a product of whole numbers.
fn limits() -> Vec<(String, u64)> {
    let text = read("src/util/limits.rs");
    let consts = text.lines().filter_map(|line| line.strip_prefix("pub const "));
    consts
        .filter_map(|line| {
            let (name, rest) = line.split_once(": ")?;
            let (_, value) = rest.strip_suffix(';')?.split_once(" = ")?;
            let factors = value.split(" * ").map(|n| n.replace('_', "").parse::<u64>());
            Some((name.to_owned(), factors.product::<Result<u64, _>>().ok()?))
        })
        .collect()
}

/// What `64 KiB`, `10 s` or `1,024` is in bytes, milliseconds or pieces.
fn amount(text: &str) -> Option<u64> {
    let (number, unit) = text.split_once(' ').unwrap_or((text, ""));
    let unit = match unit {
        "" | "ms" => 1,
        "KiB" => 1024,
        "MiB" => 1024 * 1024,
        "s" => 1000,
        "min" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    Some(number.replace(',', "").parse::<u64>().ok()? * unit)
}

#[test]
fn every_bound_is_in_the_table_with_its_number_and_a_test() {
    let page = read("docs/hardening.md");
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("|---"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let limits = limits();
    for row in &rows {
        let [_, name, number, _, _, test] = row.as_slice() else { panic!("{row:?}") };
        if *name == "name" {
            continue;
        }
        assert!(test.contains("::"), "{row:?} names no test");
        if name.is_empty() {
            continue;
        }
        let name = name.trim_matches('`');
        let value = limits.iter().find(|(known, _)| known == name);
        let (_, value) = value.unwrap_or_else(|| panic!("{name} is not in limits.rs"));
        let unit = match name.rsplit('_').next() {
            Some("S") if !name.ends_with("_PER_S") => 1000,
            Some("HOURS") => 3_600_000,
            Some("KIB") => 1024,
            _ => 1,
        };
        assert_eq!(amount(number), Some(value * unit), "{name}: {number}");
    }
    for (name, _) in limits.iter().filter(|(name, _)| name.contains("_MAX")) {
        let mut named = rows.iter().map(|row| row[1].trim_matches('`')).chain(INTERNAL);
        assert!(named.any(|n| n == name), "{name} is not in docs/hardening.md");
    }
}

/// What scripts/count prints.
#[track_caller]
fn counted(args: &[&str]) -> String {
    let ran = Command::new("python3").arg("scripts/count").args(args).output().unwrap();
    assert!(ran.status.success(), "run `scripts/count --write`: {ran:?}");
    String::from_utf8(ran.stdout).unwrap()
}

#[test]
fn the_counts_of_lines_in_the_pages_are_those_of_the_code() {
    counted(&["--check"]);
}

#[test]
fn no_room_uses_what_stands_above_it_and_no_modules_import_each_other_in_a_circle() {
    let lines = [
        "modules in import circles: none; loose files: 0\n",
        "uses of a room above: none\n",
        "tiny_http is named by: app::server\n",
    ];
    assert_says(&counted(&[]), &lines);
}
