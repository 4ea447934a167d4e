//! The audit log: what happened, by whom, from where, with what outcome; never content.

use std::net::IpAddr;

use rusqlite::{Connection, params};

use super::error::Result;
use crate::time::now_ms;

/// One row of the audit log, timed when it is made.
#[derive(Debug, Clone)]
pub struct Event {
    at: i64,
    name: &'static str,
    outcome: &'static str,
    user: Option<(i64, String)>,
    machine: Option<String>,
    peer: Option<String>,
    subject: Option<i64>,
}

impl Event {
    /// Something that succeeded.
    pub fn ok(name: &'static str) -> Event {
        Event::with_outcome(name, "ok")
    }

    /// Something that ended as `outcome` says.
    pub fn with_outcome(name: &'static str, outcome: &'static str) -> Event {
        Event { at: now_ms(), name, outcome, user: None, machine: None, peer: None, subject: None }
    }

    /// Whom it concerns.
    pub fn user(mut self, id: i64, email: &str) -> Event {
        self.user = Some((id, email.to_owned()));
        self
    }

    /// Which machine it concerns.
    pub fn machine(mut self, machine_id: &str) -> Event {
        self.machine = Some(machine_id.to_owned());
        self
    }

    /// Where it came from.
    pub fn peer(mut self, peer: IpAddr) -> Event {
        self.peer = Some(peer.to_string());
        self
    }

    /// Which snapshot or token it concerns.
    pub fn subject(mut self, id: i64) -> Event {
        self.subject = Some(id);
        self
    }

    /// Writes the row with the transaction of what it speaks of.
    pub(super) fn write(&self, connection: &Connection) -> Result<()> {
        let (user_id, email) = match &self.user {
            Some((id, email)) => (Some(id), Some(email)),
            None => (None, None),
        };
        connection
            .prepare_cached(
                "INSERT INTO audit_log (created_at, event, user_id, user_email, machine, peer,
                                        outcome, subject_id)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                self.at,
                self.name,
                user_id,
                email,
                self.machine,
                self.peer,
                self.outcome,
                self.subject
            ])?;
        Ok(())
    }
}
