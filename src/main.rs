//! `wsmb`: arguments in, exit code out. Everything else is in the library.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: wsmb::allocator::Lined = wsmb::allocator::Lined::new();

fn main() -> ExitCode {
    ExitCode::from(wsmb::cli::run(std::env::args_os()))
}
