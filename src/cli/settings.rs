//! The one table of settings, with flag, variable, default, lower bound and line of help, and the
//! parsers of each kind of value.

use std::net::SocketAddr;

use super::CliError;
use crate::util::limits::{
    AUDIT_DAYS, BODY_BYTES_MAX, BODY_GRACE_S, CONNECTIONS_MAX,
    CONNECTIONS_PER_PEER_MAX as PER_PEER, FREE_BYTES_MIN, HEAD_TIMEOUT_S, IDLE_TIMEOUT_S,
    JWT_HOURS, STOP_TIMEOUT_S,
};
use crate::util::log;
use crate::util::network::Network;
use crate::util::types::Violation;

/// One setting of `serve` (`--url` is of `healthcheck`).
pub struct Setting {
    /// Its environment variable has the same name: `--max-body` is `CONFIGSYNC_MAX_BODY`.
    pub flag: &'static str,
    /// The placeholder of the value in the help; empty for a switch.
    pub kind: &'static str,
    /// Empty if there is none.
    pub default: String,
    /// The smallest value of a number.
    pub least: u64,
    help: &'static str,
}

/// Every setting, in the order of the help.
fn all() -> [Setting; 20] {
    let row = |flag, kind, default: &dyn ToString, least, help| {
        let default = default.to_string();
        Setting { flag, kind, default, least, help }
    };
    [
        row("--data", "DIR", &"configsync-data", 0, "the data folder, made if missing"),
        row("--listen", "ADDR:PORT", &"127.0.0.1:8787", 0, "port 0 picks a free one"),
        row("--init-user", "EMAIL", &"", 0, "with no users yet: make one, print a token"),
        row("--max-body", "BYTES", &BODY_BYTES_MAX, 1, "one request body"),
        row("--max-connections", "N", &CONNECTIONS_MAX, 1, "connections open at once"),
        row("--max-connections-per-ip", "N", &PER_PEER, 1, "from one address (IPv6: one /64)"),
        row("--head-timeout", "SECONDS", &HEAD_TIMEOUT_S, 1, "from first to last byte of a head"),
        row("--idle-timeout", "SECONDS", &IDLE_TIMEOUT_S, 1, "to wait for the next request"),
        row("--body-grace", "SECONDS", &BODY_GRACE_S, 1, "then less than 1 KiB/s is cut off"),
        row("--stop-timeout", "SECONDS", &STOP_TIMEOUT_S, 1, "for requests in flight at a stop"),
        row("--token-hours", "HOURS", &JWT_HOURS, 1, "lifetime of a JWT"),
        row("--keep", "N", &0, 0, "snapshots kept per machine; 0 keeps all"),
        row("--quota", "BYTES", &0, 0, "stored bytes per user; 0 is no limit"),
        row("--min-free", "BYTES", &FREE_BYTES_MIN, 0, "refuse pushes below this free space"),
        row("--audit-days", "N", &AUDIT_DAYS, 0, "days that audit rows are kept; 0 keeps all"),
        row("--trusted-proxy", REPEATABLE, &"", 0, "a proxy to believe; repeatable"),
        row("--metrics", "ADDR:PORT", &"", 0, "a second listener: /metrics, /healthz"),
        row("--no-page", "", &"off", 0, "no page at /"),
        row("--log-format", "text|json", &"text", 0, "of the log on standard error"),
        row("--url", "URL", &"", 0, "of healthcheck"),
    ]
}

/// The kind of a setting whose flag may be repeated.
pub const REPEATABLE: &str = "ADDR[/BITS]";

/// The setting of a flag.
pub fn row(flag: &str) -> Result<Setting, CliError> {
    let found = all().into_iter().find(|setting| setting.flag == flag);
    found.ok_or_else(|| CliError::Failed(format!("{flag} is not in the table of settings")))
}

/// The lines of the flags in the help of `serve`.
pub fn help() -> String {
    let line = |setting: &Setting| {
        let Setting { flag, kind, default, help, .. } = setting;
        let left = format!("{flag} {kind}");
        match default.as_str() {
            "" | "off" => format!("  {left:<30}{help}\n"),
            default => format!("  {left:<30}{help} [{default}]\n"),
        }
    };
    all().iter().filter(|setting| setting.kind != "URL").map(line).collect()
}

