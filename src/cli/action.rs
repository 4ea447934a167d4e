//! `action …`: queues a change for a machine, which its next `configsync sync` applies.

use serde_json::Value;

use super::args::Args;
use super::{Done, open_store, print};
use crate::types::{MachineId, Name};

pub const HELP: &str = "\
configsync-server action add EMAIL MACHINE ACTION JSON [--data DIR]

Queues a change for one machine of a user; its next `configsync sync` applies it.
MACHINE is the machine's id (GET /api/machines shows it). JSON is an object:

  add_module, remove_module             {\"name\": \"ssh\"}
  add_package                           {\"manager\": \"apt\", \"package\": \"jq\"}
  remove_package                        {\"item\": \"apt:jq\"}
  add_environment, update_environment   {\"name\": \"dev\", \"tier\": \"development\", \"color\": \"#22c55e\"}
  remove_environment                    {\"name\": \"dev\"}
";

pub fn run(mut args: Args) -> Done {
    match args.subcommand()?.as_deref() {
        Some("add") => add(args),
        other => Err(args.no_command("action", other)),
    }
}

fn add(mut args: Args) -> Done {
    let email = args.email()?;
    let machine = args.positional("MACHINE")?;
    let action = args.positional("ACTION")?;
    let payload = args.positional("JSON")?;
    args.finish()?;
    let machine: MachineId = machine.checked()?;
    let action: Name = action.checked()?;
    let object: Value = serde_json::from_str(&payload.text)
        .ok()
        .filter(Value::is_object)
        .ok_or_else(|| payload.refuse("this is no JSON object"))?;
    let id = open_store(&args)?.add_action(&email, &machine, &action, &object.to_string())?;
    print(format_args!("action {id} waits for {machine}\n"))
}
