//! Changes that the operator queues for a machine.

use rusqlite::params;
use serde::Serialize;
use serde_json::Value;

use super::Store;
use super::audit::Event;
use super::error::{Result, StoreError};
use super::users::user_id;
use crate::limits::ACTIONS_MAX;
use crate::time::now_ms;
use crate::types::{Email, MachineId};

/// A queued change as the client reads it.
#[derive(Serialize)]
pub struct Action {
    /// Row id.
    pub id: i64,
    /// Such as `add_package`.
    pub action: String,
    /// A JSON object.
    pub payload: Value,
}

impl Store {
    /// Queues a change; the machine need not be registered yet.
    pub fn add_action(
        &self,
        email: &Email,
        machine: &MachineId,
        action: &str,
        payload: &Value,
    ) -> Result<i64> {
        let id = self.db.write(|tx| {
            let user = user_id(tx, email)?;
            let sql = "SELECT count(*) FROM actions WHERE user_id = ?1 AND machine_id = ?2";
            let waiting: i64 =
                tx.query_row(sql, params![user, machine.as_str()], |row| row.get(0))?;
            if waiting >= ACTIONS_MAX {
                return Err(StoreError::TooMany("actions for this machine").into());
            }
            tx.execute(
                "INSERT INTO actions (user_id, machine_id, action, payload, created_at)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
                params![user, machine.as_str(), action, payload.to_string(), now_ms()],
            )?;
            let id = tx.last_insert_rowid();
            let event = Event::ok("action.add").user(user, email.as_str()).subject(id);
            event.machine(machine.as_str()).write(tx)?;
            Ok(id)
        })?;
        Ok(id)
    }

    /// All that waits for a machine, oldest first; with `deliver` it is noted as given.
    pub fn actions(&self, user: i64, machine: &MachineId, deliver: bool) -> Result<Vec<Action>> {
        let waiting = self.db.read(|c| {
            let mut statement = c.prepare_cached(
                "SELECT id, action, payload FROM actions WHERE user_id = ?1 AND machine_id = ?2
                  ORDER BY id",
            )?;
            let rows = statement.query_map(params![user, machine.as_str()], |row| {
                let payload: String = row.get(2)?;
                let payload = serde_json::from_str(&payload).unwrap_or(Value::Null);
                Ok(Action { id: row.get(0)?, action: row.get(1)?, payload })
            })?;
            Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?)
        })?;
        // An empty queue, which nearly every sync meets, costs no write.
        if let Some(last) = waiting.last().filter(|_| deliver) {
            self.db.write(|tx| {
                tx.execute(
                    "UPDATE actions SET delivered_at = ?4
                      WHERE user_id = ?1 AND machine_id = ?2 AND id <= ?3",
                    params![user, machine.as_str(), last.id, now_ms()],
                )?;
                Ok(())
            })?;
        }
        Ok(waiting)
    }

    /// Forgets what was given; what came in since stays.
    pub fn clear_actions(&self, user: i64, machine: &MachineId) -> Result<()> {
        self.db.write(|tx| {
            tx.execute(
                "DELETE FROM actions WHERE user_id = ?1 AND machine_id = ?2
                    AND delivered_at IS NOT NULL",
                params![user, machine.as_str()],
            )?;
            Ok(())
        })?;
        Ok(())
    }
}
