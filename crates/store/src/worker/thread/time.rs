//! Expired rows, and the translation between the callers' time and the wall clock's, which is what the store holds.

use std::time::Duration;

use super::super::shared::Outcome;
use super::Body;
use crate::limits;
use crate::restamp::shift;
use crate::{CLOCK, Group, Restamp, StoreError, Swept};
use wsmb_core::message::{MessageId, Timestamp};

impl Body {
    /// Corrects stored times.
    pub(super) fn restamp(&mut self) -> Result<(), StoreError> {
        loop {
            let Some(restamp) = self.shared.lock().queue.next_restamp() else { return Ok(()) };
            self.announce(&restamp);
            self.store.restamp(&restamp).inspect_err(|error| self.failed(error))?;
            self.succeeded();
            self.offset += restamp.by;
            self.ahead.0 = 0;
            self.noted = Timestamp(0);
            self.shared.lock().queue.restamped();
        }
    }

    /// Rows of earlier runs stay as they are if the clock was behind: from now on they mean an earlier time, whether or not the store can be written.
    fn announce(&mut self, restamp: &Restamp) {
        if restamp.all || self.announced_step.replace(restamp.token) == Some(restamp.token) {
            return;
        }
        self.ahead = (restamp.by, restamp.after);
        (self.report)(Outcome::WallAdvanced(Duration::from_millis(restamp.by.unsigned_abs())));
    }

    /// What is added to the callers' time for this row.
    pub(super) fn offset_of(&self, id: MessageId) -> i64 {
        let (ahead, up_to) = self.ahead;
        self.offset + if id <= up_to { ahead } else { 0 }
    }

    /// Notes the wall clock's time, where nothing was written that it could have been noted with.
    pub(super) fn note_time(&mut self) -> Result<(), StoreError> {
        let Some(now) = self.shared.lock().queue.take_time() else { return Ok(()) };
        let marks = vec![(CLOCK.to_owned(), now.0)];
        self.store.commit(&Group { marks, ..Group::default() }).inspect_err(|error| self.failed(error))?;
        self.noted = now;
        Ok(())
    }

    /// Makes a group the store's: its times become the wall clock's, which is noted now and then.
    pub(super) fn translate(&self, group: &mut Group) {
        if self.offset != 0 {
            group.appends.iter_mut().for_each(|message| shift(message, self.offset));
        }
        if let Some(newest) = group.appends.last()
            && newest.created.0 >= self.noted.0.saturating_add(limits::CLOCK_NOTE_MILLIS)
        {
            group.marks.push((CLOCK.to_owned(), newest.created.0));
        }
    }

    /// Removes expired rows in favour of new ones; false if there are none.
    pub(super) fn make_room(&mut self, group: &Group) -> bool {
        let Some(now) = group.appends.iter().map(|message| message.created).max() else { return false };
        (self.before_removal)();
        // What is spared stays, and is told of by a sweep that the core has asked for.
        let gone = self.store.sweep(now, wsmb_core::limits::SWEEP_ROWS, &self.spare).unwrap_or_default().gone;
        if gone.is_empty() {
            return false;
        }
        let (gone, is_awaited) = {
            let state = self.shared.lock();
            let unknown = gone.into_iter().filter(|(id, channel)| !state.queue.is_gone(channel, *id));
            (unknown.collect::<Vec<_>>(), state.queue.has_sweep())
        };
        if is_awaited {
            self.swept.extend(gone);
        } else {
            (self.report)(Outcome::Swept { gone, spared: Vec::new(), more: true });
        }
        true
    }

    pub(super) fn sweep(&mut self) {
        let Some((now, spare)) = self.shared.lock().queue.take_sweep() else {
            return;
        };
        self.spare = spare;
        (self.before_removal)();
        let swept = self.store.sweep(now.shifted(self.offset), wsmb_core::limits::SWEEP_ROWS, &self.spare);
        let Swept { mut gone, mut spared, more } = swept.unwrap_or_else(|error| {
            self.failed(&error);
            Swept::default()
        });
        self.settle(&mut spared);
        {
            let state = self.shared.lock();
            gone.retain(|(id, channel)| !state.queue.is_gone(channel, *id));
        }
        gone.append(&mut self.swept);
        (self.report)(Outcome::Swept { gone, spared, more });
    }
}
