//! Arguments and environment variables, each error naming what is wrong.

use std::env::VarError;
use std::path::PathBuf;
use std::str::FromStr;

use pico_args::Arguments;

use super::CliError;
use crate::util::types::{Email, Rule};

/// What is left of the command line.
pub struct Args {
    inner: Arguments,
    data: PathBuf,
}

impl Args {
    /// Of this process.
    pub fn from_env() -> Args {
        Args { inner: Arguments::from_env(), data: PathBuf::from("configsync-data") }
    }

    /// Takes `--data`, which may stand anywhere.
    pub fn take_data(&mut self) -> Result<(), CliError> {
        if let Some(path) = self.setting("--data")? {
            self.data = PathBuf::from(path.text);
        }
        Ok(())
    }

    /// Takes a flag without a value.
    pub fn flag(&mut self, name: &'static str) -> bool {
        self.inner.contains(name)
    }

    /// Takes a word that chooses what to do.
    pub fn subcommand(&mut self) -> Result<Option<String>, CliError> {
        self.inner.subcommand().map_err(|e| CliError::Usage(e.to_string()))
    }

    /// Takes the value of a flag.
    pub fn value(&mut self, name: &'static str) -> Result<Option<Value>, CliError> {
        let found: Option<String> =
            self.inner.opt_value_from_str(name).map_err(|e| CliError::Usage(e.to_string()))?;
        match found {
            // The flag that follows is not meant.
            Some(text) if text.starts_with("--") => {
                Err(CliError::Usage(format!("{name} needs a value; see --help")))
            }
            found => Ok(found.map(|text| Value { name: name.to_owned(), text })),
        }
    }

    /// Takes the value of a flag, or of its environment variable.
    pub fn setting(&mut self, name: &'static str) -> Result<Option<Value>, CliError> {
        match self.value(name)? {
            Some(value) => Ok(Some(value)),
            None => from_environment(name),
        }
    }

    /// A flag without a value; its environment variable is 1 or 0.
    pub fn switch(&mut self, name: &'static str) -> Result<bool, CliError> {
        if self.flag(name) {
            return Ok(true);
        }
        from_environment(name)?.map_or(Ok(false), |value| value.choice([("1", true), ("0", false)]))
    }

    /// The parsed value of a setting, or its default.
    pub fn parsed<T: FromStr>(&mut self, name: &'static str, default: T) -> Result<T, CliError> {
        self.setting(name)?.map_or(Ok(default), |value| value.parse())
    }

    /// The parsed value of a setting that must not be 0, or its default.
    pub fn positive<T>(&mut self, name: &'static str, default: T) -> Result<T, CliError>
    where
        T: FromStr + PartialEq + Default,
    {
        match self.parsed(name, default)? {
            zero if zero == T::default() => {
                Err(CliError::Usage(format!("{name} 0: must be at least 1")))
            }
            value => Ok(value),
        }
    }

    /// A setting that may be given several times; its variable is a comma-separated list.
    pub fn repeated<T: FromStr>(&mut self, name: &'static str) -> Result<Vec<T>, CliError> {
        let mut values = Vec::new();
        while let Some(value) = self.value(name)? {
            values.push(value.parse()?);
        }
        if values.is_empty()
            && let Some(list) = from_environment(name)?
        {
            for text in list.text.split(',').map(str::trim).filter(|text| !text.is_empty()) {
                values.push(Value { name: list.name.clone(), text: text.to_owned() }.parse()?);
            }
        }
        Ok(values)
    }

    /// Takes the next argument that is no flag, if there is one.
    pub fn optional(&mut self, what: &str) -> Result<Option<Value>, CliError> {
        let found: Option<String> =
            self.inner.opt_free_from_str().map_err(|e| CliError::Usage(e.to_string()))?;
        match found {
            Some(text) if text.starts_with('-') => {
                Err(CliError::Usage(format!("unknown argument {text}; see --help")))
            }
            found => Ok(found.map(|text| Value { name: what.to_owned(), text })),
        }
    }

    /// Takes the next argument that is no flag.
    pub fn positional(&mut self, what: &str) -> Result<Value, CliError> {
        let missing = || CliError::Usage(format!("{what} is missing; see --help"));
        self.optional(what)?.ok_or_else(missing)
    }

    /// Takes the next argument as an email address.
    pub fn email(&mut self) -> Result<Email, CliError> {
        self.positional("EMAIL")?.email()
    }

    /// Takes the value of a flag as a number.
    pub fn number<T: FromStr>(&mut self, name: &'static str) -> Result<Option<T>, CliError> {
        self.value(name)?.map(|value| value.parse()).transpose()
    }

    /// Nothing may be left; says which data folder is meant.
    pub fn finish(self) -> Result<PathBuf, CliError> {
        match self.inner.finish().first() {
            None => Ok(self.data),
            Some(stray) => Err(CliError::Usage(format!(
                "unknown argument {}; see --help",
                stray.to_string_lossy()
            ))),
        }
    }
}

/// A value with the name of where it was given.
pub struct Value {
    name: String,
    /// As it was given.
    pub text: String,
}

impl Value {
    /// Parses it.
    pub fn parse<T: FromStr>(&self) -> Result<T, CliError> {
        self.text.parse().map_err(|_| self.refuse("this is not a value it takes"))
    }

    /// As a value of this type.
    pub fn checked<T: TryFrom<String, Error = Rule>>(&self) -> Result<T, CliError> {
        T::try_from(self.text.clone()).map_err(|rule| self.refuse(&rule))
    }

    /// As an email address.
    pub fn email(&self) -> Result<Email, CliError> {
        Email::parse(&self.text).map_err(|rule| self.refuse(&rule))
    }

    /// What stands beside the one of two words that it is.
    pub fn choice<T>(&self, [one, other]: [(&str, T); 2]) -> Result<T, CliError> {
        match self.text.as_str() {
            word if word == one.0 => Ok(one.1),
            word if word == other.0 => Ok(other.1),
            _ => Err(self.refuse(&format!("use {} or {}", one.0, other.0))),
        }
    }

    /// A usage error that names it.
    pub fn refuse(&self, why: &str) -> CliError {
        CliError::Usage(format!("{} {}: {why}", self.name, self.text.escape_debug()))
    }
}

/// `--max-body` is `CONFIGSYNC_MAX_BODY`.
fn from_environment(flag: &str) -> Result<Option<Value>, CliError> {
    let name =
        format!("CONFIGSYNC{}", flag.to_ascii_uppercase().replace("--", "_").replace('-', "_"));
    match std::env::var(&name) {
        Err(VarError::NotUnicode(_)) => Err(CliError::Usage(format!("{name} is not UTF-8"))),
        // Empty is as good as absent: `NAME=` stands in files of settings.
        found => Ok(found.ok().filter(|text| !text.is_empty()).map(|text| Value { name, text })),
    }
}
