//! Arguments and environment variables, each error naming what is wrong and what would be taken.

use std::env::VarError;
use std::ffi::OsString;
use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;

use pico_args::Arguments;

use super::CliError;
use super::settings::{self, Setting};
use crate::util::types::Email;

/// What is left of the command line.
pub struct Args {
    inner: Arguments,
    data: PathBuf,
}

impl Args {
    /// Takes `--data`, which may stand anywhere.
    pub fn new(arguments: Vec<OsString>) -> Result<Args, CliError> {
        let mut args = Args { inner: Arguments::from_vec(arguments), data: PathBuf::new() };
        args.data = args.setting("--data")?.text.into();
        if args.data.as_os_str().is_empty() {
            let empty = "--data (or CONFIGSYNC_DATA) is empty: name a folder";
            return Err(CliError::Usage(empty.into()));
        }
        Ok(args)
    }

    /// Takes a flag without a value.
    pub fn flag(&mut self, name: &'static str) -> bool {
        self.inner.contains(name)
    }

    /// Takes a word that chooses what to do.
    pub fn subcommand(&mut self) -> Result<Option<String>, CliError> {
        self.inner.subcommand().map_err(usage)
    }

    /// Takes the value of a flag; `kind` is the word that stands for it in the help.
    pub fn value(
        &mut self, name: &'static str, kind: &'static str,
    ) -> Result<Option<Value>, CliError> {
        let found: Option<String> = self.inner.opt_value_from_str(name).map_err(usage)?;
        match found {
            // The flag that follows is not meant.
            Some(text) if text.is_empty() || text.starts_with("--") => {
                Err(CliError::Usage(format!("{name} needs a value; see --help")))
            }
            found => Ok(found.map(|text| Value { name: name.to_owned(), kind, text, least: 0 })),
        }
    }

    /// Takes a setting: of the flag, of the variable, or the default, which may be empty. One that
    /// may be repeated is a list with commas.
    pub fn setting(&mut self, flag: &str) -> Result<Value, CliError> {
        let Setting { flag, kind, default, least, .. } = settings::row(flag)?;
        let mut given = Vec::new();
        if kind.is_empty() {
            given.extend(self.flag(flag).then(|| "1".to_owned()));
        } else {
            given.extend(self.value(flag, kind)?.map(|value| value.text));
        }
        while kind == settings::REPEATABLE
            && let Some(value) = self.value(flag, kind)?
        {
            given.push(value.text);
        }
        if !given.is_empty() {
            return Ok(Value { name: flag.to_owned(), kind, text: given.join(","), least });
        }
        let name = settings::variable(flag);
        match std::env::var(&name) {
            // Empty is as good as absent: `NAME=` stands in files of settings. A folder is meant.
            Ok(text) if !text.is_empty() || kind == "DIR" => Ok(Value { name, kind, text, least }),
            Err(VarError::NotUnicode(_)) => Err(CliError::Usage(format!("{name} is not UTF-8"))),
            _ => Ok(Value { name: flag.to_owned(), kind, text: default, least }),
        }
    }

    /// Takes the next argument that is not a flag, if there is one.
    pub fn optional(&mut self, kind: &'static str) -> Result<Option<Value>, CliError> {
        let found: Option<String> = self.inner.opt_free_from_str().map_err(usage)?;
        match found {
            Some(text) if text.starts_with('-') => Err(unknown(&text)),
            Some(text) if text.is_empty() => Err(CliError::Usage(format!("{kind} is empty"))),
            found => Ok(found.map(|text| Value { name: kind.to_owned(), kind, text, least: 0 })),
        }
    }

    /// Takes the next argument that is not a flag.
    pub fn positional(&mut self, kind: &'static str) -> Result<Value, CliError> {
        let missing = || CliError::Usage(format!("{kind} is missing; see --help"));
        self.optional(kind)?.ok_or_else(missing)
    }

    /// Takes the next argument as an email address.
    pub fn email(&mut self) -> Result<Email, CliError> {
        self.positional("EMAIL")?.email()
    }

    /// Takes the next argument, if there is one, as an email address.
    pub fn optional_email(&mut self) -> Result<Option<Email>, CliError> {
        self.optional("EMAIL")?.map(|value| value.email()).transpose()
    }

    /// Takes `--yes`, without which nothing is removed.
    pub fn confirmed(&mut self) -> Result<(), CliError> {
        let unsure = "this deletes everything that was stored; add --yes to do it";
        self.flag("--yes").then_some(()).ok_or_else(|| CliError::Usage(unsure.into()))
    }

    /// Nothing may be left; returns the data folder.
    pub fn finish(self) -> Result<PathBuf, CliError> {
        match self.inner.finish().first() {
            None => Ok(self.data),
            Some(stray) => Err(unknown(&stray.to_string_lossy())),
        }
    }
}

/// A value, with the name of where it was given and the kind that it must be.
pub struct Value {
    name: String,
    kind: &'static str,
    /// As it was given.
    pub text: String,
    /// Of a number.
    least: u64,
}

impl Value {
    /// None of a setting that neither flag, variable nor default gave a value.
    pub fn given(&self) -> Option<&Value> {
        (!self.text.is_empty()).then_some(self)
    }

    /// As what `read` makes of it; where that is nothing, its kind says what would be taken.
    pub fn read<T>(&self, read: impl FnOnce(&str) -> Option<T>) -> Result<T, CliError> {
        read(&self.text).ok_or_else(|| self.refuse(settings::takes(self.kind)))
    }

    pub fn parse<T: FromStr>(&self) -> Result<T, CliError> {
        self.read(|text| text.parse().ok())
    }

    pub fn at_least(mut self, least: u64) -> Value {
        self.least = least;
        self
    }

    /// As a number within the bounds of its kind; of a size, with or without a unit.
    pub fn number<T: TryFrom<u64>>(&self) -> Result<T, CliError> {
        let number = if self.kind.starts_with("BYTES") {
            self.read(settings::bytes)?
        } else {
            self.parse()?
        };
        let (least, most) = (self.least, settings::most(self.kind));
        let found = T::try_from(number).ok().filter(|_| (least..=most).contains(&number));
        found.ok_or_else(|| self.refuse(format_args!("from {least} to {most}")))
    }

    /// As an email address.
    pub fn email(&self) -> Result<Email, CliError> {
        Email::parse(&self.text).map_err(|rule| self.refuse(rule))
    }

    /// A usage error that names it.
    pub fn refuse(&self, why: impl Display) -> CliError {
        let text = self.text.escape_debug();
        CliError::Usage(format!("{}: invalid value `{text}`: {why}", self.name))
    }
}

fn usage(error: pico_args::Error) -> CliError {
    CliError::Usage(error.to_string())
}

fn unknown(argument: &str) -> CliError {
    CliError::Usage(format!("unknown argument {argument}; see --help"))
}
