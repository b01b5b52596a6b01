//! `wsmb queue requeue`: moves dead letters back to the channels that they came from. Never opens the store of a running broker.

use clap::Args;

use super::stopped;
use crate::cli::output::{self, count};
use crate::cli::settings::Settings;
use crate::cli::{Failure, Outcome, arguments};
use wsmb_config::Config;
use wsmb_core::message::ChannelName;
use wsmb_store::{RequeueError, Requeued, Stay, Tools as _};

/// Move dead letters back to the channels that they came from
///
/// Stop the broker first. The oldest dead letters are moved first, behind the messages that wait in their channel. Each one keeps its body; its deliveries
/// are counted from 0, and the ttl of the channel starts again. Messages that are not dead letters stay, unless --to is given. An interrupted run loses and
/// duplicates nothing; run the same command again.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  wsmb queue peek dead
  wsmb queue requeue dead --count 1
  wsmb queue requeue dead
  wsmb queue requeue dead --to sms-by-hand")]
pub(super) struct Requeue {
    /// Dead-letter channel
    #[arg(value_name = "DEAD", value_parser = arguments::channel)]
    channel: ChannelName,
    /// Move all messages to this channel, also those that are not dead letters
    #[arg(long, value_name = "CHANNEL", value_parser = arguments::channel)]
    to: Option<ChannelName>,
    /// Move at most this number of messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Print the result as a JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Settings,
}

impl Requeue {
    pub(super) fn run(&self) -> Outcome {
        if self.to.as_ref() == Some(&self.channel) {
            return Err(Failure::misuse("--to names the dead-letter channel itself; name the channel to move to"));
        }
        let config = self.settings.load(&[])?;
        if let Some(to) = self.to.as_ref().filter(|to| !config.policies.of(to).keep) {
            return Err(Failure::failed(format_args!(
                "the channel {} keeps no messages (keep = false), so the messages would be lost; name another channel with --to",
                quoted(to)
            )));
        }
        let requeue = wsmb_store::Requeue {
            from: self.channel.clone(),
            to: self.to.clone(),
            count: self.count,
            policies: &config.policies,
        };
        let failed = |error: RequeueError| Failure::failed(error);
        let mut stopped = stopped::open(&config)?;
        let requeued = stopped.requeue(&requeue, &wsmb_server::time_after).map_err(failed);
        let closed = stopped.close().map_err(Failure::failed);
        let requeued = requeued?;
        closed?;
        output::line(&if self.json { self.object(&requeued) } else { self.sentence(&requeued, &config) })
    }

    fn object(&self, requeued: &Requeued) -> String {
        let channels = |wanted: fn(&Stay) -> bool| -> u64 {
            requeued.stay.iter().filter(|(why, _)| wanted(why)).map(|(_, number)| number).sum()
        };
        let moved: serde_json::Map<_, _> =
            requeued.moved.iter().map(|(channel, number)| (channel.to_string(), (*number).into())).collect();
        serde_json::json!({
            "from": self.channel.as_str(), "moved": moved, "left": requeued.left,
            "stay": {
                "no_dead_letter": channels(|why| *why == Stay::NoDeadLetter),
                "expired": channels(|why| *why == Stay::Expired),
                "delayed": channels(|why| *why == Stay::Delayed),
                "not_kept": channels(|why| matches!(why, Stay::NotKept(_))),
                "full": channels(|why| matches!(why, Stay::Full(_))),
                "unfit": channels(|why| matches!(why, Stay::Unfit { .. })),
            },
        })
        .to_string()
    }

