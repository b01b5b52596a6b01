//! The loop of one `receive`: it gives deliveries to workers, answers them, and ends when it is time.
//!
//! ```text
//! broker ─► link (waiting) ─► worker (active) ─► fate ─┬─► answer to the broker
//!              ▲                                       └─► memory of what is finished
//!              └── how many may come: `room`, told before each answer
//! ```
//! Nothing is taken that may not begin: what waits, waits in the broker.

use std::collections::BTreeMap;

use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use super::item::{Item, Memory, Past};
use super::link::{Link, Taken};
use super::pace::{Free, Pace, Quiet, local_second};
use super::print;
use super::work::{Done, Fate, Task, told};
use super::{Failure, Outcome};
use crate::cli::output;
use crate::cli::signals::Stop;
use crate::limits;
use wsmb_client::frames::Answer;

/// What does not change while it runs.
pub(super) struct Settings {
    pub task: Task,
    pub workers: usize,
    /// The most deliveries in hand.
    pub prefetch: u32,
    pub count: Option<u64>,
    /// The name that only one receiver may have.
    pub receiver: Option<String>,
    pub quiet: Option<Quiet>,
}

/// The state.
pub(super) struct Run {
    settings: Settings,
    link: Link,
    pace: Pace,
    stop: Stop,
    running: JoinSet<(u64, Result<Vec<Done>, Failure>)>,
    /// What each worker has in hand, by the number of its work.
    active: BTreeMap<u64, Vec<InHand>>,
    works: u64,
    memory: Memory,
    /// Finished messages whose answer was lost, and since when: the broker gives them out again, to this receiver or to another one.
    owed: BTreeMap<String, Instant>,
    /// Messages that were finished.
    finished: u64,
    /// Commands that were ended because there was no time left.
    cut_off: u64,
    /// It ends when the workers have ended, and so.
    end: Option<Outcome>,
    /// Until then it may wait for the broker, to tell it what it does not know.
    deadline: Option<Instant>,
    extend_at: Instant,
    is_quiet: bool,
}

/// A delivery that a worker has.
struct InHand {
    generation: u64,
    delivery: Option<String>,
    ids: Vec<String>,
}

impl Run {
    pub(super) fn new(settings: Settings, link: Link, pace: Pace, stop: Stop) -> Self {
        Self {
            settings,
            link,
            pace,
            stop,
            running: JoinSet::new(),
            active: BTreeMap::new(),
            works: 0,
            memory: Memory::default(),
            owed: BTreeMap::new(),
            finished: 0,
            cut_off: 0,
            end: None,
            deadline: None,
            extend_at: Instant::now(),
            is_quiet: false,
        }
    }

    pub(super) async fn run(mut self) -> Outcome {
        let outcome = self.until_the_end().await;
        self.link.close().await;
        match outcome {
            // Whoever read our output has gone (`| head`): that is an end, not a failure. What was not read was not acknowledged.
            Err(Failure::Said) => Ok(()),
            Ok(()) if self.cut_off > 0 => Err(Failure::failed(format_args!(
                "stopped before it finished: {}",
                output::count(self.cut_off, "command")
            ))),
            other => other,
        }
    }

    async fn until_the_end(&mut self) -> Outcome {
        let prints = matches!(self.settings.task, Task::Print(_));
        let pipes = matches!(&self.settings.task, Task::Print(printer) if printer.pipe);
        let mut reader_left = Box::pin(print::reader_left());
        let mut patience = self.stop.clone();
        loop {
            let free = self.free();
            self.begin(free)?;
            self.link.want(self.room(free))?;
            let stopping = self.is_stopping();
            if stopping && self.running.is_empty() && self.has_told_all() {
                return self.end.take().unwrap_or(Ok(()));
            }
            let now = Instant::now();
            let extend_at = self.extend_at;
            let wake = free.again.filter(|_| !stopping).map(|again| now + again);
            tokio::select! {
                biased;
                () = self.stop.asked(), if !stopping => self.say_what_it_waits_for(),
                () = patience.at_once(), if prints => return Err(Failure::failed("stopped while writing")),
                Some(done) = self.running.join_next(), if !self.running.is_empty() => self.done(done)?,
                () = &mut reader_left, if pipes && !stopping => self.end = Some(Ok(())),
                taken = self.link.take() => self.taken(taken),
                () = tokio::time::sleep_until(extend_at), if !self.active.is_empty() => self.extend()?,
                () = sleep_until(wake), if wake.is_some() => {}
                () = sleep_until(self.deadline), if self.deadline.is_some() => {}
            }
        }
    }

    fn is_stopping(&self) -> bool {
        let enough = self.settings.count.is_some_and(|count| self.finished >= count);
        enough || self.end.is_some() || self.stop.is_asked()
    }

