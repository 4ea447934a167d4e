//! The keypair of an account, wrapped by the client.

use rusqlite::params;
use serde::Deserialize;

use super::audit::Event;
use super::db::{execute, query_one, query_scalar};
use super::error::{Result, StoreError};
use super::{Store, User};
use crate::util::time::now_ms;
use crate::util::types::{Key, Short};

/// A keypair as the client sends it; the private key is wrapped with the master password.
#[derive(Deserialize)]
pub struct KeypairBody {
    public_key: Key,
    encrypted_private_key: Key,
    kek_salt: Key,
    kek_iterations: u32,
    key_algorithm: Option<Short>,
}

impl Store {
    pub fn keypair(&self, user: i64) -> Result<String> {
        let sql = "SELECT row FROM keypair_rows WHERE user_id = ?1";
        self.db.read(|c| query_one(c, "keypair", sql, [user], |row| row.get(0)))
    }

    /// Stores the first keypair; the same again changes nothing, another is refused.
    pub fn add_keypair(&self, user: &User, new: &KeypairBody) -> Result<()> {
        let algorithm = new.key_algorithm.as_deref().unwrap_or("x25519");
        let (public, private) = (&new.public_key, &new.encrypted_private_key);
        let (salt, rounds) = (&new.kek_salt, new.kek_iterations);
        self.write_as(user, |tx| {
            let sql = "INSERT INTO keypairs (user_id, public_key, encrypted_private_key, kek_salt,
                                             kek_iterations, key_algorithm, created_at)
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING";
            let row = params![user.id, public, private, salt, rounds, algorithm, now_ms()];
            if execute(tx, sql, row)? == 1 {
                return self.audit(tx, Event::of(user, "keypair.add"));
            }
            let sql = "SELECT EXISTS (SELECT 1 FROM keypairs WHERE user_id = ?1 AND public_key = ?2
                         AND encrypted_private_key = ?3 AND kek_salt = ?4 AND kek_iterations = ?5
                         AND key_algorithm = ?6)";
            match query_scalar(tx, sql, params![user.id, public, private, salt, rounds, algorithm])?
            {
                true => Ok(()),
                false => Err(StoreError::key_exists("keypair")),
            }
        })
    }
}
