//! The command line, with the real program, real sockets and a real store. `harness` starts programs and reads their output; the other modules are tests.
//! (`tests/cli_servers.rs` tests the command line with database servers.)

#![cfg(unix)]

mod harness;

#[cfg(feature = "bench")]
mod bench;
mod check;
mod commands;
mod copy;
mod exec;
mod login;
mod receive;
mod requeue;
mod send;
mod terminal;
#[cfg(feature = "tls")]
mod tls;
