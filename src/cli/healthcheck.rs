//! `healthcheck`: asks a running server how it is, for containers and timers without curl.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::args::Args;
use super::output::print;
use super::{CliError, Done};
use crate::util::limits::HEALTHCHECK_TIMEOUT_S;
use crate::util::net::reachable;

pub fn run(mut args: Args) -> Done {
    let mut url = args.setting("--url")?;
    let listen: SocketAddr = args.setting("--listen")?.parse()?;
    args.finish()?;
    if url.text.is_empty() {
        url.text = format!("http://{}", reachable(listen));
    }
    let rest = url.read(|text| {
        let rest = text.strip_prefix("http://")?.trim_end_matches('/');
        let plain = rest.bytes().all(|b| b.is_ascii_graphic()) && !rest.is_empty();
        plain.then(|| rest.to_owned())
    })?;
    let (host, prefix) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let status = ask(host, &format!("{prefix}/healthz"));
    match status.map_err(|e| CliError::Failed(format!("{host} does not answer: {e}")))?.as_str() {
        "200" => print(format_args!("{host} is well\n")),
        status => Err(CliError::Failed(format!("{host} answers {status}"))),
    }
}

/// The status of the response.
fn ask(host: &str, path: &str) -> std::io::Result<String> {
    let wait = Duration::from_secs(HEALTHCHECK_TIMEOUT_S);
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
    let named = if has_port { host.to_owned() } else { format!("{host}:80") };
    let connect = |address| TcpStream::connect_timeout(&address, wait).ok();
    let mut stream = named.to_socket_addrs()?.find_map(connect).ok_or(ErrorKind::NotConnected)?;
    stream.set_read_timeout(Some(wait))?;
    let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    // `HTTP/1.1 200`
    let mut line = [0; 12];
    stream.read_exact(&mut line)?;
    Ok(String::from_utf8_lossy(line.get(9..).unwrap_or_default()).into_owned())
}
