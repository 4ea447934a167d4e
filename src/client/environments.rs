//! Named environments of a user.

use serde::Deserialize;
use serde_json::json;

use super::{name, text};
use crate::api::Answer;
use crate::context::Context;
use crate::http::{ApiError, Request, Response};
use crate::limits::{NAME_CHARS_MAX, SHORT_CHARS_MAX};
use crate::store::environments::NewEnvironment;
use crate::store::tokens::Bearer;

/// GET /api/environments.
pub fn list(context: &Context, _request: Request, who: &Bearer) -> Answer {
    let environments = context.store.environments(who.user_id)?;
    Ok(Response::json(200, &json!({ "environments": environments })))
}

#[derive(Deserialize)]
struct Body {
    environments: Vec<New>,
    #[serde(default)]
    delete_missing: bool,
}

#[derive(Deserialize)]
struct New {
    name: Option<String>,
    tier: Option<String>,
    color: Option<String>,
    #[serde(default)]
    protect: bool,
}

/// PUT /api/environments/sync.
pub fn sync(context: &Context, request: Request, who: &Bearer) -> Answer {
    let body: Body = request.json()?;
    let wanted: Result<Vec<_>, ApiError> = body
        .environments
        .iter()
        .map(|new| {
            Ok(NewEnvironment {
                name: name("name", new.name.as_deref(), NAME_CHARS_MAX)?,
                tier: text("tier", new.tier.as_deref(), SHORT_CHARS_MAX)?.unwrap_or("custom"),
                color: text("color", new.color.as_deref(), SHORT_CHARS_MAX)?,
                protect: new.protect,
            })
        })
        .collect();
    let user = (who.user_id, who.email.as_str());
    let after =
        context.store.sync_environments(user, &wanted?, body.delete_missing, request.peer())?;
    Ok(Response::json(200, &json!({ "environments": after })))
}
