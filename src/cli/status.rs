//! `status`: is everything all right, at a glance.

use std::io::{IsTerminal, stdout};

use serde_json::{Value, json};

use super::args::Args;
use super::output::{ago, lines, print, print_lines, size, warning};
use super::{CliError, Done};
use crate::store::Store;
use crate::store::status::{Fact, Table};
use crate::util::limits::{BACKUP_AGE_DAYS, FREE_BYTES_MIN, OFFSITE_AGE_DAYS, QUOTA_PERCENT};
use crate::util::time::{DAY_MS, now_ms, rfc3339};
use crate::util::types::visible;

/// What the data folder tells.
struct Status {
    data: String,
    running: bool,
    free_bytes: u64,
    min_free_bytes: u64,
    users: Table,
    machines: Table,
    last_backup: Option<i64>,
    failed_backup: Option<i64>,
    check: Option<(Value, i64)>,
    last_offsite: Option<i64>,
    now: i64,
}

pub fn run(mut args: Args) -> Done {
    let as_json = args.flag("--json");
    let stale_days = args.value("--stale-days", "N")?;
    let stale_days = stale_days.map_or(Ok(0), |days| days.number(0..=u64::from(u32::MAX)))?;
    let data = args.finish()?;
    let shown = std::path::absolute(&data).unwrap_or_else(|_| data.clone());
    let status = Status::read(&Store::open_to_read(&data)?, shown.display().to_string())?;
    let sentences = status.attention(stale_days);
    match as_json {
        true => print(format_args!("{}\n", status.json(&sentences)))?,
        false => {
            let mut text = status.lines(stdout().is_terminal());
            text.extend(sentences.iter().map(|sentence| warning(sentence)));
            print_lines(&text)?;
        }
    }
    if sentences.is_empty() { Ok(()) } else { Err(CliError::Attention) }
}

impl Status {
    fn read(store: &Store, data: String) -> Result<Status, CliError> {
        let start = store.noted(Fact::Start)?;
        let min_free = start.and_then(|(fact, _)| fact.get("min_free_bytes")?.as_u64());
        let at = |fact| Ok::<_, CliError>(store.noted(fact)?.map(|(_, at)| at));
        Ok(Status {
            data,
            running: store.server_runs()?,
            free_bytes: store.free_bytes()?,
            min_free_bytes: min_free.unwrap_or(FREE_BYTES_MIN),
            users: store.stored_table()?,
            machines: store.machine_table(None)?,
            last_backup: at(Fact::GoodBackup)?,
            failed_backup: at(Fact::FailedBackup)?,
            check: store.noted(Fact::Check)?,
            last_offsite: store.last_offsite()?,
            now: now_ms(),
        })
    }

    fn last_check(&self) -> Option<i64> {
        self.check.as_ref().map(|(_, at)| *at)
    }

    /// How many findings of one kind the last check had.
    fn found(&self, what: &str) -> u64 {
        self.check.as_ref().and_then(|(fact, _)| fact.get(what)?.as_u64()).unwrap_or(0)
    }

    fn ago(&self, at: Option<i64>) -> String {
        at.map_or("never".into(), |at| ago(at, self.now))
    }

    fn older_than_days(&self, at: Option<i64>, days: i64) -> bool {
        at.is_none_or(|at| self.now.saturating_sub(at) > days.saturating_mul(DAY_MS))
    }

    fn lines(&self, human: bool) -> Vec<String> {
        let version = env!("CARGO_PKG_VERSION");
        let state = if self.running { "running" } else { "not running" };
        let mut text = vec![
            format!("configsync-server {version}, {state}, on {}", visible(&self.data)),
            format!(
                "disk: {} free, --min-free {}",
                size(self.free_bytes, human),
                size(self.min_free_bytes, human)
            ),
            format!("last good backup: {}", self.ago(self.last_backup)),
            format!("last check: {}", self.ago(self.last_check())),
        ];
        if self.failed_backup > self.last_backup {
            text.push(format!("last backup that failed: {}", self.ago(self.failed_backup)));
        }
        if self.last_offsite.is_some() {
            text.push(format!("last off-site copy: {}", self.ago(self.last_offsite)));
        }
        for table in [&self.users, &self.machines].into_iter().filter(|t| !t.rows.is_empty()) {
            text.push(String::new());
            text.extend(lines(table, human, Some(self.now)));
        }
        text.push(String::new());
        text
    }

