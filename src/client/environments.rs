//! Named environments of a user.

use serde::Deserialize;

use crate::api::Answer;
use crate::context::Context;
use crate::http::{Request, Response};
use crate::store::Caller;
use crate::store::environments::EnvironmentBody;

/// GET /api/environments.
pub fn list(context: &Context, _request: Request, who: &Caller) -> Answer {
    Ok(Response::rows("environments", &context.store.environments(who.id)?))
}

#[derive(Deserialize)]
struct Body {
    environments: Vec<EnvironmentBody>,
    #[serde(default)]
    delete_missing: bool,
}

/// PUT /api/environments/sync.
pub fn sync(context: &Context, request: Request, who: &Caller) -> Answer {
    let body: Body = request.json()?;
    let after = context.store.sync_environments(who, &body.environments, body.delete_missing)?;
    Ok(Response::rows("environments", &after))
}
