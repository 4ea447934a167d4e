//! The log: one line per event on standard error, written by one thread behind a bounded queue, so
//! that a slow reader delays nobody. Callers never pass it a secret.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{LazyLock, OnceLock};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use crate::util::limits::{LOG_LINES_MAX, LOG_PAUSE_MS};
use crate::util::time::{now_ms, rfc3339};
use crate::util::types::visible;

/// Severity of a line: its word in the line, and its priority in the journal (syslog(3)).
#[derive(Clone, Copy)]
pub struct Level(&'static str, u8);

impl Level {
    /// Normal work.
    pub const INFO: Level = Level("info", 6);
    /// Something an operator should look at some day.
    pub const WARN: Level = Level("warn", 4);
    /// Something an operator should look at now.
    pub const ERROR: Level = Level("error", 3);
}

/// The output format and the queue. True: one JSON object per line, with `time`, `level`, `msg` and
/// the fields. False: `TIME LEVEL message key=value …`.
static QUEUE: OnceLock<(bool, SyncSender<String>)> = OnceLock::new();
/// Number of lines that are queued or being written.
static PENDING: AtomicUsize = AtomicUsize::new(0);
static DROPPED: AtomicUsize = AtomicUsize::new(0);

/// Starts the writer thread; until then, callers write their lines themselves, as text.
pub fn start(json: bool) -> std::io::Result<()> {
    let (sender, receiver) = sync_channel(LOG_LINES_MAX);
    std::thread::Builder::new().name("log".into()).spawn(move || write_lines(&receiver))?;
    let _ = QUEUE.set((json, sender));
    Ok(())
}

/// Waits, at most one second, until all lines logged so far are written.
pub fn flush() {
    let begin = Instant::now();
    while PENDING.load(Ordering::Acquire) > 0 && begin.elapsed() < Duration::from_secs(1) {
        std::thread::sleep(Duration::from_millis(LOG_PAUSE_MS));
    }
}

pub fn info(msg: &str) {
    event(Level::INFO, msg, &[]);
}

pub fn warn(msg: &str) {
    event(Level::WARN, msg, &[]);
}

pub fn error(msg: &str) {
    event(Level::ERROR, msg, &[]);
}

/// Logs `msg` with fields; a text line omits null fields.
pub fn event(level: Level, msg: &str, fields: &[(&str, Value)]) {
    let queue = QUEUE.get();
    let text = match queue {
        Some((true, _)) => json_line(level, msg, fields),
        _ => text_line(level, msg, fields),
    };
    let line = format!("{}{text}\n", priority(level));
    let Some((_, sender)) = queue else { return write_stderr(&line) };
    PENDING.fetch_add(1, Ordering::AcqRel);
    if sender.try_send(line).is_err() {
        PENDING.fetch_sub(1, Ordering::AcqRel);
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

/// Logs where a panic happened, but not its message, which could contain a secret.
pub fn install_panic_hook() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        error(&format!("internal error: panic at {place}"));
        // The process may end right after this line.
        flush();
    }));
}

/// Whether standard error goes to systemd's journal; read once, not for each line.
static TO_JOURNAL: LazyLock<bool> = LazyLock::new(|| std::env::var_os("JOURNAL_STREAM").is_some());

/// The prefix of a line: its priority if standard error goes to systemd's journal, else nothing.
pub fn priority(level: Level) -> String {
    if *TO_JOURNAL { format!("<{}>", level.1) } else { String::new() }
}

fn text_line(level: Level, msg: &str, fields: &[(&str, Value)]) -> String {
    // A line break inside a message would forge a second line.
    let mut line = format!("{} {:5} {}", rfc3339(now_ms()), level.0, visible(msg));
    for (key, value) in fields {
        match value {
            Value::Null => {}
            Value::String(text) if text.bytes().all(|b| b.is_ascii_graphic() && b != b'"') => {
                line.push_str(&format!(" {key}={text}"));
            }
            other => line.push_str(&format!(" {key}={other}")),
        }
    }
    line
}

fn json_line(level: Level, msg: &str, fields: &[(&str, Value)]) -> String {
    let time = rfc3339(now_ms()).into();
    let every = [("time", time), ("level", level.0.into()), ("msg", visible(msg).into())];
    let members = every.iter().chain(fields);
    let object: Map<_, _> = members.map(|(key, value)| ((*key).into(), value.clone())).collect();
    Value::Object(object).to_string()
}

/// Lines that arrive shortly after each other are written together, and wake this thread once.
fn write_lines(receiver: &Receiver<String>) {
    while let Ok(mut text) = receiver.recv() {
        std::thread::sleep(Duration::from_millis(LOG_PAUSE_MS));
        let mut lines = 1;
        for line in receiver.try_iter().take(LOG_LINES_MAX) {
            text.push_str(&line);
            lines += 1;
        }
        let dropped = DROPPED.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            // The queue was just emptied, so it has room for this line.
            warn(&format!("{dropped} log lines dropped"));
        }
        write_stderr(&text);
        PENDING.fetch_sub(lines, Ordering::AcqRel);
    }
}

/// A closed standard error ends the log, never the server (eprintln would panic).
fn write_stderr(lines: &str) {
    let _ = std::io::stderr().lock().write_all(lines.as_bytes());
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const SECRET: &str = "cs_a-secret-that-a-panic-was-given";

    #[test]
    #[ignore = "run by the test below, in a process of its own"]
    fn a_thread_that_panics_with_a_secret() {
        install_panic_hook();
        let panicked = std::thread::spawn(|| panic!("{SECRET}")).join();
        assert!(panicked.is_err());
    }

    #[test]
    fn a_panic_prints_its_place_and_not_what_it_was_given() {
        let mut itself = Command::new(std::env::current_exe().unwrap());
        let name = "util::log::tests::a_thread_that_panics_with_a_secret";
        let ran = itself.args(["--exact", name, "--ignored", "--nocapture"]).output().unwrap();
        let shown = [ran.stdout, ran.stderr].concat();
        let shown = String::from_utf8(shown).unwrap();
        assert!(ran.status.success() && shown.contains("1 passed"), "{shown}");
        assert!(shown.contains("internal error: panic at src/util/log.rs:"), "{shown}");
        assert!(!shown.contains(SECRET), "{shown}");
    }

    #[test]
    fn a_text_line_cannot_be_broken_in_two() {
        let line =
            text_line(Level::WARN, "a\nb", &[("path", "/x\n".into()), ("user", Value::Null)]);
        assert!(!line.contains('\n'));
        assert!(line.ends_with("warn  a\\u{a}b path=\"/x\\n\""), "{line}");
    }

    #[test]
    fn a_json_line_has_time_level_msg_and_the_fields() {
        let line =
            json_line(Level::INFO, "request", &[("status", 200.into()), ("user", Value::Null)]);
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["msg"], "request");
        assert_eq!(value["level"], "info");
        assert_eq!(value["status"], 200);
        assert!(value["user"].is_null() && value["time"].is_string());
    }
}
