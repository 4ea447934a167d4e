//! `healthcheck`: asks a running server how it is, for containers and timers without curl.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::args::Args;
use super::{CliError, Done, print};
use crate::limits::HEALTHCHECK_TIMEOUT_S;

pub fn run(mut args: Args) -> Done {
    let url = args.setting("--url")?;
    args.finish()?;
    let url = url.map_or_else(|| "http://127.0.0.1:8787".to_owned(), |url| url.text);
    let usage = || CliError::Usage(format!("--url {}: use http://HOST:PORT", url.escape_debug()));
    let rest = url.strip_prefix("http://").ok_or_else(usage)?;
    let (host, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let clean = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
    if host.is_empty() || !clean(host) || !clean(prefix) {
        return Err(usage());
    }
    let prefix = prefix.trim_end_matches('/');
    let slash = if prefix.is_empty() { "" } else { "/" };
    let answer = ask(host, &format!("{slash}{prefix}/healthz"));
    let answer = answer.map_err(|e| CliError::Failed(format!("{host} does not answer: {e}")))?;
    let status = answer.split(' ').nth(1).unwrap_or_default();
    match status {
        "200" => print(format_args!("{host} is well\n")),
        _ => Err(CliError::Failed(format!("{host} answers {status}"))),
    }
}

fn ask(host: &str, path: &str) -> std::io::Result<String> {
    let wait = Duration::from_secs(HEALTHCHECK_TIMEOUT_S);
    let named = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let mut last = std::io::ErrorKind::NotFound.into();
    for address in named.to_socket_addrs()? {
        let mut stream = match TcpStream::connect_timeout(&address, wait) {
            Ok(stream) => stream,
            Err(error) => {
                last = error;
                continue;
            }
        };
        stream.set_read_timeout(Some(wait))?;
        let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        let mut answer = String::new();
        stream.take(64 * 1024).read_to_string(&mut answer)?;
        return Ok(answer);
    }
    Err(last)
}
