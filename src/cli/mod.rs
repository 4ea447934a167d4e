//! The command line: one file a command, and what they share.

mod action;
mod args;
mod audit;
mod backup;
mod check;
mod environment;
mod export;
mod healthcheck;
mod notify;
mod prune;
mod serve;
mod token;
mod user;

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::auth::jwt;
use crate::log;
use crate::store::{Store, StoreError};
use args::Args;

/// Why a command did not do its work.
#[derive(Debug)]
pub enum CliError {
    /// The command line is wrong: exit code 2.
    Usage(String),
    /// Anything else: exit code 1.
    Failed(String),
}

type Done = Result<(), CliError>;

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> CliError {
        CliError::Failed(error.to_string())
    }
}

const HELP: &str = "\
configsync-server: a sync server for the ConfigSync command line, on one data folder.

  serve                         run the server (start here: --init-user you@example.com)
  user add|passwd|quota|list|disable|enable|remove
                                users
  token create|list|revoke      API tokens
  backup · restore              a verified copy of the data folder, and back
  check                         verify the database and every snapshot file
  prune                         delete old snapshots
  audit                         who did what, and when
  export                        everything as plain files
  environment list|restore      environments, also deleted ones
  action add                    queue a change for a machine
  healthcheck                   ask a running server how it is

Every command takes --data DIR (default configsync-data, or CONFIGSYNC_DATA) and --help.
Administration works while the server runs. --version prints the version.
";

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    // First of all: whatever is made from here on is for this user alone.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    log::install_panic_hook();
    jwt::install_provider();
    match run(Args::from_env()) {
        Ok(()) => ExitCode::SUCCESS,
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
    let command = args.subcommand()?;
    let (text, command): (&str, fn(Args) -> Done) = match command.as_deref() {
        Some("serve") => (serve::HELP, serve::run),
        Some("user") => (user::HELP, user::run),
        Some("token") => (token::HELP, token::run),
        Some("backup") => (backup::HELP, backup::run),
        Some("restore") => (backup::RESTORE_HELP, backup::restore),
        Some("check") => (check::HELP, check::run),
        Some("prune") => (prune::HELP, prune::run),
        Some("audit") => (audit::HELP, audit::run),
        Some("export") => (export::HELP, export::run),
        Some("healthcheck") => (healthcheck::HELP, healthcheck::run),
        Some("environment") => (environment::HELP, environment::run),
        Some("action") => (action::HELP, action::run),
        Some(other) => {
            return Err(CliError::Usage(format!("unknown command {other}; see --help")));
        }
        None if help => return print(HELP),
        None => {
            args.finish()?;
            return Err(CliError::Usage("a command is needed; see --help".into()));
        }
    };
    if help {
        return print(text);
    }
    command(args)
}

/// Writes to standard output; a closed one is an error, not a panic.
fn print(text: impl Display) -> Done {
    let mut out = std::io::stdout().lock();
    write!(out, "{text}")
        .and_then(|()| out.flush())
        .map_err(|e| CliError::Failed(format!("could not write to standard output: {e}")))
}

/// Prints each line.
fn print_lines(lines: &[String]) -> Done {
    if lines.is_empty() { Ok(()) } else { print(format_args!("{}\n", lines.join("\n"))) }
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

/// The data folder of a command that does not make one.
fn open_store(args: &Args) -> Result<Store, CliError> {
    Ok(Store::open(&args.data())?)
}