    /// What somebody should do something about, a sentence each.
    fn attention(&self, stale_days: i64) -> Vec<String> {
        let mut found = Vec::new();
        let (free, least) = (self.free_bytes, self.min_free_bytes);
        if free < least.saturating_mul(2) {
            found.push(format!(
                "the disk is short: {} free, pushes are refused below {}: free some, or run \
                 `configsync-server prune`",
                size(free, true),
                size(least, true)
            ));
        }
        found.extend(self.users.objects().iter().filter_map(short_of_quota));
        if self.users.rows.is_empty() {
            found.push(
                "no users: make one with `configsync-server user add EMAIL`, then `token create`"
                    .into(),
            );
        }
        let machines = self.machines.objects();
        found.extend(machines.iter().filter_map(|machine| self.silent(machine, stale_days)));
        if self.older_than_days(self.last_backup, BACKUP_AGE_DAYS) {
            let ago = self.ago(self.last_backup);
            found.push(format!(
                "last good backup: {ago}: make one with `configsync-server backup DEST`"
            ));
        }
        let damage = ["damaged", "orphans", "database"].map(|what| self.found(what));
        if damage.iter().any(|n| *n > 0) {
            let [damaged, orphans, database] = damage;
            found.push(format!(
                "the last check found damage ({damaged} snapshots, {orphans} orphans, {database} in the \
                 database): run `configsync-server check`, which says what mends it"
            ));
        }
        if self.last_offsite.is_some() && self.older_than_days(self.last_offsite, OFFSITE_AGE_DAYS)
        {
            let ago = self.ago(self.last_offsite);
            found.push(format!("last off-site copy: {ago}: look at the log of its script"));
        }
        found
    }

    fn silent(&self, machine: &Value, stale_days: i64) -> Option<String> {
        let pushed = machine.get("last_push_at")?.as_i64();
        let listed = machine.get("state")?.as_str() == Some("listed");
        let stale = stale_days > 0 && listed && self.older_than_days(pushed, stale_days);
        let (id, user) = (machine.get("machine_id")?.as_str()?, machine.get("user")?.as_str()?);
        stale.then(|| {
            let ago = self.ago(pushed);
            format!(
                "machine {} of {} is silent, last push: {ago}: see whether its client still runs",
                visible(id),
                visible(user)
            )
        })
    }

    fn json(&self, sentences: &[String]) -> Value {
        let time = |at: Option<i64>| at.map(rfc3339);
        let mut machines = self.machines.objects();
        for at in machines.iter_mut().filter_map(|machine| machine.get_mut("last_push_at")) {
            *at = json!(time(at.as_i64()));
        }
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "data": self.data,
            "running": self.running,
            "disk": { "free_bytes": self.free_bytes, "min_free_bytes": self.min_free_bytes },
            "users": self.users.objects(),
            "machines": machines,
            "last_backup": time(self.last_backup),
            "last_check": time(self.last_check()),
            "last_offsite": time(self.last_offsite),
            "attention": sentences,
        })
    }
}

fn short_of_quota(user: &Value) -> Option<String> {
    let number = |name| user.get(name).and_then(Value::as_u64).map(u128::from);
    let (stored, quota) = (number("stored_bytes")?, number("quota_bytes")?);
    let email = visible(user.get("email")?.as_str()?);
    (stored * 100 > quota * QUOTA_PERCENT).then(|| {
        let percent = stored * 100 / quota.max(1);
        format!(
            "{email} uses {percent} % of the quota: raise it with `configsync-server user quota`, or \
             delete old snapshots with `configsync-server prune`"
        )
    })
}
