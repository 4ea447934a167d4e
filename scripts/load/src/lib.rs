//! What the benchmark and the soak share.

pub mod bare;
pub mod load;
pub mod server;
