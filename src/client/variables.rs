//! Variables of projects and the keys of their layers.

use super::own;
use crate::api::Answer;
use crate::context::Context;
use crate::http::{ApiError, Request, Response};
use crate::store::Caller;
use crate::store::entities::{Kind, Target};
use crate::store::variables::{VariableBody, Visibility};

/// POST /api/projects/{id}/env/keys: every distinct key is kept.
pub fn add_key(context: &Context, request: Request, who: &Caller) -> Answer {
    context.store.add_layer_key(project(&request, who)?, &request.json()?)?;
    Ok(Response::done(201))
}

/// GET /api/projects/{id}/env/keys.
pub fn keys(context: &Context, request: Request, who: &Caller) -> Answer {
    let layer = request.query.one("layer_id")?;
    Ok(Response::rows("keys", &context.store.layer_keys(project(&request, who)?, layer)?))
}

/// PUT /api/projects/{id}/env/{name}.
pub fn set(context: &Context, request: Request, who: &Caller) -> Answer {
    let body: VariableBody = request.json()?;
    own(body.owner_user_id, who)?;
    let name = request.param_as(1)?;
    let row = context.store.set_variable(project(&request, who)?, &name, &body)?;
    Ok(Response::row(200, "variable", &row))
}

/// GET /api/projects/{id}/env.
pub fn list(context: &Context, request: Request, who: &Caller) -> Answer {
    let tier = request.query.one("env")?.filter(|tier| !tier.is_empty());
    let visibility = visibility(&request)?;
    let rows = context.store.variables(project(&request, who)?, tier, visibility)?;
    Ok(Response::rows("variables", &rows))
}

/// DELETE /api/projects/{id}/env/{name}?env=…&visibility=….
pub fn remove(context: &Context, request: Request, who: &Caller) -> Answer {
    let tier = request.query.one("env")?.ok_or_else(|| ApiError::malformed("env is needed"))?;
    let visibility = visibility(&request)?.unwrap_or(Visibility::Shared);
    let project = project(&request, who)?;
    context.store.delete_variable(project, tier, visibility, request.param(1))?;
    Ok(Response::done(200))
}

fn project<'a>(request: &Request, who: &'a Caller) -> Result<Target<'a>, ApiError> {
    Ok(Target { who, kind: Kind::PROJECT, id: request.param_id(0)? })
}

fn visibility(request: &Request) -> Result<Option<Visibility>, ApiError> {
    let word = request.query.one("visibility")?.filter(|word| !word.is_empty());
    let Some(word) = word else { return Ok(None) };
    let refuse = || ApiError::malformed("visibility must be shared, personal or restricted");
    Visibility::from_word(word).map(Some).ok_or_else(refuse)
}
