//! The parts of a channel's backlog that leave memory, and come back in pages.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use super::Channel;
use crate::broker::entry::Entry;
use crate::limits;
use crate::message::MessageId;

impl Channel {
    /// Whether the next page of `page` messages should be read now.
    pub fn wants_page(&self, page: usize) -> bool {
        self.paged > 0
            && self.next_page.is_idle()
            && !self.members.is_empty()
            && self.waiting.len() * 2 <= page
            && self.waiting_bytes * 2 <= limits::PAGE_BYTES
    }

    /// Turns all waiting messages into paged ones if the channel has no receivers and all of them are stored. Returns the removed entries.
    ///
    /// Does nothing while a message is in flight or held back: a message that returns must come before the paged messages.
    pub fn page_out_waiting(&mut self) -> BTreeMap<MessageId, Box<Entry>> {
        let stored = self.waiting.values().all(|entry| entry.written);
        let nobody = self.members.is_empty() && self.in_flight == 0 && !self.next_page.is_loading();
        let (Some((first, _)), Some((last, _))) = (self.waiting.first_key_value(), self.waiting.last_key_value())
        else {
            return BTreeMap::new();
        };
        if !(stored && nobody) {
            return BTreeMap::new();
        }
        self.cursor = MessageId(first.0 - 1);
        self.last_paged = self.last_paged.max(*last);
        self.paged += self.waiting.len() as u64;
        self.waiting_bytes = 0;
        if let Some(expiring) = &mut self.expiring {
            // Keep the parked messages only.
            expiring.waiting.retain(|(_, id)| self.parked.contains_key(id));
        }
        std::mem::take(&mut self.waiting)
    }

    /// Turns waiting messages at the end of the backlog into paged ones, until at most `keep` bytes wait. Returns the removed entries.
    ///
    /// Takes stored messages only, none whose failures are remembered, and none that was delivered or comes before one that was: a message that
    /// returns must come before the paged messages. Does nothing for a channel whose receivers send to it, because the runs of such messages must stay in order.
    pub fn page_out_last(&mut self, keep: usize) -> SmallVec<[Box<Entry>; 1]> {
        let mut paged = SmallVec::new();
        if self.waiting_bytes <= keep || self.next_page.is_loading() || self.self_sent.is_some() {
            return paged;
        }
        // Without deliveries that may come back, no message is before the end of the backlog.
        let floor = if self.in_flight == 0 { MessageId(0) } else { self.last_delivered };
        // One message stays, or the next page would be read at once.
        while self.waiting_bytes > keep
            && self.waiting.len() > 1
            && let Some((id, entry)) = self.waiting.last_key_value()
            && entry.written
            && entry.origin.is_none()
            && entry.failures.is_none()
            && *id > floor
        {
            let id = *id;
            paged.extend(self.unwait(id));
        }
        if let (Some(last), Some(first)) = (paged.first(), paged.last()) {
            self.cursor = MessageId(first.message.id.0 - 1);
            self.last_paged = self.last_paged.max(last.message.id);
            self.paged += paged.len() as u64;
        }
        paged
    }
}
