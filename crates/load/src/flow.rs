//! One sender: the messages it sends, its window, and the progress of its receivers. No I/O.

use std::ops::Range;

use super::frame_template::FrameTemplate;
use super::wire::Publication;
use crate::limits;

/// What makes room in the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Credit {
    /// All receivers have received a part of the window.
    Received,
    /// The broker has confirmed a send.
    Confirmed,
}

/// The messages of one sender.
#[derive(Debug)]
pub(super) struct Flow {
    /// The index of the sender's connection.
    pub(super) sender: usize,
    template: FrameTemplate,
    /// The channels that the messages go to in turn: the first one, and their number.
    first_channel: u32,
    pub(super) channels: u32,
    /// The number of receivers of each message.
    pub(super) copies: u64,
    credit: Credit,
    window: u64,
    pub(super) sent: u64,
    /// The number of messages at which sending stops.
    pub(super) limit: u64,
    pub(super) confirmed: u64,
    /// A part of the window has `1 << part_shift` messages.
    part_shift: u32,
    /// The missing deliveries of each part of the window, as a ring; `oldest_part` is the number of the oldest part.
    missing: Vec<u64>,
    oldest_part: u64,
    /// Whether the flow is in the engine's `sendable` list.
    pub(super) is_listed: bool,
}

impl Flow {
    /// Creates a flow to the channels of `uses` in turn. `window`: the maximum number of messages in flight or unconfirmed.
    pub(super) fn new(
        sender: usize,
        publication: &Publication,
        uses: Range<u32>,
        copies: u64,
        credit: Credit,
        window: u32,
    ) -> Self {
        let window = window.max(1);
        let part_shift = (window / limits::WINDOW_PARTS).max(1).ilog2();
        let parts = window >> part_shift;
        Self {
            sender,
            template: FrameTemplate::new(publication),
            first_channel: uses.start,
            channels: uses.end.saturating_sub(uses.start).max(1),
            copies,
            credit,
            window: u64::from(window),
            sent: 0,
            limit: 0,
            confirmed: 0,
            part_shift,
            missing: vec![copies << part_shift; parts as usize],
            oldest_part: 0,
            is_listed: false,
        }
    }

    /// The number of messages that may be sent now.
    pub(super) fn room(&self) -> u64 {
        let end = match self.credit {
            Credit::Confirmed => self.confirmed + self.window,
            Credit::Received => (self.oldest_part + self.missing.len() as u64) << self.part_shift,
        };
        end.min(self.limit).saturating_sub(self.sent)
    }

    /// Appends frames while the window has room and `out` is smaller than a burst. Returns their number.
    pub(super) fn fill(&mut self, out: &mut Vec<u8>) -> u64 {
        let mut count = 0;
        let room = self.room();
        while count < room && (out.is_empty() || out.len() + self.template.len() <= limits::BURST_BYTES) {
            let (channel, _) = self.channel_and_index(self.sent);
            self.template.append(out, self.sent, self.first_channel + channel);
            self.sent += 1;
            count += 1;
        }
        count
    }

    /// Records the first delivery of a message to one of its receivers. Returns whether that made room in the window.
    #[inline]
    pub(super) fn received(&mut self, number: u64) -> bool {
        if self.credit == Credit::Confirmed {
            return false;
        }
        let parts = self.missing.len() as u64;
        let Some(missing) = self.missing.get_mut((number >> self.part_shift) as usize % parts as usize) else {
            return false;
        };
        *missing = missing.saturating_sub(1);
        if *missing > 0 {
            return false;
        }
        let mut made_room = false;
        while let Some(missing) =
            self.missing.get_mut((self.oldest_part % parts) as usize).filter(|missing| **missing == 0)
        {
            *missing = self.copies << self.part_shift;
            self.oldest_part += 1;
            made_room = true;
        }
        made_room
    }

    /// Returns the channel of a message, counted from the first channel, and the message's index within that channel.
    #[inline]
    pub(super) fn channel_and_index(&self, number: u64) -> (u32, u64) {
        if self.channels == 1 {
            return (0, number);
        }
        let channels = u64::from(self.channels);
        // The remainder is below a `u32`, so it fits.
        ((number % channels) as u32, number / channels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wsmb_protocol::frame::Opcode;

    fn flow(copies: u64, credit: Credit, window: u32) -> Flow {
        let publication = Publication::new(Opcode::Text).number();
        Flow { limit: 1_000, ..Flow::new(0, &publication, 0..1, copies, credit, window) }
    }

    #[test]
    fn the_window_opens_by_parts_that_all_receivers_have() {
        let mut flow = flow(2, Credit::Received, 16);
        let mut out = Vec::new();
        assert_eq!((flow.fill(&mut out), flow.room()), (16, 0));
        // Parts of four messages and two receivers. The second part is complete before the first.
        for number in (4..8).chain(4..8).chain(0..4).chain(0..3) {
            assert!(!flow.received(number), "{number}");
        }
        assert_eq!(flow.room(), 0);
        assert!(flow.received(3));
        assert_eq!(flow.room(), 8);
    }

    #[test]
    fn confirmations_open_the_window_one_by_one() {
        let mut flow = flow(1, Credit::Confirmed, 3);
        let mut out = Vec::new();
        assert_eq!(flow.fill(&mut out), 3);
        assert!(!flow.received(0));
        flow.confirmed += 1;
        assert_eq!(flow.room(), 1);
        flow.limit = 3;
        assert_eq!(flow.room(), 0);
    }

    #[test]
    fn the_smallest_windows_work() {
        for window in 0..10 {
            let mut flow = flow(1, Credit::Received, window);
            let mut out = Vec::new();
            for number in 0..100 {
                if flow.room() == 0 {
                    panic!("stuck before {number} with a window of {window}");
                }
                flow.limit = flow.sent + 1;
                flow.fill(&mut out);
                flow.received(number);
                flow.limit = 1_000;
            }
        }
    }

    #[test]
    fn bursts_are_bounded() {
        let mut flow = flow(1, Credit::Received, 60_000);
        flow.limit = 60_000;
        let mut out = Vec::new();
        flow.fill(&mut out);
        assert!(out.len() <= limits::BURST_BYTES && flow.room() > 0);
    }
}
