//! The command line: flags, subcommands, and what the subcommands print.
//!
//! Exit codes: 0 done, 1 it failed, 2 a flag or setting is wrong, 3 no agent answers.

mod ask;
mod check;
mod client;
mod follow;
mod lists;
mod manual;
mod orders;
mod render;
mod text;
#[cfg(feature = "tui")]
mod top;
mod usage;

#[cfg(test)]
mod tests;

use std::{
    ffi::OsString,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};

pub use self::ask::{CaptureArgs, ExplainArgs, FlowsArgs, TraceArgs};
pub use self::check::CheckArgs;
use self::client::ClientError;
pub use self::lists::ListArgs;
pub use self::manual::{CompletionsArgs, ManArgs};
pub use self::orders::{HealthArgs, OutArgs, State, WeightArgs, WhichArgs};
#[cfg(feature = "tui")]
pub use self::top::TopArgs;
use crate::{
    admin::{ClaimError, RunDir, report::Resolution},
    config::{ConfigError, Flags, Paths},
    purged::Purged,
};

/// Carry traffic for named VIPs to healthy backends, in the kernel.
///
/// Run without a subcommand, lb-agent learns services from Marathon or a file, gives each name an address,
/// answers DNS for it and has the kernel carry connections to a backend. It needs root.
/// Traffic flows on when the agent stops; `lb-agent purge` ends that.
#[derive(Debug, Parser)]
#[command(name = "lb-agent", version, max_term_width = 100, after_help = text::EXAMPLES, disable_help_subcommand = true)]
pub struct Cli {
    /// The settings given as flags.
    #[command(flatten)]
    pub flags: Flags,
    /// What to do; `None`: run the agent.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// In which form an outcome is printed.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct FormArgs {
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// What to do instead of running the agent.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show services, backends, where they come from, and the state of the kernel side
    Status {
        /// Print JSON instead of tables
        #[arg(long)]
        json: bool,
    },
    /// List services, one line each: where they stand, how they choose, how many backends are up, their flows
    Services(ListArgs),
    /// List backends, one line each: state, weight, flows, and why they are in that state
    Backends(ListArgs),
    /// Show what the agent's DNS answers to a name
    Resolve {
        /// The name; its zone may be left out, as in dcos-101app2.marathon
        name: String,
        /// Print JSON instead of text
        #[arg(long)]
        json: bool,
    },
    /// Show the live flows of clients that come by packets, one line each
    ///
    /// A process on this node is connected straight to its backend and has no flow here.
    Flows(FlowsArgs),
    /// Tell which backend a flow has or would get, and why; nothing is opened, counted or changed
    ///
    /// The kernel programs themselves are asked, in a second instance that only looks.
    Explain(ExplainArgs),
    /// Follow single packets and calls as they come, one line each: what came, which backend, what became of it
    ///
    /// While somebody looks, packets go the longer way through the programs; that ends with the command.
    Trace {
        /// Which.
        #[command(flatten)]
        which: TraceArgs,
        /// Print a JSON object a line instead of text
        #[arg(long)]
        json: bool,
    },
    /// Write packets to a pcapng file as the programs saw them, and as they sent them, for tcpdump or Wireshark
    ///
    /// Each packet is there as it came (inbound) and, if it went on, as it went (outbound), with a comment that says
    /// what was decided.
    Capture(CaptureArgs),
    /// Tell what a services file would serve, and everything that is wrong with it; needs neither agent nor root
    Check(CheckArgs),
    /// Give a backend no new connections; those that it has go on
    ///
    /// This wins over what its orchestrator says and outlives the agent, until `lb-agent ready`. It is this node's
    /// alone: say it on every node that sends to the backend. With --node and --etcd all nodes hear of it.
    Drain(OutArgs),
    /// As `drain`, but shown as maintenance
    #[command(visible_alias = "maint")]
    Maintenance(OutArgs),
    /// Take back what was said of a backend by `drain`, `maintenance`, `weight` and `health`
    Ready(WhichArgs),
    /// Give a backend another share of new connections than its orchestrator says
    Weight(WeightArgs),
    /// Say how a backend is, whatever its checks and its orchestrator's say; `ready` takes it back
    ///
    /// up: it takes new connections. stopping: it takes none and keeps those that it has. down: it takes none, and
    /// those that it has are reset. Like `drain` it outlives the agent and is this node's alone.
    Health(HealthArgs),
    /// Reset the connections that a backend has now; new ones go on coming
    ///
    /// Those of clients end at their next packet, sockets of this node's own processes at once.
    Reset(WhichArgs),
    /// Give back the address of a name that has no backends any more, so that another name may have it
    ///
    /// A name keeps its address for ever otherwise, and who declared it first. With --etcd it is given back there, too;
    /// nodes that know the name from before keep it for themselves until they are told the same.
    Release {
        /// The name; its zone may be left out, as in redis.marathon
        name: String,
        /// How to answer.
        #[command(flatten)]
        form: FormArgs,
    },
    /// Have the agent read every orchestrator and file anew, and compare the kernel with them, now
    ///
    /// It does so every `--resync` seconds by itself; SIGHUP has the same effect.
    Resync(FormArgs),
    /// Watch services and backends, the busiest first, and drain them by single keys
    #[cfg(feature = "tui")]
    Top(TopArgs),
    /// Print what makes a shell complete commands and flags, for a file that it reads at its start
    Completions(CompletionsArgs),
    /// Print this program's manual page, as troff
    Man(ManArgs),
    /// Remove everything the agent ever put into the kernel, and end the traffic it carries; the agent must be stopped
    Purge(FormArgs),
}

