//! The loop of `wsmb receive`: gives deliveries to workers, answers the deliveries, and ends on a signal, an error, or after `--count` messages.
//!
//! ```text
//! broker ─► link (waiting) ─► worker (active) ─► result ─┬─► answer to the broker
//!              ▲                                         └─► memory of finished messages
//!              └── `capacity`: deliveries that the broker may send, announced before each answer
//! ```
//! Never takes a message that may not start yet: such messages wait in the broker.

use std::collections::BTreeMap;

use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use super::delivery::{Completion, FinishedMessages, ReceivedDelivery};
use super::link::{Link, LinkEvent};
use super::pace::{Allowance, Pace, Quiet};
use super::print;
use super::worker::{MessageResult, ProcessedDelivery, Task, log_message};
use super::{Failure, Outcome};
use crate::cli::output;
use crate::cli::signals::Stop;
use crate::{limits, platform};
use wsmb_client::frames::Answer;

/// Settings that do not change while the loop runs.
pub(super) struct Settings {
    pub task: Task,
    pub workers: usize,
    /// The most unanswered deliveries.
    pub prefetch: u32,
    pub count: Option<u64>,
    /// The name of this receiver; a newer receiver with this name replaces it.
    pub receiver: Option<String>,
    pub quiet: Option<Quiet>,
}

/// The loop with its state.
pub(super) struct ReceiveLoop {
    settings: Settings,
    link: Link,
    pace: Pace,
    stop: Stop,
    running: JoinSet<(u64, Result<Vec<ProcessedDelivery>, Failure>)>,
    /// The deliveries of each running worker, by the number of the worker.
    active: BTreeMap<u64, Vec<InHand>>,
    worker_count: u64,
    memory: FinishedMessages,
    /// Finished messages whose acknowledgement was lost, with the time of the loss. The broker delivers them again, to this receiver or to another one.
    unconfirmed: BTreeMap<String, Instant>,
    /// The number of finished messages.
    finished: u64,
    /// The number of commands that were ended because this program had to stop at once.
    interrupted: u64,
    /// If set: the loop ends with this outcome when the workers have ended.
    end: Option<Outcome>,
    /// While stopping: how long the loop waits for a connection, in order to confirm finished messages.
    deadline: Option<Instant>,
    extend_at: Instant,
    is_quiet: bool,
}

/// A delivery that a worker processes.
struct InHand {
    generation: u64,
    delivery: Option<String>,
    ids: Vec<String>,
}

impl ReceiveLoop {
    pub(super) fn new(settings: Settings, link: Link, pace: Pace, stop: Stop) -> Self {
        Self {
            settings,
            link,
            pace,
            stop,
            running: JoinSet::new(),
            active: BTreeMap::new(),
            worker_count: 0,
            memory: FinishedMessages::default(),
            unconfirmed: BTreeMap::new(),
            finished: 0,
            interrupted: 0,
            end: None,
            deadline: None,
            extend_at: Instant::now(),
            is_quiet: false,
        }
    }

    pub(super) async fn run(mut self) -> Outcome {
        let outcome = self.run_until_end().await;
        self.link.close().await;
        match outcome {
            // The reader has closed the pipe (`| head`), which is no failure. Messages that were not read are not acknowledged.
            Err(Failure::Reported) => Ok(()),
            Ok(()) if self.interrupted > 0 => Err(Failure::failed(format_args!(
                "ended {} before completion; the broker delivers the messages again",
                output::count(self.interrupted, "command")
            ))),
            other => other,
        }
    }

