//! Attacks on the gate: raw bytes over real sockets against the real binary. Every test says what
//! is answered, whether the connection lives on, and that nothing was taken for a second request.

mod bodies;
mod connections;
mod floods;
mod heads;
mod mutations;
mod stop;
