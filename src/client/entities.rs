//! Projects, workspaces, configs, modules and profiles: one set of handlers for the five kinds.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{done, key, name, text};
use crate::api::Answer;
use crate::api::snapshots::uploaded;
use crate::context::Context;
use crate::http::{ApiError, Request, Response};
use crate::limits::{LONG_CHARS_MAX, NAME_CHARS_MAX, SHORT_CHARS_MAX};
use crate::store::StoreError;
use crate::store::entities::{Change, Entity, Kind, NewEntity, Target, Version};
use crate::store::tokens::Bearer;

/// The member of a version push that holds the bytes.
pub const CIPHERTEXT: &str = "ciphertext";

/// GET /api/{kind}s.
pub fn list(context: &Context, request: Request, who: &Bearer) -> Answer {
    let kind = kind(&request)?;
    let git_url = request.query.one("git_url")?.filter(|_| kind == Kind::Project);
    let entities = context.store.entities(who.user_id, kind, git_url)?;
    let rows: Vec<Value> = entities.iter().map(|entity| row(kind, entity, who)).collect();
    Ok(Response::json(200, &json!({ format!("{}s", kind.word()): rows })))
}

#[derive(Deserialize)]
struct New {
    slug: Option<String>,
    name: Option<String>,
    description: Option<String>,
    git_url: Option<String>,
    git_branch: Option<String>,
    source_hint: Option<String>,
    module_type: Option<String>,
    is_default: Option<bool>,
}

/// POST /api/{kind}s.
pub fn add(context: &Context, request: Request, who: &Bearer) -> Answer {
    let kind = kind(&request)?;
    let body: New = request.json()?;
    let slug = name("slug", body.slug.as_deref(), NAME_CHARS_MAX)?;
    let long = |field, value: &'_ Option<String>| -> Result<Option<String>, ApiError> {
        Ok(text(field, value.as_deref(), LONG_CHARS_MAX)?.map(str::to_owned))
    };
    let (git_url, git_branch) =
        (long("git_url", &body.git_url)?, long("git_branch", &body.git_branch)?);
    git_url.as_deref().map(safe_git_url).transpose()?;
    git_branch.as_deref().map(|branch| no_option("git_branch", branch)).transpose()?;
    let description = long("description", &body.description)?;
    let source_hint = long("source_hint", &body.source_hint)?;
    let new = NewEntity {
        kind,
        slug,
        name: name("name", body.name.as_deref(), NAME_CHARS_MAX)?,
        description: description.as_deref(),
        git_url: git_url.as_deref(),
        git_branch: git_branch.as_deref(),
        source_hint: source_hint.as_deref(),
        module_type: text("module_type", body.module_type.as_deref(), SHORT_CHARS_MAX)?,
        is_default: kind == Kind::Profile && body.is_default.unwrap_or(false),
    };
    let added = context.store.add_entity((who.user_id, &who.email), &new, request.peer());
    let entity = added.map_err(|error| taken(error, kind, slug))?;
    Ok(Response::json(201, &json!({ kind.word(): row(kind, &entity, who) })))
}

/// GET /api/{kind}s/{id}.
pub fn show(context: &Context, request: Request, who: &Bearer) -> Answer {
    let target = target(&request, who)?;
    let entity = context.store.entity(target)?;
    let row = row(target.kind, &entity, who);
    let body = json!({ target.kind.word(): row, "wrapped_dek": entity.wrapped_dek });
    Ok(Response::json(200, &body))
}

/// PATCH /api/{kind}s/{id}.
pub fn change(context: &Context, request: Request, who: &Bearer) -> Answer {
    let target = target(&request, who)?;
    let body: New = request.json()?;
    let some = |field, value: &'_ Option<String>| -> Result<Option<String>, ApiError> {
        let checked = value.as_deref().map(|text| name(field, Some(text), NAME_CHARS_MAX));
        Ok(checked.transpose()?.map(str::to_owned))
    };
    let (new_name, new_slug) = (some("name", &body.name)?, some("slug", &body.slug)?);
    let change = Change {
        name: new_name.as_deref(),
        slug: new_slug.as_deref(),
        description: text("description", body.description.as_deref(), LONG_CHARS_MAX)?,
    };
    let changed = context.store.change_entity(target, &change);
    let slug = new_slug.as_deref().unwrap_or_default();
    let entity = changed.map_err(|error| taken(error, target.kind, slug))?;
    Ok(Response::json(200, &json!({ target.kind.word(): row(target.kind, &entity, who) })))
}

