//! The broker from outside: its real binary, real sockets, a real store. One binary, one harness.
//!
//! `broker` drives the process, `raw` is a WebSocket peer with every byte in the test's hand, `client` is a well-behaved modern client
//! on top of it, `legacy` are models of the old clients with their oddities. Everything else is tests. No test sleeps to wait for
//! something that can be asked for: [`client::Client::sync`] is the usual way.

mod broker;
mod client;
mod legacy;
mod raw;

mod bad_credentials;
mod bad_frames;
mod bad_input;
#[cfg(target_os = "linux")] // libfaketime.
mod clock;
mod connect_reply;
mod crash;
mod crowd;
mod dialects;
mod docs_examples;
mod ends;
mod expired_letters;
mod failed_logins;
mod failing;
#[cfg(target_os = "linux")] // Limits and mounts of another process.
mod full_disk;
mod groups;
mod handshake;
mod hostile;
mod kept;
mod kindnesses;
mod lifecycle;
mod live_rights;
#[cfg(target_os = "linux")] // Limits of another process, and LD_PRELOAD.
mod loud;
mod manual_ack;
mod origins;
mod outage;
mod php;
mod php_examples;
#[cfg(target_os = "linux")] // LD_PRELOAD; so the next one.
mod power;
#[cfg(target_os = "linux")]
mod power_cut;
mod preference;
mod proxied;
mod publication;
mod rates;
mod receivers;
mod restart;
mod slow;
#[cfg(target_os = "linux")] // LD_PRELOAD.
mod slow_disk;
mod threads;
