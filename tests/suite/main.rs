//! The promises of the server, tried over HTTP and on the command line against the real binary.
//! One file a feature; two users wherever one could see what is the other's.

// A test fails by panicking, in its helpers too, and shows its figures with `--nocapture`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::indexing_slicing, clippy::string_slice)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod access;
mod application;
mod backup;
mod bad_input;
mod bounds;
mod cli;
mod client_entities;
mod client_legacy;
mod client_sync;
mod client_variables;
mod clock;
mod crash;
mod damage;
mod data_folder;
mod disk;
mod docs;
mod export;
mod faults;
mod fixture;
mod folder;
mod gate;
mod login;
mod machines;
mod one_over;
mod operator;
mod page;
mod process;
mod refusals;
mod responses;
mod revocation;
mod rules;
mod settings;
mod snapshots;
mod status;
