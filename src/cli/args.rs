//! Arguments and environment variables, each error naming what is wrong and what would be taken.

use std::env::VarError;
use std::ffi::OsString;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use pico_args::Arguments;

use super::CliError;
use super::settings::{self, Bytes, Setting, Switch};
use crate::util::types::{Email, Rule};

/// What is left of the command line.
pub struct Args {
    inner: Arguments,
    data: PathBuf,
}

impl Args {
    pub fn from_env() -> Args {
        Args { inner: Arguments::from_env(), data: PathBuf::new() }
    }

    pub fn from_vec(arguments: Vec<OsString>) -> Args {
        Args { inner: Arguments::from_vec(arguments), data: PathBuf::new() }
    }

    /// Takes `--data`, which may stand anywhere.
    pub fn take_data(&mut self) -> Result<(), CliError> {
        let variable_is_empty = std::env::var_os("CONFIGSYNC_DATA").is_some_and(|v| v.is_empty());
        let given = match self.value("--data", "DIR")? {
            None if variable_is_empty => None,
            None => self.setting("--data")?,
            given => given,
        };
        let empty =
            || CliError::Usage("--data (or CONFIGSYNC_DATA) is empty: name a folder".into());
        self.data = given.filter(|path| !path.text.is_empty()).ok_or_else(empty)?.text.into();
        Ok(())
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
            Some(text) if text.starts_with("--") => {
                Err(CliError::Usage(format!("{name} needs a value; see --help")))
            }
            found => Ok(found.map(|text| Value { name: name.to_owned(), kind, text })),
        }
    }

    /// Takes the value of a flag, or of its environment variable.
    pub fn value_or_variable(
        &mut self, name: &'static str, kind: &'static str,
    ) -> Result<Option<Value>, CliError> {
        match self.value(name, kind)? {
            Some(value) => Ok(Some(value)),
            None => from_environment(name, kind),
        }
    }

    /// Takes the value of a setting; None if neither flag, variable nor default has one.
    pub fn setting(&mut self, flag: &str) -> Result<Option<Value>, CliError> {
        let Setting { flag, kind, default, .. } = row(flag)?;
        let given = self.value_or_variable(flag, kind)?;
        let default = Some(default).filter(|text| !text.is_empty());
        Ok(given.or(default.map(|text| Value { name: flag.to_owned(), kind, text })))
    }

    /// A setting that may be without a value.
    pub fn optional_setting<T: FromStr>(&mut self, flag: &str) -> Result<Option<T>, CliError> {
        self.setting(flag)?.map(|value| value.parse()).transpose()
    }

    /// A setting that always has a value.
    pub fn parsed<T: FromStr>(&mut self, flag: &str) -> Result<T, CliError> {
        let missing = || CliError::Usage(format!("{flag} is missing; see serve --help"));
        self.optional_setting(flag)?.ok_or_else(missing)
    }

    /// A setting that is a number.
    pub fn number<T: TryFrom<u64>>(&mut self, flag: &str) -> Result<T, CliError> {
        let Setting { least, kind, .. } = row(flag)?;
        let missing = || CliError::Usage(format!("{flag} is missing; see serve --help"));
        self.setting(flag)?.ok_or_else(missing)?.number(least..=settings::most(kind))
    }

    /// A setting without a value; its environment variable is on or off.
    pub fn switch(&mut self, flag: &'static str) -> Result<bool, CliError> {
        if self.flag(flag) {
            return Ok(true);
        }
        let value = from_environment(flag, "")?;
        value.map_or(Ok(false), |value| value.parse::<Switch>().map(|switch| switch.0))
    }

    /// A setting that may be given several times; its variable is a comma-separated list.
    pub fn repeated<T: FromStr>(&mut self, flag: &str) -> Result<Vec<T>, CliError> {
        let Setting { flag, kind, .. } = row(flag)?;
        let mut values = Vec::new();
        while let Some(value) = self.value(flag, kind)? {
            values.push(value.parse()?);
        }
        if values.is_empty()
            && let Some(Value { name, text, .. }) = from_environment(flag, kind)?
        {
            for text in text.split(',').map(str::trim).filter(|text| !text.is_empty()) {
                values.push(Value { name: name.clone(), kind, text: text.to_owned() }.parse()?);
            }
        }
        Ok(values)
    }

    /// Takes the next argument that is not a flag, if there is one.
    pub fn optional(&mut self, kind: &'static str) -> Result<Option<Value>, CliError> {
        let found: Option<String> = self.inner.opt_free_from_str().map_err(usage)?;
        match found {
            Some(text) if text.starts_with('-') => Err(unknown(&text)),
            found => Ok(found.map(|text| Value { name: kind.to_owned(), kind, text })),
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
}

impl Value {
    pub fn parse<T: FromStr>(&self) -> Result<T, CliError> {
        self.text.parse().map_err(|_| self.refuse(settings::takes(self.kind)))
    }

    /// As a number within bounds; of a size, with or without a unit.
    pub fn number<T: TryFrom<u64>>(&self, bounds: RangeInclusive<u64>) -> Result<T, CliError> {
        let number: u64 = match self.kind.starts_with("BYTES") {
            true => self.parse::<Bytes>()?.0,
            false => self.parse()?,
        };
        let found = T::try_from(number).ok().filter(|_| bounds.contains(&number));
        let (least, most) = bounds.into_inner();
        found.ok_or_else(|| self.refuse(format_args!("from {least} to {most}")))
    }

    /// As a value of this type.
    pub fn checked<T: TryFrom<String, Error = Rule>>(&self) -> Result<T, CliError> {
        T::try_from(self.text.clone()).map_err(|rule| self.refuse(rule))
    }

    /// As an email address.
    pub fn email(&self) -> Result<Email, CliError> {
        Email::parse(&self.text).map_err(|rule| self.refuse(rule))
    }

    /// A usage error that names it.
    pub fn refuse(&self, why: impl Display) -> CliError {
        CliError::Usage(format!(
            "{}: invalid value `{}`: {why}",
            self.name,
            self.text.escape_debug()
        ))
    }
}

fn row(flag: &str) -> Result<Setting, CliError> {
    let found = settings::all().into_iter().find(|setting| setting.flag == flag);
    found.ok_or_else(|| CliError::Failed(format!("{flag} is not in the table of settings")))
}

fn usage(error: pico_args::Error) -> CliError {
    CliError::Usage(error.to_string())
}

fn unknown(argument: &str) -> CliError {
    CliError::Usage(format!("unknown argument {argument}; see --help"))
}

fn from_environment(flag: &str, kind: &'static str) -> Result<Option<Value>, CliError> {
    let name = settings::variable(flag);
    match std::env::var(&name) {
        Err(VarError::NotUnicode(_)) => Err(CliError::Usage(format!("{name} is not UTF-8"))),
        // Empty is as good as absent: `NAME=` stands in files of settings.
        found => {
            Ok(found.ok().filter(|text| !text.is_empty()).map(|text| Value { name, kind, text }))
        }
    }
}
