//! The results of the messages of one `wsmb send`: counts them, and prints them in words.

use std::fmt;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::super::output::count;
use wsmb_client::frames::Reply;

/// The result for a message, from the broker's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SendResult {
    Refused,
    /// A message with this id was accepted before.
    Duplicate,
    /// This command has sent the message before; the broker accepted it, but the answer was lost.
    Earlier,
    /// The broker has sent the message to this number of receivers.
    Given(u64),
    Stored,
    /// The broker holds the message until it is due.
    Held,
    /// There is no receiver, and the channel keeps no messages.
    NoReceiver,
}

impl SendResult {
    /// Returns the result for an answer. `delay`: the delay of the message. `is_repeated`: whether this command has sent the message more than once.
    pub(super) fn of(reply: &Reply<'_>, delay: Option<Duration>, is_repeated: bool) -> Self {
        let is_delayed = delay.is_some_and(|delay| !delay.is_zero());
        match (reply.receivers, reply.stored) {
            _ if !reply.is_accepted() => Self::Refused,
            _ if reply.duplicate && is_repeated => Self::Earlier,
            _ if reply.duplicate => Self::Duplicate,
            (receivers @ 1.., _) => Self::Given(receivers),
            (0, _) if is_delayed => Self::Held,
            (0, true) => Self::Stored,
            (0, false) => Self::NoReceiver,
        }
    }
}

/// The result in words, for a single message.
impl fmt::Display for SendResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "refused",
            Self::Duplicate => {
                "accepted before: the broker already has a message with this id and does not deliver it twice"
            }
            Self::Earlier => "accepted at the first attempt, whose answer was lost",
            Self::Given(receivers) => return write!(f, "accepted: {}", count(*receivers, "receiver")),
            Self::Stored => "accepted: stored, no receiver has it yet",
            Self::Held => "accepted: held until it is due",
            Self::NoReceiver => "sent to nobody: the channel keeps no messages and has no receiver",
        })
    }
}

/// The number of messages with each result.
#[derive(Clone, Default)]
pub(super) struct Tally {
    pub given: u64,
    pub stored: u64,
    pub held: u64,
    pub no_receiver: u64,
    pub duplicate: u64,
    pub earlier: u64,
    pub refused: u64,
}

impl Tally {
    pub(super) fn count(&mut self, result: SendResult) {
        *match result {
            SendResult::Refused => &mut self.refused,
            SendResult::Duplicate => &mut self.duplicate,
            SendResult::Earlier => &mut self.earlier,
            SendResult::Given(_) => &mut self.given,
            SendResult::Stored => &mut self.stored,
            SendResult::Held => &mut self.held,
            SendResult::NoReceiver => &mut self.no_receiver,
        } += 1;
    }

    pub(super) fn accepted(&self) -> u64 {
        self.given + self.stored + self.held + self.no_receiver + self.duplicate + self.earlier
    }

    /// Returns the counts and the mean rate since the start. `elapsed`: the time since the first message.
    fn progress(&self, elapsed: Duration) -> String {
        let done = self.accepted() + self.refused;
        let seconds = elapsed.as_secs_f64().max(0.001);
        // An `f64` is exact enough for the few digits that are shown.
        let rate = done as f64 / seconds;
        let rate = if rate < 10.0 { format!("{rate:.1}") } else { format!("{rate:.0}") };
        let refused = if self.refused > 0 { format!(", {} refused", self.refused) } else { String::new() };
        format!("{} accepted{refused}; {rate} a second for {}s", self.accepted(), elapsed.as_secs())
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "accepted: {}", count(self.accepted(), "message"))?;
        let parts = [
            (self.given, "given to receivers"),
            (self.stored, "stored for later"),
            (self.held, "held until they are due"),
            (self.no_receiver, "sent to nobody: the channel keeps no messages and has no receiver"),
            (self.duplicate, "accepted before"),
            (self.earlier, "sent twice, because the first answer was lost, and accepted once"),
        ];
        let parts: Vec<String> =
            parts.iter().filter(|(number, _)| *number > 0).map(|(number, what)| format!("{number} {what}")).collect();
        if !parts.is_empty() {
            write!(f, " ({})", parts.join(", "))?;
        }
        if self.refused > 0 {
            write!(f, "; refused: {}", self.refused)?;
        }
        Ok(())
    }
}

