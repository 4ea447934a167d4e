//! Runs one command of the command line.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    configsync_server::cli::main()
}
