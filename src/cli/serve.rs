//! `serve`: runs the server until it is told to stop.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::args::Args;
use super::notify::notify;
use super::output::{could_not, print};
use super::token::new_token;
use super::{CliError, Done, warn_of_unknown_variables};
use crate::app::App;
use crate::app::admission::{Admission, Listener};
use crate::app::server;
use crate::auth::{Accounts, password};
use crate::gate::{Config, Gate, Service};
use crate::store::audit::Event;
use crate::store::prune::{Pruned, Rules};
use crate::store::space::Reservations;
use crate::store::status::Fact;
use crate::store::{Policy, Store};
use crate::util::limits;
use crate::util::log::{self, Format};
use crate::util::metrics::Metrics;
use crate::util::types::Email;

struct Settings {
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
    log_format: Format,
}

pub fn run(args: Args) -> Done {
    let mut settings = settings(args)?;
    log::start(settings.log_format);
    warn_of_unknown_variables();
    settings.gate.connections_max = carried(settings.gate.connections_max);
    let second = Arc::new(AtomicBool::new(false));
    let mut signals = watch_signals(&second).map_err(could_not("watch for signals"))?;
    let (store, orphans) = Store::start(&settings.data, settings.policy)?;
    if orphans > 0 {
        log::warn(&format!("{orphans} files without a row moved from snapshots/ to lost+found/"));
    }
    let listen = settings.listen;
    let listener = TcpListener::bind(listen).map_err(could_not(format!("listen on {listen}")))?;
    let metrics_listener = settings.metrics.map(|address| {
        TcpListener::bind(address).map_err(could_not(format!("listen on {address}")))
    });
    let metrics_listener = metrics_listener.transpose()?;
    let address = listener.local_addr().map_err(could_not("read the listening address"))?;
    let socket = store.folder().socket_path("http.sock")?;
    let store_run = store.folder().run();
    let context = Arc::new(App {
        accounts: Accounts::new(jwt_key(&store)?),
        store,
        reservations: Arc::new(Reservations::default()),
        body_bytes_max: settings.body_bytes_max,
        jwt_lifetime_s: settings.jwt_lifetime_s,
        metrics: Arc::new(Metrics::default()),
        responses: Arc::default(),
        page: settings.page,
    });
    init_user(&context.store, settings.init_user.as_ref(), address)?;
    context.store.audit_later(Event::new("server.start", "ok"));
    let Policy { quota_bytes, free_bytes_min, .. } = settings.policy;
    let start = json!({ "quota_bytes": quota_bytes, "min_free_bytes": free_bytes_min });
    if let Err(error) = context.store.note(Fact::Start, &start) {
        log::warn(&format!("`status` will show settings of an earlier start: {error}"));
    }
    keep_house(&context, settings.policy.keep, settings.audit_days)
        .map_err(could_not("start a thread"))?;
    let handle = signals.handle();
    let upstream = server::start(&context, &socket, move || handle.close());
    let upstream = Arc::new(upstream.map_err(could_not("start the workers"))?);
    let service = |listener| Service {
        admission: Admission { app: Arc::clone(&context), listener },
        upstream: Arc::clone(&upstream),
    };
    let start = |socket: TcpListener, listener| {
        let metrics = Arc::clone(&context.metrics);
        Gate::start(socket, service(listener), metrics, settings.gate.clone())
    };
    let gate = start(listener, Listener::Main).map_err(could_not("start accepting"))?;
    if let Some(socket) = &metrics_listener {
        let address = socket.local_addr().map_err(could_not("read the metrics address"))?;
        log::info(&format!("metrics on http://{address}/metrics"));
    }
    let metrics_gate = metrics_listener.map(|socket| start(socket, Listener::Metrics)).transpose();
    let metrics_gate = metrics_gate.map_err(could_not("start accepting"))?;
    print(format_args!("configsync-server listening on http://{address}\n"))?;
    notify("READY=1");

    // Until the first signal; the second one ends the process in its handler. Without a signal it
    // ends where tiny_http does.
    let stopped = signals.forever().next().is_some();
    notify("STOPPING=1");
    log::info("stopping: finishing the requests in flight");
    let end = Instant::now() + settings.stop_timeout;
    let ended = gate.stop(settings.stop_timeout);
    if let Some(gate) = metrics_gate {
        gate.stop(Duration::ZERO);
    }
    if !ended {
        log::warn("--stop-timeout reached: some requests were cut off");
    }
    let least = Duration::from_millis(limits::SETTLE_MS);
    settle(&context, end.saturating_duration_since(Instant::now()).max(least));
    let _ = std::fs::remove_file(&socket);
    // A folder that was made for the socket alone goes with it.
    if let Some(dir) = socket.parent().filter(|dir| *dir != store_run) {
        let _ = std::fs::remove_dir(dir);
    }
    log::flush();
    match stopped {
        true => Ok(()),
        false => Err(CliError::Failed("the application stopped; the log says why".into())),
    }
}

