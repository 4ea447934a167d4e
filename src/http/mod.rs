//! Our own request, answer and error, and the workers that run handlers.

pub mod error;
pub mod request;
pub mod response;
pub mod workers;

pub use error::ApiError;
pub use request::{Body, Query, Request};
pub use response::{Piece, Response};
