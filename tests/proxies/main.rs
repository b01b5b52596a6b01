//! The broker behind real reverse proxies: a private nginx and a private HAProxy, configured with the examples of `docs/deploying.md`.
//!
//! What is proved: a receiver that is killed, freezes, vanishes, leaves, or loses its proxy in the middle of many kept messages loses
//! none of them, in each dialect and each way of confirming (`loss`); a real PHP receiver, too (`php`); the log and the counting of failed logins go by the
//! client's own address (`address`); the old clients still get what they need (`kindnesses`). Each also without a proxy, as the control.

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
#[path = "../servers/proxy.rs"]
#[allow(dead_code)]
mod proxy;
#[path = "../e2e/raw.rs"]
#[allow(dead_code)]
mod raw;

mod address;
mod kindnesses;
mod loss;
mod php;
mod php_examples;
mod ways;

use broker::PATIENCE;