    /// Whether the broker knows what is finished, or there is no time left to tell it.
    fn has_told_all(&mut self) -> bool {
        self.forget_owed();
        let deadline = *self.deadline.get_or_insert_with(|| Instant::now() + limits::EXEC_TELL);
        if !self.owed.is_empty() && Instant::now() >= deadline {
            let owed = self.owed.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            output::note(&format!(
                "wsmb: cannot confirm these finished messages, so the broker will deliver them again: {owed}"
            ));
            self.owed.clear();
        }
        self.owed.is_empty()
    }

    /// What has not come back for so long has gone to another receiver, or has expired.
    fn forget_owed(&mut self) {
        self.owed.retain(|_, since| since.elapsed() < limits::EXEC_OWED);
    }

    fn say_what_it_waits_for(&self) {
        if matches!(self.settings.task, Task::Run(_)) && !self.running.is_empty() {
            let commands = output::count(self.running.len() as u64, "command");
            output::note(&format!("wsmb: waiting for {commands}; once more to end at once"));
        }
    }

    /// How many commands may begin.
    fn free(&mut self) -> Free {
        let second = self.settings.quiet.map_or(0, |_| local_second());
        let free = self.pace.free(Instant::now(), second);
        if let Some(quiet) = self.settings.quiet.filter(|_| free.quiet != self.is_quiet) {
            self.is_quiet = free.quiet;
            output::note(&if free.quiet {
                format!("wsmb: quiet until {}; what comes waits in the broker", quiet.end())
            } else {
                "wsmb: the quiet hours are over".to_owned()
            });
        }
        free
    }

    /// How many messages `--count` still wants, beyond those in hand.
    fn wanted(&self) -> u64 {
        let in_hand = self.active.values().flatten().map(|held| held.ids.len() as u64).sum::<u64>();
        self.settings.count.map_or(u64::MAX, |count| count.saturating_sub(self.finished + in_hand))
    }

    /// How many deliveries the broker may have given without an answer.
    fn room(&self, free: Free) -> u32 {
        let in_hand = self.active.values().flatten().count() as u64;
        if self.is_stopping() {
            // For what is finished and comes again.
            return if self.owed.is_empty() { 0 } else { self.settings.prefetch };
        }
        let more = self.wanted().min(u64::try_from(free.commands).unwrap_or(u64::MAX));
        u32::try_from(in_hand.saturating_add(more)).unwrap_or(u32::MAX).min(self.settings.prefetch)
    }

    /// Gives what waits to the workers that are free. What has been finished before is answered, also while nothing else may begin.
    fn begin(&mut self, mut free: Free) -> Outcome {
        while let Some((item, past)) = self.take_known() {
            self.answer_known(&item, past)?;
        }
        if free.quiet {
            // It came when the quiet hours began. The broker keeps it, where its time to live goes on.
            while let Some(item) = self.link.pop(|item| item.delivery.is_some()) {
                self.link.answer(&item, &Answer::Again)?;
            }
        }
        while !self.is_stopping() && self.running.len() < self.settings.workers && free.commands > 0 {
            let items = self.take_items(free.commands)?;
            if items.is_empty() {
                return Ok(());
            }
            for (item, message) in
                items.iter().flat_map(|item| item.messages.iter().map(move |message| (item, message)))
            {
                // A number that comes without a mark is that of a new message: what is remembered under it is forgotten.
                let _ = self.memory.recall(&message.id, item.redelivered);
                self.pace.begins(Instant::now());
                free.commands = free.commands.saturating_sub(1);
            }
            let in_hand = items.iter().map(|item| InHand {
                generation: item.generation,
                delivery: item.delivery.clone(),
                ids: item.messages.iter().map(|message| message.id.clone()).collect(),
            });
            self.works += 1;
            if self.active.is_empty() {
                self.extend_at = Instant::now() + limits::EXEC_EXTEND;
            }
            self.active.insert(self.works, in_hand.collect());
            let (number, task) = (self.works, self.settings.task.clone());
            self.running.spawn(async move { (number, task.work(items).await) });
        }
        Ok(())
    }

    /// A delivery that waits and whose messages have all been finished before.
    fn take_known(&mut self) -> Option<(Item, Vec<Past>)> {
        let memory = &mut self.memory;
        let mut found = None;
        let item = self.link.pop(|item| {
            if !item.redelivered {
                return false;
            }
            let past = item.messages.iter().map(|message| memory.recall(&message.id, item.redelivered)).collect();
            found = past;
            found.as_ref().is_some_and(|past: &Vec<Past>| !past.is_empty())
        })?;
        Some((item, found?))
    }

    fn answer_known(&mut self, item: &Item, past: Vec<Past>) -> Outcome {
        for message in &item.messages {
            told(item, message, format_args!("it was finished before, and is not done again"));
        }
        let fates: Vec<_> = past.into_iter().map(Fate::Finished).collect();
        self.settle(item, &fates)
    }

