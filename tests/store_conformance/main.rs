//! One suite of tests that runs against each store.
//!
//! [`backends`] lists the stores. Database servers are private (see `servers`); MySQL is tested if the environment variable
//! `WSMB_TEST_MYSQL` names its `mysqld`.

#[cfg(target_os = "linux")]
#[path = "../servers/mod.rs"]
#[allow(dead_code, unused_imports)] // Other tests need more.
mod servers;

mod pages;
mod random;
mod removal;
mod rows;
mod summary;
mod times;

use wsmb_core::message::{ChannelName, Message, MessageId, Payload, Timestamp};
use wsmb_core::policy::{ChannelPolicy, Policies, Spare};
#[cfg(target_os = "linux")]
use wsmb_store::JournalSettings;
use wsmb_store::{Background, Group, StoreSettings};

/// Opens an empty store in a directory, which exists as long as the store.
type Factory = Box<dyn Fn(&std::path::Path) -> Box<dyn Background>>;

/// All stores, with their names.
fn backends() -> Vec<(String, Factory)> {
    let mut all: Vec<(String, Factory)> =
        vec![("sqlite".to_owned(), Box::new(sqlite)), ("memory".to_owned(), Box::new(memory))];
    all.extend(on_servers());
    all
}

fn sqlite(directory: &std::path::Path) -> Box<dyn Background> {
    let url = format!("sqlite:{}", directory.join("wsmb.db").display());
    wsmb_store::open(&StoreSettings { url, ..StoreSettings::default() }).expect("opens")
}

fn memory(_directory: &std::path::Path) -> Box<dyn Background> {
    wsmb_store::open(&StoreSettings { url: "memory:".to_owned(), ..StoreSettings::default() }).expect("opens")
}

/// Database servers run on Linux only, because the harness uses features of Linux.
#[cfg(not(target_os = "linux"))]
fn on_servers() -> Vec<(String, Factory)> {
    Vec::new()
}

/// Each server without and with a journal.
#[cfg(target_os = "linux")]
fn on_servers() -> Vec<(String, Factory)> {
    let kinds = servers::Kind::all();
    let bare = kinds.iter().map(|kind| (kind.name().to_owned(), Box::new(remote(*kind, false)) as Factory));
    let journaled =
        kinds.iter().map(|kind| (format!("journal and {}", kind.name()), Box::new(remote(*kind, true)) as Factory));
    bare.chain(journaled).collect()
}

/// Stores in one database of the shared server, each with tables of its own.
#[cfg(target_os = "linux")]
fn remote(kind: servers::Kind, journal: bool) -> impl Fn(&std::path::Path) -> Box<dyn Background> {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicUsize, Ordering};
    static DATABASES: [OnceLock<servers::Database>; 3] = [const { OnceLock::new() }; 3];
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    move |directory| {
        let database = DATABASES[kind as usize].get_or_init(|| servers::Server::shared(kind).database());
        let prefix = format!("s{}_", NUMBER.fetch_add(1, Ordering::Relaxed));
        let journal = journal.then(|| JournalSettings { path: directory.join("journal.db"), bytes: 256 << 20 });
        wsmb_store::open(&StoreSettings { prefix, journal, ..database.settings() }).expect("opens")
    }
}

/// Runs a test against an empty store of every backend.
fn on_each(case: fn(&mut dyn Background)) {
    for (name, open) in backends() {
        println!("on {name}");
        let directory = tempfile::tempdir().expect("a directory");
        case(&mut *open(directory.path()));
    }
}

const ALL: usize = 1 << 30;

fn channel(name: &str) -> ChannelName {
    ChannelName::parse(name).expect("a valid name")
}

fn message(id: u64, name: &str, payload: Payload) -> Message {
    Message {
        id: MessageId(id),
        channel: channel(name),
        payload,
        created: Timestamp(1_763_800_000_000),
        expires: None,
        due: None,
        receivers: None,
        publication: None,
        deliveries: 0,
        dead: None,
    }
}

fn text(id: u64, name: &str) -> Message {
    message(id, name, Payload::text(format!("{{\"id\":{id}}}")))
}

fn append(store: &mut dyn Background, appends: Vec<Message>) {
    store.commit(&Group { appends, ..Group::default() }).expect("commits");
}

fn remove(store: &mut dyn Background, ids: &[u64]) {
    let removals = ids.iter().copied().map(MessageId).collect();
    store.commit(&Group { removals, ..Group::default() }).expect("commits");
}

fn ids(store: &mut dyn Background, name: &str) -> Vec<u64> {
    let page = store.load(&channel(name), MessageId(0), 1_000, ALL).expect("loads");
    assert!(page.complete);
    page.messages.iter().map(|message| message.id.0).collect()
}

/// Spares the expired messages of channel `a`.
fn sparing_a() -> Spare {
    let dead =
        ChannelPolicy { dead_letter: Some(channel("dead")), dead_letter_expired: true, ..ChannelPolicy::default() };
    let named = vec![(wildmatch::WildMatch::new("a"), dead)];
    Policies { named, default: ChannelPolicy::default() }.spare()
}
