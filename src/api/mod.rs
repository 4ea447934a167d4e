//! The six endpoints of the self-hosting API, health, metrics and the page: one file per resource.

pub mod health;
pub mod login;
pub mod machines;
pub mod metrics;
pub mod page;
pub mod snapshots;
pub mod usage;
