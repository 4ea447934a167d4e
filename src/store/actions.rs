//! Changes that the operator queues for a machine.

use rusqlite::params;

use super::audit::Event;
use super::db::{change, texts, value};
use super::error::{Result, StoreError};
use super::{Store, users};
use crate::limits::ACTIONS_MAX;
use crate::time::now_ms;
use crate::types::{Email, MachineId};

impl Store {
    /// Queues a change, `payload` being a JSON object; the machine need not be registered yet.
    pub fn add_action(
        &self, email: &Email, machine: &MachineId, action: &str, payload: &str,
    ) -> Result<i64> {
        self.write(|tx| {
            let who = users::find(tx, email)?;
            let sql = "SELECT count(*) FROM actions WHERE user_id = ?1 AND machine_id = ?2";
            if value::<i64>(tx, sql, params![who.id, machine])? >= ACTIONS_MAX {
                return Err(StoreError::TooMany("actions for this machine"));
            }
            let sql = "INSERT INTO actions (user_id, machine_id, action, payload, created_at)
                       VALUES (?1, ?2, ?3, ?4, ?5) RETURNING id";
            let id = value(tx, sql, params![who.id, machine, action, payload, now_ms()])?;
            Event::of(&who, "action.add").machine(machine).subject(id).write(tx)?;
            Ok(id)
        })
    }

    /// All that waits for a machine, oldest first; with `deliver` it is noted as given.
    pub fn actions(&self, user: i64, machine: &MachineId, deliver: bool) -> Result<Vec<String>> {
        let all = "SELECT row FROM action_rows WHERE user_id = ?1 AND machine_id = ?2 ORDER BY id";
        let waiting = self.db.read(|c| texts(c, all, params![user, machine]))?;
        // An empty queue, which nearly every sync meets, costs no write.
        if waiting.is_empty() || !deliver {
            return Ok(waiting);
        }
        self.write(|tx| {
            let sql = "UPDATE actions SET delivered_at = ?3 WHERE user_id = ?1 AND machine_id = ?2";
            change(tx, sql, params![user, machine, now_ms()])?;
            texts(tx, all, params![user, machine])
        })
    }

    /// Forgets what was given; what came in since stays.
    pub fn clear_actions(&self, user: i64, machine: &MachineId) -> Result<()> {
        let sql = "DELETE FROM actions
                    WHERE user_id = ?1 AND machine_id = ?2 AND delivered_at IS NOT NULL";
        self.write(|tx| change(tx, sql, params![user, machine]).map(|_| ()))
    }
}
