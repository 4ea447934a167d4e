//! The older dialect: whole-machine snapshots, actions, and what a login asks.

use serde::Deserialize;
use serde_json::json;

use super::{done, key, machine, text};
use crate::api::machines::Registered;
use crate::api::snapshots::{About, send, uploaded};
use crate::api::{Answer, machines};
use crate::context::Context;
use crate::http::{ApiError, Request, Response};
use crate::limits::SHORT_CHARS_MAX;
use crate::store::keypairs::Keypair;
use crate::store::snapshots::{Condition, Selector};
use crate::store::tokens::Bearer;

/// GET /api/auth/verify: only the status is read.
pub fn verify(_context: &Context, _request: Request, who: &Bearer) -> Answer {
    let body = json!({ "valid": true, "user_id": who.user_id, "email": who.email });
    Ok(Response::json(200, &body))
}

/// POST /api/auth/register: there is no sign-up.
pub fn closed(_context: &Context, _request: Request) -> Answer {
    Err(ApiError::new(
        403,
        "registration_closed",
        "there is no sign-up on this server: its operator adds users with \
         `configsync-server user add EMAIL` and tokens with `configsync-server token create`",
    ))
}

/// GET /api/usage.
pub fn usage(context: &Context, _request: Request, who: &Bearer) -> Answer {
    let (stored_bytes, quota_bytes) = context.store.usage(who.user_id)?;
    let machines = context.store.machines(who.user_id)?;
    let snapshots: i64 = machines.iter().map(|machine| machine.snapshot_count).sum();
    let body =
        json!({ "stored_bytes": stored_bytes, "snapshots": snapshots, "quota_bytes": quota_bytes });
    Ok(Response::json(200, &body))
}

/// GET /api/auth/keypair.
pub fn keypair(context: &Context, _request: Request, who: &Bearer) -> Answer {
    let (keypair, created_at) = context.store.keypair(who.user_id)?;
    Ok(Response::json(
        200,
        &json!({
            "public_key": keypair.public_key,
            "encrypted_private_key": keypair.encrypted_private_key,
            "kek_salt": keypair.kek_salt,
            "kek_iterations": keypair.kek_iterations,
            "key_algorithm": keypair.key_algorithm,
            "key_version": 1,
            "created_at": created_at,
        }),
    ))
}

#[derive(Deserialize)]
struct KeypairBody {
    public_key: Option<String>,
    encrypted_private_key: Option<String>,
    kek_salt: Option<String>,
    kek_iterations: Option<u32>,
    key_algorithm: Option<String>,
}

/// POST /api/auth/keypair: the first one stays.
pub fn add_keypair(context: &Context, request: Request, who: &Bearer) -> Answer {
    let body: KeypairBody = request.json()?;
    let part = |field, value: &Option<String>| key(field, value.as_deref()).map(str::to_owned);
    let algorithm = text("key_algorithm", body.key_algorithm.as_deref(), SHORT_CHARS_MAX)?;
    let keypair = Keypair {
        public_key: part("public_key", &body.public_key)?,
        encrypted_private_key: part("encrypted_private_key", &body.encrypted_private_key)?,
        kek_salt: part("kek_salt", &body.kek_salt)?,
        kek_iterations: body
            .kek_iterations
            .ok_or_else(|| ApiError::malformed("kek_iterations is needed"))?,
        key_algorithm: algorithm.unwrap_or("x25519").to_owned(),
    };
    context.store.add_keypair((who.user_id, &who.email), &keypair, request.peer())?;
    done(201)
}

/// POST /api/machines/register: as POST /api/machines, but 200 also the first time.
pub fn register(context: &Context, request: Request, who: &Bearer) -> Answer {
    let Registered { machine, .. } = machines::registered(context, &request, who)?;
    Ok(Response::json(200, &json!({ "machine": machine })))
}

/// DELETE /api/machines/{mid}: hides it; its snapshots stay.
pub fn remove_machine(context: &Context, request: Request, who: &Bearer) -> Answer {
    let machine = machine(&request)?;
    context.store.hide_machine((who.user_id, &who.email), &machine, request.peer())?;
    done(200)
}

/// POST /api/machines/{mid}/push: always a new snapshot, also from an unknown machine.
pub fn push(context: &Context, mut request: Request, who: &Bearer) -> Answer {
    let machine = machine(&request)?;
    let about: About = request.json()?;
    if about.machine_id.as_deref().is_some_and(|id| id != machine.as_str()) {
        return Err(ApiError::malformed("machine_id differs from the one in the path"));
    }
    let peer = request.peer();
    let condition = Condition::default();
    let upload = uploaded(&mut request)?;
    let mut push = about.push(&machine, &condition, who, peer)?;
    (push.retry, push.registers) = (false, true);
    let (snapshot, _) = context.store.push(&push, upload)?;
    Ok(Response::json(200, &json!({ "success": true, "snapshot_id": snapshot.id })))
}

/// GET /api/machines/latest.
pub fn latest(context: &Context, request: Request, who: &Bearer) -> Answer {
    let machine = request.query.machine("machine_id")?;
    send(context, &request, who, &Selector { id: None, machine })
}

/// GET /api/machines/snapshot/{id}.
pub fn snapshot(context: &Context, request: Request, who: &Bearer) -> Answer {
    let id = Some(request.param_id(0)?);
    send(context, &request, who, &Selector { id, machine: None })
}

/// GET /api/machines/{mid}/actions. HEAD delivers nothing.
pub fn actions(context: &Context, request: Request, who: &Bearer) -> Answer {
    let actions = context.store.actions(who.user_id, &machine(&request)?, !request.head)?;
    Ok(Response::json(200, &json!({ "actions": actions })))
}

/// DELETE /api/machines/{mid}/actions: those that the last GET delivered.
pub fn clear_actions(context: &Context, request: Request, who: &Bearer) -> Answer {
    context.store.clear_actions(who.user_id, &machine(&request)?)?;
    done(200)
}

/// GET /api/machines/{mid}/configs and /modules: no command reads them.
pub fn no_configs(_context: &Context, _request: Request, _who: &Bearer) -> Answer {
    Ok(Response::json(200, &json!({ "configs": [] })))
}

/// As [`no_configs`].
pub fn no_modules(_context: &Context, _request: Request, _who: &Bearer) -> Answer {
    Ok(Response::json(200, &json!({ "modules": [] })))
}
