//! The one mapping from errors of the store to statuses of HTTP.

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
            // Why is for the log; the client is told the same about each (RFC 6750, section 3).
            ErrorKind::Unauthorized(why) => {
                let error = Error::new(401, "unauthorized", error.to_string());
                return Error { reason: Some(why), ..error }.with("WWW-Authenticate", "Bearer");
            }
            ErrorKind::Busy => return Error::overloaded(&error.to_string()),
            ErrorKind::Damaged => {
                log::error(&error.to_string());
                (500, "snapshot_damaged")
            }
            // What went wrong inside is the log's alone.
            ErrorKind::Corrupt | ErrorKind::Internal => return Error::caused_by(error),
        };
        Error::new(status, code, error.to_string())
    }
}
