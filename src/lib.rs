#![forbid(unsafe_code)]
// No input, disk or network may panic; what could is refused here, tests apart.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable,
        clippy::indexing_slicing, clippy::string_slice, clippy::print_stdout, clippy::print_stderr
    )
)]
//! configsync-server: the sync server that a person hosts at home for the ConfigSync command
//! line. It stores encrypted snapshots that it cannot read, and knows users, machines, tokens
//! and history.
//!
//! Layers depend downwards only:
//!
//! ```text
//! cli      one file a command
//! vet      what the gate asks: routes, credentials, limits      routes: the one table
//! api      the six endpoints          client: the routes of the released command line
//! context  what handlers share      auth: passwords, tokens, JWTs, throttle
//! gate     sockets of strangers     http: request, answer, error, workers (tiny_http)
//! store    all SQL and all files
//! limits, types, time, log, sync, net, metrics, record
//! ```

pub mod api;
pub mod auth;
pub mod cli;
pub mod client;
pub mod context;
pub mod gate;
pub mod http;
pub mod limits;
pub mod log;
pub mod metrics;
pub mod net;
pub mod record;
pub mod reserve;
pub mod routes;
pub mod store;
pub mod sync;
pub mod time;
pub mod types;
pub mod vet;