/// A progress line on a terminal. It appears when a batch takes longer than [`Self::PATIENCE`].
pub(super) struct Progress {
    bar: ProgressBar,
    is_wanted: bool,
    started: Instant,
    shown: Instant,
}

impl Progress {
    /// Time until the line appears.
    const PATIENCE: Duration = Duration::from_secs(1);
    /// Time between two changes of the line.
    const PACE: Duration = Duration::from_millis(200);

    pub(super) fn new(is_wanted: bool) -> Self {
        let now = Instant::now();
        Self { bar: ProgressBar::hidden(), is_wanted, started: now, shown: now }
    }

    /// Starts the clock of the rate, when the connection exists and the first message is sent.
    pub(super) fn start(&mut self) {
        self.started = Instant::now();
    }

    pub(super) fn show(&mut self, tally: &Tally) {
        let now = Instant::now();
        let elapsed = now.duration_since(self.started);
        if !self.is_wanted || elapsed < Self::PATIENCE || now.duration_since(self.shown) < Self::PACE {
            return;
        }
        self.shown = now;
        if self.bar.is_hidden() {
            // The bar stays hidden if standard error is not a terminal.
            self.bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(5));
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
                self.bar.set_style(style);
            }
        }
        self.bar.set_message(tally.progress(elapsed));
        self.bar.tick();
    }

    /// Removes the line, writes something else, and shows the line again.
    pub(super) fn suspend(&self, write: impl FnOnce()) {
        self.bar.suspend(write);
    }

    /// Removes the line.
    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wsmb_client::frames::{self, Frame};

    fn result(rest: &str, delay: u64, is_repeated: bool) -> SendResult {
        let json = format!(r#"{{"command":"send-message","response_code":"00","id":"x",{rest}}}"#);
        match frames::parse(json.as_bytes()).unwrap() {
            Frame::Reply(reply) => SendResult::of(&reply, Some(Duration::from_secs(delay)), is_repeated),
            Frame::Delivery(delivery) => panic!("{delivery:?}"),
        }
    }

    #[test]
    fn each_answer_has_its_result_and_text() {
        let answer = |rest: &str| result(rest, 0, false).to_string();
        assert_eq!(answer(r#""receivers":1,"stored":true"#), "accepted: 1 receiver");
        assert_eq!(answer(r#""receivers":2,"stored":false"#), "accepted: 2 receivers");
        assert_eq!(answer(r#""receivers":0,"stored":true"#), "accepted: stored, no receiver has it yet");
        assert!(answer(r#""receivers":0,"stored":false"#).starts_with("sent to nobody"));
        assert!(answer(r#""receivers":0,"stored":true,"duplicate":true"#).contains("before"));
        let held = r#""receivers":0,"stored":false"#;
        assert_eq!(result(held, 5, false), SendResult::Held, "a delayed message may still get a receiver");
        assert_eq!(result(r#""receivers":0,"stored":true"#, 5, false), SendResult::Held);
        let again = r#""receivers":0,"stored":false,"duplicate":true"#;
        assert_eq!((result(again, 0, false), result(again, 0, true)), (SendResult::Duplicate, SendResult::Earlier));
    }

    #[test]
    fn a_tally_names_only_results_that_occurred() {
        let tally = Tally { given: 2, stored: 1, ..Tally::default() };
        assert_eq!(tally.to_string(), "accepted: 3 messages (2 given to receivers, 1 stored for later)");
        let tally = Tally { refused: 4, ..Tally::default() };
        assert_eq!(tally.to_string(), "accepted: 0 messages; refused: 4");
    }

    #[test]
    fn the_rate_is_the_mean_since_the_start() {
        let tally = Tally { stored: 5_000, ..Tally::default() };
        assert_eq!(tally.progress(Duration::from_secs(2)), "5000 accepted; 2500 a second for 2s");
        let tally = Tally { given: 2, refused: 1, ..Tally::default() };
        assert_eq!(tally.progress(Duration::from_millis(1_500)), "2 accepted, 1 refused; 2.0 a second for 1s");
        assert_eq!(Tally::default().progress(Duration::ZERO), "0 accepted; 0.0 a second for 0s");
    }
}
