//! Variables of projects and the keys of their layers.

use serde::Deserialize;
use serde_json::json;

use super::entities::own;
use super::{done, key, name, text};
use crate::api::Answer;
use crate::context::Context;
use crate::http::{ApiError, Request, Response};
use crate::limits::{LONG_CHARS_MAX, NAME_CHARS_MAX, SHORT_CHARS_MAX};
use crate::store::entities::{Kind, Target};
use crate::store::tokens::Bearer;
use crate::store::variables::NewVariable;

const VISIBILITIES: [&str; 3] = ["shared", "personal", "restricted"];

#[derive(Deserialize)]
struct Key {
    layer_id: Option<String>,
    wrapped_dek: Option<String>,
}

/// POST /api/projects/{id}/env/keys: every distinct key is kept.
pub fn add_key(context: &Context, request: Request, who: &Bearer) -> Answer {
    let body: Key = request.json()?;
    let layer = name("layer_id", body.layer_id.as_deref(), NAME_CHARS_MAX)?;
    let wrapped = key("wrapped_dek", body.wrapped_dek.as_deref())?;
    context.store.add_layer_key(project(&request, who)?, layer, wrapped)?;
    done(201)
}

/// GET /api/projects/{id}/env/keys.
pub fn keys(context: &Context, request: Request, who: &Bearer) -> Answer {
    let layer = request.query.one("layer_id")?;
    let keys = context.store.layer_keys(project(&request, who)?, layer)?;
    Ok(Response::json(200, &json!({ "keys": keys })))
}

#[derive(Deserialize)]
struct Body {
    environment_tier: Option<String>,
    visibility: Option<String>,
    value_source: Option<String>,
    encrypted_value: Option<String>,
    owner_user_id: Option<i64>,
    description: Option<String>,
    required: Option<bool>,
}

/// PUT /api/projects/{id}/env/{name}.
pub fn set(context: &Context, request: Request, who: &Bearer) -> Answer {
    let body: Body = request.json()?;
    own(body.owner_user_id, who)?;
    let value = body.encrypted_value.as_deref();
    if value.is_some_and(|value| !canonical(value)) {
        return Err(ApiError::malformed("encrypted_value must be canonical base64"));
    }
    let source = text("value_source", body.value_source.as_deref(), SHORT_CHARS_MAX)?;
    let new = NewVariable {
        tier: name("environment_tier", body.environment_tier.as_deref(), SHORT_CHARS_MAX)?,
        name: name("the variable's name", Some(request.param(1)), NAME_CHARS_MAX)?,
        visibility: visibility(body.visibility.as_deref())?.unwrap_or("shared"),
        value_source: source.unwrap_or("inline"),
        encrypted_value: value,
        description: text("description", body.description.as_deref(), LONG_CHARS_MAX)?,
        required: body.required,
    };
    let variable = context.store.set_variable(project(&request, who)?, &new)?;
    Ok(Response::json(200, &json!({ "variable": variable })))
}

/// GET /api/projects/{id}/env.
pub fn list(context: &Context, request: Request, who: &Bearer) -> Answer {
    let tier = request.query.one("env")?;
    let visibility = visibility(request.query.one("visibility")?)?;
    let variables = context.store.variables(project(&request, who)?, tier, visibility)?;
    Ok(Response::json(200, &json!({ "variables": variables })))
}

/// DELETE /api/projects/{id}/env/{name}?env=…&visibility=….
pub fn remove(context: &Context, request: Request, who: &Bearer) -> Answer {
    let tier = name("env", request.query.one("env")?, SHORT_CHARS_MAX)?;
    let visibility = visibility(request.query.one("visibility")?)?.unwrap_or("shared");
    let project = project(&request, who)?;
    context.store.delete_variable(project, tier, visibility, request.param(1))?;
    done(200)
}

fn project<'a>(request: &Request, who: &'a Bearer) -> Result<Target<'a>, ApiError> {
    let (user, id) = ((who.user_id, who.email.as_str()), request.param_id(0)?);
    Ok(Target { user, kind: Kind::Project, id, peer: request.peer() })
}

fn visibility(value: Option<&str>) -> Result<Option<&str>, ApiError> {
    match value {
        Some(word) if !VISIBILITIES.contains(&word) => {
            let words = VISIBILITIES.join(", ");
            Err(ApiError::malformed(format!("visibility must be one of {words}")))
        }
        known => Ok(known),
    }
}

fn canonical(value: &str) -> bool {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(value).is_ok()
}
