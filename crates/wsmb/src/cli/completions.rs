//! `wsmb completions`: prints a completion script for a shell.

use std::io::{self, Write as _};

use clap::{Args, Command};
use clap_complete::Shell;

use super::Outcome;
use super::output;

/// Print a script that makes your shell complete commands and options
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  wsmb completions bash > ~/.local/share/bash-completion/completions/wsmb
  wsmb completions zsh > ~/.zfunc/_wsmb        # with `fpath+=~/.zfunc` before `compinit` in ~/.zshrc
  wsmb completions fish > ~/.config/fish/completions/wsmb.fish")]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    /// Prints the script. `program` is the whole command line with all subcommands and options.
    pub(crate) fn run(&self, mut program: Command) -> Outcome {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut program, "wsmb", &mut script);
        io::stdout().lock().write_all(&script).map_err(|error| output::write_failed(&error))
    }
}
