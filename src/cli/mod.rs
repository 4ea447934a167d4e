//! The command line: one file a command, and what they share.

mod args;
mod audit;
mod background;
mod environment;
mod healthcheck;
mod help;
mod machine;
mod maintenance;
mod notify;
mod output;
mod process;
mod serve;
mod settings;
mod status;
mod token;
mod user;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use crate::store::{Store, StoreError};
use crate::util::log::{self, Level};
use args::Args;
use output::print;

/// Why a command did not do its work.
#[derive(Debug)]
pub enum CliError {
    /// The command line is wrong: exit code 2.
    Usage(String),
    /// Anything else: exit code 1.
    Failed(String),
    /// `status` found what needs attention, and said so: exit code 1.
    Attention,
    /// Whoever read a list, such as `head`, has enough: exit code 0.
    Closed,
}

type Done = Result<(), CliError>;

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> CliError {
        CliError::Failed(error.to_string())
    }
}

/// What a command is called, and what runs it.
type Command = (&'static str, fn(Args) -> Done);

const COMMANDS: [Command; 22] = [
    ("serve", serve::run),
    ("user add", user::add),
    ("user passwd", user::passwd),
    ("user quota", user::quota),
    ("user list", user::list),
    ("user disable", user::disable),
    ("user enable", user::enable),
    ("user remove", user::remove),
    ("token create", token::create),
    ("token list", token::list),
    ("token revoke", token::revoke),
    ("machine list", machine::list),
    ("machine remove", machine::remove),
    ("status", status::run),
    ("check", maintenance::check),
    ("backup", maintenance::backup),
    ("restore", maintenance::restore),
    ("prune", maintenance::prune),
    ("audit", audit::run),
    ("environment list", environment::list),
    ("environment restore", environment::restore),
    ("healthcheck", healthcheck::run),
];

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    // First of all: whatever is made from here on is for this user alone.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    log::install_panic_hook();
    if let Err(error) = process::ignore_file_size_signal() {
        return fail(&format!("could not ignore SIGXFSZ: {error}"), 1);
    }
    match run(Args::from_env()) {
        Ok(()) | Err(CliError::Closed) => ExitCode::SUCCESS,
        Err(CliError::Attention) => ExitCode::FAILURE,
        Err(CliError::Usage(message)) => fail(&message, 2),
        Err(CliError::Failed(message)) => fail(&message, 1),
    }
}

/// Reads the arguments of `serve`, and touches nothing: for fuzzing.
pub fn read_serve_arguments(arguments: Vec<OsString>) -> Result<(), CliError> {
    let mut args = Args::from_vec(arguments);
    args.take_data()?;
    serve::settings(args).map(drop)
}

fn fail(message: &str, code: u8) -> ExitCode {
    log::flush();
    let (priority, message) = (log::priority(Level::ERROR), log::escape(message));
    let _ = writeln!(std::io::stderr(), "{priority}configsync-server: {message}");
    ExitCode::from(code)
}

fn run(mut args: Args) -> Done {
    let help = args.flag("--help") | args.flag("-h");
    if args.flag("--version") || args.flag("-V") {
        args.finish()?;
        return print(format_args!("configsync-server {}\n", env!("CARGO_PKG_VERSION")));
    }
    args.take_data()?;
    let mut name = args.subcommand()?.unwrap_or_default();
    let asked = help || name == "help";
    if name == "help" {
        name = args.subcommand()?.unwrap_or_default();
    }
    let is_group = COMMANDS.iter().any(|(known, _)| known.starts_with(&format!("{name} ")));
    if is_group && let Some(second) = args.subcommand()? {
        name = format!("{name} {second}");
    }
    let unfinished = name.is_empty() || is_group && !name.contains(' ');
    match COMMANDS.iter().find(|(known, _)| *known == name) {
        Some(_) if asked => print(help::command(&name)),
        Some((_, run)) => {
            // `serve` does it once its log has its format.
            if name != "serve" && name != "healthcheck" {
                warn_of_unknown_variables();
            }
            run(args)
        }
        None if asked && unfinished => print(help::list(&name)),
        None if unfinished => {
            // A flag that does not exist is the likelier mistake.
            args.finish()?;
            Err(CliError::Usage(format!("{name} needs a command; see --help").trim_start().into()))
        }
        None => Err(CliError::Usage(format!("unknown command {name}; see --help"))),
    }
}

/// What is set and read by nothing is probably mistyped.
fn warn_of_unknown_variables() {
    for name in settings::unknown_variables() {
        log::warn(&format!("the variable {name} is not a setting; see serve --help"));
    }
}

/// The data folder of a command that does not make one; nothing else may be left of its arguments.
fn open_store(args: Args) -> Result<Store, CliError> {
    Ok(Store::open(&args.finish()?)?)
}

/// The same for a command that only reads, also from a read-only medium.
fn open_to_read(args: Args) -> Result<Store, CliError> {
    Ok(Store::open_to_read(&args.finish()?)?)
}
