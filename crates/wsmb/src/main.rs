//! The program `wsmb`: passes the arguments to `cli` and returns the exit code.

mod cli;
mod limits;

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(cli::run(std::env::args_os()))
}