/// Why a subcommand ended without doing what it should.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Claim(#[from] ClaimError),
    #[error(
        "packets are no text: say with -w FILE where to write them, or send standard output to a file or program"
    )]
    Terminal,
    #[cfg(feature = "tui")]
    #[error("top needs a terminal to draw on; `lb-agent top --json` prints")]
    NoTerminal,
    #[error("cannot write {}: {error}", .path.display())]
    File { path: PathBuf, error: io::Error },
    #[error("{0} has no address")]
    NoAnswer(String),
    #[error("there is no service {0}; `lb-agent services` lists all")]
    NoService(String),
    #[error("cannot write the answer: {0}")]
    Output(#[from] io::Error),
    #[error("cannot write JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("{0}")]
    Unreadable(String),
    #[error("{}:\n  {}", mistakes(.0.len()), .0.join("\n  "))]
    Wrong(Vec<String>),
    #[error("{0:#}")]
    Purge(anyhow::Error),
    #[error("not everything could be removed; what is wrong put right, run `lb-agent purge` again\n  {}", .0.join("\n  "))]
    NotRemoved(Vec<String>),
}

/// Something is wrong that was found while working.
pub const EXIT_FAILED: u8 = 1;
/// A flag, variable or key is wrong; nothing was touched.
pub const EXIT_USAGE: u8 = 2;
/// No agent answers on the run directory.
pub const EXIT_NOT_RUNNING: u8 = 3;

impl Cli {
    /// Reads the process's arguments. Help and version are printed here; so is a mistake, as one sentence.
    ///
    /// # Errors
    /// The code to exit with: 0 after help or version, 2 after a mistake.
    pub fn read() -> Result<Self, ExitCode> {
        Self::try_parse_from(std::env::args_os()).map_err(|error| {
            if error.use_stderr() {
                report(&usage::sentence(&error));
                return ExitCode::from(EXIT_USAGE);
            }
            match error.print() {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::from(EXIT_FAILED),
            }
        })
    }

    /// Reads the given arguments, the program's name first; mistakes as one sentence.
    ///
    /// # Errors
    /// The mistake; help and version count as one.
    pub fn from_args<I: IntoIterator<Item: Into<OsString> + Clone>>(
        args: I,
    ) -> Result<Self, String> {
        Self::try_parse_from(args).map_err(|error| usage::sentence(&error))
    }
}

/// Prints a wrong setting to standard error; the code to exit with.
pub fn refuse(error: &ConfigError) -> ExitCode {
    report(error);
    ExitCode::from(EXIT_USAGE)
}

/// Does what the subcommand says, prints the outcome, and gives the code to exit with.
///
/// `purge` removes all that an agent with these paths made, and says what it removed and what not. It is called
/// while the run directory is claimed, so that no agent starts meanwhile.
pub fn run(
    command: &Command,
    flags: &Flags,
    purge: impl FnOnce(&Paths) -> anyhow::Result<Purged>,
) -> ExitCode {
    let mut out = io::stdout().lock();
    let outcome = match command {
        // These ask nobody, so they depend on no setting.
        Command::Check(args) => check::check(args, &mut out),
        Command::Completions(args) => manual::completions(*args, &mut out),
        Command::Man(args) => manual::man(args, &mut out),
        command => Paths::load(flags)
            .map_err(CliError::from)
            .and_then(|paths| execute(command, &paths, purge, &mut out)),
    };
    let outcome = outcome.and_then(|()| Ok(out.flush()?));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // `lb-agent status | head` is no failure.
        Err(CliError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            report(&error);
            ExitCode::from(error.code())
        }
    }
}

