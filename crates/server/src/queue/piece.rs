//! The elements of a connection's queue: consecutive frames, in a buffer of their own or in the batch of a turn.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::batch::Span;
use crate::limits;
use wsmb_protocol::frame;

/// One or more whole frames, or the unwritten rest of them.
#[derive(Debug)]
pub(super) enum Piece {
    /// A buffer, ready to be written.
    Own(Bytes),
    /// A range of the current turn's batch. No queue contains a span while the core's lock is free.
    Span(Span),
}

impl Piece {
    /// The length in bytes.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Own(bytes) => bytes.len(),
            Self::Span(span) => span.len(),
        }
    }
}

/// Copies small pieces out of their batches, so that pieces that wait for a slow socket do not keep whole batches in memory.
pub(super) fn detach(pieces: &mut VecDeque<Piece>) {
    let is_small = |piece: &Piece| matches!(piece, Piece::Own(bytes) if bytes.len() < limits::BATCH_SHARE);
    if !pieces.iter().any(is_small) {
        return;
    }
    let mut copied: Vec<u8> = Vec::new();
    let mut frames = VecDeque::with_capacity(pieces.len());
    for piece in pieces.drain(..) {
        match piece {
            Piece::Own(bytes) if bytes.len() < limits::BATCH_SHARE => {
                copied.extend_from_slice(&bytes);
                if copied.len() >= limits::BATCH_SHARE {
                    frames.push_back(Piece::Own(Bytes::from(std::mem::take(&mut copied))));
                }
            }
            piece => {
                if !copied.is_empty() {
                    frames.push_back(Piece::Own(Bytes::from(std::mem::take(&mut copied))));
                }
                frames.push_back(piece);
            }
        }
    }
    if !copied.is_empty() {
        frames.push_back(Piece::Own(Bytes::from(copied)));
    }
    *pieces = frames;
}

/// Returns how many bytes the frame in which the first `taken` bytes of a piece end still has. `begun`: the rest of the frame in which the piece
/// begins, in bytes.
pub(super) fn left_of_frame(piece: &[u8], begun: usize, taken: usize) -> usize {
    let mut end = begun;
    // Bounded: every frame has at least two bytes.
    while end < taken {
        end += frame::unmasked_len(&piece[end..]);
    }
    end.min(piece.len()) - taken
}
