//! One sender: what it sends, how far it may go ahead of its receivers, and how far they are.

use std::ops::Range;

use super::stamp::Stamp;
use super::wire::Publication;
use crate::limits;

/// What makes room for further sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Credit {
    /// Everybody has received a part of the window.
    Received,
    /// The broker has answered for a send.
    Answered,
}

/// The sends of one connection.
#[derive(Debug)]
pub(super) struct Flow {
    /// The sender's connection.
    pub(super) sender: usize,
    stamp: Stamp,
    /// The channels that it sends to, in turn: the first, and how many.
    first_channel: u32,
    pub(super) channels: u32,
    /// To how many receivers each message goes.
    pub(super) copies: u64,
    credit: Credit,
    window: u64,
    pub(super) sent: u64,
    /// No more than this is sent.
    pub(super) limit: u64,
    pub(super) answered: u64,
    /// A part of the window has 1 << `shift` messages.
    shift: u32,
    /// What is missing of each part that may be on its way, over and over; `oldest` is the number of the oldest.
    missing: Vec<u64>,
    oldest: u64,
    /// It stands in the list of those that may send.
    pub(super) listed: bool,
}

impl Flow {
    /// `uses`: the channels that it sends to, in turn. `window`: messages that may be on their way, or unanswered.
    pub(super) fn new(
        sender: usize,
        publication: &Publication,
        uses: Range<u32>,
        copies: u64,
        credit: Credit,
        window: u32,
    ) -> Self {
        let window = window.max(1);
        let shift = (window / limits::WINDOW_PARTS).max(1).ilog2();
        let parts = window >> shift;
        Self {
            sender,
            stamp: Stamp::new(publication),
            first_channel: uses.start,
            channels: uses.end.saturating_sub(uses.start).max(1),
            copies,
            credit,
            window: u64::from(window),
            sent: 0,
            limit: 0,
            answered: 0,
            shift,
            missing: vec![copies << shift; parts as usize],
            oldest: 0,
            listed: false,
        }
    }

    /// How many messages it may send now.
    pub(super) fn room(&self) -> u64 {
        let most = match self.credit {
            Credit::Answered => self.answered + self.window,
            Credit::Received => (self.oldest + self.missing.len() as u64) << self.shift,
        };
        most.min(self.limit).saturating_sub(self.sent)
    }

    /// Appends frames while there is room, and less than a burst is in `out`. Returns how many.
    pub(super) fn fill(&mut self, out: &mut Vec<u8>) -> u64 {
        let mut count = 0;
        let room = self.room();
        while count < room && (out.is_empty() || out.len() + self.stamp.len() <= limits::BURST) {
            let (channel, _) = self.place_of(self.sent);
            self.stamp.append(out, self.sent, self.first_channel + channel);
            self.sent += 1;
            count += 1;
        }
        count
    }

    /// Somebody has received this message for the first time. Whether that made room.
    #[inline]
    pub(super) fn received(&mut self, number: u64) -> bool {
        if self.credit == Credit::Answered {
            return false;
        }
        let parts = self.missing.len() as u64;
        let Some(missing) = self.missing.get_mut((number >> self.shift) as usize % parts as usize) else {
            return false;
        };
        *missing = missing.saturating_sub(1);
        if *missing > 0 {
            return false;
        }
        let mut made_room = false;
        while let Some(missing) = self.missing.get_mut((self.oldest % parts) as usize).filter(|missing| **missing == 0)
        {
            *missing = self.copies << self.shift;
            self.oldest += 1;
            made_room = true;
        }
        made_room
    }

    /// The channel, counted from the first, and the number of the message among those of that channel.
    #[inline]
    pub(super) fn place_of(&self, number: u64) -> (u32, u64) {
        if self.channels == 1 {
            return (0, number);
        }
        let channels = u64::from(self.channels);
        // A remainder of a `u32` is one.
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
    fn the_window_opens_by_parts_that_everybody_has() {
        let mut flow = flow(2, Credit::Received, 16);
        let mut out = Vec::new();
        assert_eq!((flow.fill(&mut out), flow.room()), (16, 0));
        // Part of four; two receivers; the second part is complete before the first.
        for number in (4..8).chain(4..8).chain(0..4).chain(0..3) {
            assert!(!flow.received(number), "{number}");
        }
        assert_eq!(flow.room(), 0);
        assert!(flow.received(3));
        assert_eq!(flow.room(), 8);
    }

    #[test]
    fn answers_open_the_window_one_by_one() {
        let mut flow = flow(1, Credit::Answered, 3);
        let mut out = Vec::new();
        assert_eq!(flow.fill(&mut out), 3);
        assert!(!flow.received(0));
        flow.answered += 1;
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
    fn a_burst_has_an_end() {
        let mut flow = flow(1, Credit::Received, 60_000);
        flow.limit = 60_000;
        let mut out = Vec::new();
        flow.fill(&mut out);
        assert!(out.len() <= limits::BURST && flow.room() > 0);
    }
}
