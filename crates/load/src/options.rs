//! The arguments of `wsmb bench`, and of the programs that measure other brokers in the same way.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::payload::Payload;
use crate::limits;

/// The workload to measure.
#[derive(Clone, Debug, Subcommand)]
pub enum Workload {
    /// One sender, one receiver, as fast as possible
    P2p,
    /// One sender, many receivers of the same channel
    Fanout {
        /// Receivers
        #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::CONNECTIONS)))]
        receivers: u32,
    },
    /// Many senders, each with its own channel and receiver
    Pairs {
        /// Pairs
        #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::CONNECTIONS / 2)))]
        pairs: u32,
    },
    /// One sender that sends to many channels in turn (for protocols with one channel per connection, use `pairs`)
    Channels {
        /// Channels
        #[arg(long, default_value_t = 1_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::CHANNELS)))]
        channels: u32,
    },
    /// Connections that receive a channel without messages: the server's memory for each connection
    Idle {
        /// Connections
        #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::CONNECTIONS)))]
        connections: u32,
    },
    /// Latency at a fixed rate, one sender and one receiver
    Latency {
        /// Messages a second
        #[arg(long, default_value_t = 1_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::RATE)))]
        rate: u32,
    },
    /// One sender whose messages the broker confirms, and one receiver that confirms its deliveries
    Confirmed,
    /// Messages without a receiver: stored and confirmed, then drained by one receiver (--messages, 100,000 by default)
    Backlog {
        /// The store's file, to report its size before and after the drain
        #[arg(long, value_name = "FILE")]
        store: Option<PathBuf>,
        /// Do not drain: the messages stay in the broker, for measurements with a backlog
        #[arg(long)]
        leave: bool,
    },
}

impl Workload {
    /// The name of the workload on the command line and in the report.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::P2p => "p2p",
            Self::Fanout { .. } => "fanout",
            Self::Pairs { .. } => "pairs",
            Self::Channels { .. } => "channels",
            Self::Idle { .. } => "idle",
            Self::Latency { .. } => "latency",
            Self::Confirmed => "confirmed",
            Self::Backlog { .. } => "backlog",
        }
    }
}

/// The options of a run.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Load")]
pub struct Options {
    /// Messages to send, after a warm-up of a tenth of this number [default: as many as possible in --seconds]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=limits::MESSAGES))]
    pub messages: Option<u64>,

    /// Seconds to send
    #[arg(long, global = true, value_name = "S", default_value = "5", value_parser = seconds)]
    pub seconds: Duration,

    /// Seconds to send before the measurement; 0: no warm-up
    #[arg(long, global = true, value_name = "S", default_value = "0.5", value_parser = seconds_or_none)]
    pub warm_up: Duration,

    /// Bytes of each message: a JSON value of exactly this size
    #[arg(long, global = true, value_name = "BYTES", default_value_t = 200, value_parser = size)]
    pub size: usize,

    /// Maximum number of undelivered or unconfirmed messages of each sender [default: 4096 for p2p and channels, 512 for fanout, 256 for
    /// pairs, confirmed and backlog; fewer if the messages are large]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::WINDOW_MAX)))]
    pub window: Option<u32>,

    /// Additional idle connections, which receive a channel without messages
    #[arg(long, global = true, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=i64::from(limits::CONNECTIONS)))]
    pub beside: u32,

    /// Prefix of the channel names; a part unique to the run and a number follow
    #[arg(long, global = true, value_name = "NAME", default_value = "bench", value_parser = prefix)]
    pub channel: String,

    /// The server's process, whose CPU time and memory are reported [default: the one that listens on the address, if it is on this system]
    #[arg(long, global = true, value_name = "PID")]
    pub pid: Option<u32>,

    /// Print the result as one JSON object on one line
    #[arg(long, global = true)]
    pub json: bool,

    /// Missing messages count as lost when nothing has arrived for this long.
    #[arg(skip = limits::STALL_TIMEOUT)]
    pub stall: Duration,
}

/// Parses a number of seconds above zero.
fn seconds(text: &str) -> Result<Duration, String> {
    match seconds_or_none(text) {
        Ok(Duration::ZERO) => Err("it must be more than 0".to_owned()),
        other => other,
    }
}

fn seconds_or_none(text: &str) -> Result<Duration, String> {
    let number = text.strip_suffix('s').unwrap_or(text).trim();
    let time = number.parse().ok().and_then(|number| Duration::try_from_secs_f64(number).ok());
    match time {
        Some(time) if time <= limits::RUN_TIME => Ok(time),
        Some(_) => Err(format!("at most {} seconds", limits::RUN_TIME.as_secs())),
        None => Err("it must be a number of seconds, such as 5 or 0.5".to_owned()),
    }
}

fn size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(size) if (Payload::SMALLEST..=wsmb_client::limits::CLIENT_MESSAGE).contains(&size) => Ok(size),
        _ => Err(format!("it must be a number from {} to {}", Payload::SMALLEST, wsmb_client::limits::CLIENT_MESSAGE)),
    }
}

/// Parses the prefix of channel names. It may take half of the longest channel name, so that there is room for the rest.
fn prefix(text: &str) -> Result<String, String> {
    let fits = !text.is_empty()
        && text.chars().count() <= wsmb_core::limits::CHANNEL_NAME_CHARS / 2
        && text.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '"' | '\\'));
    if fits {
        Ok(text.to_owned())
    } else {
        let most = wsmb_core::limits::CHANNEL_NAME_CHARS / 2;
        Err(format!("it must have 1 to {most} printable ASCII characters, without quotes, backslashes and spaces"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_may_have_a_fraction_and_are_bounded() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(seconds("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(seconds_or_none("0"), Ok(Duration::ZERO));
        for bad in ["0", "-1", "x", "", "inf", "NaN", "1e9"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_prefix_that_is_not_a_valid_channel_name_is_refused() {
        assert_eq!(prefix("bench"), Ok("bench".to_owned()));
        for bad in ["", "a b", "\"", "é", &"x".repeat(51)] {
            assert!(prefix(bad).is_err(), "{bad}");
        }
        assert!(size("9").is_err() && size("10").is_ok());
    }
}
