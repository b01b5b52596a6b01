//! `wsmb queue requeue`, and the output about dead letters: ordinary use, refusals, and kills in the middle.

use std::process::Command;

use crate::harness::{Ended, Running, run, stored, until, wsmb};
use wsmb_core::message::{ChannelName, DeadLetter, Message, MessageId, Payload, Timestamp, Why};
use wsmb_store::{Background, Group, StoreSettings};

/// Dead letters of every channel go to `dead`.
const CONFIGURATION: &str = r#"
[auth]
anonymous = true
[channel_defaults]
dead_letter = "dead"
max_deliveries = 1
[[channel]]
name = "code"
ttl = "1h"
[[channel]]
name = "live"
keep = false
[[channel]]
name = "dead"
ttl = "7d"
"#;

/// A directory with a configuration and a store.
struct Setup {
    directory: tempfile::TempDir,
}

impl Setup {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("wsmb.toml"), CONFIGURATION).unwrap();
        Self { directory }
    }

    /// A setup whose store has these messages and was stopped in an orderly way.
    fn with(messages: Vec<Message>) -> Self {
        let setup = Self::new();
        let mut store = setup.open();
        for appends in messages.chunks(4_096) {
            store.commit(&Group { appends: appends.to_vec(), ..Group::default() }).unwrap();
        }
        store.mark_clean().unwrap();
        setup
    }

    fn open(&self) -> Box<dyn Background> {
        std::fs::create_dir_all(self.directory.path().join("wsmb-data")).unwrap();
        let url = format!("sqlite:{}", self.directory.path().join("wsmb-data/wsmb.db").display());
        wsmb_store::open(&StoreSettings { url, ..StoreSettings::default() }).unwrap()
    }

    fn messages(&self) -> Vec<Message> {
        self.open().scan(MessageId(0), usize::MAX, usize::MAX).unwrap().messages
    }

    fn wsmb(&self, arguments: &[&str]) -> Command {
        let mut command = wsmb(self.directory.path());
        command.args(arguments).env("WSMB_CONFIG", "wsmb.toml");
        command
    }

    #[track_caller]
    fn queue(&self, arguments: &[&str]) -> Ended {
        run(self.wsmb(&["queue"]).args(arguments))
    }

    fn serve(&self) -> (Running, String) {
        let mut running = Running::start(&mut self.wsmb(&["serve", "--listen", "127.0.0.1:0"]));
        let line = running.stdout.wait_for("wsmb is listening on ");
        let url = line.split_whitespace().last().unwrap().to_owned();
        (running, url)
    }

    fn client(&self, url: &str, arguments: &[&str]) -> Command {
        let mut command = wsmb(self.directory.path());
        command.args(arguments).env("WSMB_URL", url);
        command
    }

    #[track_caller]
    fn waiting(&self, channel: &str) -> u64 {
        stored(&self.directory.path().join("wsmb-data/wsmb.db"), channel)
    }
}

fn stop(mut broker: Running) {
    broker.terminate();
    broker.end().with(0);
}

fn message(id: u64, channel: &str, dead: Option<DeadLetter>) -> Message {
    Message {
        id: MessageId(id),
        channel: ChannelName::parse(channel).unwrap(),
        payload: Payload::text(format!("{{\"id\":{id}}}")),
        created: Timestamp(1_763_800_000_000 + id * 1_000),
        expires: None,
        due: None,
        receivers: None,
        publication: None,
        deliveries: 0,
        dead: dead.map(Box::new),
    }
}

fn letter(id: u64, from: &str) -> Message {
    let channel = ChannelName::parse(from).unwrap();
    message(id, "dead", Some(DeadLetter { why: Why::MaxDeliveries, channel, attempts: 3, reason: None }))
}