/// DELETE /api/{kind}s/{id}.
pub fn remove(context: &Context, request: Request, who: &Bearer) -> Answer {
    context.store.delete_entity(target(&request, who)?)?;
    done(200)
}

#[derive(Deserialize)]
struct NewVersion {
    content_hash: Option<String>,
    pushed_from_machine_id: Option<String>,
    #[serde(rename = "ciphertext")]
    _ciphertext: Option<()>,
    #[serde(rename = "metadata")]
    _metadata: Option<()>,
}

/// POST /api/{kind}s/{id}/versions.
pub fn push(context: &Context, mut request: Request, who: &Bearer) -> Answer {
    let target = target(&request, who)?;
    let body: NewVersion = request.json()?;
    let hash = text("content_hash", body.content_hash.as_deref(), SHORT_CHARS_MAX)?;
    let from = body.pushed_from_machine_id.as_deref();
    let from = text("pushed_from_machine_id", from, SHORT_CHARS_MAX)?;
    let upload = uploaded(&mut request)?;
    let version = context.store.push_version(target, upload, hash, from)?;
    let key = file_key(target, &version);
    let body =
        json!({ "version": version.version, "r2_key": key, "size_bytes": version.size_bytes });
    Ok(Response::json(201, &body))
}

/// GET /api/{kind}s/{id}/versions.
pub fn versions(context: &Context, request: Request, who: &Bearer) -> Answer {
    let target = target(&request, who)?;
    let versions = context.store.versions(target)?;
    let rows: Vec<Value> = versions
        .iter()
        .map(|version| {
            json!({
                "id": version.id,
                "version": version.version,
                "r2_key": file_key(target, version),
                "size_bytes": version.size_bytes,
                "content_hash": version.content_hash,
                "pushed_by_user_id": who.user_id,
                "pushed_from_machine_id": version.pushed_from_machine_id,
                "created_at": version.created_at,
            })
        })
        .collect();
    Ok(Response::json(200, &json!({ "versions": rows })))
}

/// GET /api/{kind}s/{id}/blob: the newest version, as it is.
pub fn blob(context: &Context, request: Request, who: &Bearer) -> Answer {
    let (file, size) = context.store.open_version(target(&request, who)?, None)?;
    Ok(Response::file(file, size))
}

/// GET /api/{kind}s/{id}/versions/{n}.
pub fn version(context: &Context, request: Request, who: &Bearer) -> Answer {
    let number = Some(request.param_id(2)?);
    let (file, size) = context.store.open_version(target(&request, who)?, number)?;
    Ok(Response::file(file, size))
}

#[derive(Deserialize)]
struct NewKey {
    user_id: Option<i64>,
    wrapped_dek: Option<String>,
}

/// POST /api/{kind}s/{id}/keys: the first one stays.
pub fn add_key(context: &Context, request: Request, who: &Bearer) -> Answer {
    let target = target(&request, who)?;
    let body: NewKey = request.json()?;
    own(body.user_id, who)?;
    context.store.add_entity_key(target, key("wrapped_dek", body.wrapped_dek.as_deref())?)?;
    done(201)
}

#[derive(Deserialize)]
struct Member {
    workspace_id: Option<i64>,
}

/// POST /api/profiles/{id}/workspaces.
pub fn add_workspace(context: &Context, request: Request, who: &Bearer) -> Answer {
    let workspace = request.json::<Member>()?.workspace_id;
    let workspace = workspace.ok_or_else(|| ApiError::malformed("workspace_id is needed"))?;
    let profile = profile(&request, who)?;
    context.store.set_profile_workspace(profile, workspace, true)?;
    done(201)
}

/// DELETE /api/profiles/{id}/workspaces/{wid}.
pub fn remove_workspace(context: &Context, request: Request, who: &Bearer) -> Answer {
    let profile = profile(&request, who)?;
    context.store.set_profile_workspace(profile, request.param_id(1)?, false)?;
    done(200)
}

/// A key or value may only be stored for the caller.
pub fn own(user_id: Option<i64>, who: &Bearer) -> Result<(), ApiError> {
    match user_id {
        Some(id) if id != who.user_id => {
            Err(ApiError::new(403, "not_yours", "user_id must be the one of the caller"))
        }
        _ => Ok(()),
    }
}

fn kind(request: &Request) -> Result<Kind, ApiError> {
    Kind::from_plural(request.param(0)).ok_or_else(ApiError::no_route)
}

