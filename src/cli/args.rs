//! Arguments and environment variables. Each error names what is wrong and what is accepted.

use std::env::VarError;
use std::ffi::OsString;
use std::path::PathBuf;

use pico_args::Arguments;

use super::CliError;
use super::settings::{self, Setting};
use crate::util::types::{Email, Violation};

/// The arguments that are left of the command line. A method that takes a value also parses it:
/// `read` converts the text, or returns what is accepted.
pub struct Args {
    inner: Arguments,
    data: PathBuf,
}

impl Args {
    /// Takes `--data`, which may be anywhere.
    pub fn new(arguments: Vec<OsString>) -> Result<Args, CliError> {
        let mut args = Args { inner: Arguments::from_vec(arguments), data: PathBuf::new() };
        args.data = args.setting("--data", |folder| match folder {
            "" => Err("name a folder by --data or CONFIGSYNC_DATA".into()),
            folder => Ok(folder.into()),
        })?;
        Ok(args)
    }

    /// Takes a flag without a value.
    pub fn flag(&mut self, name: &'static str) -> bool {
        self.inner.contains(name)
    }

    /// Takes `--yes`, without which nothing is removed.
    pub fn confirmed(&mut self) -> Result<(), CliError> {
        let unsure = "this deletes everything that is stored of it; add --yes to do it";
        self.flag("--yes").then_some(()).ok_or_else(|| CliError::Usage(unsure.into()))
    }

    /// Takes the next word of a command's name.
    pub fn subcommand(&mut self) -> Result<Option<String>, CliError> {
        self.inner.subcommand().map_err(usage)
    }

    /// Takes the value of a flag.
    pub fn value<T>(
        &mut self, flag: &'static str, read: impl Fn(&str) -> Result<T, Violation>,
    ) -> Result<Option<T>, CliError> {
        let found: Option<String> = self.inner.opt_value_from_str(flag).map_err(usage)?;
        match found {
            // The value is missing, or the next flag stands in its place.
            Some(text) if text.is_empty() || text.starts_with("--") => {
                Err(CliError::Usage(format!("{flag} needs a value; see --help")))
            }
            found => found.map(|text| parse(flag, &text, read)).transpose(),
        }
    }

    /// Takes a setting from its flag, else from its environment variable, else its default, which
    /// may be empty. The values of a repeatable flag are joined with commas.
    pub fn setting<T>(
        &mut self, flag: &str, read: impl Fn(&str) -> Result<T, Violation>,
    ) -> Result<T, CliError> {
        let Setting { flag, kind, default, .. } = settings::row(flag)?;
        let mut given = Vec::new();
        if kind.is_empty() {
            given.extend(self.flag(flag).then(|| "1".to_owned()));
        } else {
            given.extend(self.value(flag, text)?);
        }
        while kind == settings::REPEATABLE
            && let Some(more) = self.value(flag, text)?
        {
            given.push(more);
        }
        if !given.is_empty() {
            return parse(flag, &given.join(","), read);
        }
        let name = settings::variable(flag);
        match std::env::var(&name) {
            // Empty counts as absent, since settings files contain `NAME=`; a folder must be named.
            Ok(text) if !text.is_empty() || kind == "DIR" => parse(&name, &text, read),
            Err(VarError::NotUnicode(_)) => Err(CliError::Usage(format!("{name} is not UTF-8"))),
            _ => parse(flag, &default, read),
        }
    }

    /// Takes a setting that is a number.
    pub fn number<T: TryFrom<u64>>(&mut self, flag: &str) -> Result<T, CliError> {
        let Setting { kind, least, .. } = settings::row(flag)?;
        self.setting(flag, settings::number(kind, least))
    }

    /// Takes the next positional argument, if there is one; `kind` is its placeholder in the help
    /// and its name in errors.
    pub fn optional<T>(
        &mut self, kind: &str, read: impl Fn(&str) -> Result<T, Violation>,
    ) -> Result<Option<T>, CliError> {
        let found: Option<String> = self.inner.opt_free_from_str().map_err(usage)?;
        match found {
            Some(text) if text.starts_with('-') => Err(unknown(&text)),
            Some(text) if text.is_empty() => Err(CliError::Usage(format!("{kind} is empty"))),
            found => found.map(|text| parse(kind, &text, read)).transpose(),
        }
    }

    /// Takes the next positional argument, which is required.
    pub fn positional<T>(
        &mut self, kind: &str, read: impl Fn(&str) -> Result<T, Violation>,
    ) -> Result<T, CliError> {
        let missing = || CliError::Usage(format!("{kind} is missing; see --help"));
        self.optional(kind, read)?.ok_or_else(missing)
    }

    /// Takes the next positional argument as an email address.
    pub fn email(&mut self) -> Result<Email, CliError> {
        self.positional("EMAIL", Email::parse)
    }

    /// Refuses arguments that are left; returns the data folder.
    pub fn finish(self) -> Result<PathBuf, CliError> {
        match self.inner.finish().first() {
            None => Ok(self.data),
            Some(stray) => Err(unknown(&stray.to_string_lossy())),
        }
    }
}

/// Accepts any text.
pub fn text(text: &str) -> Result<String, Violation> {
    Ok(text.to_owned())
}

fn parse<T>(
    name: &str, text: &str, read: impl Fn(&str) -> Result<T, Violation>,
) -> Result<T, CliError> {
    read(text).map_err(|rule| CliError::Usage(format!("{name}: invalid value `{text}`: {rule}")))
}

fn usage(error: pico_args::Error) -> CliError {
    CliError::Usage(error.to_string())
}

fn unknown(argument: &str) -> CliError {
    CliError::Usage(format!("unknown argument {argument}; see --help"))
}
