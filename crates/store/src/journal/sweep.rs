//! Expired rows of both places: those of the journal's file at once, those of the database in the background, told with a later sweep.
//!
//! What is told of the database is true of the journal, too: nothing that is owed to be gone, and no time that is still to be corrected.

use std::collections::HashSet;

use super::JournaledStore;
use super::courier::Task;
use crate::limits;
use crate::{StoreError, Swept};
use wsmb_core::message::{ChannelName, Message, MessageId, Timestamp};
use wsmb_core::policy::Spare;

/// What the sweeps of the database have come to.
#[derive(Debug, Default)]
pub(super) struct Sweeps {
    /// The database is at one.
    under_way: bool,
    /// For when, and what it is to spare.
    now: Timestamp,
    spare: Spare,
    /// Expired rows that the database has removed, to be told at the next sweep.
    gone: Vec<(MessageId, ChannelName)>,
    /// Expired rows that it has spared.
    spared: Vec<Message>,
    /// What they take.
    spared_bytes: usize,
}

impl Sweeps {
    /// These rows are gone.
    pub(super) fn forget(&mut self, gone: &HashSet<MessageId>) {
        self.gone.retain(|(id, _)| !gone.contains(id));
        self.retain_spared(|message| !gone.contains(&message.id));
    }

    /// A channel is empty up to this id.
    pub(super) fn forget_channel(&mut self, channel: &ChannelName, up_to: MessageId) {
        self.gone.retain(|(id, of)| of != channel || *id > up_to);
        self.retain_spared(|message| message.channel != *channel || message.id > up_to);
    }

    /// What has been read carries times that are wrong now. The next sweeps find it again.
    pub(super) fn forget_times(&mut self) {
        self.retain_spared(|_| false);
    }

    fn retain_spared(&mut self, keep: impl Fn(&Message) -> bool) {
        if !self.spared.is_empty() {
            self.spared.retain(keep);
            self.spared_bytes = self.spared.iter().map(|message| message.payload.bytes.len()).sum();
        }
    }
}

impl JournaledStore {
    /// Sweeps the journal's file, and has the database swept; tells what earlier sweeps of the database have found.
    pub(super) fn sweep_both(&mut self, now: Timestamp, limit: usize, spare: &Spare) -> Result<Swept, StoreError> {
        let mut swept = self.ledger.sweep(now, limit, spare)?;
        self.fetches.forget(&swept.gone.iter().map(|(id, _)| *id).collect());
        let here: HashSet<MessageId> = swept.gone.iter().map(|(id, _)| *id).collect();
        swept.gone.extend(std::mem::take(&mut self.sweeps.gone).into_iter().filter(|(id, _)| !here.contains(id)));
        let part = self.sweeps.spared.len().min(limit);
        swept.spared.extend(self.sweeps.spared.drain(..part));
        self.sweeps.retain_spared(|_| true);
        swept.more |= !self.sweeps.spared.is_empty();
        self.sweeps.now = now;
        self.sweeps.spare = spare.clone();
        self.sweep_database()?;
        self.move_soon();
        Ok(swept)
    }

    /// Has the database remove what has expired, unless its rows carry wrong times, or more has been read than was told.
    fn sweep_database(&mut self) -> Result<(), StoreError> {
        let Sweeps { under_way, spared_bytes, .. } = self.sweeps;
        let is_wanted = self.away.is_none() && !self.ledger.is_database_empty() && self.ledger.restamps.is_empty();
        if under_way || !is_wanted || spared_bytes > limits::JOURNAL_SPARED_BYTES {
            return Ok(());
        }
        self.sweeps.under_way = true;
        self.ask(Task::Sweep(self.sweeps.now, wsmb_core::limits::SWEEP_ROWS, self.sweeps.spare.clone()))
    }

    /// The database has been swept.
    pub(super) fn swept(&mut self, result: Result<Swept, StoreError>) -> Result<(), StoreError> {
        self.sweeps.under_way = false;
        let Some(mut swept) = self.noted(result) else { return Ok(()) };
        self.ledger.retain_unsettled(&mut swept.gone)?;
        self.fetches.forget(&swept.gone.iter().map(|(id, _)| *id).collect());
        self.sweeps.gone.append(&mut swept.gone);
        if self.ledger.restamps.is_empty() && !swept.spared.is_empty() {
            self.ledger.retain_unowed(&mut swept.spared)?;
            self.sweeps.spared.append(&mut swept.spared);
            self.sweeps.retain_spared(|_| true);
        }
        let told = self.sweeps.gone.len() + self.sweeps.spared.len();
        if swept.more && told < limits::STORE_PENDING { self.sweep_database() } else { Ok(()) }
    }
}
