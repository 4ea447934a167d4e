//! The arguments of `serve`, one a line: taken, or refused as a usage error in one line.
#![no_main]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use configsync_server::cli::CliError;
use configsync_server::fuzzing::read_serve_arguments;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let line = |line: &[u8]| OsString::from_vec(line.to_vec());
    let arguments: Vec<OsString> = bytes.split(|byte| *byte == b'\n').map(line).collect();
    match read_serve_arguments(arguments) {
        Ok(()) => {}
        Err(CliError::Usage(message)) => assert!(!message.is_empty()),
        Err(other) => panic!("{other:?}"),
    }
});
