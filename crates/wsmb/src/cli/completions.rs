//! `wsmb completions`: what a shell needs to complete the commands and options.

use std::io::{self, Write as _};

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::output;
use super::{Cli, Outcome};

/// Print a script that completes the commands and options in your shell
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
    pub(crate) fn run(&self) -> Outcome {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "wsmb", &mut script);
        io::stdout().lock().write_all(&script).map_err(|error| output::write_failed(&error))
    }
}
