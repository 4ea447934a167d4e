//! Named environments of a user.

use serde::Deserialize;

use crate::app::App;
use crate::app::HandlerResult;
use crate::app::Request;
use crate::store::User;
use crate::store::environments::EnvironmentBody;

/// GET /api/environments.
pub fn list(app: &App, _request: &Request, who: &User) -> HandlerResult {
    app.rows(who, "environments", |rows| app.store.environments(who.id, rows))
}

#[derive(Deserialize)]
struct Body {
    environments: Vec<EnvironmentBody>,
    #[serde(default)]
    delete_missing: bool,
}

/// PUT /api/environments/sync.
pub fn sync(app: &App, request: &Request, who: &User) -> HandlerResult {
    let body: Body = request.json()?;
    app.store.sync_environments(who, &body.environments, body.delete_missing)?;
    list(app, request, who)
}
