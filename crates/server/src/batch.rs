//! The frames of one turn in one buffer: a frame for many receivers is stored once, and consecutive frames for one receiver need one write.
//!
//! A turn appends frames while it holds the core's lock, and the queues store their positions ([`Span`]). At the end of the turn the batch is
//! frozen and every span becomes a slice of it. The next turn reuses the memory, unless a slow socket still needs it.
//!
//! Never here: a system call.

use bytes::Bytes;

use crate::limits;

/// A range of bytes in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Span {
    pub(super) const EMPTY: Self = Self { start: 0, end: 0 };

    /// The length in bytes.
    pub(super) fn len(self) -> usize {
        (self.end - self.start) as usize
    }
}

/// The frames of the current turn.
#[derive(Debug, Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
}

impl Batch {
    /// Whether another frame of a few KiB may be appended. Otherwise a frame gets a buffer of its own.
    pub(super) fn has_room(&self) -> bool {
        self.bytes.len() < limits::BATCH
    }

    /// Whether memory is allocated for the next turn.
    #[cfg(test)]
    pub(super) fn has_memory(&self) -> bool {
        self.bytes.capacity() > 0
    }

    /// Appends the bytes that `push` appends, and returns their position.
    pub(super) fn append(&mut self, push: impl FnOnce(&mut Vec<u8>)) -> Span {
        let start = self.bytes.len();
        push(&mut self.bytes);
        // invariant: `has_room` was true, and no frame nears 4 GiB.
        let offset = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Span { start: offset(start), end: offset(self.bytes.len()) }
    }

    pub(super) fn get(&self, span: Span) -> &[u8] {
        self.bytes.get(span.start as usize..span.end as usize).unwrap_or_default()
    }

    /// Ends the batch and begins an empty one.
    pub(super) fn freeze(&mut self) -> Bytes {
        Bytes::from(std::mem::take(&mut self.bytes))
    }

    /// Takes back the memory of a frozen batch, if no slice of it is left and no frame was appended since.
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
    fn a_span_locates_its_bytes_and_the_memory_is_reused() {
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
    fn memory_with_a_live_slice_is_not_reused() {
        let mut batch = Batch::default();
        batch.append(|out| out.extend_from_slice(b"held"));
        let frozen = batch.freeze();
        let slice = frozen.slice(1..3);
        batch.reuse(frozen);
        batch.append(|out| out.extend_from_slice(b"xxxx"));
        assert_eq!(&slice[..], b"el");
    }
}
