//! The audit log: what happened, by whom, from where, with what outcome; never content.

use std::net::IpAddr;

use rusqlite::{Connection, params};

use super::Caller;
use super::db::change;
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
    peer: Option<IpAddr>,
    subject: Option<i64>,
}

impl Event {
    /// Something that happened, with its outcome.
    pub fn new(name: &'static str, outcome: &'static str) -> Event {
        Event { at: now_ms(), name, outcome, user: None, machine: None, peer: None, subject: None }
    }

    /// Something that this caller did.
    pub fn of(who: &Caller, name: &'static str) -> Event {
        Event { peer: who.peer, ..Event::new(name, "ok").user(who) }
    }

    /// Whom it concerns.
    pub fn user(mut self, who: &Caller) -> Event {
        self.user = Some((who.id, who.email.clone()));
        self
    }

    /// Which machine it concerns.
    pub fn machine(mut self, machine_id: &str) -> Event {
        self.machine = Some(machine_id.to_owned());
        self
    }

    /// Where it came from.
    pub fn peer(mut self, peer: IpAddr) -> Event {
        self.peer = Some(peer);
        self
    }

    /// The id of the row it concerns.
    pub fn subject(mut self, id: i64) -> Event {
        self.subject = Some(id);
        self
    }

    /// Writes the row with the transaction of what it speaks of.
    pub(super) fn write(&self, connection: &Connection) -> Result<()> {
        let (id, email) = self.user.as_ref().map_or((None, None), |(id, e)| (Some(id), Some(e)));
        let peer = self.peer.map(|peer| peer.to_string());
        let sql = "INSERT INTO audit_log (created_at, event, user_id, user_email, machine, peer,
                     outcome, subject_id) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        let row =
            params![self.at, self.name, id, email, self.machine, peer, self.outcome, self.subject];
        change(connection, sql, row)?;
        Ok(())
    }
}