/// Leaves one whole database behind, unless the disk or another process holds that up for too long:
/// then the write-ahead log stays for the next start, which loses nothing.
fn settle(context: &Arc<App>, longest: Duration) {
    context.store.audit_later(Event::new("server.stop", "ok"));
    let (context, (done, settled)) = (Arc::clone(context), channel());
    let settling = std::thread::Builder::new().name("settle".into()).spawn(move || {
        context.store.settle();
        let _ = done.send(());
    });
    if settling.is_err() || settled.recv_timeout(longest).is_err() {
        log::warn("--stop-timeout reached: the write-ahead log stays for the next start");
    }
}

fn settings(mut args: Args) -> Result<Settings, CliError> {
    let seconds = |args: &mut Args, flag| args.number(flag).map(Duration::from_secs);
    Ok(Settings {
        listen: args.parsed("--listen")?,
        init_user: args.setting("--init-user")?.map(|value| value.email()).transpose()?,
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
            trusted_proxies: args.repeated("--trusted-proxy")?,
            phrase: server::reason_phrase,
        },
        audit_days: args.number("--audit-days")?,
        metrics: args.optional_setting("--metrics")?,
        page: !args.switch("--no-page")?,
        log_format: args.parsed("--log-format")?,
        data: args.finish()?,
    })
}

/// No more connections than the descriptor limit of this process carries.
fn carried(connections_max: usize) -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.unwrap_or(u64::MAX);
    let fits =
        limit.saturating_sub(limits::DESCRIPTORS_RESERVED) / limits::DESCRIPTORS_PER_CONNECTION;
    let fits = usize::try_from(fits).unwrap_or(usize::MAX).max(1);
    if fits < connections_max {
        log::warn(&format!(
            "--max-connections {connections_max} lowered to {fits}: the descriptor limit is {limit}"
        ));
    }
    connections_max.min(fits)
}

/// The first signal is delivered through the iterator; once it was, a second one exits.
fn watch_signals(second: &Arc<AtomicBool>) -> std::io::Result<signal_hook::iterator::Signals> {
    for signal in [SIGTERM, SIGINT] {
        // In this order: the exit looks at the flag before the same signal sets it.
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(second))?;
        signal_hook::flag::register(signal, Arc::clone(second))?;
    }
    signal_hook::iterator::Signals::new([SIGTERM, SIGINT])
}

/// On a folder without users: makes the first one and its token, and shows how to sign in.
fn init_user(store: &Store, email: Option<&Email>, address: SocketAddr) -> Done {
    let Some(email) = email else { return Ok(()) };
    if !store.user_table()?.rows.is_empty() {
        return Ok(());
    }
    let token = new_token(store, email, "first token", None, true)?;
    // Nobody can connect to 0.0.0.0; this host at least can use its loopback.
    let reachable = match address.ip().is_unspecified() {
        true => SocketAddr::from((Ipv4Addr::LOCALHOST, address.port())),
        false => address,
    };
    print(format_args!(
        "created user {email}; its API token, shown this once, is\n{token}\n\
         sign in on each machine (with this server's address as that machine sees it):\n\
         configsync login --api-url http://{reachable} --token {token}\n",
        token = token.as_str(),
    ))
}

/// The key that signs JWTs: of the data folder, or of the file that `CONFIGSYNC_JWT_KEY_FILE` names
/// (a systemd credential, say).
fn jwt_key(store: &Store) -> Result<[u8; 32], CliError> {
    let Some(path) = std::env::var_os("CONFIGSYNC_JWT_KEY_FILE") else {
        return Ok(store.folder().load_jwt_key()?);
    };
    let failed = |why: String| CliError::Failed(format!("CONFIGSYNC_JWT_KEY_FILE: {why}"));
    let bytes = std::fs::read(&path).map_err(|e| failed(e.to_string()))?;
    bytes.try_into().map_err(|_| failed("the file must hold 32 bytes".to_owned()))
}

/// Twice a second writes what no request waits for, and tells systemd's watchdog that the process
/// lives; beside that, at first and once an hour, deletes what retention says.
fn keep_house(context: &Arc<App>, keep: u32, audit_days: u32) -> std::io::Result<()> {
    let of_retention = Arc::clone(context);
    let retention = std::thread::Builder::new().name("retention".into());
    retention.spawn(move || {
        loop {
            retain(&of_retention.store, keep, audit_days);
            std::thread::sleep(Duration::from_millis(limits::RETENTION_MS));
        }
    })?;
    let context = Arc::clone(context);
    let housekeeper = std::thread::Builder::new().name("housekeeper".into());
    housekeeper.spawn(move || {
        let watched = std::env::var_os("WATCHDOG_USEC").is_some();
        loop {
            std::thread::sleep(Duration::from_millis(limits::HOUSEKEEPING_MS));
            context.store.write_pending();
            password::release_memory();
            if watched {
                notify("WATCHDOG=1");
            }
        }
    })?;
    Ok(())
}

fn retain(store: &Store, keep: u32, audit_days: u32) {
    let rules = Rules { keep: Some(keep), older_than_days: None };
    // Without a number to keep, what an earlier prune or a crash left to be unlinked.
    let pruned = match keep {
        0 => store.unlink_deleted(&mut Pruned::default()),
        _ => store.prune(rules).map(|_| ()),
    };
    let aged = if audit_days > 0 { store.prune_audit(audit_days) } else { Ok(()) };
    for error in [pruned, aged].into_iter().filter_map(Result::err) {
        log::error(&format!("old rows or files were not deleted: {error}"));
    }
}