    async fn run_until_end(&mut self) -> Outcome {
        let prints = matches!(self.settings.task, Task::Print(_));
        let pipes = matches!(&self.settings.task, Task::Print(printer) if printer.pipe);
        let mut reader_left = Box::pin(print::reader_left());
        let mut patience = self.stop.clone();
        loop {
            let allowance = self.allowance();
            self.start_work(allowance)?;
            self.link.want(self.capacity(allowance))?;
            let stopping = self.is_stopping();
            if stopping && self.running.is_empty() && self.has_confirmed_all() {
                return self.end.take().unwrap_or(Ok(()));
            }
            let now = Instant::now();
            let extend_at = self.extend_at;
            let wake = allowance.ask_after.filter(|_| !stopping).map(|again| now + again);
            tokio::select! {
                biased;
                () = self.stop.requested(), if !stopping => self.announce_wait(),
                () = patience.immediate(), if prints => return Err(Failure::failed("stopped before the output was read")),
                Some(done) = self.running.join_next(), if !self.running.is_empty() => self.done(done)?,
                () = &mut reader_left, if pipes && !stopping => self.end = Some(Ok(())),
                event = self.link.take() => self.handle(event),
                () = tokio::time::sleep_until(extend_at), if !self.active.is_empty() => self.extend()?,
                () = sleep_until(wake), if wake.is_some() => {}
                () = sleep_until(self.deadline), if self.deadline.is_some() => {}
            }
        }
    }

    fn is_stopping(&self) -> bool {
        let enough = self.settings.count.is_some_and(|count| self.finished >= count);
        enough || self.end.is_some() || self.stop.is_requested()
    }

    /// Whether every finished message is confirmed, or the time for that is over.
    fn has_confirmed_all(&mut self) -> bool {
        self.forget_unconfirmed();
        let deadline = *self.deadline.get_or_insert_with(|| Instant::now() + limits::EXEC_CONFIRM);
        if !self.unconfirmed.is_empty() && Instant::now() >= deadline {
            let unconfirmed = self.unconfirmed.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            output::note(&format!(
                "wsmb: cannot confirm these finished messages, so the broker will deliver them again: {unconfirmed}"
            ));
            self.unconfirmed.clear();
        }
        self.unconfirmed.is_empty()
    }

    /// Forgets lost acknowledgements after [`limits::EXEC_REDELIVERY`]: these messages went to another receiver or have expired.
    fn forget_unconfirmed(&mut self) {
        self.unconfirmed.retain(|_, since| since.elapsed() < limits::EXEC_REDELIVERY);
    }

    fn announce_wait(&self) {
        if matches!(self.settings.task, Task::Run(_)) && !self.running.is_empty() {
            let commands = output::count(self.running.len() as u64, "command");
            output::note(&format!("wsmb: waiting for {commands}; press Ctrl-C again to end at once"));
        }
    }

    /// Returns how many commands may start now.
    fn allowance(&mut self) -> Allowance {
        let second = self.settings.quiet.map_or(0, |_| platform::local_second());
        let allowance = self.pace.allowance(Instant::now(), second);
        if let Some(quiet) = self.settings.quiet.filter(|_| allowance.quiet != self.is_quiet) {
            self.is_quiet = allowance.quiet;
            output::note(&if allowance.quiet {
                format!("wsmb: quiet until {}; messages wait in the broker", quiet.end())
            } else {
                "wsmb: the quiet hours are over".to_owned()
            });
        }
        allowance
    }

    /// Returns how many messages are missing until `--count`, beyond those that workers process.
    fn wanted(&self) -> u64 {
        let in_hand = self.active.values().flatten().map(|held| held.ids.len() as u64).sum::<u64>();
        self.settings.count.map_or(u64::MAX, |count| count.saturating_sub(self.finished + in_hand))
    }

    /// Returns how many deliveries may be unanswered.
    fn capacity(&self, allowance: Allowance) -> u32 {
        let in_hand = self.active.values().flatten().count() as u64;
        if self.is_stopping() {
            // Room for finished messages that the broker delivers again.
            return if self.unconfirmed.is_empty() { 0 } else { self.settings.prefetch };
        }
        let more = self.wanted().min(u64::try_from(allowance.commands).unwrap_or(u64::MAX));
        u32::try_from(in_hand.saturating_add(more)).unwrap_or(u32::MAX).min(self.settings.prefetch)
    }