fn target<'a>(request: &Request, who: &'a Bearer) -> Result<Target<'a>, ApiError> {
    let (kind, id) = (kind(request)?, request.param_id(1)?);
    Ok(Target { user: (who.user_id, &who.email), kind, id, peer: request.peer() })
}

fn profile<'a>(request: &Request, who: &'a Bearer) -> Result<Target<'a>, ApiError> {
    let user = (who.user_id, who.email.as_str());
    Ok(Target { user, kind: Kind::Profile, id: request.param_id(0)?, peer: request.peer() })
}

/// An entity as the API shows it. The members of other kinds are left out.
pub fn row(kind: Kind, entity: &Entity, who: &Bearer) -> Value {
    let mut row = json!({
        "id": entity.id,
        "user_id": who.user_id,
        "slug": entity.slug,
        "name": entity.name,
        "description": entity.description,
        "current_version": entity.current_version,
        "r2_key_prefix": format!("entities/{}/{}/{}/", kind.word(), who.user_id, entity.id),
        "created_at": entity.created_at,
        "updated_at": entity.updated_at,
        "deleted_at": null,
    });
    let own = match kind {
        Kind::Project => json!({
            "git_url": entity.git_url,
            "git_branch": entity.git_branch,
            "env_storage_mode": "structured",
        }),
        Kind::Config => json!({ "source_hint": entity.source_hint }),
        Kind::Module => json!({ "module_type": entity.module_type }),
        Kind::Profile => json!({ "is_default": entity.is_default }),
        Kind::Workspace => json!({}),
    };
    if let (Value::Object(row), Value::Object(own)) = (&mut row, own) {
        row.extend(own);
    }
    row
}

fn file_key(target: Target<'_>, version: &Version) -> String {
    let (kind, user, id) = (target.kind.word(), target.user.0, target.id);
    format!("entities/{kind}/{user}/{id}/v{}.enc", version.version)
}

/// The command line looks for the words "already exists" to go on with the project it has.
fn taken(error: StoreError, kind: Kind, slug: &str) -> ApiError {
    match error {
        StoreError::Exists(_) => {
            let message = format!("{} with slug '{slug}' already exists", kind.word());
            ApiError::new(409, "conflict", message)
        }
        other => other.into(),
    }
}

/// Other machines hand the URL to `git clone`. Git takes what begins with `-` as an option, and
/// runs a program for `ext::…` and for any scheme it does not know itself (gitremote-helpers(7));
/// a host that begins with `-` becomes an option of ssh.
fn safe_git_url(url: &str) -> Result<(), ApiError> {
    const SCHEMES: [&str; 9] =
        ["https", "http", "ssh", "git", "git+ssh", "ssh+git", "file", "ftp", "ftps"];
    no_option("git_url", url)?;
    let refuse = || ApiError::malformed("git_url must be an ordinary https, ssh, git or file URL");
    let word = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+.-_".contains(&b));
    if url.split_once("::").is_some_and(|(helper, _)| word(helper)) {
        return Err(refuse());
    }
    let (scheme, rest) = url.split_once("://").unwrap_or(("ssh", url));
    let host = rest.split('/').next().unwrap_or_default();
    let host = host.rsplit('@').next().unwrap_or_default();
    let known = SCHEMES.iter().any(|known| scheme.eq_ignore_ascii_case(known));
    match known && !host.starts_with('-') && !rest.starts_with('-') {
        true => Ok(()),
        false => Err(refuse()),
    }
}

fn no_option(field: &str, text: &str) -> Result<(), ApiError> {
    match text.starts_with('-') {
        true => Err(ApiError::malformed(format!("{field} may not begin with -"))),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_git_url_that_could_run_a_command_is_refused() {
        for bad in [
            "-uexploit",
            "ext::sh -c x",
            "EXT::sh",
            "fd::17",
            "ext://x",
            "foo://x",
            "a::b",
            "ssh://-oProxyCommand=x/y",
            "ssh://me@-oProxyCommand=x/y",
            "me@-oProxyCommand=x:y",
        ] {
            assert!(safe_git_url(bad).is_err(), "{bad}");
        }
        for good in [
            "git@example.test:me/app.git",
            "https://me:secret@example.test/app.git",
            "ssh://git@[::1]:22/app",
            "/srv/git/app.git",
            "../app",
            "HTTPS://example.test/a",
            "file:///srv/app",
            "host:path/with-dash",
        ] {
            assert!(safe_git_url(good).is_ok(), "{good}");
        }
    }
}
