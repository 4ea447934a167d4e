//! Room promised to uploads under way: many that each fit alone must not overfill the disk, or a
//! quota, together.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::store::{Store, StoreError};
use crate::util::sync::lock;

/// What uploads under way will need.
#[derive(Default)]
pub struct Reservations {
    /// Bytes by user; never more entries than requests in flight.
    promised: Mutex<HashMap<i64, u64>>,
}

/// Room for one upload; given back when it goes.
pub struct Reservation {
    reservations: Arc<Reservations>,
    user_id: i64,
    bytes: u64,
}

/// The size of an upload in bytes, as far as its head tells.
#[derive(Clone, Copy)]
pub struct DeclaredSize {
    /// It has at least so many.
    pub min: u64,
    /// It has at most so many.
    pub max: u64,
}

impl Reservations {
    /// Promises room for an upload, or says why there is none. A refusal waits for the
    /// transaction where that may have another answer: to nothing at all, to a condition, to what
    /// repeats a newest snapshot. What the disk cannot hold is refused all the same.
    pub fn promise(
        self: &Arc<Self>, store: &Store, user_id: i64, size: DeclaredSize, repeatable: bool,
        conditional: bool,
    ) -> Result<Reservation, StoreError> {
        let (used, allowed) = store.usage(user_id)?;
        // What was promised is partly written already.
        let free = store.free_bytes_before_uploads()?;
        let mut promised = lock(&self.promised);
        let of_user = promised.get(&user_id).copied().unwrap_or(0);
        let reserve = store.free_bytes_min();
        let room = promised.values().fold(free, |room, bytes| room.saturating_sub(*bytes));
        let full = room < size.max;
        let short = room < size.max.saturating_add(reserve);
        let over = allowed
            .filter(|allowed| used.saturating_add(of_user).saturating_add(size.min) > *allowed);
        if short || over.is_some() {
            // Released first: the question goes to the database.
            drop(promised);
            let DeclaredSize { min, max } = size;
            let waits = repeatable
                && (conditional || max == 0 || store.could_be_repeated(user_id, min, max)?);
            if full || !waits {
                return Err(match over {
                    Some(allowed) => StoreError::over_quota(used, allowed),
                    None => StoreError::low_disk(room, reserve),
                });
            }
            promised = lock(&self.promised);
        }
        let of_user = promised.entry(user_id).or_default();
        *of_user = of_user.saturating_add(size.max);
        let reservations = Arc::clone(self);
        Ok(Reservation { reservations, user_id, bytes: size.max })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut promised = lock(&self.reservations.promised);
        let of_user = promised.get(&self.user_id).copied().unwrap_or(0);
        match of_user.saturating_sub(self.bytes) {
            0 => promised.remove(&self.user_id),
            left => promised.insert(self.user_id, left),
        };
    }
}