/// The environment variable of a flag.
pub fn variable(flag: &str) -> String {
    format!("CONFIGSYNC{}", flag.to_ascii_uppercase().replace("--", "_").replace('-', "_"))
}

/// Warns of variables that look like settings but are not: they are probably mistyped.
pub fn warn_of_unknown_variables() {
    let known = all().map(|setting| variable(setting.flag));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        let known = known.iter().any(|known| *known == name) || name == "CONFIGSYNC_JWT_KEY_FILE";
        if name.starts_with("CONFIGSYNC_") && !known {
            log::warn(&format!("the variable {name} is not a setting; see serve --help"));
        }
    }
}

/// Parses an address to listen on.
pub fn address(text: &str) -> Result<SocketAddr, Violation> {
    let takes = "an address and port such as 127.0.0.1:8787 or [::1]:8787";
    text.parse().map_err(|_| takes.into())
}

/// Parses a comma-separated list of addresses and networks.
pub fn networks(text: &str) -> Result<Vec<Network>, Violation> {
    let takes = "an address such as 127.0.0.1, or a network without host bits such as 10.0.0.0/8";
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.map(|part| part.parse().map_err(|()| takes.into())).collect()
}

/// Parses a switch.
pub fn switch(text: &str) -> Result<bool, Violation> {
    match &*text.to_ascii_lowercase() {
        "on" | "1" | "true" | "yes" => Ok(true),
        "off" | "0" | "false" | "no" => Ok(false),
        _ => Err("1 or 0, true or false, yes or no, on or off".into()),
    }
}

/// Extends a parser: `word` stands for None.
pub fn none_if<T>(
    word: &str, read: impl Fn(&str) -> Result<T, Violation>,
) -> impl Fn(&str) -> Result<Option<T>, Violation> {
    move |text| if text == word { Ok(None) } else { read(text).map(Some) }
}

/// Parses a number of this kind that is at least `least`.
pub fn number<T: TryFrom<u64>>(kind: &str, least: u64) -> impl Fn(&str) -> Result<T, Violation> {
    let (takes, most) = match kind {
        // The largest integer of SQLite.
        "BYTES" => ("a size such as 500M or 5G", i64::MAX.unsigned_abs()),
        "BYTES|default" => ("a size such as 500M, or default", i64::MAX.unsigned_abs()),
        // A hundred years, since RFC 3339 has four digits for a year.
        "HOURS" => ("a whole number such as 10", 876_000),
        "DAYS" => ("a whole number such as 10", 36_500),
        "SECONDS" => ("a number of seconds such as 30", u64::from(u32::MAX)),
        _ => ("a whole number such as 10", u64::from(u32::MAX)),
    };
    let read = if kind.starts_with("BYTES") { bytes } else { |text: &str| text.parse().ok() };
    move |text| {
        let number = read(text).ok_or(takes)?;
        let found = T::try_from(number).ok().filter(|_| (least..=most).contains(&number));
        found.ok_or_else(|| format!("from {least} to {most}"))
    }
}

/// Parses a size: K, M, G and T (and KiB, …) are powers of 1024; KB, MB, … are powers of 1000.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match &*text.strip_prefix(digits)?.trim_start().to_ascii_uppercase() {
        "" | "B" => 1,
        "K" | "KIB" => 1 << 10,
        "M" | "MIB" => 1 << 20,
        "G" | "GIB" => 1 << 30,
        "T" | "TIB" => 1 << 40,
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {

    #[test]
    fn a_size_is_bytes_or_has_a_unit() {
        for (text, bytes) in [
            ("0", 0),
            ("7", 7),
            ("7B", 7),
            ("1K", 1024),
            ("500M", 500 << 20),
            ("5G", 5 << 30),
            ("1GiB", 1 << 30),
            ("2 tib", 2 << 40),
            ("1KB", 1000),
            ("3mb", 3_000_000),
        ] {
            assert_eq!(super::bytes(text), Some(bytes), "{text}");
        }
        for bad in [
            "", "M", "1X", "-1", "1.5G", "1MM", "1iB", "1BB", "1KiBB", "0x1", "1E", "16777216T",
            "1 2", "9T9",
        ] {
            assert!(super::bytes(bad).is_none(), "{bad}");
        }
    }
}
