//! The flags of the command line, made from the table of settings.

use std::collections::BTreeMap;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::keys::{KEYS, Key, Preset};

/// The settings given on the command line, still as text: they are read and checked together with
/// the environment and the config file by [`Config::load`](super::Config::load).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags(BTreeMap<&'static str, Vec<String>>);

impl Flags {
    /// As given for that setting, in the order given.
    pub(crate) fn get(&self, key: &Key) -> Option<&[String]> {
        self.0.get(key.name).map(Vec::as_slice)
    }
}

impl clap::Args for Flags {
    fn augment_args(command: Command) -> Command {
        command.args(KEYS.iter().copied().map(arg))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for key in KEYS {
            if let Some(values) = matches.get_many::<String>(key.name) {
                self.0.insert(key.name, values.cloned().collect());
            }
        }
        Ok(())
    }
}

fn arg(key: &'static Key) -> Arg {
    let many = if key.many { " (repeatable)" } else { "" };
    let default = match key.default {
        Preset::Unset => String::new(),
        Preset::Text(default) | Preset::Words(default) => format!(" [default: {default}]"),
    };
    let help = format!("{}{many}{default}", key.help);
    let arg = Arg::new(key.name)
        .long(key.name)
        .value_name(key.value)
        .help(help)
        .help_heading(key.group)
        .global(key.global)
        .action(if key.many {
            ArgAction::Append
        } else {
            ArgAction::Set
        });
    if key.switch {
        arg.num_args(0..=1)
            .require_equals(true)
            .default_missing_value(super::keys::YES)
    } else {
        arg
    }
}
