//! The command line, with the real program, real sockets and a real store. `harness` starts programs and reads their output; the other modules are tests.
//! (`tests/cli_servers.rs` tests the command line with database servers.)

#![cfg(unix)]

mod harness;

#[cfg(feature = "bench")]
mod bench;
mod check;
mod commands;
mod confirmation;
mod copy;
mod demo;
mod exec;
mod login;
mod messages;
mod receive;
mod requeue;
mod send;
mod serve;
mod terminal;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "signatures")] // Keys of ES256 and EdDSA.
mod token;
