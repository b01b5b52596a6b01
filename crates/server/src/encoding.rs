//! The encodings of frames and lines to sessions. A turn encodes each frame once per encoding that a receiver needs.

use std::ops::{Index, IndexMut};

use wsmb_core::message::Dialect;

/// An encoding. A new one needs a variant here, an entry in [`Encoding::COUNT`], [`Encoding::ALL`] and [`Encoding::dialect`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// WebSocket frames that carry JSON commands.
    Envelope,
    /// WebSocket frames that carry one message each.
    Topic,
    /// Lines that carry one JSON command each, for a session without a socket.
    Lines,
}

impl Encoding {
    /// The number of encodings.
    pub(super) const COUNT: usize = 3;
    /// All encodings, in the order of their indices.
    pub(super) const ALL: [Self; Self::COUNT] = [Self::Envelope, Self::Topic, Self::Lines];

    /// The layout of messages in the frames.
    pub(super) fn dialect(self) -> Dialect {
        match self {
            Self::Envelope | Self::Lines => Dialect::Envelope,
            Self::Topic => Dialect::Topic,
        }
    }
}

/// One `T` for each encoding.
#[derive(Clone, Debug, Default)]
pub(super) struct PerEncoding<T>([T; Encoding::COUNT]);

impl<T> PerEncoding<T> {
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }

    /// Pairs the elements of `self` and `other`.
    pub(super) fn zip<U>(&mut self, other: PerEncoding<U>) -> impl Iterator<Item = (&mut T, U)> {
        self.0.iter_mut().zip(other.0)
    }
}

impl<T> Index<Encoding> for PerEncoding<T> {
    type Output = T;

    fn index(&self, encoding: Encoding) -> &T {
        &self.0[encoding as usize]
    }
}

impl<T> IndexMut<Encoding> for PerEncoding<T> {
    fn index_mut(&mut self, encoding: Encoding) -> &mut T {
        &mut self.0[encoding as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_encoding_is_the_index_of_its_own_element() {
        let mut each = PerEncoding::<usize>::default();
        for encoding in Encoding::ALL {
            each[encoding] += 1;
            assert_eq!(Encoding::ALL[encoding as usize], encoding);
        }
        assert!(each.iter().all(|count| *count == 1));
    }
}
