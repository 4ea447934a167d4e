//! Attacks on the gate: raw bytes over real sockets against the real binary. Every test says what
//! is answered, whether the connection lives on, and that nothing was taken for a second request.

mod bodies;
mod connections;
mod floods;
mod heads;
mod mutations;
mod stop;

use crate::wire;

/// What these tests use: a server is one with a user.
mod fixture {
    pub use crate::fixture::target::{Target as Server, serve, serve_with_descriptors};
    pub use crate::fixture::{ELSEWHERE, HERE, Usage, alone, at_once, eventually};
}
