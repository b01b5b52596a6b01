//! `wsmb queue copy` between files: ordinary use, failures and kills in the middle.

use std::path::{Path, PathBuf};

use wsmb_core::message::{ChannelName, Message, MessageId, Payload, Timestamp};
use wsmb_store::{Background, Group, StoreSettings};

use crate::harness::{Broker, Ended, Running, run, wsmb};

/// A directory with a source store `a.db` and a destination `b.db`.
struct Stores {
    directory: tempfile::TempDir,
}

impl Stores {
    /// Creates a source with `number` messages, every tenth of them delayed.
    fn with(number: u64) -> Self {
        let stores = Self { directory: tempfile::tempdir().unwrap() };
        let mut source = stores.open("a.db");
        let all: Vec<Message> = (1..=number).map(message).collect();
        for appends in all.chunks(4_096) {
            source.commit(&Group { appends: appends.to_vec(), ..Group::default() }).unwrap();
        }
        source.mark_clean().unwrap();
        stores
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn open(&self, name: &str) -> Box<dyn Background> {
        let url = format!("sqlite:{}", self.path(name).display());
        wsmb_store::open(&StoreSettings { url, ..StoreSettings::default() }).unwrap()
    }

    fn command(&self, more: &[&str]) -> std::process::Command {
        let mut command = wsmb(self.directory.path());
        command.args(["queue", "copy", "--from", "sqlite:a.db", "--to", "sqlite:b.db"]).args(more);
        command
    }

    fn copy(&self, more: &[&str]) -> Ended {
        run(&mut self.command(more))
    }

    fn ids(&self, name: &str) -> Vec<u64> {
        let mut store = self.open(name);
        let page = store.scan(MessageId(0), usize::MAX, usize::MAX).unwrap();
        for found in &page.messages {
            assert_eq!(Message { id: message(found.id.0).id, ..found.clone() }, message(found.id.0));
        }
        page.messages.iter().map(|message| message.id.0).collect()
    }
}

fn message(id: u64) -> Message {
    Message {
        id: MessageId(id),
        channel: ChannelName::parse(if id.is_multiple_of(3) { "mail" } else { "sms" }).unwrap(),
        payload: Payload::text(format!("{{\"id\":{id}}}")),
        created: Timestamp(1_763_800_000_000 + id * 1_000),
        expires: None,
        due: id.is_multiple_of(10).then_some(Timestamp(32_503_680_000_000)),
        receivers: None,
        publication: None,
        deliveries: u32::from(id.is_multiple_of(2)),
        dead: None,
    }
}

fn statement(path: &Path, sql: &str) {
    rusqlite::Connection::open(path).unwrap().execute_batch(sql).unwrap();
}

#[test]
fn a_copied_backlog_is_delivered_from_the_other_store() {
    let mut broker = Broker::start();
    broker.send("sms", "\"first\"");
    broker.send("sms", "\"second\"");
    let copy = ["copy", "--to", "sqlite:new/b.db"];
    broker
        .queue(&copy)
        .with(1)
        .with_stderr("the source: the store ")
        .with_stderr("is in use by a broker (process ")
        .with_stderr("; stop the broker first, because this command needs the store for itself");
    broker.running.terminate();
    broker.running.end().with(0);

    let copied = broker.queue(&copy).with(0);
    assert_eq!(
        copied.stdout,
        "copied 2 messages from sqlite:wsmb-data/wsmb.db to sqlite:new/b.db\n\
         next: write url = \"sqlite:new/b.db\" under [store] in the broker's configuration, and start it; \
         sqlite:wsmb-data/wsmb.db still has these messages, and a broker that uses it would deliver them again"
    );
    assert_eq!(copied.stderr, "copied 2 of 2 messages");
    let moved = broker.queue(&["copy", "--to", "sqlite:new/b.db", "--remove", "--json"]).with(0).stdout;
    assert_eq!(
        moved,
        r#"{"copied":0,"earlier":2,"from":"sqlite:wsmb-data/wsmb.db","removed":2,"shift":0,"to":"sqlite:new/b.db"}"#
    );
    assert_eq!(broker.queue(&["list"]).with(0).stdout, "no messages are waiting");

    let address = broker.url.strip_prefix("ws://").unwrap().to_owned();
    let serve = ["serve", "--listen", address.as_str(), "--store", "sqlite:new/b.db"];
    broker.running = Running::start(wsmb(broker.directory.path()).args(serve));
    broker.running.stdout.wait_for("wsmb is listening on ");
    let received = run(&mut broker.client(&["receive", "sms", "--count", "2"])).with(0).stdout;
    assert_eq!(received, "\"first\"\n\"second\"");
}

#[test]
fn a_copy_whose_destination_failed_can_be_continued() {
    let stores = Stores::with(10_000);
    drop(stores.open("b.db"));
    let trigger = "CREATE TRIGGER bad BEFORE INSERT ON mq_data WHEN new.data_id = 9000 BEGIN SELECT RAISE(ABORT, 'no such luck'); END";
    statement(&stores.path("b.db"), trigger);
    stores
        .copy(&[])
        .with(1)
        .with_stderr("wsmb: the destination: the store ")
        .with_stderr("no such luck")
        .with_stderr(". The copied messages are stored; the same command continues from there");
    assert_eq!(stores.ids("b.db"), (1..=8_192).collect::<Vec<_>>());
    statement(&stores.path("b.db"), "DROP TRIGGER bad");
    let done = stores.copy(&["--remove"]).with(0).stdout;
    assert_eq!(
        done,
        "copied 1808 messages from sqlite:a.db to sqlite:b.db\nan earlier copy has already copied 8192 messages\n\
         removed 10000 messages from sqlite:a.db\n\
         next: write url = \"sqlite:b.db\" under [store] in the broker's configuration, and start it"
    );
    assert_eq!(stores.ids("b.db"), (1..=10_000).collect::<Vec<_>>());
    assert!(stores.ids("a.db").is_empty());
}

#[test]
fn a_copy_that_was_killed_can_be_continued() {
    let stores = Stores::with(60_000);
    for more in [&[][..], &["--remove"]] {
        let mut copying = Running::start(&mut stores.command(more));
        copying.stderr.wait_for("copied ");
        copying.kill();
    }
    stores.copy(&["--remove"]).with(0);
    assert_eq!(stores.ids("b.db"), (1..=60_000).collect::<Vec<_>>());
    assert!(stores.ids("a.db").is_empty());
}

#[test]
fn copy_explains_invalid_sources_and_destinations() {
    let stores = Stores::with(1);
    let copy = |arguments: &[&str]| run(wsmb(stores.directory.path()).args(["queue", "copy"]).args(arguments));
    copy(&[]).with(2).with_stderr("name the other store with --from or --to");
    copy(&["--from", "mysql://u:geheim@h"])
        .with(2)
        .with_stderr("--from names no database: write \"mysql://USER@HOST/DATABASE\"");
    copy(&["--from", "sqlite:none.db", "--to", "sqlite:b.db"])
        .with(1)
        .with_stderr("the source: there is no store at none.db");
    copy(&["--from", "sqlite:a.db", "--to", "sqlite:./a.db"]).with(1).with_stderr("the same store");
    copy(&["--from", "sqlite:a.db", "--to", "memory:"]).with(1).with_stderr("the destination: store.url is memory:");
    let missing = ["--from", "postgres://u@localhost/d", "--from-password-file", "no.password", "--to", "sqlite:b.db"];
    copy(&missing).with(1).with_stderr("the password file no.password: cannot be read: ");
    assert!(!stores.path("b.db").exists());
}
