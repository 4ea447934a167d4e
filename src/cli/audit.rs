//! `audit`: prints the audit log.

use super::args::{Args, Value};
use super::output::print_lines;
use super::{CliError, Done};
use crate::store::Store;
use crate::store::audit::{EVENTS, Filter, moment};

pub fn run(mut args: Args) -> Done {
    let mut time = |flag, otherwise| {
        args.value(flag, "RFC3339")?.map_or(Ok(otherwise), |value| value.read(moment))
    };
    let (since, until) = (time("--since", i64::MIN)?, time("--until", i64::MAX)?);
    let user = args.value("--user", "EMAIL")?.map(|user| user.email()).transpose()?;
    let event = args.value("--event", "NAME")?.map(event).transpose()?;
    let store = Store::open_to_read(&args.finish()?)?;
    let mut printed = Ok(());
    store.each_audit_row(&Filter { since, until, user, event }, |rows| {
        printed = print_lines(rows);
        printed.is_ok()
    })?;
    printed
}

fn event(value: Value) -> Result<String, CliError> {
    match EVENTS.contains(&value.text.as_str()) {
        true => Ok(value.text),
        false => Err(value.refuse(format_args!("one of {}", EVENTS.join(", ")))),
    }
}
