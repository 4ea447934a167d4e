//! `action …`: queues a change for a machine, which its next `configsync sync` applies.

use serde_json::Value;

use super::args::Args;
use super::{Done, print};
use crate::store::Store;
use crate::types::{MachineId, Name};

/// `action add EMAIL MACHINE ACTION JSON`.
pub fn add(mut args: Args) -> Done {
    let email = args.email()?;
    let machine = args.positional("MACHINE")?;
    let action = args.positional("ACTION")?;
    let payload = args.positional("JSON")?;
    let data = args.finish()?;
    let machine: MachineId = machine.checked()?;
    let action: Name = action.checked()?;
    let object: Value = serde_json::from_str(&payload.text)
        .ok()
        .filter(Value::is_object)
        .ok_or_else(|| payload.refuse("this is no JSON object"))?;
    let id = Store::open(&data)?.add_action(&email, &machine, &action, &object.to_string())?;
    print(format_args!("action {id} waits for {machine}\n"))
}
