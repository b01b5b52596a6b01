//! A broker under load whose database is killed, suspended, restarted, full, or cut off. Accepted messages are delivered in order, and with a journal no
//! sender is refused.
//!
//! `load` sends and receives, `history` checks the promises, `testbed` contains broker, network and server. The harness of `tests/e2e` starts
//! the broker.

#![cfg(target_os = "linux")] // The servers use features of Linux.

#[path = "../e2e/broker.rs"]
#[allow(dead_code)] // tests/e2e needs more.
mod broker;
#[path = "../e2e/client.rs"]
#[allow(dead_code)]
mod client;
#[path = "../e2e/frames.rs"]
#[allow(dead_code)]
mod frames;
#[path = "../e2e/power.rs"]
mod power;
#[path = "../e2e/raw.rs"]
#[allow(dead_code)]
mod raw;
#[path = "../e2e/secure.rs"]
mod secure;
#[path = "../servers/mod.rs"]
#[allow(dead_code, unused_imports)] // Other tests need more.
mod servers;

mod faults;
mod history;
mod journal;
mod load;
mod power_cut;
mod testbed;
