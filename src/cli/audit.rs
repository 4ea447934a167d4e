//! `audit`: prints the audit log.

use super::args::{Args, Value};
use super::output::print_lines;
use super::{CliError, Done, settings};
use crate::store::Store;
use crate::store::audit::{EVENTS, moment};

pub fn run(mut args: Args) -> Done {
    let time = |value: Option<Value>, otherwise| {
        let read = |value: Value| {
            moment(&value.text).ok_or_else(|| value.refuse(settings::takes("RFC3339")))
        };
        value.map_or(Ok(otherwise), read)
    };
    let since = time(args.value("--since", "RFC3339")?, i64::MIN)?;
    let until = time(args.value("--until", "RFC3339")?, i64::MAX)?;
    let user = args.value("--user", "EMAIL")?.map(|user| user.email()).transpose()?;
    let event = args.value("--event", "NAME")?.map(event).transpose()?;
    let store = Store::open_to_read(&args.finish()?)?;
    store.each_audit_row(since..=until, user.as_ref(), event.as_deref(), print_lines)
}

fn event(value: Value) -> Result<String, CliError> {
    match EVENTS.contains(&value.text.as_str()) {
        true => Ok(value.text),
        false => Err(value.refuse(format_args!("one of {}", EVENTS.join(", ")))),
    }
}
