//! `wsmb`: arguments in, exit code out. Everything else is in `cli` and in the other crates.

mod cli;
mod limits;

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(cli::run(std::env::args_os()))
}
