//! The frames of one turn, one behind the other: what is sent to many is here once, and what is sent to one in a row is written in one go.
//!
//! A turn appends frames while it holds the core's lock, and the queues note where they lie ([`Span`]). When the turn ends, the batch is
//! frozen and every span becomes a slice of it. The memory is used again by the next turn, unless a slow socket still needs it.
//!
//! Pure memory: no system call is made here.

use bytes::Bytes;

use crate::limits;

/// Where something lies in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Span {
    /// Nothing.
    pub(super) const EMPTY: Self = Self { start: 0, end: 0 };

    /// Bytes.
    pub(super) fn len(self) -> usize {
        (self.end - self.start) as usize
    }
}

/// The frames of a turn that has not ended.
#[derive(Debug, Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
}

impl Batch {
    /// Whether it takes another frame of a few KiB. Beyond, frames are made each by itself.
    pub(super) fn has_room(&self) -> bool {
        self.bytes.len() < limits::BATCH
    }

    /// Whether it has memory for the next turn.
    #[cfg(test)]
    pub(super) fn has_memory(&self) -> bool {
        self.bytes.capacity() > 0
    }

    /// Appends what `push` appends; where that lies.
    pub(super) fn append(&mut self, push: impl FnOnce(&mut Vec<u8>)) -> Span {
        let start = self.bytes.len();
        push(&mut self.bytes);
        // invariant: `has_room` was asked, and no frame nears 4 GiB.
        let place = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Span { start: place(start), end: place(self.bytes.len()) }
    }

    /// What lies there.
    pub(super) fn get(&self, span: Span) -> &[u8] {
        self.bytes.get(span.start as usize..span.end as usize).unwrap_or_default()
    }

    /// Ends the batch; a new one begins.
    pub(super) fn freeze(&mut self) -> Bytes {
        Bytes::from(std::mem::take(&mut self.bytes))
    }

    /// Takes back the memory of a batch that has been frozen, if nobody holds a slice of it any more and no turn has begun.
    pub(super) fn reuse(&mut self, frozen: Bytes) {
        if self.bytes.capacity() > 0 {
            return;
        }
        if let Ok(mutable) = frozen.try_into_mut() {
            let mut bytes = Vec::from(mutable);
            bytes.clear();
            bytes.shrink_to(2 * limits::BATCH);
            self.bytes = bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_appended_lies_where_its_span_says_and_the_memory_is_used_again() {
        let mut batch = Batch::default();
        let first = batch.append(|out| out.extend_from_slice(b"one"));
        let second = batch.append(|out| out.extend_from_slice(b"three"));
        assert_eq!((batch.get(first), batch.get(second), second.len()), (&b"one"[..], &b"three"[..], 5));
        let frozen = batch.freeze();
        assert_eq!(&frozen[..], b"onethree");
        let at = frozen.as_ptr();
        batch.reuse(frozen);
        batch.append(|out| out.push(1));
        assert_eq!(batch.freeze().as_ptr(), at);
    }

    #[test]
    fn memory_that_somebody_still_holds_is_not_used_again() {
        let mut batch = Batch::default();
        batch.append(|out| out.extend_from_slice(b"held"));
        let frozen = batch.freeze();
        let slice = frozen.slice(1..3);
        batch.reuse(frozen);
        batch.append(|out| out.extend_from_slice(b"xxxx"));
        assert_eq!(&slice[..], b"el");
    }
}
