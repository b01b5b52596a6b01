//! The broker behind real reverse proxies: a private nginx and a private HAProxy, configured with the examples of `docs/deploying.md`.
//!
//! What is proved: the log and the counting of failed logins go by the client's own address (`address`); the old clients still get what they
//! need (`kindnesses`).

#![cfg(target_os = "linux")] // Processes that end with the test.

#[path = "../e2e/broker.rs"]
#[allow(dead_code)] // Other tests need more of it.
mod broker;
#[path = "../e2e/client.rs"]
#[allow(dead_code)]
mod client;
#[path = "../e2e/legacy.rs"]
#[allow(dead_code)]
mod legacy;
#[path = "../servers/process.rs"]
#[allow(dead_code)]
mod process;
#[path = "../e2e/raw.rs"]
#[allow(dead_code)]
mod raw;

mod address;
mod kindnesses;
#[allow(dead_code)]
mod ways;

use broker::PATIENCE;
