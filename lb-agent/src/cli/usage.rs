//! A mistake on the command line, as one sentence.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// What is wrong, and what was probably meant.
pub(super) fn sentence(error: &clap::Error) -> String {
    let text = |kind| error.get(kind).and_then(first);
    let meant = |kind| text(kind).map_or_else(see_help, |meant| format!("did you mean {meant}?"));
    let arg = text(ContextKind::InvalidArg).unwrap_or_else(|| "a flag".to_owned());
    match error.kind() {
        ErrorKind::UnknownArgument if arg.starts_with('-') => {
            format!("unknown flag {arg}; {}", meant(ContextKind::SuggestedArg))
        }
        ErrorKind::InvalidSubcommand => {
            let command = text(ContextKind::InvalidSubcommand).unwrap_or_default();
            format!(
                "unknown command {command}; {}",
                meant(ContextKind::SuggestedSubcommand)
            )
        }
        ErrorKind::ArgumentConflict => match text(ContextKind::PriorArg) {
            Some(other) if other != arg => {
                let (one, other) = (name(&arg), name(&other));
                format!("{one} and {other} exclude each other; {}", see_help())
            }
            _ => format!("{}: given more than once", name(&arg)),
        },
        ErrorKind::InvalidValue if text(ContextKind::ValidValue).is_some() => {
            let value = text(ContextKind::InvalidValue).unwrap_or_default();
            format!("{}: {value} is none of {}", name(&arg), valid(error))
        }
        ErrorKind::InvalidValue | ErrorKind::TooFewValues | ErrorKind::WrongNumberOfValues => {
            format!("{}: needs a value; {}", name(&arg), see_help())
        }
        ErrorKind::MissingRequiredArgument => format!("{arg} is missing; {}", see_help()),
        _ => {
            let all = error.to_string();
            let line = all.lines().next().unwrap_or_default();
            format!("{}; {}", line.trim_start_matches("error: "), see_help())
        }
    }
}

/// `--iface` of `--iface <NAME>`.
fn name(arg: &str) -> &str {
    arg.split(' ').next().unwrap_or(arg)
}

/// What would have been right.
fn valid(error: &clap::Error) -> String {
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(all)) => all.join(", "),
        _ => String::new(),
    }
}

fn first(value: &ContextValue) -> Option<String> {
    match value {
        ContextValue::String(text) => Some(text.clone()),
        ContextValue::Strings(all) => all.first().cloned(),
        _ => None,
    }
}

fn see_help() -> String {
    "see lb-agent --help".to_owned()
}
