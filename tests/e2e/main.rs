//! End-to-end tests of the broker: the real program, real sockets and a real store.
//!
//! `broker` starts the process, `raw` is a WebSocket peer that sends any bytes, `client` is a well-behaved modern client on top of it,
//! and `legacy` contains models of the old clients. The other modules are tests. A test sleeps only if no event can be waited for; most
//! tests wait with [`client::Client::sync`].

mod broker;
mod client;
mod frames;
mod legacy;
mod raw;
mod secure;

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
#[cfg(target_os = "linux")] // Limits of another process, and LD_PRELOAD.
mod faults;
#[cfg(target_os = "linux")] // Limits and mounts of another process.
mod full_disk;
mod groups;
mod handshake;
mod hostile;
mod http;
mod kept;
mod legacy_clients;
mod lifecycle;
mod live_rights;
mod manual_ack;
#[cfg(target_os = "linux")] // /proc.
mod memory;
mod origins;
mod outage;
mod php;
mod php_examples;
#[cfg(target_os = "linux")] // LD_PRELOAD, also for `power_cut`.
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
#[cfg(feature = "tls")]
mod tls;
mod tokens;
mod webhooks;
