//! The broker behind real reverse proxies: nginx and HAProxy, configured with the examples of `docs/deploying.md`.
//!
//! What is proved: a receiver that is killed, freezes, vanishes, leaves, or loses its proxy in the middle of many kept messages loses
//! none of them, in each dialect and each route of confirming (`loss`); a real PHP receiver, too (`php`); the log and the counting of failed logins go by the
//! client's own address (`address`); the old clients still get what they need (`legacy_clients`). Each also without a proxy, as the control.

#![cfg(target_os = "linux")] // Proxies end with the test (PR_SET_PDEATHSIG).

#[path = "../e2e/broker.rs"]
#[allow(dead_code)] // tests/e2e needs more.
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
mod legacy_clients;
mod loss;
mod php;
mod php_examples;
mod routes;

use broker::PATIENCE;
