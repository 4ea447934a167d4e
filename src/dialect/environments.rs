//! Named environments of a user.

use serde::Deserialize;

use super::check_entries;
use crate::app::{App, HandlerResult, Request};
use crate::store::User;
use crate::store::environments::EnvironmentBody;

/// GET /api/environments.
pub fn list(app: &App, _request: &Request, user: &User) -> HandlerResult {
    app.rows(user, "environments", |rows| app.store.environments(user.id, rows))
}

#[derive(Deserialize)]
struct Body {
    environments: Vec<EnvironmentBody>,
    #[serde(default)]
    delete_missing: bool,
}

/// PUT /api/environments/sync.
pub fn sync(app: &App, request: &Request, user: &User) -> HandlerResult {
    let Body { environments, delete_missing } = request.json()?;
    check_entries("environments", environments.len())?;
    app.store.sync_environments(user, &environments, delete_missing)?;
    list(app, request, user)
}
