//! The routes that the released ConfigSync command line calls, on the same store as the six
//! endpoints.

pub mod entities;
pub mod environments;
pub mod legacy;
pub mod links;
pub mod variables;

use crate::app::Error;
use crate::store::User;

/// A key or value may only be stored for the caller.
fn own(user_id: Option<i64>, who: &User) -> Result<(), Error> {
    match user_id {
        Some(id) if id != who.id => {
            Err(Error::new(403, "not_yours", "user_id must be the one of the caller"))
        }
        _ => Ok(()),
    }
}
