//! Sweeps of expired rows, and the conversion between the callers' time and the wall clock's time, which the store holds.

use std::time::Duration;

use super::StoreThread;
use crate::limits;
use crate::restamp::shift;
use crate::{CLOCK, Group, Restamp, StoreError, Swept};
use wsmb_core::broker::StoreEvent;
use wsmb_core::message::{MessageId, Timestamp};

impl StoreThread {
    /// Carries out the queued corrections of stored times.
    pub(super) fn restamp(&mut self) -> Result<(), StoreError> {
        loop {
            let Some(restamp) = self.shared.lock().queue.next_restamp() else { return Ok(()) };
            self.report_clock_step(&restamp);
            self.store.restamp(&restamp).inspect_err(|error| self.failed(error))?;
            self.succeeded();
            self.offset += restamp.by;
            self.earlier_rows.0 = 0;
            self.noted = Timestamp(0);
            self.shared.lock().queue.restamped();
        }
    }

    /// Reports a clock that was behind. The stored times of earlier runs stay as they are; from now on they mean an earlier moment of the callers'
    /// time, whether or not the store can be written.
    fn report_clock_step(&mut self, restamp: &Restamp) {
        if restamp.all || self.reported_correction.replace(restamp.token) == Some(restamp.token) {
            return;
        }
        self.earlier_rows = (restamp.by, restamp.after);
        (self.report)(StoreEvent::WallAdvanced(Duration::from_millis(restamp.by.unsigned_abs())));
    }

    /// Milliseconds to add to the callers' time of this row to get its stored time.
    pub(super) fn offset_of(&self, id: MessageId) -> i64 {
        let (earlier_rows, up_to) = self.earlier_rows;
        self.offset + if id <= up_to { earlier_rows } else { 0 }
    }

    /// Stores the wall clock's time, if no group was written that could have carried it.
    pub(super) fn note_time(&mut self) -> Result<(), StoreError> {
        let Some(now) = self.shared.lock().queue.take_time() else { return Ok(()) };
        let marks = vec![(CLOCK.to_owned(), now.0)];
        self.store.commit(&Group { marks, ..Group::default() }).inspect_err(|error| self.failed(error))?;
        self.noted = now;
        Ok(())
    }

    /// Converts a group's times to the wall clock's time. At intervals, adds the mark with the current time.
    pub(super) fn to_wall_time(&self, group: &mut Group) {
        if self.offset != 0 {
            group.appends.iter_mut().for_each(|message| shift(message, self.offset));
        }
        if let Some(newest) = group.appends.last()
            && newest.created.0 >= self.noted.0.saturating_add(limits::CLOCK_NOTE_MILLIS)
        {
            group.marks.push((CLOCK.to_owned(), newest.created.0));
        }
    }

    /// Removes expired rows to make room for new rows. False if there are none.
    pub(super) fn make_room(&mut self, group: &Group) -> bool {
        let Some(now) = group.appends.iter().map(|message| message.created).max() else { return false };
        (self.before_removal)();
        // Rows of spared channels stay; a sweep that the core requests reports them.
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
            self.unreported_removals.extend(gone);
        } else {
            (self.report)(StoreEvent::Swept { gone, spared: Vec::new(), more: true });
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
        self.apply_pending(&mut spared);
        {
            let state = self.shared.lock();
            gone.retain(|(id, channel)| !state.queue.is_gone(channel, *id));
        }
        gone.append(&mut self.unreported_removals);
        (self.report)(StoreEvent::Swept { gone, spared, more });
    }
}
