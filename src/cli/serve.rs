//! `serve`: runs the server until it is told to stop.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;

use super::args::{Args, Value};
use super::notify::notify;
use super::output::{could_not, write_out};
use super::process::{connections_carried, probe_threads, watch_signals};
use super::token::new_token;
use super::{CliError, Done, background, warn_of_unknown_variables};
use crate::app::admission::{Admission, Listener, Ticket};
use crate::app::turns::Turns;
use crate::app::{App, server};
use crate::auth::jwt::JwtKey;
use crate::auth::throttle::Throttle;
use crate::gate::upstream::Upstream;
use crate::gate::{Config, Gate, Service};
use crate::store::audit::Event;
use crate::store::prune::Retention;
use crate::store::status::Fact;
use crate::store::{Policy, Started, Store, provided_jwt_key};
use crate::util::limits;
use crate::util::log;
use crate::util::metrics::Metrics;
use crate::util::net::reachable;
use crate::util::types::{Email, visible};

pub struct Settings {
    data: PathBuf,
    listen: SocketAddr,
    init_user: Option<Email>,
    body_bytes_max: u64,
    stop_timeout: Duration,
    jwt_lifetime_s: i64,
    policy: Policy,
    gate: Config,
    audit_days: u32,
    metrics: Option<SocketAddr>,
    page: bool,
    log_as_json: bool,
}

/// The listening sockets, bound before the data folder is touched.
struct Listeners {
    main: TcpListener,
    address: SocketAddr,
    metrics: Option<TcpListener>,
}

pub fn run(args: Args) -> Done {
    let mut settings = settings(args)?;
    log::start(settings.log_as_json).map_err(could_not("start the thread that logs"))?;
    warn_of_unknown_variables();
    probe_threads().map_err(could_not("start the threads of a server (a limit of the system?)"))?;
    settings.gate.connections_max = connections_carried(settings.gate.connections_max)?;
    let mut signals = watch_signals().map_err(could_not("watch for signals"))?;
    let listeners = Listeners::bind(&settings)?;
    // A systemd credential, say.
    let key = std::env::var_os("CONFIGSYNC_JWT_KEY_FILE");
    let key = key.map(|path| provided_jwt_key(path.as_ref())).transpose()?;
    let (store, started) = Store::start(&settings.data, settings.policy)?;
    let (socket_listener, socket) = store.listen_privately()?;
    let app = Arc::new(App {
        jwt_key: JwtKey::new(key.map_or_else(|| store.jwt_key(), Ok)?),
        throttle: Throttle::default(),
        store,
        body_bytes_max: settings.body_bytes_max,
        jwt_lifetime_s: settings.jwt_lifetime_s,
        metrics: Arc::new(Metrics::default()),
        response_bytes: Mutex::default(),
        turns: Turns::default(),
        page: settings.page,
    });
    init_user(&app.store, settings.init_user.as_ref(), listeners.address)?;
    tell(&app.store, &settings, &started)?;
    let handle = signals.handle();
    let upstream = server::start(&app, socket_listener, socket.path(), move || handle.close());
    let upstream = Arc::new(upstream.map_err(could_not("start the workers"))?);
    background::spawn(&app, settings.policy.keep, settings.audit_days)
        .map_err(could_not("start a thread"))?;
    let address = listeners.address;
    let gates = listeners.open(&app, &upstream, &settings.gate)?;
    let ready = format!("configsync-server listening on http://{address}");
    if let Err(error) = write_out(format_args!("{ready}\n")) {
        log::error(&format!("this could not be printed ({error}): {ready}"));
    }
    notify("READY=1");

    // Until the first signal; the second one ends the process in its handler. Without a signal it
    // ends where tiny_http does.
    let stopped = signals.forever().next().is_some();
    stop(&app, gates, settings.stop_timeout);
    drop(socket);
    log::flush();
    match stopped {
        true => Ok(()),
        false => Err(CliError::Failed("the application stopped; the log says why".into())),
    }
}

impl Listeners {
    fn bind(settings: &Settings) -> Result<Listeners, CliError> {
        let bind = |at| TcpListener::bind(at).map_err(could_not(format_args!("listen on {at}")));
        let main = bind(settings.listen)?;
        let address = main.local_addr().map_err(could_not("read the listening address"))?;
        Ok(Listeners { main, address, metrics: settings.metrics.map(bind).transpose()? })
    }

    /// Opens a gate behind each.
    fn open(
        self, app: &Arc<App>, upstream: &Arc<Upstream<Ticket>>, config: &Config,
    ) -> Result<Vec<Gate>, CliError> {
        let open = |socket, listener| {
            let admission = Admission { app: Arc::clone(app), listener };
            let service = Service { admission, upstream: Arc::clone(upstream) };
            let mut config = config.clone();
            if listener == Listener::Metrics {
                config.connections_max = limits::METRICS_CONNECTIONS_MAX;
            }
            let gate = Gate::start(socket, service, Arc::clone(&app.metrics), config);
            gate.map_err(could_not("start accepting"))
        };
        let mut gates = vec![open(self.main, Listener::Main)?];
        if let Some(socket) = self.metrics {
            let address = socket.local_addr().map_err(could_not("read the address of metrics"))?;
            log::info(&format!("metrics on http://{address}/metrics"));
            gates.push(open(socket, Listener::Metrics)?);
        }
        Ok(gates)
    }
}