    /// Returns the result in words:
    /// `moved 12 messages from "dead" to "sms"; 3 stay: 2 are not dead letters (--to CHANNEL moves them, too), 1 has expired`.
    fn sentence(&self, requeued: &Requeued, config: &Config) -> String {
        let targets: Vec<_> = requeued.moved.iter().collect();
        let from = quoted(&self.channel);
        let mut text = match targets[..] {
            [] => format!("moved no message from {from}"),
            [(channel, number)] => format!("moved {} from {from} to {}", count(*number, "message"), quoted(channel)),
            _ => {
                let each: Vec<_> =
                    targets.iter().map(|(channel, number)| format!("{number} to {}", quoted(channel))).collect();
                format!("moved {} from {from}: {}", count(requeued.total(), "message"), each.join(", "))
            }
        };
        let stay: u64 = requeued.stay.values().sum();
        if stay > 0 {
            let each: Vec<_> = requeued.stay.iter().map(|(why, number)| reason(why, *number, config)).collect();
            let verb = if stay == 1 { "stays" } else { "stay" };
            text.push_str(&format!("; {stay} {verb}: {}", each.join(", ")));
        }
        if requeued.left > 0 {
            text.push_str(&format!("; {} behind them not examined (--count)", count(requeued.left, "message")));
        }
        text
    }
}

/// Returns how many messages stay for this reason, and what to do about it.
fn reason(why: &Stay, number: u64, config: &Config) -> String {
    let one = number == 1;
    match why {
        Stay::NoDeadLetter if one => "1 is not a dead letter (--to CHANNEL moves it, too)".to_owned(),
        Stay::NoDeadLetter => format!("{number} are not dead letters (--to CHANNEL moves them, too)"),
        Stay::Expired => format!("{number} {} expired", if one { "has" } else { "have" }),
        Stay::Delayed => format!("{number} {} delayed", if one { "is" } else { "are" }),
        Stay::NotKept(channel) => {
            format!(
                "{number} came from {}, which keeps no messages (--to CHANNEL names another channel)",
                quoted(channel)
            )
        }
        Stay::Full(channel) => {
            let most = config.policies.of(channel).max_backlog;
            format!("{number} because {} is full (max_backlog = {most})", quoted(channel))
        }
        Stay::Unfit { channel, reason } => {
            format!("{number} because the store cannot hold them in {}: they {reason}", quoted(channel))
        }
    }
}

/// Returns the name of a channel in quotes, with escaped control characters.
fn quoted(channel: &ChannelName) -> String {
    format!("\"{}\"", output::printable(channel.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ChannelName {
        ChannelName::parse(text).unwrap()
    }

    #[test]
    fn the_result_names_moved_and_remaining_messages_with_reasons() {
        let requeue = Requeue {
            channel: name("dead"),
            to: None,
            count: None,
            json: false,
            settings: Settings { config: None, store: None, set: Vec::new(), data_dir: None },
        };
        let config = Config::default();
        let say = |requeued: &Requeued| requeue.sentence(requeued, &config);
        assert_eq!(say(&Requeued::default()), "moved no message from \"dead\"");
        let mut requeued = Requeued::default();
        requeued.moved.insert(name("sms"), 1);
        assert_eq!(say(&requeued), "moved 1 message from \"dead\" to \"sms\"");
        requeued.moved.insert(name("mail"), 11);
        requeued.stay.insert(Stay::NoDeadLetter, 1);
        assert_eq!(
            say(&requeued),
            "moved 12 messages from \"dead\": 11 to \"mail\", 1 to \"sms\"; 1 stays: 1 is not a dead letter (--to CHANNEL moves it, too)"
        );
        let unfit = Stay::Unfit { channel: name("sms"), reason: "are too long".to_owned() };
        let live = name("live");
        for (number, why) in [(2, Stay::Expired), (3, Stay::NotKept(live.clone())), (4, Stay::Full(live)), (5, unfit)] {
            requeued.stay.insert(why, number);
        }
        requeued.left = 7;
        assert_eq!(
            say(&requeued).split_once("; ").unwrap().1,
            "15 stay: 1 is not a dead letter (--to CHANNEL moves it, too), 2 have expired, \
             3 came from \"live\", which keeps no messages (--to CHANNEL names another channel), \
             4 because \"live\" is full (max_backlog = 1000000), \
             5 because the store cannot hold them in \"sms\": they are too long; 7 messages behind them not examined (--count)"
        );
        let object: serde_json::Value = serde_json::from_str(&requeue.object(&requeued)).unwrap();
        assert_eq!(
            (&object["moved"]["mail"], &object["stay"]["full"], &object["left"]),
            (&11.into(), &4.into(), &7.into())
        );
    }
}
