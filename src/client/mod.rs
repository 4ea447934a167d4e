//! The routes that the released ConfigSync command line calls, on the same store as the six
//! endpoints.

pub mod entities;
pub mod environments;
pub mod legacy;
pub mod links;
pub mod variables;

use crate::http::ApiError;
use crate::store::Caller;

/// A key or value may only be stored for the caller.
fn own(user_id: Option<i64>, who: &Caller) -> Result<(), ApiError> {
    match user_id {
        Some(id) if id != who.id => {
            Err(ApiError::new(403, "not_yours", "user_id must be the one of the caller"))
        }
        _ => Ok(()),
    }
}
