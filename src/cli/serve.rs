//! `serve`: runs the server until a signal stops it.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, sleep};
use std::time::{Duration, Instant};

use serde_json::json;

use super::accounts::new_token;
use super::args::Args;
use super::output::{could_not, write_out};
use super::process::{clamp_to_fd_limit, notify, probe_threads, watch_signals};
use super::settings::{address, networks, none_if, switch, warn_of_unknown_variables};
use super::{CliError, CommandResult};
use crate::app::admission::{Admission, Listener, Ticket};
use crate::app::user_limit::UserLimit;
use crate::app::{App, Settings, server};
use crate::auth::jwt::JwtKey;
use crate::auth::throttle::Throttle;
use crate::gate::upstream::Upstream;
use crate::gate::{Config, Gate, Service};
use crate::store::audit::Event;
use crate::store::prune::{Pruned, Retention};
use crate::store::status::Fact;
use crate::store::{Policy, Store, provided_jwt_key};
use crate::util::limits;
use crate::util::log;
use crate::util::network::reachable;
use crate::util::types::Email;

pub fn run(args: Args) -> CommandResult {
    let mut settings = settings(args)?;
    log::start(settings.log_as_json).map_err(could_not("start the thread that logs"))?;
    warn_of_unknown_variables();
    probe_threads().map_err(could_not("start the threads of a server (a limit of the system?)"))?;
    settings.gate.connections_max = clamp_to_fd_limit(settings.gate.connections_max)?;
    let mut signals = watch_signals().map_err(could_not("watch for signals"))?;
    // The sockets are bound before the data folder is touched.
    let bind = |at| {
        TcpListener::bind(at).map_err(could_not(format_args!(
            "listen on {at} (does another server run there? --listen chooses another port)"
        )))
    };
    let (main, metrics) = (bind(settings.listen)?, settings.metrics.map(bind).transpose()?);
    let address = main.local_addr().map_err(could_not("read the listening address"))?;
    // For example a systemd credential.
    let key = std::env::var_os("CONFIGSYNC_JWT_KEY_FILE");
    let key = key.map(|path| provided_jwt_key(path.as_ref())).transpose()?;
    let (store, new) = Store::start(&settings.data, settings.policy)?;
    let (socket_listener, socket) = store.listen_privately()?;
    let app = Arc::new(App {
        jwt_key: JwtKey::new(key.map_or_else(|| store.jwt_key(), Ok)?),
        store,
        settings,
        password_throttle: Throttle::default(),
        token_throttle: Throttle::default(),
        response_bytes: Mutex::default(),
        user_limit: UserLimit::default(),
        metrics: Arc::default(),
    });
    init_user(&app, address)?;
    log_start(&app, new)?;
    let handle = signals.handle();
    let upstream = server::start(&app, socket_listener, &socket.path, move || handle.close());
    let upstream = Arc::new(upstream.map_err(could_not("start the workers"))?);
    spawn_background_tasks(&app).map_err(could_not("start a thread"))?;
    let open = |listener, socket| open_gate(listener, socket, &app, &upstream);
    let mut gates = vec![open(Listener::Main, main)?];
    gates.extend(metrics.map(|socket| open(Listener::Metrics, socket)).transpose()?);
    let ready = format!("configsync-server listening on http://{address}");
    if let Err(error) = write_out(format_args!("{ready}\n")) {
        log::error(&format!("this could not be printed ({error}): {ready}"));
    }
    notify("READY=1");

    // Waits for the first signal; the second one ends the process in its handler. If tiny_http
    // ends, `on_lost` closes the iterator, which then returns None.
    let stopped = signals.forever().next().is_some();
    stop(&app, gates);
    drop(socket);
    log::flush();
    match stopped {
        true => Ok(()),
        false => Err(CliError::Failed("the application stopped; the log says why".into())),
    }
}

/// Starts the gate of a listener.
fn open_gate(
    listener: Listener, socket: TcpListener, app: &Arc<App>, upstream: &Arc<Upstream<Ticket>>,
) -> Result<Arc<Gate>, CliError> {
    let mut config = app.settings.gate.clone();
    if listener == Listener::Metrics {
        config.connections_max = limits::METRICS_CONNECTIONS_MAX;
        let address = socket.local_addr().map_err(could_not("read the address of metrics"))?;
        log::info(&format!("metrics on http://{address}/metrics"));
    }
    let admission = Admission { app: Arc::clone(app), listener };
    let service = Service { admission, upstream: Arc::clone(upstream) };
    let gate = Gate::start(socket, service, Arc::clone(&app.metrics), config);
    gate.map_err(could_not("start accepting"))
}

/// Logs what is served and what needs attention, and records the start as a fact and an audit row.
fn log_start(app: &App, new: bool) -> CommandResult {
    let App { store, settings, .. } = app;
    let data = settings.data.display();
    let (version, (users, machines)) = (env!("CARGO_PKG_VERSION"), store.counts()?);
    log::info(&format!(
        "configsync-server {version} on {data}: {users} users, {machines} machines"
    ));
    if new {
        log::warn(&format!("the data folder {data} was made new"));
    }
    if users == 0 {
        log::warn(&format!(
            "no users: make one with `configsync-server user add you@example.com --data {data}`, and \
             a token with `configsync-server token create`"
        ));
    }
    let Policy { quota_bytes, free_bytes_min, .. } = settings.policy;
    let free = store.free_bytes()?;
    if free < free_bytes_min {
        log::warn(&format!(
            "--min-free {free_bytes_min} is above the free space of {free} bytes: pushes are refused"
        ));
    }
    let start = json!({ "quota_bytes": quota_bytes, "min_free_bytes": free_bytes_min });
    store.record_fact(Fact::START, &start, Some(Event::new("server.start")));
    Ok(())
}

