//! The output of commands: tables, sizes, progress. A terminal gets columns, colour and progress; a
//! pipe gets tab-separated fields and sizes in bytes.

use std::fmt::Display;
use std::io::{ErrorKind, IsTerminal, Write, stderr, stdout};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{CliError, CommandResult};
use crate::store::status::Table;
use crate::util::time::rfc3339;
use crate::util::types::visible;

/// Writes to standard output; a failed write is an error, not a panic.
pub fn print(text: impl Display) -> CommandResult {
    match write_out(text) {
        // A reader that stops early, such as `head`, is not an error.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(could_not("write to standard output")),
    }
}

pub fn write_out(text: impl Display) -> std::io::Result<()> {
    let mut out = stdout().lock();
    write!(out, "{text}").and_then(|()| out.flush())
}

/// An error that says what failed, with the system's reason.
pub fn could_not(what: impl Display) -> impl FnOnce(std::io::Error) -> CliError {
    move |error| CliError::Failed(format!("could not {what}: {error}"))
}

/// Prints each line.
pub fn print_lines(lines: &[String]) -> CommandResult {
    print(lines.iter().flat_map(|line| [line, "\n"]).collect::<String>())
}

/// Prints a table: on a terminal, in columns with a header.
pub fn print_table(table: &Table) -> CommandResult {
    print_lines(&lines(table, stdout().is_terminal(), None))
}

/// The lines of a table: padded columns with a header if `human`, else tab-separated fields. With
/// `now`, times are shown relative to it.
pub fn lines(table: &Table, human: bool, now: Option<i64>) -> Vec<String> {
    let cells = |row: &Vec<Value>| -> Vec<String> {
        row.iter().zip(&table.columns).map(|(value, name)| cell(name, value, human, now)).collect()
    };
    let mut rows: Vec<Vec<String>> = table.rows.iter().map(cells).collect();
    if !human || rows.is_empty() {
        return rows.iter().map(|row| row.join("\t")).collect();
    }
    rows.insert(0, table.columns.iter().map(|name| header(name)).collect());
    let width = |n: usize| {
        let of_row = |row: &Vec<String>| row.get(n).map_or(0, |cell| cell.chars().count());
        rows.iter().map(of_row).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..table.columns.len()).map(width).collect();
    let padded = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}  "));
        cells.collect::<String>().trim_end().to_owned()
    };
    rows.iter().map(padded).collect()
}

/// Formats a cell by the unit in its column's name: `stored_bytes` is a size, `created_at` a time.
fn cell(column: &str, value: &Value, human: bool, now: Option<i64>) -> String {
    let unit = column.rsplit_once('_').map_or("", |(_, unit)| unit);
    match (unit, value, value.as_i64()) {
        ("at", Value::Null, _) => "never".into(),
        (_, Value::Null, _) => "-".into(),
        ("at", _, Some(at)) => now.map_or_else(|| rfc3339(at), |now| ago(at, now)),
        ("bytes", _, Some(bytes)) => size(bytes.unsigned_abs(), human),
        (_, Value::String(text), _) => visible(text),
        (_, other, _) => other.to_string(),
    }
}

fn header(column: &str) -> String {
    let name = column.strip_suffix("_at").or(column.strip_suffix("_bytes")).unwrap_or(column);
    name.replace('_', " ").to_uppercase()
}

/// Formats a number of bytes, with a unit if `human`.
pub fn size(bytes: u64, human: bool) -> String {
    let (mut number, mut unit) = (bytes as f64, "B");
    let mut larger = ["KiB", "MiB", "GiB", "TiB"].into_iter();
    while number >= 1023.95
        && let Some(next) = larger.next()
    {
        (number, unit) = (number / 1024.0, next);
    }
    match unit {
        _ if !human => bytes.to_string(),
        "B" => format!("{bytes} B"),
        unit => format!("{number:.1} {unit}"),
    }
}

/// Shows the progress of a long command in bytes, percent and time left, on a terminal only.
pub fn progress(done: &'static str) -> impl FnMut(u64, u64) {
    let (shown, start) = (stderr().is_terminal(), Instant::now());
    let mut last = start;
    move |bytes, total| {
        if shown && last.elapsed() >= Duration::from_millis(200) {
            last = Instant::now();
            let text = progress_line(done, bytes, total, start.elapsed());
            let _ = write!(stderr(), "\r{text}\x1b[K\r");
        }
    }
}

fn progress_line(done: &str, bytes: u64, total: u64, took: Duration) -> String {
    let part = bytes as f64 / total as f64;
    let left = took.as_secs_f64() * (1.0 - part) / part.max(f64::EPSILON);
    let (bytes, total) = (size(bytes, true), size(total, true));
    let percent = part * 100.0;
    let left = Duration::try_from_secs_f64(left).unwrap_or(Duration::MAX).as_secs();
    format!("{bytes} of {total} {done}, {percent:.0} %, {} left", span(left))
}

/// Formats how long ago `at` was; both are in milliseconds since 1970.
pub fn ago(at: i64, now: i64) -> String {
    format!("{} ago", span(u64::try_from(now.saturating_sub(at) / 1000).unwrap_or(0)))
}

/// A line that asks for attention, in red on a terminal unless `NO_COLOR` is set.
pub fn warning(sentence: &str) -> String {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    match stdout().is_terminal() && !plain {
        true => format!("\x1b[1;31m! {sentence}\x1b[0m"),
        false => format!("! {sentence}"),
    }
}

/// Formats a duration in one unit.
fn span(seconds: u64) -> String {
    let (n, unit) = match seconds {
        0..120 => (seconds, "second"),
        120..7_200 => (seconds / 60, "minute"),
        7_200..172_800 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{n} {unit}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests;
