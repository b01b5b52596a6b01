//! A bare relay: the lower bound of the cost of a message. Run `cargo bench --bench limit -- --listen 127.0.0.1:0`, then
//! `wsmb bench p2p --dialect topic --url ws://127.0.0.1:PORT/` with the printed port.
//!
//! The relay upgrades connections, parses frame headers, unmasks, and forwards each message to all other connections with the same path and query
//! (`/?topic=NAME`), a burst at a time: one read, one write per receiver. One thread, `epoll`, non-blocking sockets. The relay has no passwords, no
//! UTF-8 validation and no timeouts, and an idle connection needs a few machine words.
//!
//! Must deliver each message once and in order to receivers that keep reading. Must be as fast as possible, because goals are ratios to the relay.

#[cfg(target_os = "linux")]
mod frames;
#[cfg(target_os = "linux")]
mod greeting;
#[cfg(target_os = "linux")]
mod poll;
#[cfg(target_os = "linux")]
mod relay;

#[cfg(target_os = "linux")]
const USAGE: &str = "usage: cargo bench --bench limit -- --listen ADDRESS:PORT [--burst BYTES]";

#[cfg(target_os = "linux")]
fn main() -> std::io::Result<()> {
    let mut address = None;
    let mut burst = relay::BURST;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            // Added by `cargo bench`.
            "--bench" => {}
            "--listen" => address = Some(arguments.next().unwrap_or_else(|| misuse())),
            "--burst" => {
                burst = arguments.next().and_then(|given| given.parse().ok()).unwrap_or_else(|| misuse());
            }
            _ => misuse(),
        }
    }
    // `cargo bench` and `cargo test --benches` start the program without an address. The program must then end.
    let Some(address) = address else {
        println!("{USAGE}");
        return Ok(());
    };
    // Each connection needs a file descriptor. If the call fails, the old limit stays.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let mut relay = relay::Relay::bind(&address, burst)?;
    println!("limit is listening on ws://{}", relay.address()?);
    loop {
        relay.handle_events()?;
    }
}

#[cfg(target_os = "linux")]
fn misuse() -> ! {
    eprintln!("{USAGE}");
    std::process::exit(2);
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("the bare relay needs Linux, because it uses epoll");
}
