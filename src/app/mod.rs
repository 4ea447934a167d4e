//! The application behind the gate: a plain tiny_http server, its one table of routes, and what
//! its handlers share.

pub mod admission;
pub mod error;
pub mod representation;
pub mod request;
pub mod response;
pub mod routes;
pub mod server;
mod spooled;
pub mod turns;

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

pub use error::Error;
pub use request::Request;
pub use response::Response;

use crate::auth::jwt::JwtKey;
use crate::auth::throttle::Throttle;
use crate::store::Store;
use crate::util::metrics::Metrics;
use turns::Turns;

/// What a handler returns.
pub type HandlerResult = Result<Response, Error>;

/// One server's state and settings, shared by all handlers.
pub struct App {
    /// The data folder.
    pub store: Store,
    /// Signs and verifies JWTs.
    pub jwt_key: JwtKey,
    /// Counts failed logins.
    pub throttle: Throttle,
    /// Bytes of responses that wait in files for their readers, by user; None has those of all who
    /// are not signed in.
    pub response_bytes: Mutex<HashMap<Option<i64>, Arc<AtomicU64>>>,
    pub turns: Turns,
    /// Bytes of one request body (`--max-body`).
    pub body_bytes_max: u64,
    /// Lifetime of a JWT in seconds (`--token-hours`).
    pub jwt_lifetime_s: i64,
    pub metrics: Arc<Metrics>,
    /// The page at `/` is served (unless `--no-page`).
    pub page: bool,
}
