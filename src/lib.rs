#![forbid(unsafe_code)]
// No input, disk or network may cause a panic: code that could panic is denied, except in tests.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable,
        clippy::indexing_slicing, clippy::string_slice, clippy::print_stdout, clippy::print_stderr,
        // From clippy::pedantic: a truncating cast differs on a 32-bit machine.
        clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss,
        clippy::unused_self
    )
)]
//! configsync-server: a sync server that a person hosts at home for the ConfigSync command-line
//! client. It stores encrypted snapshots that it cannot read, and manages users, machines, tokens
//! and history.
//!
//! The modules, from the top down; each uses only those below it. (Handlers in `api` and
//! `client_routes` use the types of `app`: request, response, error.)
//!
//! ```text
//! cli       the command line: serve, and the commands that administer a data folder
//! app       tiny_http and its workers, the route table, admission, request and response
//! api       the documented API: a file for each resource; health, metrics, the page
//!           client_routes: what released clients call besides it
//! auth      passwords, API tokens, JWTs, throttle
//! store     all SQL and all files
//!           gate: the hardening reverse proxy in front of tiny_http; knows none of the above
//! util      limits, checked values, clocks, locks, the log, counters
//! ```
//!
//! A request goes gate → `app::admission` → gate, which receives the body → tiny_http →
//! `app::server` → a handler of `api` or `client_routes` → store, and back.

mod api;
mod app;
mod auth;
pub mod cli;
mod client_routes;
mod gate;
mod store;
mod util;

/// What the fuzz targets and the benchmark link; not a public interface.
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::app::negotiation::{parse_tags, wants_bytes};
    pub use crate::auth::jwt::JwtKey;
    pub use crate::auth::password::{permit, verify_with};
    pub use crate::cli::read_serve_arguments;
    pub use crate::gate::error::Error;
    pub use crate::gate::upload_json::split_upload_json;
    pub use crate::gate::{client, head};
    pub use crate::store::snapshots::Digests;
    pub use crate::util::network::Network;
}
