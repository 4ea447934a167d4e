//! Attacks on the gate: raw bytes over real sockets against the real binary. Every test says what
//! is answered, whether the connection lives on, and that nothing was taken for a second request.

// A test fails by panicking, in its helpers too, and shows its figures with `--nocapture`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::indexing_slicing, clippy::string_slice)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod bodies;
mod connections;
mod fixture;
mod floods;
mod heads;
mod mutations;
mod stop;
#[path = "../support/wire.rs"]
mod wire;
