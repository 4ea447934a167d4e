//! The single mapping from store errors to HTTP statuses.

use crate::store::{ErrorKind, StoreError};
use crate::util::log;

pub use crate::gate::error::Error;

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Error {
        let (status, code) = match error.kind {
            ErrorKind::NoSnapshot => (404, "no_snapshot"),
            ErrorKind::NotFound => (404, "not_found"),
            ErrorKind::MachineNotRegistered => (404, "machine_not_registered"),
            ErrorKind::Exists => (409, "conflict"),
            ErrorKind::KeyExists => (409, "key_exists"),
            ErrorKind::PreconditionFailed => (412, "precondition_failed"),
            ErrorKind::QuotaExceeded => (507, "quota_exceeded"),
            ErrorKind::DiskFull | ErrorKind::LowDisk => (507, "disk_full"),
            // The reason is for the log; every client gets the same response (RFC 6750, section 3).
            ErrorKind::Unauthorized(why) => {
                let error = Error::new(401, "unauthorized", error.to_string());
                return Error { reason: Some(why), ..error }.with("WWW-Authenticate", "Bearer");
            }
            ErrorKind::Busy => return Error::overloaded(&error.to_string()),
            ErrorKind::Damaged => {
                log::error(&error.to_string());
                (500, "snapshot_damaged")
            }
            // Internal causes go to the log only.
            ErrorKind::Corrupt | ErrorKind::Internal => return Error::caused_by(error),
        };
        Error::new(status, code, error.to_string())
    }
}