/// Starts the background threads. `retention` prunes at the start and once an hour. `housekeeper`
/// writes the deferred rows, for which no request waits, twice a second, and notifies systemd's
/// watchdog after each write.
fn spawn_background_tasks(app: &Arc<App>) -> std::io::Result<()> {
    let spawn = |name: &str, pause_ms, task: fn(&App)| {
        let app = Arc::clone(app);
        Builder::new().name(name.into()).spawn(move || {
            loop {
                task(&app);
                sleep(Duration::from_millis(pause_ms));
            }
        })
    };
    spawn("retention", limits::RETENTION_MS, apply_retention)?;
    spawn("housekeeper", limits::HOUSEKEEPING_MS, |app| {
        app.store.write_deferred_rows();
        // A reserve that cannot be restored now is retried; only a full disk needs it.
        let _ = app.store.keep_reserve();
        notify("WATCHDOG=1");
    })?;
    Ok(())
}

fn apply_retention(app: &App) {
    let (keep, audit_days) = (app.settings.policy.keep, app.settings.audit_days);
    let retention = Retention { keep, older_than_days: None, audit_days };
    match app.store.prune(retention, false) {
        Ok(Pruned { snapshots: 0, deleted: 0, orphans: 0, audit_rows: 0, .. }) => {}
        Ok(Pruned { snapshots, deleted, orphans, audit_rows, bytes, .. }) => log::info(&format!(
            "retention (--keep {keep}, --audit-days {audit_days}) deleted {snapshots} snapshots, \
             {deleted} deleted entities and environments, {orphans} files of orphans/ and \
             {audit_rows} audit rows; {bytes} bytes are free again"
        )),
        Err(error) => log::error(&format!("what is old was not deleted: {error}")),
    }
}

/// Stops accepting, lets requests in flight end, and checkpoints the database.
fn stop(app: &App, gates: Vec<Arc<Gate>>) {
    notify("STOPPING=1");
    log::info("stopping: finishing the requests in flight");
    let end = Instant::now() + app.settings.stop_timeout;
    let left = || end.saturating_duration_since(Instant::now());
    for gate in gates {
        if !gate.stop(left()) {
            log::warn("--stop-timeout reached: some requests were cut off");
        }
    }
    app.store.audit_later(Event::new("server.stop"));
    app.store.flush_and_checkpoint(left().max(Duration::from_millis(limits::STOP_CHECKPOINT_MS)));
}

pub fn settings(mut args: Args) -> Result<Settings, CliError> {
    let seconds = |args: &mut Args, flag| args.number(flag).map(Duration::from_secs);
    Ok(Settings {
        listen: args.setting("--listen", address)?,
        init_user: args.setting("--init-user", none_if("", Email::parse))?,
        body_bytes_max: args.number("--max-body")?,
        stop_timeout: seconds(&mut args, "--stop-timeout")?,
        jwt_lifetime_s: args.number::<i64>("--token-hours")?.saturating_mul(3600),
        policy: Policy {
            quota_bytes: args.number("--quota")?,
            free_bytes_min: args.number("--min-free")?,
            keep: args.number("--keep")?,
        },
        gate: Config {
            connections_max: args.number("--max-connections")?,
            connections_per_peer_max: args.number("--max-connections-per-ip")?,
            head_timeout: seconds(&mut args, "--head-timeout")?,
            idle_timeout: seconds(&mut args, "--idle-timeout")?,
            body_grace: seconds(&mut args, "--body-grace")?,
            trusted_proxies: args.setting("--trusted-proxy", networks)?,
            phrase: server::reason_phrase,
        },
        audit_days: args.number("--audit-days")?,
        metrics: args.setting("--metrics", none_if("", address))?,
        page: !args.setting("--no-page", switch)?,
        log_as_json: args.setting("--log-format", |format| match format {
            "text" => Ok(false),
            "json" => Ok(true),
            _ => Err("text or json".into()),
        })?,
        data: args.finish()?,
    })
}

/// On a folder without users, creates the first user and its token, and prints how to sign in.
fn init_user(app: &App, address: SocketAddr) -> CommandResult {
    let Some(email) = &app.settings.init_user else { return Ok(()) };
    if app.store.counts()?.0 > 0 {
        log::info(
            "--init-user did nothing: there are users already; for a token, `configsync-server token \
             create EMAIL --name NAME`",
        );
        return Ok(());
    }
    let reachable = reachable(address);
    new_token(&app.store, email, "first token", None, true, |token| {
        write_out(format_args!(
            "created user {email}; its API token, shown this once, is\n{token}\n\
             sign in on each machine (with this server's address as that machine sees it):\n\
             configsync login --api-url http://{reachable} --token {token}\n"
        ))
    })
}
