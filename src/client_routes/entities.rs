//! Projects, workspaces, configs, modules and profiles: one set of handlers for the five kinds.

use serde::Deserialize;

use super::check_owner;
use crate::app::request::percent_decode;
use crate::app::{App, Error, HandlerResult, Request, Response};
use crate::store::audit::Event;
use crate::store::entities::{EntityBody, Target};
use crate::store::{Upload, User};
use crate::util::types::Key;

/// The member of a version push that holds the bytes.
pub const CIPHERTEXT: &str = "ciphertext";

/// GET /api/{kind}s.
pub fn list(app: &App, request: &Request, user: &User) -> HandlerResult {
    let git_url = request.query.one("git_url")?;
    app.rows(user, request.param(0), |rows| {
        app.store.entities(user.id, kind(request), git_url, rows)
    })
}

/// POST /api/{kind}s.
pub fn add(app: &App, request: &Request, user: &User) -> HandlerResult {
    let new: EntityBody = request.json()?;
    if new.slug.is_none() || new.name.is_none() {
        return Err(Error::malformed("slug and name are needed"));
    }
    new.git_url.as_deref().map(safe_git_url).transpose()?;
    if new.git_branch.as_deref().is_some_and(|branch| branch.starts_with('-')) {
        return Err(Error::malformed("git_branch may not begin with -"));
    }
    Ok(Response::json(201, app.store.add_entity(user, kind(request), &new)?))
}

/// GET /api/{kind}s/{id}.
pub fn show(app: &App, request: &Request, user: &User) -> HandlerResult {
    Ok(Response::json(200, app.store.entity(target(request, user)?)?))
}

/// PATCH /api/{kind}s/{id}.
pub fn change(app: &App, request: &Request, user: &User) -> HandlerResult {
    Ok(Response::json(200, app.store.change_entity(target(request, user)?, &request.json()?)?))
}

/// DELETE /api/{kind}s/{id}.
pub fn remove(app: &App, request: &Request, user: &User) -> HandlerResult {
    app.store.delete_entity(target(request, user)?)?;
    Ok(Response::done(200))
}

/// POST /api/{kind}s/{id}/versions.
pub fn push(app: &App, request: &Request, user: &User, upload: Upload) -> HandlerResult {
    let row = app.store.push_version(target(request, user)?, &request.json()?, upload)?;
    app.metrics.pushes.add(1);
    Ok(Response::json(201, row))
}

/// GET /api/{kind}s/{id}/versions.
pub fn versions(app: &App, request: &Request, user: &User) -> HandlerResult {
    let target = target(request, user)?;
    app.rows(user, "versions", |rows| app.store.versions(target, rows))
}

/// GET /api/{kind}s/{id}/blob and /versions/{n}: the raw bytes of the newest version or version n.
pub fn pull(app: &App, request: &Request, user: &User) -> HandlerResult {
    let number = request.params.get(2).map(|_| request.param_id(2)).transpose()?;
    let target = target(request, user)?;
    let (file, size) = app.store.open_version(target, number)?;
    if !request.head {
        app.store.audit_later(Event::of(user, "entity.pull").subject(target.id));
        app.metrics.pulls.add(1);
    }
    Ok(Response::file(file, size))
}

#[derive(Deserialize)]
struct NewKey {
    user_id: Option<i64>,
    wrapped_dek: Key,
}

/// POST /api/{kind}s/{id}/keys: a different key never replaces the first one.
pub fn add_key(app: &App, request: &Request, user: &User) -> HandlerResult {
    let NewKey { user_id, wrapped_dek } = request.json()?;
    check_owner(user_id, user)?;
    app.store.add_entity_key(target(request, user)?, &wrapped_dek)?;
    Ok(Response::done(201))
}

#[derive(Deserialize)]
struct Member {
    workspace_id: i64,
}

/// POST /api/profiles/{id}/workspaces.
pub fn add_workspace(app: &App, request: &Request, user: &User) -> HandlerResult {
    let Member { workspace_id } = request.json()?;
    let profile = Target { user, kind: "profile", id: request.param_id(0)? };
    app.store.add_to_profile(profile, workspace_id)?;
    Ok(Response::done(201))
}

/// DELETE /api/profiles/{id}/workspaces/{wid}.
pub fn remove_workspace(app: &App, request: &Request, user: &User) -> HandlerResult {
    let profile = Target { user, kind: "profile", id: request.param_id(0)? };
    app.store.remove_from_profile(profile, request.param_id(1)?)?;
    Ok(Response::done(200))
}

/// The kind of entity, whose plural is the first parameter of the path.
fn kind(request: &Request) -> &str {
    let plural = request.param(0);
    plural.strip_suffix('s').unwrap_or(plural)
}

fn target<'a>(request: &'a Request, user: &'a User) -> Result<Target<'a>, Error> {
    Ok(Target { user, kind: kind(request), id: request.param_id(1)? })
}

/// Refuses a URL that could run a command: other machines pass it to `git clone`. Git parses a
/// leading `-` as an option, and runs a program for `ext::…` and for any scheme that it does not
/// implement itself (gitremote-helpers(7)); a host with a leading `-` becomes an option of ssh.
fn safe_git_url(url: &str) -> Result<(), Error> {
    const SCHEMES: [&str; 9] =
        ["https", "http", "ssh", "git", "git+ssh", "ssh+git", "file", "ftp", "ftps"];
    let word = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+.-_".contains(&b));
    let runs = url.split_once("::").is_some_and(|(helper, _)| word(helper));
    let (scheme, rest) = url.split_once("://").unwrap_or(("ssh", url));
    let authority = rest.split('/').next().unwrap_or_default();
    // git percent-decodes a URL, but not the scp-like form, and strips brackets before it parses
    // the host; after a colon comes a port, or the path of the scp-like form.
    let decoded =
        if url.contains("://") { percent_decode(authority)? } else { authority.to_owned() };
    let option = |text: &str| text.trim_start_matches('[').starts_with('-');
    let host = decoded.rsplit('@').next().unwrap_or_default();
    let options = decoded.starts_with('-') || host.split(':').any(option);
    let known = SCHEMES.iter().any(|known| scheme.eq_ignore_ascii_case(known));
    match known && !runs && !options {
        true => Ok(()),
        false => Err(Error::malformed("git_url must be an ordinary https, ssh, git or file URL")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_git_url_that_could_run_a_command_is_refused() {
        for bad in [
            "-uexploit", "ext::sh -c x", "EXT::sh", "fd::17", "ext://x", "foo://x", "a::b",
            "ssh://-oProxyCommand=x/y", "ssh://me@-oProxyCommand=x/y", "me@-oProxyCommand=x:y",
            "ssh://[-oProxyCommand=x]/y", "ssh://u@[-oP=x]:22/y", "[-oProxyCommand=x]:y",
            "u@[-oProxyCommand=x]:y", "ssh://%2doProxyCommand=x/y", "ssh://u@%2DoProxyCommand=x/y",
            "ssh://%5b-oP=x%5d/y", "ssh://%2doProxyCommand=x@host/y", "host:-oProxy",
            "host:--upload-pack=x",
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
            "host:100%/app.git",
            "C:\\src\\app",
            "https://oauth2:-AbC123@gitlab.example/x.git",
            "https://me:pw@example.test:8443/x",
        ] {
            assert!(safe_git_url(good).is_ok(), "{good}");
        }
    }
}
