//! `status`: the state of a data folder at a glance.

use std::io::{IsTerminal, stdout};
use std::path::Path;

use serde_json::{Value, json};

use super::args::Args;
use super::output::{ago, lines, print, print_lines, size, warning};
use super::settings::number;
use super::{CliError, CommandResult};
use crate::store::Store;
use crate::store::status::Status;
use crate::util::time::{now_ms, rfc3339};
use crate::util::types::visible;

pub fn run(mut args: Args) -> CommandResult {
    let as_json = args.flag("--json");
    let stale_days = args.value("--stale-days", number("N", 0))?.unwrap_or(0);
    let data = args.finish()?;
    let status = Store::open_to_read(&data)?.status(stale_days)?;
    let data = std::path::absolute(&data).unwrap_or(data);
    match as_json {
        true => print(format_args!("{}\n", json(&status, &data)))?,
        false => print_lines(&text(&status, &data, stdout().is_terminal()))?,
    }
    if status.attention.is_empty() { Ok(()) } else { Err(CliError::Attention) }
}

fn text(status: &Status, data: &Path, human: bool) -> Vec<String> {
    let (version, now) = (env!("CARGO_PKG_VERSION"), now_ms());
    let state = if status.running { "running" } else { "not running" };
    let (free, least) = (size(status.free_bytes, human), size(status.min_free_bytes, human));
    let mut text = vec![
        format!(
            "configsync-server {version}, {state}, on {}",
            visible(&data.display().to_string())
        ),
        format!("disk: {free} free, --min-free {least}"),
    ];
    let failed = status.failed_backup.filter(|_| status.failed_backup > status.last_backup);
    for (what, at, always) in [
        ("last good backup", status.last_backup, true),
        ("last backup that failed", failed, false),
        ("last check", status.last_check, true),
        ("last off-site copy", status.last_offsite, false),
    ] {
        if always || at.is_some() {
            text.push(format!("{what}: {}", at.map_or("never".into(), |at| ago(at, now))));
        }
    }
    for table in [&status.users, &status.machines] {
        text.push(String::new());
        text.extend(lines(table, human, Some(now)));
    }
    text.extend(status.attention.iter().map(|sentence| warning(&visible(sentence))));
    text
}

fn json(status: &Status, data: &Path) -> Value {
    let time = |at: Option<i64>| at.map(rfc3339);
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "data": data.display().to_string(),
        "running": status.running,
        "disk": { "free_bytes": status.free_bytes, "min_free_bytes": status.min_free_bytes },
        "users": status.users.objects(),
        "machines": status.machines.objects(),
        "last_backup": time(status.last_backup),
        "last_check": time(status.last_check),
        "last_offsite": time(status.last_offsite),
        "attention": status.attention,
    })
}
