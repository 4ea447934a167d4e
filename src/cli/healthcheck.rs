//! `healthcheck`: requests /healthz of a running server, for containers and timers without curl.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use serde_json::Value;

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
    let status = ask(host, &format!("{prefix}/healthz"));
    match status.map_err(|e| CliError::Failed(format!("{host} does not answer: {e}")))?.as_str() {
        "200" => print(format_args!("{host} is well\n")),
        status => Err(CliError::Failed(format!("{host} answers {status}"))),
    }
}

/// Bytes of the response that are read: a head and a short body.
const RESPONSE_BYTES: usize = 4096;

/// The host, port and path of a URL.
fn after_scheme(url: &str) -> Result<String, Violation> {
    let rest = url.strip_prefix("http://").unwrap_or_default().trim_end_matches('/');
    match rest.bytes().all(|b| b.is_ascii_graphic()) && !rest.is_empty() {
        true => Ok(rest.to_owned()),
        false => Err("an address such as http://127.0.0.1:8787".into()),
    }
}

/// Sends a GET request and returns the status code of the response, and what fails if the response
/// tells.
fn ask(host: &str, path: &str) -> std::io::Result<String> {
    let wait = Duration::from_secs(HEALTHCHECK_TIMEOUT_S);
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
    let named = if has_port { host.to_owned() } else { format!("{host}:80") };
    let connect = |address| TcpStream::connect_timeout(&address, wait).ok();
    let mut stream = named.to_socket_addrs()?.find_map(connect).ok_or(ErrorKind::NotConnected)?;
    stream.set_read_timeout(Some(wait))?;
    let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    // `HTTP/1.1 200 `
    let mut line = [0; 13];
    stream.read_exact(&mut line)?;
    let line = String::from_utf8_lossy(&line);
    let after_name = line.strip_prefix("HTTP/1.").and_then(|rest| rest.strip_suffix(' '));
    let status = after_name.and_then(|rest| rest.get(2..)).ok_or(ErrorKind::InvalidData)?;
    if status == "200" {
        return Ok(status.to_owned());
    }
    // Our own response comes in one piece.
    let mut rest = [0; RESPONSE_BYTES];
    let bytes = stream.read(&mut rest).unwrap_or(0);
    let rest = String::from_utf8_lossy(rest.get(..bytes).unwrap_or_default());
    let body = rest.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    let code = body.get("code").and_then(Value::as_str).unwrap_or_default();
    Ok(format!("{status} {code}").trim_end().to_owned())
}
