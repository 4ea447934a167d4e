//! The application behind the gate: a plain tiny_http server, its route table, and the state that
//! its handlers share.

pub mod admission;
pub mod error;
pub mod negotiation;
pub mod request;
pub mod response;
pub mod routes;
pub mod server;
pub mod user_limit;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub use error::Error;
pub use request::Request;
pub use response::Response;

use crate::auth::jwt::JwtKey;
use crate::auth::throttle::Throttle;
use crate::gate::Config;
use crate::store::{Policy, Store};
use crate::util::metrics::Metrics;
use crate::util::types::Email;
use user_limit::UserLimit;

pub type HandlerResult = Result<Response, Error>;

/// The state of a server, shared by all handlers.
pub struct App {
    /// The data folder.
    pub store: Store,
    /// Signs and verifies JWTs.
    pub jwt_key: JwtKey,
    /// Counts failed logins by password. Those by token are counted separately, so that invalid
    /// tokens from an address do not block its password logins.
    pub password_throttle: Throttle,
    pub token_throttle: Throttle,
    /// Bytes of responses that wait in files for their readers, by user; None stands for all
    /// unauthenticated clients together.
    pub response_bytes: Mutex<HashMap<Option<i64>, Arc<AtomicU64>>>,
    pub user_limit: UserLimit,
    pub metrics: Arc<Metrics>,
    pub settings: Settings,
}

/// The settings of `serve`.
pub struct Settings {
    pub data: PathBuf,
    pub listen: SocketAddr,
    /// Address of the metrics listener, if there is one.
    pub metrics: Option<SocketAddr>,
    /// The user to create on a server that has none.
    pub init_user: Option<Email>,
    pub policy: Policy,
    pub gate: Config,
    /// Maximum size of a request body in bytes.
    pub body_bytes_max: u64,
    pub jwt_lifetime_s: i64,
    /// Days that audit rows are kept; 0 keeps all.
    pub audit_days: u32,
    pub stop_timeout: Duration,
    /// Whether to serve the page at `/`.
    pub page: bool,
    pub log_as_json: bool,
}