#[test]
fn dead_letters_return_to_their_channels_in_order_and_are_delivered_again() {
    let setup = Setup::new();
    let (broker, url) = setup.serve();
    for (channel, text) in [("sms", "\"one\""), ("code", "\"two\""), ("sms", "\"three\"")] {
        run(&mut setup.client(&url, &["send", channel, text])).with(0);
    }
    let mut failing = Running::start(&mut setup.client(&url, &["receive", "sms", "code", "--exec", "exit 1"]));
    until("all messages are dead letters", || setup.waiting("dead") == 3);
    failing.kill();
    run(&mut setup.client(&url, &["send", "sms", "\"four\""])).with(0);

    setup
        .queue(&["requeue", "dead"])
        .with(1)
        .with_stderr("the store ")
        .with_stderr("wsmb.db is in use by a broker (process ")
        .with_stderr("; stop the broker first, because this command needs the store for itself");
    assert_eq!(setup.waiting("dead"), 3, "a message of a running broker was moved");
    stop(broker);

    let moved = setup.queue(&["requeue", "dead"]).with(0).stdout;
    assert_eq!(moved, "moved 3 messages from \"dead\": 1 to \"code\", 2 to \"sms\"");
    assert_eq!(setup.queue(&["requeue", "dead"]).with(0).stdout, "moved no message from \"dead\"");
    let found = setup.messages();
    assert!(found.iter().all(|message| message.dead.is_none() && message.deliveries == 0), "{found:?}");
    let ttls: Vec<_> = found
        .iter()
        .map(|message| message.expires.map(|expires| expires.0 - message.created.0 / 1_000 * 1_000))
        .collect();
    let code = found.iter().position(|message| message.channel.as_str() == "code").unwrap();
    assert!(ttls[code].is_some_and(|millis| (3_600_000..3_601_000).contains(&millis)), "{ttls:?}");
    assert_eq!(ttls.iter().filter(|ttl| ttl.is_none()).count(), 3, "the ttl of dead remains: {ttls:?}");

    let (broker, url) = setup.serve();
    let received = run(&mut setup.client(&url, &["receive", "sms", "--count", "3"])).with(0).stdout;
    assert_eq!(received, "\"four\"\n\"one\"\n\"three\"");
    let code = run(&mut setup.client(&url, &["receive", "code", "--count", "1"])).with(0).stdout;
    assert_eq!(code, "\"two\"");
    stop(broker);
}

