//! The broker behind real reverse proxies: nginx and HAProxy, configured with the examples of `docs/deploying.md`.
//!
//! A receiver that is killed, freezes, vanishes, leaves, or loses its proxy in the middle of many kept messages loses no message, in each
//! dialect and with each kind of confirmation (`loss`), also in PHP (`php`). The log and the throttle use the client's address (`address`). Legacy clients
//! work (`legacy_clients`), and HTTP requests (`http`). Most tests also run without a proxy.

#![cfg(target_os = "linux")] // Proxies end with the test (PR_SET_PDEATHSIG).

#[path = "../e2e/broker.rs"]
#[allow(dead_code)] // tests/e2e needs more.
mod broker;
#[path = "../e2e/client.rs"]
#[allow(dead_code)]
mod client;
#[path = "../e2e/frames.rs"]
#[allow(dead_code)]
mod frames;
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
#[path = "../e2e/secure.rs"]
mod secure;

mod address;
mod http;
mod legacy_clients;
mod loss;
mod php;
mod php_examples;
mod routes;

use broker::PATIENCE;
