//! The output of `help` and `--help`, from one text and the table of settings.

use super::{COMMANDS, settings};

/// A part for each command: its usage, a summary of one line, and details.
const HELP: &str = include_str!("help.txt");

/// The help of one command.
pub fn command(name: &str) -> String {
    let (usage, summary, details) = part(name);
    let details = details.replace("{FLAGS}", &settings::help());
    let data = if name == "serve" { "" } else { " [--data DIR]" };
    format!("configsync-server {usage}{data}\n\n{summary}\n{details}")
}

/// The list of the commands of a group, or of all commands for an empty name.
pub fn list(group: &str) -> String {
    let mut text = match group {
        "" => "configsync-server: a sync server for the ConfigSync command line\n\n".to_owned(),
        group => format!("configsync-server {group} COMMAND\n\n"),
    };
    for (name, _) in COMMANDS.iter().filter(|(name, _)| name.starts_with(group)) {
        text.push_str(&format!("  {name:<22}{}\n", part(name).1));
    }
    text + "\nEvery command takes --help and --data DIR (or CONFIGSYNC_DATA) [configsync-data].\n\
            Administration works while the server runs. --version prints the version.\n"
}

/// The usage, summary and details of a command.
fn part(name: &str) -> (&'static str, &'static str, &'static str) {
    let begins =
        |part: &&str| part.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '\n']));
    let part = HELP.split("----\n").find(begins).unwrap_or_default();
    let (usage, rest) = part.split_once('\n').unwrap_or_default();
    let (summary, details) = rest.split_once('\n').unwrap_or_default();
    (usage, summary, details)
}
