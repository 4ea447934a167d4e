//! The command line: one file a command, and what they share.

mod args;
mod audit;
mod backup;
mod check;
mod environment;
mod healthcheck;
mod notify;
mod prune;
mod serve;
mod token;
mod user;

use std::fmt::Display;
use std::io::{BufWriter, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::store::{Store, StoreError};
use crate::util::log;
use crate::util::types::visible;
use args::Args;

/// Why a command did not do its work.
#[derive(Debug)]
pub enum CliError {
    /// The command line is wrong: exit code 2.
    Usage(String),
    /// Anything else: exit code 1.
    Failed(String),
    /// Whoever read a list, such as `head`, has enough: exit code 0.
    Closed,
}

type Done = Result<(), CliError>;

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> CliError {
        CliError::Failed(error.to_string())
    }
}

/// What `--help` prints: a part for the program, then one for each command, which begins with the
/// command itself.
const HELP: &str = include_str!("help.txt");

/// A command, the word after it if it is a group of commands, and what runs it.
type Command = (&'static str, &'static str, fn(Args) -> Done);

const COMMANDS: [Command; 19] = [
    ("serve", "", serve::run),
    ("user", "add", user::add),
    ("user", "passwd", user::passwd),
    ("user", "quota", user::quota),
    ("user", "list", user::list),
    ("user", "disable", user::disable),
    ("user", "enable", user::enable),
    ("user", "remove", user::remove),
    ("token", "create", token::create),
    ("token", "list", token::list),
    ("token", "revoke", token::revoke),
    ("backup", "", backup::run),
    ("restore", "", backup::restore),
    ("check", "", check::run),
    ("prune", "", prune::run),
    ("audit", "", audit::run),
    ("healthcheck", "", healthcheck::run),
    ("environment", "list", environment::list),
    ("environment", "restore", environment::restore),
];

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    // First of all: whatever is made from here on is for this user alone.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    log::install_panic_hook();
    match run(Args::from_env()) {
        Ok(()) | Err(CliError::Closed) => ExitCode::SUCCESS,
        Err(CliError::Usage(message)) => fail(&message, 2),
        Err(CliError::Failed(message)) => fail(&message, 1),
    }
}

fn fail(message: &str, code: u8) -> ExitCode {
    log::flush();
    let _ = writeln!(std::io::stderr(), "configsync-server: {}", log::escape(message));
    ExitCode::from(code)
}

fn run(mut args: Args) -> Done {
    let help = args.flag("--help") | args.flag("-h");
    if args.flag("--version") || args.flag("-V") {
        args.finish()?;
        return print(format_args!("configsync-server {}\n", env!("CARGO_PKG_VERSION")));
    }
    args.take_data()?;
    let Some(command) = args.subcommand()? else {
        if help {
            return print(help_of(""));
        }
        args.finish()?;
        return Err(CliError::Usage("a command is needed; see --help".into()));
    };
    let mut known = COMMANDS.iter().filter(|(first, ..)| *first == command).peekable();
    let Some((_, second, _)) = known.peek() else {
        return Err(CliError::Usage(format!("unknown command {command}; see --help")));
    };
    if help {
        return print(help_of(&command));
    }
    let chosen = if second.is_empty() { Some(String::new()) } else { args.subcommand()? };
    let Some(chosen) = chosen else {
        args.finish()?;
        return Err(CliError::Usage(format!("{command} needs a command; see {command} --help")));
    };
    let unknown =
        || CliError::Usage(format!("unknown command {command} {chosen}; see {command} --help"));
    let (.., run) = known.find(|(_, second, _)| *second == chosen).ok_or_else(unknown)?;
    run(args)
}

/// The part of a command, or, for none, that of the program.
fn help_of(command: &str) -> String {
    let mut parts = HELP.split("\n----\n");
    let of_command = |part: &&str| part.split(' ').nth(1) == Some(command);
    let part = match command {
        "" => parts.next(),
        _ => parts.skip(1).find(of_command),
    };
    format!("{}\n", part.unwrap_or(HELP).trim_end())
}

/// Writes to standard output; a closed one is an error, not a panic.
fn print(text: impl Display) -> Done {
    let mut out = std::io::stdout().lock();
    write!(out, "{text}").and_then(|()| out.flush()).map_err(could_not(PRINT))
}

const PRINT: &str = "write to standard output";

/// What failed, with the system's reason.
fn could_not(what: impl Display) -> impl FnOnce(std::io::Error) -> CliError {
    move |error| CliError::Failed(format!("could not {what}: {error}"))
}

/// Prints each line; a reader that has enough is no error.
fn print_lines(lines: &[String]) -> Done {
    let mut out = BufWriter::new(std::io::stdout().lock());
    let written = lines.iter().try_for_each(|line| writeln!(out, "{line}"));
    written.and_then(|()| out.flush()).map_err(|error| match error.kind() {
        std::io::ErrorKind::BrokenPipe => CliError::Closed,
        _ => could_not(PRINT)(error),
    })
}

/// Prints rows with tabs between the cells, in which no character acts on the terminal.
fn print_table<const N: usize>(rows: &[[String; N]]) -> Done {
    let line = |row: &[String; N]| row.each_ref().map(|cell| visible(cell)).join("\t");
    print_lines(&rows.iter().map(line).collect::<Vec<_>>())
}

/// Shows on a terminal how far a long command is; elsewhere nothing.
fn progress(done: &'static str) -> impl FnMut(u64, u64) {
    let shown = std::io::stderr().is_terminal();
    let mut last = Instant::now();
    move |files, bytes| {
        if shown && last.elapsed() >= Duration::from_millis(200) {
            last = Instant::now();
            let mib = bytes / (1024 * 1024);
            let _ = write!(std::io::stderr(), "\r{files} files, {mib} MiB {done}\x1b[K\r");
        }
    }
}

/// The data folder of a command that does not make one; nothing else may be left of its arguments.
fn open_store(args: Args) -> Result<Store, CliError> {
    Ok(Store::open(&args.finish()?)?)
}
