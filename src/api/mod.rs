//! The six endpoints of the self-hosting API, health and metrics: one file each.

pub mod health;
pub mod history;
pub mod login;
pub mod machines;
pub mod metrics;
pub mod snapshots;

use crate::http::{ApiError, Response};

/// What a handler makes of a request.
pub type Answer = Result<Response, ApiError>;
/// What is left for a worker of a request.
pub type Work = Box<dyn FnOnce() -> Answer + Send>;
