//! Room on the disk, and in a user's quota.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Store;
use super::error::{Result, StoreError};

/// Bytes promised to uploads under way: many that each fit alone must not overfill the disk
/// together.
#[derive(Default)]
pub struct Reservations {
    promised: AtomicU64,
}

/// Room for one upload; given back when it goes.
pub struct Reservation {
    reservations: Arc<Reservations>,
    bytes: u64,
}

/// The size of an upload, as far as its head tells.
#[derive(Clone, Copy)]
pub struct DeclaredSize {
    /// Bytes it has at least.
    pub min: u64,
    /// Bytes it has at most.
    pub max: u64,
}

impl Reservations {
    /// Promises room for an upload, or says why there is none. Of one that may repeat a newest
    /// snapshot, which stores nothing, only the transaction knows whether it fits; what the disk
    /// cannot hold is refused all the same.
    pub fn promise(
        self: &Arc<Self>, store: &Store, user_id: i64, size: DeclaredSize, may_be_retry: bool,
    ) -> Result<Reservation> {
        let (used, allowed) = store.usage(user_id)?;
        let allowed = allowed.filter(|_| !may_be_retry).unwrap_or(u64::MAX);
        if used.saturating_add(size.min) > allowed {
            return Err(StoreError::over_quota(used, allowed));
        }
        let kept = if may_be_retry { 0 } else { store.free_bytes_min() };
        let free = store.free_bytes_before_uploads()?;
        let before = self.promised.fetch_add(size.max, Ordering::Relaxed);
        let reservation = Reservation { reservations: Arc::clone(self), bytes: size.max };
        let room = free.saturating_sub(before);
        match room < size.max.saturating_add(kept) {
            true => Err(StoreError::low_disk(room, store.free_bytes_min())),
            false => Ok(reservation),
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.reservations.promised.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Store {
    /// Free bytes of the disk for this process.
    pub fn free_bytes(&self) -> Result<u64> {
        self.data.free_bytes()
    }

    /// Free bytes as they would be without the uploads under way.
    fn free_bytes_before_uploads(&self) -> Result<u64> {
        Ok(self.free_bytes()?.saturating_add(self.uploaded.load(Ordering::Relaxed)))
    }

    /// Free bytes of the disk below which pushes are refused.
    pub fn free_bytes_min(&self) -> u64 {
        self.policy.free_bytes_min
    }
}