#[test]
fn a_count_moves_the_oldest_messages_and_to_names_a_channel() {
    let mut messages: Vec<Message> = (1..=5).map(|id| letter(id, "sms")).collect();
    messages.push(message(6, "dead", None));
    let setup = Setup::with(messages);
    let moved = setup.queue(&["requeue", "dead", "--count", "2"]).with(0).stdout;
    assert_eq!(moved, "moved 2 messages from \"dead\" to \"sms\"; 4 messages behind them not examined (--count)");
    let moved = setup.queue(&["requeue", "dead", "--count", "2", "--json"]).with(0).stdout;
    let nothing = r#"{"delayed":0,"expired":0,"full":0,"no_dead_letter":0,"not_kept":0,"unfit":0}"#;
    assert_eq!(moved, format!(r#"{{"from":"dead","left":2,"moved":{{"sms":2}},"stay":{nothing}}}"#));
    let moved = setup.queue(&["requeue", "dead"]).with(0).stdout;
    assert_eq!(
        moved,
        "moved 1 message from \"dead\" to \"sms\"; 1 stays: 1 is not a dead letter (--to CHANNEL moves it, too)"
    );
    let moved = setup.queue(&["requeue", "dead", "--to", "by hand"]).with(0).stdout;
    assert_eq!(moved, "moved 1 message from \"dead\" to \"by hand\"");
    assert!(setup.open().summary(Timestamp(u64::MAX)).unwrap().clean, "the store must stay marked as clean");
    let found = setup.messages();
    let bodies: Vec<_> = found.iter().map(|message| message.payload.as_text().unwrap()).collect();
    assert_eq!(bodies, (1..=6).map(|id| format!("{{\"id\":{id}}}")).collect::<Vec<_>>());
    assert_eq!(found[5].channel.as_str(), "by hand");
}

#[test]
fn requeue_explains_which_messages_cannot_be_moved() {
    let setup = Setup::with(vec![letter(1, "live"), letter(2, "small")]);
    let full = ["requeue", "dead", "--set", "channel_defaults.max_backlog=1", "--count", "9"];
    setup
        .queue(&["requeue", "dead", "--to", "dead"])
        .with(2)
        .with_stderr("--to names the dead-letter channel itself; name the channel to move to");
    setup
        .queue(&["requeue", "dead", "--to", "live"])
        .with(1)
        .with_stderr("the channel \"live\" keeps no messages (keep = false), so the messages would be lost");
    setup.queue(&["requeue", "dead", "--count", "0"]).with(2);
    setup.queue(&["requeue", "dead", "--store", "sqlite:none.db"]).with(1).with_stderr("there is no store at none.db");
    setup.queue(&["requeue", "dead", "--store", "memory:"]).with(1).with_stderr("store.url is memory:");
    assert!(!setup.directory.path().join("none.db").exists());
    let mut store = setup.open();
    store.commit(&Group { appends: vec![message(3, "small", None)], ..Group::default() }).unwrap();
    drop(store);
    assert_eq!(
        setup.queue(&full).with(0).stdout,
        "moved no message from \"dead\"; 2 stay: 1 came from \"live\", which keeps no messages (--to CHANNEL names another channel), \
         1 because \"small\" is full (max_backlog = 1)"
    );
    // The ids of a journal's rows come from the database.
    let path = setup.directory.path().join("wsmb-data/wsmb.db");
    let bound = "INSERT INTO mq_meta (name, value) VALUES ('database', 'broker on db.example')";
    rusqlite::Connection::open(path).unwrap().execute_batch(bound).unwrap();
    setup
        .queue(&["requeue", "dead"])
        .with(1)
        .with_stderr("wsmb.db is the journal in front of broker on db.example; use the database as the store");
    assert_eq!(setup.messages().len(), 3);
}

#[test]
fn a_requeue_that_is_killed_neither_loses_nor_doubles_messages() {
    const ALL: u64 = 40_000;
    let setup = Setup::with((1..=ALL).map(|id| letter(id, "sms")).collect());
    let mut kills = 0;
    let mut left = ALL;
    while left > ALL / 4 {
        let mut moving = Running::start(&mut setup.wsmb(&["queue", "requeue", "dead"]));
        until("a message has been moved", || setup.waiting("dead") < left);
        moving.kill();
        (kills, left) = (kills + 1, setup.waiting("dead"));
        assert_eq!(left + setup.waiting("sms"), ALL);
    }
    assert!(kills > 0);
    setup.queue(&["requeue", "dead"]).with(0);
    let bodies: Vec<_> = setup.messages().iter().map(|message| message.payload.as_text().unwrap().to_owned()).collect();
    assert_eq!(bodies, (1..=ALL).map(|id| format!("{{\"id\":{id}}}")).collect::<Vec<_>>());
}

#[test]
fn peek_shows_the_cause_of_dead_letters() {
    let dead = |why, attempts, reason: Option<&str>| DeadLetter {
        why,
        channel: ChannelName::parse("sms").unwrap(),
        attempts,
        reason: reason.map(Into::into),
    };
    let setup = Setup::with(vec![
        message(1, "dead", Some(dead(Why::Rejected, 1, Some("no such\nnumber\u{1b}[31m")))),
        message(2, "dead", Some(dead(Why::Expired, 0, None))),
        letter(3, "mail"),
    ]);
    let shown = setup.queue(&["peek", "dead"]).with(0).stdout;
    let ends: Vec<_> = shown.lines().map(|line| line.split_once(", ").unwrap().1.to_owned()).collect();
    assert_eq!(
        ends,
        [
            "rejected in sms after 1 attempt: no such number\\u{1b}[31m  {\"id\":1}",
            "expired in sms after 0 attempts  {\"id\":2}",
            "given up in mail after 3 attempts  {\"id\":3}"
        ]
    );
}
