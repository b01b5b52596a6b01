//! The log of an outage of a SQLite file: one line at its start and one at its end, however many messages fail in between.
//!
//! A separate test program, because it captures the log of the whole process.

use std::io;
use std::sync::mpsc::channel as pipe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use wsmb_core::broker::{StoreEvent, StoreFailure};
use wsmb_core::message::{ChannelName, Message, MessageId, Payload, Timestamp};
use wsmb_store::{StoreSettings, StoreWorker};

const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn lines(&self) -> Vec<String> {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect()
    }
}

fn message(id: u64) -> Message {
    Message {
        id: MessageId(id),
        channel: ChannelName::parse("sms").expect("a valid name"),
        payload: Payload::text("secret code"),
        created: Timestamp(0),
        expires: None,
        due: None,
        receivers: None,
        publication: None,
        deliveries: 0,
        dead: None,
    }
}

#[test]
fn an_outage_is_one_line_at_its_start_and_one_at_its_end() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).init();
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("wsmb.db");
    let settings = StoreSettings { url: format!("sqlite:{}", path.display()), ..StoreSettings::default() };
    let (sender, outcomes) = pipe();
    let report = move |outcome| {
        let _ = sender.send(outcome);
    };
    let worker = StoreWorker::start(wsmb_store::open(&settings).expect("opens"), report).expect("a thread");
    let next = || outcomes.recv_timeout(PATIENCE).expect("an outcome");
    worker.append(vec![message(1)]);
    assert_eq!(next(), StoreEvent::Stored(vec![MessageId(1)]));

    let other = rusqlite::Connection::open(&path).expect("opens");
    other.execute_batch("BEGIN EXCLUSIVE").expect("locks");
    worker.remove(&[MessageId(1)]);
    for id in 2..6 {
        worker.append(vec![message(id)]);
        assert_eq!(next(), StoreEvent::StoreFailed(vec![MessageId(id)], StoreFailure::Unavailable));
    }
    assert!(!worker.healthy());
    other.execute_batch("COMMIT").expect("releases");
    let begun = Instant::now();
    while !worker.healthy() {
        assert!(begun.elapsed() < PATIENCE, "the store does not recover");
        std::thread::yield_now();
    }
    worker.append(vec![message(6)]);
    assert_eq!(next(), StoreEvent::Stored(vec![MessageId(6)]));
    worker.stop().expect("stops");
    assert!(!worker.healthy(), "a closed store can't be written");

    let lines = log.lines();
    assert_eq!(lines.len(), 2, "{lines:#?}");
    assert!(lines[0].contains("ERROR") && lines[0].contains("another program has locked the store"), "{}", lines[0]);
    assert!(lines[1].contains("INFO") && lines[1].contains("can be written again"), "{}", lines[1]);

    let mut store = wsmb_store::open(&settings).expect("opens again");
    let summary = store.summary(Timestamp(0)).expect("summary");
    assert_eq!((summary.clean, summary.channels[0].messages, summary.last_id), (true, 1, MessageId(6)));
}
