//! What a kept message costs with a database server behind the broker: `cargo bench --bench stores`.
//!
//! Two questions. How much does the store add to what the driver costs anyway? The same rows are inserted and removed in the same batches by the store
//! and by a bare client of the same driver, in turns; what counts is the ratio. And what does a confirmed send cost, end to end, with the real
//! program: with the journal, without it, and on SQLite alone.
//!
//! Servers are private ones, set to wait for the disk. Figures are medians; CPU is that of the client or the broker, without the database's.

#[cfg(target_os = "linux")]
mod bare;
#[cfg(target_os = "linux")]
mod end_to_end;
#[cfg(target_os = "linux")]
#[path = "../../tests/servers/mod.rs"]
#[allow(dead_code, unused_imports)] // What the tests of failures need is more than what is needed here.
mod servers;
#[cfg(target_os = "linux")]
mod side_by_side;

#[cfg(target_os = "linux")]
fn main() {
    // `cargo test --benches` only wants to see that it builds.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    for kind in servers::Kind::all() {
        let server = servers::Server::start(kind);
        side_by_side::run(&server);
        end_to_end::run(Some(&server));
    }
    end_to_end::run(None);
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("the database servers of this benchmark are started on Linux only");
}
