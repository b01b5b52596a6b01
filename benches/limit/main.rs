//! A bare relay, the practical floor: what a message costs that does nothing but travel. `cargo bench --bench limit -- --listen 127.0.0.1:0`,
//! then `wsmb bench p2p --dialect topic --url ws://127.0.0.1:PORT/` with the port that it prints.
//!
//! It shakes hands, reads frame headers, unmasks, and forwards every message to all other connections with the same path and query
//! (`/?topic=NAME`), a whole burst at a time: one read, one write for each receiver. One thread, `epoll`, non-blocking sockets. It asks for no
//! password, checks no text, watches over nobody's silence, and an idle connection costs it a few machine words. What a broker costs beyond
//! this is the price of what it promises.
//!
//! It must stay correct where a load generator looks: nothing lost, doubled or out of order for whoever keeps reading. It must never be made
//! slower than it can be: goals are ratios to it.

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
            // What `cargo bench` adds by itself.
            "--bench" => {}
            "--listen" => address = Some(arguments.next().unwrap_or_else(|| misuse())),
            "--burst" => {
                burst = arguments.next().and_then(|given| given.parse().ok()).unwrap_or_else(|| misuse());
            }
            _ => misuse(),
        }
    }
    // Whoever runs all benchmarks, or only wants to see that they build, does not want a server that never ends.
    let Some(address) = address else {
        println!("{USAGE}");
        return Ok(());
    };
    // One file for each connection. If it is refused, the old limit holds.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let mut relay = relay::Relay::bind(&address, burst)?;
    println!("limit is listening on ws://{}", relay.address()?);
    loop {
        relay.turn()?;
    }
}

#[cfg(target_os = "linux")]
fn misuse() -> ! {
    eprintln!("{USAGE}");
    std::process::exit(2);
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("the bare relay uses epoll, which is there on Linux only");
}
