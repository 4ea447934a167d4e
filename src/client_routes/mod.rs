//! Compatibility: the routes that released versions of the ConfigSync command line call beside the
//! documented API, on the same store.

pub mod entities;
pub mod legacy;
pub mod links;
pub mod variables;

use crate::app::Error;
use crate::store::User;
use crate::util::limits::REQUEST_ENTRIES_MAX;

/// Refuses a key or value that is not for the caller.
fn check_owner(user_id: Option<i64>, user: &User) -> Result<(), Error> {
    match user_id.is_some_and(|id| id != user.id) {
        true => Err(Error::new(403, "not_yours", "user_id must be the one of the caller")),
        false => Ok(()),
    }
}

/// Bounds the entries of a list in one request.
fn check_entries(field: &str, entries: usize) -> Result<(), Error> {
    if entries > REQUEST_ENTRIES_MAX {
        return Err(Error::malformed(format!(
            "{field} may have {REQUEST_ENTRIES_MAX} entries: send the rest in another request"
        )));
    }
    Ok(())
}