    /// Gives waiting deliveries to free workers. Answers deliveries of messages that are already finished, even while no command may start.
    fn start_work(&mut self, mut allowance: Allowance) -> Outcome {
        while let Some((item, past)) = self.take_known() {
            self.answer_known(&item, past)?;
        }
        if allowance.quiet {
            // The delivery arrived when the quiet hours began. It goes back to the broker, which lets it expire in time.
            while let Some(item) = self.link.pop(|item| item.delivery.is_some()) {
                self.link.answer(&item, &Answer::Retry)?;
            }
        }
        while !self.is_stopping() && self.running.len() < self.settings.workers && allowance.commands > 0 {
            let items = self.take_items(allowance.commands)?;
            if items.is_empty() {
                return Ok(());
            }
            for (item, message) in
                items.iter().flat_map(|item| item.messages.iter().map(move |message| (item, message)))
            {
                // A delivery without the redelivery mark is a new message: `recall` forgets an older message with the same number.
                let _ = self.memory.recall(&message.id, item.redelivered);
                self.pace.command_started(Instant::now());
                allowance.commands = allowance.commands.saturating_sub(1);
            }
            let in_hand = items.iter().map(|item| InHand {
                generation: item.generation,
                delivery: item.delivery.clone(),
                ids: item.messages.iter().map(|message| message.id.clone()).collect(),
            });
            self.worker_count += 1;
            if self.active.is_empty() {
                self.extend_at = Instant::now() + limits::EXEC_EXTEND;
            }
            self.active.insert(self.worker_count, in_hand.collect());
            let (number, task) = (self.worker_count, self.settings.task.clone());
            self.running.spawn(async move { (number, task.work(items).await) });
        }
        Ok(())
    }

    /// Removes and returns a waiting delivery whose messages are all finished already.
    fn take_known(&mut self) -> Option<(ReceivedDelivery, Vec<Completion>)> {
        let memory = &mut self.memory;
        let mut found = None;
        let item = self.link.pop(|item| {
            if !item.redelivered {
                return false;
            }
            let past = item.messages.iter().map(|message| memory.recall(&message.id, item.redelivered)).collect();
            found = past;
            found.as_ref().is_some_and(|past: &Vec<Completion>| !past.is_empty())
        })?;
        Some((item, found?))
    }

    fn answer_known(&mut self, item: &ReceivedDelivery, past: Vec<Completion>) -> Outcome {
        for message in &item.messages {
            log_message(item, message, format_args!("already finished, so it is only confirmed again"));
        }
        let results: Vec<_> = past.into_iter().map(MessageResult::Finished).collect();
        self.finish(item, &results)
    }

    /// Returns the deliveries for one worker. Skips messages that another worker processes: after a lost connection the broker delivers such a message
    /// again, and the delivery waits for the result of that worker.
    fn take_items(&mut self, commands: usize) -> Result<Vec<ReceivedDelivery>, Failure> {
        let (prints, most) = match &self.settings.task {
            Task::Print(printer) => (true, if printer.pipe { 1 } else { usize::MAX }),
            Task::Run(_) => (false, 1),
        };
        let mut items: Vec<ReceivedDelivery> = Vec::new();
        let mut wanted = self.wanted().min(u64::try_from(commands).unwrap_or(u64::MAX));
        while items.len() < most && wanted > 0 {
            let active = &self.active;
            let is_active = |id: &String| active.values().flatten().any(|held| held.ids.contains(id));
            let rest = |item: &ReceivedDelivery| prints || !item.messages.iter().any(|message| is_active(&message.id));
            let Some(mut item) = self.link.pop(rest) else { break };
            // A command processes one message. A delivery of several messages is split, so that the failure of one does not repeat the others.
            let together = if prints { wanted } else { 1 };
            if item.count() > together {
                if item.delivery.is_some() {
                    // The broker delivers the messages again one by one.
                    self.link.answer(&item, &Answer::Retry)?;
                    continue;
                }
                self.link.put_back(item.split_off(together));
            }
            wanted -= item.count();
            items.push(item);
        }
        Ok(items)
    }