/// Says what is served, and what somebody should look at; leaves a trace of the start.
fn tell(store: &Store, settings: &Settings, started: &Started) -> Done {
    let data = visible(&settings.data.display().to_string());
    let (version, (users, machines)) = (env!("CARGO_PKG_VERSION"), store.counts()?);
    log::info(&format!(
        "configsync-server {version} on {data}: {users} users, {machines} machines"
    ));
    if started.new {
        log::warn(&format!("the data folder {data} was made new"));
    }
    if users == 0 {
        log::warn(&format!(
            "no users: make one with `configsync-server user add you@example.com --data {data}`, and \
             a token with `configsync-server token create`"
        ));
    }
    started.warnings.iter().for_each(|warning| log::warn(warning));
    let Policy { keep, quota_bytes, free_bytes_min } = settings.policy;
    let free = store.free_bytes()?;
    if free < free_bytes_min {
        log::warn(&format!(
            "--min-free {free_bytes_min} is above the free space of {free} bytes: pushes are refused"
        ));
    }
    if keep > 0 {
        let pruned = store.prune(Retention { keep, ..Retention::default() }, true)?;
        log::info(&format!(
            "--keep {keep}: {} snapshots beyond the newest {keep} of their machines are deleted now, \
             and later ones as they come",
            pruned.snapshots
        ));
    }
    store.audit_later(Event::new("server.start"));
    let start = json!({ "quota_bytes": quota_bytes, "min_free_bytes": free_bytes_min });
    if let Err(error) = store.note(Fact::START, &start) {
        log::warn(&format!("`status` will show settings of an earlier start: {error}"));
    }
    Ok(())
}

/// Accepts nothing more, lets requests in flight end, and closes the database.
fn stop(app: &Arc<App>, gates: Vec<Gate>, stop_timeout: Duration) {
    notify("STOPPING=1");
    log::info("stopping: finishing the requests in flight");
    let end = Instant::now() + stop_timeout;
    let left = || end.saturating_duration_since(Instant::now());
    for gate in gates {
        if !gate.stop(left()) {
            log::warn("--stop-timeout reached: some requests were cut off");
        }
    }
    app.store.audit_later(Event::new("server.stop"));
    app.store.settle(left().max(Duration::from_millis(limits::SETTLE_MS)));
}

pub fn settings(mut args: Args) -> Result<Settings, CliError> {
    let seconds = |args: &mut Args, flag| args.setting(flag)?.number().map(Duration::from_secs);
    let (init_user, metrics) = (args.setting("--init-user")?, args.setting("--metrics")?);
    Ok(Settings {
        listen: args.setting("--listen")?.parse()?,
        init_user: init_user.given().map(Value::email).transpose()?,
        body_bytes_max: args.setting("--max-body")?.number()?,
        stop_timeout: seconds(&mut args, "--stop-timeout")?,
        jwt_lifetime_s: args.setting("--token-hours")?.number::<i64>()?.saturating_mul(3600),
        policy: Policy {
            quota_bytes: args.setting("--quota")?.number()?,
            free_bytes_min: args.setting("--min-free")?.number()?,
            keep: args.setting("--keep")?.number()?,
        },
        gate: Config {
            connections_max: args.setting("--max-connections")?.number()?,
            connections_per_peer_max: args.setting("--max-connections-per-ip")?.number()?,
            head_timeout: seconds(&mut args, "--head-timeout")?,
            idle_timeout: seconds(&mut args, "--idle-timeout")?,
            body_grace: seconds(&mut args, "--body-grace")?,
            trusted_proxies: args.setting("--trusted-proxy")?.list()?,
            phrase: server::reason_phrase,
        },
        audit_days: args.setting("--audit-days")?.number()?,
        metrics: metrics.given().map(Value::parse).transpose()?,
        page: !args.setting("--no-page")?.is_on()?,
        log_as_json: args.setting("--log-format")?.one_of(["text", "json"])? == 1,
        data: args.finish()?,
    })
}

/// On a folder without users: makes the first one and its token, and shows how to sign in.
fn init_user(store: &Store, email: Option<&Email>, address: SocketAddr) -> Done {
    let Some(email) = email else { return Ok(()) };
    if store.counts()?.0 > 0 {
        log::info("--init-user did nothing: there are users already");
        return Ok(());
    }
    let reachable = reachable(address);
    new_token(store, email, "first token", None, true, |token| {
        write_out(format_args!(
            "created user {email}; its API token, shown this once, is\n{token}\n\
             sign in on each machine (with this server's address as that machine sees it):\n\
             configsync login --api-url http://{reachable} --token {token}\n"
        ))
    })
}
