//! `healthcheck`: asks a running server how it is, for containers and timers without curl.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use super::args::Args;
use super::output::print;
use super::{CliError, Done};
use crate::util::limits::HEALTHCHECK_TIMEOUT_S;

pub fn run(mut args: Args) -> Done {
    let url = args.value_or_variable("--url", "URL")?;
    let listen: SocketAddr = args.parsed("--listen")?;
    let ip = if listen.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { listen.ip() };
    let here = || format!("http://{}", SocketAddr::from((ip, listen.port())));
    let url = url.map_or_else(here, |url| url.text);
    args.finish()?;
    let usage = || CliError::Usage(format!("--url {}: use http://HOST:PORT", url.escape_debug()));
    let rest = url.strip_prefix("http://").ok_or_else(usage)?;
    let rest = rest.trim_end_matches('/');
    let (host, prefix) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let clean = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
    if host.is_empty() || !clean(host) || !clean(prefix) {
        return Err(usage());
    }
    let answer = ask(host, &format!("{prefix}/healthz"));
    let answer = answer.map_err(|e| CliError::Failed(format!("{host} does not answer: {e}")))?;
    let status = answer.split_ascii_whitespace().nth(1).unwrap_or_default();
    match status {
        "200" => print(format_args!("{host} is well\n")),
        _ => Err(CliError::Failed(format!("{host} answers {status}"))),
    }
}

fn ask(host: &str, path: &str) -> std::io::Result<String> {
    let wait = Duration::from_secs(HEALTHCHECK_TIMEOUT_S);
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
    let named = if has_port { host.to_owned() } else { format!("{host}:80") };
    let mut connected = Err(ErrorKind::NotFound.into());
    for address in named.to_socket_addrs()? {
        connected = TcpStream::connect_timeout(&address, wait);
        if connected.is_ok() {
            break;
        }
    }
    let mut stream = connected?;
    let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let (mut answer, end) = (Vec::new(), Instant::now() + wait);
    while !answer.contains(&b'\n') && answer.len() < 1024 {
        let left = end.saturating_duration_since(Instant::now());
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let mut piece = [0; 256];
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(n) => answer.extend_from_slice(piece.get(..n).unwrap_or_default()),
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Err(ErrorKind::TimedOut.into()),
            Err(e) => return Err(e),
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
