//! The command line as its users meet it: the real binary, real sockets, a real store. `harness` starts programs and reads what they print; the rest is tests, a file
//! for each command or so. (`tests/cli_servers.rs`: against database servers.)

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
