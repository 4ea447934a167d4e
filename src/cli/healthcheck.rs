//! `healthcheck`: requests /healthz of a running server, for containers and timers without curl.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::args::Args;
use super::output::print;
use super::settings::{address, none_if};
use super::{CliError, CommandResult};
use crate::util::limits::HEALTHCHECK_TIMEOUT_S;
use crate::util::network::reachable;
use crate::util::types::Violation;

pub fn run(mut args: Args) -> CommandResult {
    let url = args.setting("--url", none_if("", after_scheme))?;
    let listen = args.setting("--listen", address)?;
    args.finish()?;
    let url = url.unwrap_or_else(|| reachable(listen).to_string());
    let (host, prefix) = url.split_at(url.find('/').unwrap_or(url.len()));
    let response = ask(host, &format!("{prefix}/healthz"));
    let response =
        response.map_err(|e| CliError::Failed(format!("{host} does not answer: {e}")))?;
    // `HTTP/1.1 200`
    match response.get(9..12).unwrap_or_default() {
        "200" => print(format_args!("{host} is well\n")),
        status => {
            let body = response.split_once("\r\n\r\n").map_or("", |(_, body)| body);
            Err(CliError::Failed(format!("{host} answers {status}: {body}")))
        }
    }
}

/// Bytes of the response that are read: a head and a short body.
const RESPONSE_BYTES: u64 = 4096;

/// The host, port and path of a URL.
fn after_scheme(url: &str) -> Result<String, Violation> {
    let rest = url.strip_prefix("http://").unwrap_or_default().trim_end_matches('/');
    match rest.bytes().all(|b| b.is_ascii_graphic()) && !rest.is_empty() {
        true => Ok(rest.to_owned()),
        false => Err("an address such as http://127.0.0.1:8787".into()),
    }
}

/// Sends a GET request and returns the beginning of the response.
fn ask(host: &str, path: &str) -> std::io::Result<String> {
    let wait = Duration::from_secs(HEALTHCHECK_TIMEOUT_S);
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
    let named = if has_port { host.to_owned() } else { format!("{host}:80") };
    let connect = |address| TcpStream::connect_timeout(&address, wait).ok();
    let mut stream = named.to_socket_addrs()?.find_map(connect).ok_or(ErrorKind::NotConnected)?;
    stream.set_read_timeout(Some(wait))?;
    let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut response = Vec::new();
    stream.take(RESPONSE_BYTES).read_to_end(&mut response)?;
    Ok(String::from_utf8_lossy(&response).into_owned())
}
