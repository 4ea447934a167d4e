//! The command line: a file for each command or group of commands, and the code they share.

mod accounts;
mod args;
mod healthcheck;
mod help;
mod maintenance;
mod output;
mod process;
mod serve;
mod settings;
mod status;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use crate::store::{Store, StoreError};
use crate::util::log::{self, Level};
use crate::util::types::visible;
use args::Args;
use output::{could_not, print};
use settings::warn_of_unknown_variables;

/// Why a command exits with an error code.
#[derive(Debug)]
pub enum CliError {
    /// The command line is wrong: exit code 2.
    Usage(String),
    /// Anything else: exit code 1.
    Failed(String),
    /// `status` found and printed what needs attention: exit code 1.
    Attention,
}

type CommandResult = Result<(), CliError>;

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> CliError {
        CliError::Failed(error.to_string())
    }
}

/// The name of a command, and the function that runs it.
type Command = (&'static str, fn(Args) -> CommandResult);

const COMMANDS: [Command; 22] = [
    ("serve", serve::run),
    ("user add", accounts::add_user),
    ("user passwd", accounts::set_password),
    ("user quota", accounts::set_quota),
    ("user list", accounts::list_users),
    ("user disable", accounts::disable_user),
    ("user enable", accounts::enable_user),
    ("user remove", accounts::remove_user),
    ("token create", accounts::create_token),
    ("token list", accounts::list_tokens),
    ("token revoke", accounts::revoke_token),
    ("machine list", accounts::list_machines),
    ("machine remove", accounts::remove_machine),
    ("status", status::run),
    ("check", maintenance::check),
    ("backup", maintenance::backup),
    ("restore", maintenance::restore),
    ("prune", maintenance::prune),
    ("audit", maintenance::audit),
    ("environment list", accounts::list_environments),
    ("environment restore", accounts::restore_environment),
    ("healthcheck", healthcheck::run),
];

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    // First of all, so that every file made from here on is private to this user.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    log::install_panic_hook();
    let (message, code) = match run(std::env::args_os().skip(1).collect()) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(CliError::Attention) => return ExitCode::FAILURE,
        Err(CliError::Usage(message)) => (message, 2),
        Err(CliError::Failed(message)) => (message, 1),
    };
    log::flush();
    let (priority, message) = (log::priority(Level::ERROR), visible(&message));
    let _ = writeln!(std::io::stderr(), "{priority}configsync-server: {message}");
    ExitCode::from(code)
}

/// Parses the arguments of `serve` without side effects, for fuzzing.
pub fn read_serve_arguments(arguments: Vec<OsString>) -> Result<(), CliError> {
    serve::settings(Args::new(arguments)?).map(drop)
}

fn run(arguments: Vec<OsString>) -> CommandResult {
    process::ignore_file_size_signal().map_err(could_not("ignore SIGXFSZ"))?;
    let mut args = Args::new(arguments)?;
    let mut help = args.flag("--help") | args.flag("-h");
    if args.flag("--version") || args.flag("-V") {
        args.finish()?;
        return print(format_args!("configsync-server {}\n", env!("CARGO_PKG_VERSION")));
    }
    let mut name = String::new();
    let find = |name: &str| COMMANDS.iter().find(|(known, _)| *known == name);
    while find(&name).is_none()
        && let Some(word) = args.subcommand()?
    {
        match &*word {
            "help" if name.is_empty() => help = true,
            word => name = format!("{name} {word}").trim_start().to_owned(),
        }
    }
    let group = format!("{name} ");
    let is_group = name.is_empty() || COMMANDS.iter().any(|(name, _)| name.starts_with(&group));
    match find(&name) {
        Some(_) if help => print(help::command(&name)),
        Some((_, run)) => {
            // `serve` does so once its log has its format.
            if name != "serve" && name != "healthcheck" {
                warn_of_unknown_variables();
            }
            run(args)
        }
        None if help && is_group => print(help::list(&name)),
        None => {
            // An unknown flag is the likelier mistake, and is reported first.
            args.finish()?;
            Err(CliError::Usage(match is_group {
                true => format!("{name} needs a command; see --help").trim_start().into(),
                false => format!("`{name}` is not a command; see --help"),
            }))
        }
    }
}

/// Opens the data folder of a command that does not create one, and refuses arguments left over.
fn open_store(args: Args) -> Result<Store, CliError> {
    Ok(Store::open(&args.finish()?)?)
}

/// Does the same for a command that only reads, even from a read-only medium.
fn open_to_read(args: Args) -> Result<Store, CliError> {
    Ok(Store::open_to_read(&args.finish()?)?)
}
