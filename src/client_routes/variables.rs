//! Variables of projects, and the keys of their layers.

use super::check_owner;
use crate::app::{App, Error, HandlerResult, Request, Response};
use crate::store::User;
use crate::store::entities::Target;
use crate::store::variables::VariableBody;
use crate::util::types::Visibility;

/// POST /api/projects/{id}/env/keys: stores every distinct key.
pub fn add_key(app: &App, request: &Request, user: &User) -> HandlerResult {
    app.store.add_layer_key(project(request, user)?, &request.json()?)?;
    Ok(Response::done(201))
}

/// GET /api/projects/{id}/env/keys.
pub fn keys(app: &App, request: &Request, user: &User) -> HandlerResult {
    let layer = request.query.one("layer_id")?;
    let project = project(request, user)?;
    app.rows(user, "keys", |rows| app.store.layer_keys(project, layer, rows))
}

/// PUT /api/projects/{id}/env/{name}.
pub fn set(app: &App, request: &Request, user: &User) -> HandlerResult {
    let body: VariableBody = request.json()?;
    check_owner(body.owner_user_id, user)?;
    let name = request.param_as(1)?;
    let row = app.store.set_variable(project(request, user)?, &name, &body)?;
    Ok(Response::row(200, "variable", &row))
}

/// GET /api/projects/{id}/env.
pub fn list(app: &App, request: &Request, user: &User) -> HandlerResult {
    let tier = request.query.one("env")?.filter(|tier| !tier.is_empty());
    let visibility = visibility(request)?;
    let project = project(request, user)?;
    app.rows(user, "variables", |rows| {
        app.store.variables(project, tier, visibility.as_ref(), rows)
    })
}

/// DELETE /api/projects/{id}/env/{name}?env=…&visibility=….
pub fn remove(app: &App, request: &Request, user: &User) -> HandlerResult {
    let tier = request.query.one("env")?.ok_or_else(|| Error::malformed("env is needed"))?;
    let visibility = visibility(request)?;
    let visibility = visibility.as_deref().unwrap_or("shared");
    app.store.delete_variable(project(request, user)?, tier, visibility, request.param(1))?;
    Ok(Response::done(200))
}

fn visibility(request: &Request) -> Result<Option<Visibility>, Error> {
    match request.query.one("visibility")? {
        Some("") => Ok(None),
        _ => request.query.parsed("visibility"),
    }
}

fn project<'a>(request: &Request, user: &'a User) -> Result<Target<'a>, Error> {
    Ok(Target { user, kind: "project", id: request.param_id(0)? })
}
