//! A whole broker whose database is killed, stopped, restarted, full, or cut off, while it is under load: what was accepted is delivered, in order, and
//! with a journal nobody notices.
//!
//! `load` sends and receives, `history` checks what came of it, `arena` holds broker, network and server. The broker is driven by the harness of
//! `tests/e2e`.

#![cfg(target_os = "linux")] // The servers are processes with limits and mounts of their own.

#[path = "../e2e/broker.rs"]
#[allow(dead_code)] // The tests of `tests/e2e` need more of it; so with the next three.
mod broker;
#[path = "../e2e/client.rs"]
#[allow(dead_code)]
mod client;
#[path = "../e2e/power.rs"]
mod power;
#[path = "../e2e/raw.rs"]
#[allow(dead_code)]
mod raw;
#[path = "../servers/mod.rs"]
#[allow(dead_code, unused_imports)] // What other tests need is more than what is needed here.
mod servers;

mod arena;
mod faults;
mod history;
mod journal;
mod load;
mod power_cut;
