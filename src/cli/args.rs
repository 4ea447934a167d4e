//! Arguments and environment variables, each error naming what is wrong and what would be taken.

use std::ffi::OsString;
use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;

use pico_args::Arguments;

use super::CliError;
use super::settings::{self, Bytes, Setting};
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
        self.data = self.setting("--data")?.text.into();
        if self.data.as_os_str().is_empty() {
            Err(CliError::Usage("--data (or CONFIGSYNC_DATA) is empty: name a folder".into()))
        } else {
            Ok(())
        }
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
        if kind.is_empty() && self.flag(flag) {
            return Ok(Value { name: flag.to_owned(), kind, text: "1".to_owned(), least });
        }
        let (mut given, repeatable) = (Vec::new(), kind == settings::REPEATABLE);
        while let Some(value) = if kind.is_empty() { None } else { self.value(flag, kind)? } {
            given.push(value.text);
            if !repeatable {
                break;
            }
        }
        let (name, text) = match (given.is_empty(), std::env::var(settings::variable(flag))) {
            // Empty is as good as absent: `NAME=` stands in files of settings. A folder is meant.
            (true, Ok(text)) if !text.is_empty() || kind == "DIR" => {
                (settings::variable(flag), text)
            }
            (true, Err(std::env::VarError::NotUnicode(_))) => {
                return Err(CliError::Usage(format!("{} is not UTF-8", settings::variable(flag))));
            }
            (true, _) => (flag.to_owned(), default),
            (false, _) => (flag.to_owned(), given.join(",")),
        };
        Ok(Value { name, kind, text, least })
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

    pub fn parse<T: FromStr>(&self) -> Result<T, CliError> {
        self.text.parse().map_err(|_| self.refuse(settings::takes(self.kind)))
    }

    pub fn at_least(mut self, least: u64) -> Value {
        self.least = least;
        self
    }

    /// The parts of a list with commas; none of an empty one.
    pub fn list<T: FromStr>(&self) -> Result<Vec<T>, CliError> {
        let parts = self.text.split(',').map(str::trim).filter(|text| !text.is_empty());
        let refuse = |_| self.refuse(settings::takes(self.kind));
        parts.map(|text| text.parse().map_err(refuse)).collect()
    }

    /// Of a switch.
    pub fn is_on(&self) -> Result<bool, CliError> {
        match &*self.text.to_ascii_lowercase() {
            "on" | "1" | "true" | "yes" => Ok(true),
            "off" | "0" | "false" | "no" => Ok(false),
            _ => Err(self.refuse(settings::takes(self.kind))),
        }
    }

    /// Which of these words it is, whatever their case.
    pub fn one_of<const N: usize>(&self, words: [&str; N]) -> Result<usize, CliError> {
        let found = words.iter().position(|word| word.eq_ignore_ascii_case(&self.text));
        found.ok_or_else(|| self.refuse(settings::takes(self.kind)))
    }

    /// As a number within the bounds of its kind; of a size, with or without a unit.
    pub fn number<T: TryFrom<u64>>(&self) -> Result<T, CliError> {
        let number: u64 =
            if self.kind.starts_with("BYTES") { self.parse::<Bytes>()?.0 } else { self.parse()? };
        let (least, most) = (self.least, settings::most(self.kind));
        let found = T::try_from(number).ok().filter(|_| (least..=most).contains(&number));
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