    fn done(&mut self, done: Result<(u64, Result<Vec<ProcessedDelivery>, Failure>), JoinError>) -> Outcome {
        let (number, done) = done.map_err(Failure::failed)?;
        self.active.remove(&number);
        match done {
            Ok(done) => done.iter().try_for_each(|done| self.finish(&done.item, &done.results)),
            Err(failure) => {
                self.end.get_or_insert(Err(failure));
                Ok(())
            }
        }
    }

    /// Records the results of a delivery's messages, and answers the delivery.
    fn finish(&mut self, item: &ReceivedDelivery, results: &[MessageResult]) -> Outcome {
        for (message, result) in item.messages.iter().zip(results) {
            match result {
                MessageResult::Finished(past) => {
                    self.pace.succeeded();
                    self.finished += u64::from(self.memory.remember(message.id.clone(), past.clone()));
                }
                MessageResult::Failed(_) => {
                    if let Some(pause) = self.pace.failed(&message.id, Instant::now()) {
                        output::note(&format!(
                            "wsmb: several messages in a row have failed; the next command starts after {} s",
                            pause.as_secs_f64()
                        ));
                    }
                }
                MessageResult::Interrupted(_) => self.interrupted += 1,
            }
        }
        let allowance = self.allowance();
        self.link.want(self.capacity(allowance))?;
        let answer = answer(results);
        let is_sent = self.link.answer(item, &answer)?;
        for (message, result) in item.messages.iter().zip(results) {
            if is_sent {
                self.unconfirmed.remove(&message.id);
            } else if matches!(result, MessageResult::Finished(_)) {
                self.unconfirmed.insert(message.id.clone(), Instant::now());
            }
        }
        self.forget_unconfirmed();
        Ok(())
    }

    fn handle(&mut self, event: LinkEvent) {
        let failure = match event {
            LinkEvent::Changed => return,
            LinkEvent::Replaced => {
                let name = self.settings.receiver.as_deref().unwrap_or_default();
                Failure::failed(format_args!("another receiver named \"{name}\" has connected and replaced this one"))
            }
            LinkEvent::Refused(reason) => Failure::Failed(reason),
        };
        self.end.get_or_insert(Err(failure));
        self.announce_wait();
    }

    /// Extends the deadlines of all deliveries that workers process.
    fn extend(&mut self) -> Outcome {
        self.extend_at = Instant::now() + limits::EXEC_EXTEND;
        for held in self.active.values().flatten() {
            if let Some(delivery) = &held.delivery {
                self.link.extend(held.generation, delivery)?;
            }
        }
        Ok(())
    }
}

/// Returns the answer for a delivery with these results.
fn answer(results: &[MessageResult]) -> Answer<'_> {
    let failed = results.iter().find_map(|result| match result {
        MessageResult::Failed(reason) | MessageResult::Interrupted(reason) => Some(reason),
        MessageResult::Finished(_) => None,
    });
    let rejected = results.iter().find_map(|result| match result {
        MessageResult::Finished(Completion::Rejected(reason)) => Some(reason),
        _ => None,
    });
    match (failed, rejected) {
        (None, None) => Answer::Ack,
        (Some(reason), _) => Answer::Nack { reason },
        (None, Some(reason)) if results.len() == 1 => Answer::Reject { reason },
        // Some messages are done and some are rejected. The broker delivers them again one by one, and each one gets its own answer.
        (None, Some(_)) => Answer::Retry,
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_a_delivery_follows_from_the_results_of_its_messages() {
        let done = || MessageResult::Finished(Completion::Done);
        let rejected = || MessageResult::Finished(Completion::Rejected("bad".to_owned()));
        let failed = || MessageResult::Failed("no network".to_owned());
        assert_eq!(answer(&[done(), done()]), Answer::Ack);
        assert_eq!(answer(&[rejected()]), Answer::Reject { reason: "bad" });
        assert_eq!(answer(&[done(), rejected()]), Answer::Retry);
        assert_eq!(answer(&[done(), failed(), rejected()]), Answer::Nack { reason: "no network" });
        assert_eq!(answer(&[MessageResult::Interrupted("stopped".to_owned())]), Answer::Nack { reason: "stopped" });
    }
}
