//! `completions` and `man`: what packages and people put beside the program, made from its own flags.

use std::{fs, io::Write, path::PathBuf};

use clap::{Args, Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;

use super::{Cli, CliError, text::EXIT_CODES};

/// Of which shell.
#[derive(Args, Clone, Copy, Debug)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

/// Where to.
#[derive(Args, Clone, Debug)]
pub struct ManArgs {
    /// Write this page and one for each command into a folder, which is made if it is not there
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Prints a completion script.
pub(super) fn completions(args: CompletionsArgs, out: &mut dyn Write) -> Result<(), CliError> {
    // The generator panics where it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "lb-agent", &mut script);
    Ok(out.write_all(&script)?)
}

/// Prints the page of the program, or writes all.
pub(super) fn man(args: &ManArgs, out: &mut dyn Write) -> Result<(), CliError> {
    let Some(dir) = &args.dir else {
        return Ok(Man::new(pages()).render(&mut &mut *out)?);
    };
    let written = fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(pages(), dir));
    written.map_err(|error| CliError::File {
        path: dir.clone(),
        error,
    })
}

/// All commands, each with what its exit code says: whoever looks at one page does not see the others.
fn pages() -> Command {
    Cli::command().mut_subcommands(|command| command.after_help(EXIT_CODES))
}
