//! The keypair of an account, wrapped by the client.

use std::net::IpAddr;

use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use super::Store;
use super::audit::Event;
use super::error::{Result, StoreError};
use crate::time::{now_ms, rfc3339};

/// A keypair as the client sends it; keys and salt are base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keypair {
    /// 32 bytes.
    pub public_key: String,
    /// Wrapped with the master password.
    pub encrypted_private_key: String,
    /// Of the key derivation.
    pub kek_salt: String,
    /// Rounds of the key derivation.
    pub kek_iterations: u32,
    /// `x25519`.
    pub key_algorithm: String,
}

impl Store {
    /// The user's keypair and when it was stored (RFC 3339).
    pub fn keypair(&self, user: i64) -> Result<(Keypair, String)> {
        self.db.read(|c| find(c, user)?.ok_or(StoreError::Missing("keypair")))
    }

    /// Stores the first keypair; the same again is as good, another is refused.
    pub fn add_keypair(&self, user: (i64, &str), new: &Keypair, peer: IpAddr) -> Result<()> {
        self.db.write(|tx| match find(tx, user.0)? {
            Some((known, _)) if known == *new => Ok(()),
            Some(_) => Err(StoreError::KeyExists("keypair").into()),
            None => {
                tx.execute(
                    "INSERT INTO keypairs (user_id, public_key, encrypted_private_key, kek_salt,
                                           kek_iterations, key_algorithm, created_at)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                    params![
                        user.0,
                        new.public_key,
                        new.encrypted_private_key,
                        new.kek_salt,
                        new.kek_iterations,
                        new.key_algorithm,
                        now_ms()
                    ],
                )?;
                Event::ok("keypair.add").user(user.0, user.1).peer(peer).write(tx)?;
                Ok(())
            }
        })?;
        Ok(())
    }
}

fn find(connection: &Connection, user: i64) -> Result<Option<(Keypair, String)>> {
    let sql = "SELECT public_key, encrypted_private_key, kek_salt, kek_iterations, key_algorithm,
                      created_at FROM keypairs WHERE user_id = ?1";
    let found = connection.prepare_cached(sql)?.query_row([user], |row| {
        let keypair = Keypair {
            public_key: row.get(0)?,
            encrypted_private_key: row.get(1)?,
            kek_salt: row.get(2)?,
            kek_iterations: row.get(3)?,
            key_algorithm: row.get(4)?,
        };
        Ok((keypair, rfc3339(row.get(5)?)))
    });
    Ok(found.optional()?)
}
