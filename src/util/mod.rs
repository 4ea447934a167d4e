//! Shared by all other modules: limits, checked values, clocks, locks, the log, counters.

pub mod limits;
pub mod log;
pub mod metrics;
pub mod network;
pub mod sync;
pub mod time;
pub mod types;
