//! The six endpoints of the self-hosting API, health and metrics: one file each.

pub mod health;
pub mod history;
pub mod login;
pub mod machines;
pub mod metrics;
pub mod snapshots;
