//! What handlers share.

use std::sync::Arc;

use crate::auth::Accounts;
use crate::metrics::Metrics;
use crate::reserve::Reservations;
use crate::store::Store;

/// One server's state and settings.
pub struct Context {
    /// The data folder.
    pub store: Store,
    /// Who may come in.
    pub accounts: Accounts,
    /// Room promised to uploads under way.
    pub reservations: Arc<Reservations>,
    /// Bytes of one request body (`--max-body`).
    pub body_bytes_max: u64,
    /// Lifetime of a JWT in seconds (`--token-hours`).
    pub jwt_lifetime_s: i64,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// `/metrics` is a route (`--metrics`).
    pub metrics_served: bool,
}