    /// The deliveries for one work. A message that is being worked on comes again if its connection was lost; it waits for what comes of it.
    fn take_items(&mut self, commands: usize) -> Result<Vec<Item>, Failure> {
        let (prints, most) = match &self.settings.task {
            Task::Print(printer) => (true, if printer.pipe { 1 } else { usize::MAX }),
            Task::Run(_) => (false, 1),
        };
        let mut items: Vec<Item> = Vec::new();
        let mut wanted = self.wanted().min(u64::try_from(commands).unwrap_or(u64::MAX));
        while items.len() < most && wanted > 0 {
            let active = &self.active;
            let is_active = |id: &String| active.values().flatten().any(|held| held.ids.contains(id));
            let rest = |item: &Item| prints || !item.messages.iter().any(|message| is_active(&message.id));
            let Some(mut item) = self.link.pop(rest) else { break };
            // A command answers for one message: what was sent together is taken apart, so that none is done again because another one failed.
            let together = if prints { wanted } else { 1 };
            if item.count() > together {
                if item.delivery.is_some() {
                    // They come back one by one.
                    self.link.answer(&item, &Answer::Again)?;
                    continue;
                }
                self.link.put_back(item.split_off(together));
            }
            wanted -= item.count();
            items.push(item);
        }
        Ok(items)
    }

    fn done(&mut self, done: Result<(u64, Result<Vec<Done>, Failure>), JoinError>) -> Outcome {
        let (number, done) = done.map_err(Failure::failed)?;
        self.active.remove(&number);
        match done {
            Ok(done) => done.iter().try_for_each(|done| self.settle(&done.item, &done.fates)),
            Err(failure) => {
                self.end.get_or_insert(Err(failure));
                Ok(())
            }
        }
    }

    /// Remembers what became of a delivery's messages, and answers it.
    fn settle(&mut self, item: &Item, fates: &[Fate]) -> Outcome {
        for (message, fate) in item.messages.iter().zip(fates) {
            match fate {
                Fate::Finished(past) => {
                    self.pace.succeeded();
                    self.finished += u64::from(self.memory.remember(message.id.clone(), past.clone()));
                }
                Fate::Failed(_) => {
                    if let Some(breath) = self.pace.failed(&message.id, Instant::now()) {
                        output::note(&format!(
                            "wsmb: several messages in a row have failed; the next command waits {} s",
                            breath.as_secs_f64()
                        ));
                    }
                }
                Fate::CutOff(_) => self.cut_off += 1,
            }
        }
        let free = self.free();
        self.link.want(self.room(free))?;
        let answer = answer(fates);
        let heard = self.link.answer(item, &answer)?;
        for (message, fate) in item.messages.iter().zip(fates) {
            if heard {
                self.owed.remove(&message.id);
            } else if matches!(fate, Fate::Finished(_)) {
                self.owed.insert(message.id.clone(), Instant::now());
            }
        }
        self.forget_owed();
        Ok(())
    }

    fn taken(&mut self, taken: Taken) {
        let failure = match taken {
            Taken::Something => return,
            Taken::Replaced => {
                let name = self.settings.receiver.as_deref().unwrap_or_default();
                Failure::failed(format_args!("another receiver named \"{name}\" has connected and replaced this one"))
            }
            Taken::Refused(reason) => Failure::Failed(reason),
        };
        self.end.get_or_insert(Err(failure));
        self.say_what_it_waits_for();
    }

    /// Tells the broker that work goes on, in time for any `ack_timeout` that is not much shorter than a command takes.
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

/// What the broker is told of a delivery.
fn answer(fates: &[Fate]) -> Answer<'_> {
    let failed = fates.iter().find_map(|fate| match fate {
        Fate::Failed(reason) | Fate::CutOff(reason) => Some(reason),
        Fate::Finished(_) => None,
    });
    let rejected = fates.iter().find_map(|fate| match fate {
        Fate::Finished(Past::Rejected(reason)) => Some(reason),
        _ => None,
    });
    match (failed, rejected) {
        (None, None) => Answer::Ack,
        (Some(reason), _) => Answer::Nack { reason },
        (None, Some(reason)) if fates.len() == 1 => Answer::Reject { reason },
        // Some were done and some rejected. They come back one by one, and each is answered as it was finished.
        (None, Some(_)) => Answer::Again,
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
    fn a_delivery_of_several_messages_is_answered_as_its_messages_ended() {
        let done = || Fate::Finished(Past::Done);
        let rejected = || Fate::Finished(Past::Rejected("bad".to_owned()));
        let failed = || Fate::Failed("no network".to_owned());
        assert_eq!(answer(&[done(), done()]), Answer::Ack);
        assert_eq!(answer(&[rejected()]), Answer::Reject { reason: "bad" });
        assert_eq!(answer(&[done(), rejected()]), Answer::Again);
        assert_eq!(answer(&[done(), failed(), rejected()]), Answer::Nack { reason: "no network" });
        assert_eq!(answer(&[Fate::CutOff("stopped".to_owned())]), Answer::Nack { reason: "stopped" });
    }
}