fn execute(
    command: &Command,
    paths: &Paths,
    purge: impl FnOnce(&Paths) -> anyhow::Result<Purged>,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let socket = &paths.admin_socket();
    let order = |page: &str, query: orders::Query, form: FormArgs, out: &mut dyn Write| {
        let holds: Vec<String> = client::order(socket, page, &query)?;
        show(&holds, form.json, |holds| render::lines(holds), out)
    };
    match command {
        Command::Services(args) => lists::services(socket, args, out),
        Command::Backends(args) => lists::backends(socket, args, out),
        Command::Status { json } => show(&client::status(socket)?, *json, render::status, out),
        Command::Resolve { name, json } => {
            let answer = client::resolve(socket, name)?;
            show(&answer, *json, render::resolution, out)?;
            if has_answer(&answer) {
                Ok(())
            } else {
                Err(CliError::NoAnswer(render::plain(&answer.name)))
            }
        }
        Command::Flows(args) => {
            let found = client::flows(socket, &args.query())?;
            show(&found, args.json, render::flows, out)
        }
        Command::Explain(args) => {
            let told = client::explain(socket, &args.query())?;
            show(&told, args.json, render::explanation, out)
        }
        Command::Check(args) => check::check(args, out),
        Command::Completions(args) => manual::completions(*args, out),
        Command::Man(args) => manual::man(args, out),
        Command::Trace { which, json } => follow::trace(socket, which, *json, out),
        Command::Capture(args) => follow::capture(socket, args, out),
        Command::Drain(args) => order("/v1/drain", args.query(), args.which.form, out),
        Command::Maintenance(args) => order("/v1/maintenance", args.query(), args.which.form, out),
        Command::Ready(which) => order("/v1/ready", which.query(), which.form, out),
        Command::Weight(args) => order("/v1/weight", args.query(), args.form, out),
        Command::Health(args) => order("/v1/health", args.query(), args.form, out),
        Command::Reset(which) => order("/v1/reset", which.query(), which.form, out),
        Command::Release { name, form } => {
            order("/v1/release", vec![("name", name.clone())], *form, out)
        }
        Command::Resync(form) => order("/v1/resync", Vec::new(), *form, out),
        #[cfg(feature = "tui")]
        Command::Top(args) => top::top(socket, args, out),
        Command::Purge(form) => {
            let _claim = RunDir::claim(&paths.run_dir)?;
            let purged = purge(paths).map_err(CliError::Purge)?;
            show(&purged, form.json, render::purged, out)?;
            if purged.failed.is_empty() {
                Ok(())
            } else {
                Err(CliError::NotRemoved(purged.failed))
            }
        }
    }
}

fn mistakes(count: usize) -> String {
    format!("{count} mistake{}", if count == 1 { "" } else { "s" })
}

/// Names outside the zone are forwarded, which is an answer too.
fn has_answer(answer: &Resolution) -> bool {
    !answer.authoritative || !answer.addrs.is_empty()
}

/// Writes what the agent said, for programs or for people.
fn show<T: serde::Serialize>(
    said: &T,
    json: bool,
    in_words: impl FnOnce(&T) -> String,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    if json {
        return write_json(said, out);
    }
    Ok(out.write_all(in_words(said).as_bytes())?)
}

fn write_json(value: &impl serde::Serialize, out: &mut dyn Write) -> Result<(), CliError> {
    // Whoever closes the pipe early ends it well, so the two kinds of errors must not be one.
    let text = serde_json::to_string_pretty(value)?;
    Ok(writeln!(out, "{text}")?)
}

fn report(error: &dyn std::fmt::Display) {
    // With standard error closed there is nobody left to tell.
    let _ = writeln!(io::stderr(), "lb-agent: {error}");
}

impl CliError {
    fn code(&self) -> u8 {
        match self {
            Self::Config(_) => EXIT_USAGE,
            Self::Client(error) if error.not_running() => EXIT_NOT_RUNNING,
            #[cfg(feature = "tui")]
            Self::NoTerminal => EXIT_USAGE,
            Self::Client(_)
            | Self::Claim(_)
            | Self::Terminal
            | Self::File { .. }
            | Self::NoAnswer(_)
            | Self::NoService(_)
            | Self::Output(_)
            | Self::Json(_)
            | Self::Unreadable(_)
            | Self::Wrong(_)
            | Self::Purge(_)
            | Self::NotRemoved(_) => EXIT_FAILED,
        }
    }
}
