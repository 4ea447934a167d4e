//! Runs one command of the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    configsync_server::cli::main()
}
