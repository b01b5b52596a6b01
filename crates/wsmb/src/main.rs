//! The program `wsmb`: passes the arguments to `cli` and returns the exit code.

mod cli;
mod limits;
mod platform;

use std::process::ExitCode;

use wsmb_server::CountingAllocator;

/// Counts the memory that the broker uses (`server.memory_budget`).
#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn main() -> ExitCode {
    ExitCode::from(cli::run(std::env::args_os()))
}
