//! The pieces that a connection's queue consists of: stretches of whole frames, by themselves or in the batch of a turn.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::batch::Span;
use crate::limits;
use wsmb_protocol::frame;

/// One or more whole frames, or what is left of them.
#[derive(Debug)]
pub(super) enum Piece {
    /// To be written.
    Own(Bytes),
    /// In the batch of the turn that is going on. There is none while the core's lock is free.
    Span(Span),
}

impl Piece {
    /// Bytes.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Own(bytes) => bytes.len(),
            Self::Span(span) => span.len(),
        }
    }
}

/// What waits now may wait long: small pieces leave their batch, so that they do not keep all of it in memory.
pub(super) fn detach(pieces: &mut VecDeque<Piece>) {
    let is_small = |piece: &Piece| matches!(piece, Piece::Own(bytes) if bytes.len() < limits::BATCH_SHARE);
    if !pieces.iter().any(is_small) {
        return;
    }
    let mut loose: Vec<u8> = Vec::new();
    let mut frames = VecDeque::with_capacity(pieces.len());
    for piece in pieces.drain(..) {
        match piece {
            Piece::Own(bytes) if bytes.len() < limits::BATCH_SHARE => {
                loose.extend_from_slice(&bytes);
                if loose.len() >= limits::BATCH_SHARE {
                    frames.push_back(Piece::Own(Bytes::from(std::mem::take(&mut loose))));
                }
            }
            piece => {
                if !loose.is_empty() {
                    frames.push_back(Piece::Own(Bytes::from(std::mem::take(&mut loose))));
                }
                frames.push_back(piece);
            }
        }
    }
    if !loose.is_empty() {
        frames.push_back(Piece::Own(Bytes::from(loose)));
    }
    *pieces = frames;
}

/// Bytes left of the frame that the first `taken` bytes of a piece end in. `begun`: what was left of the frame that the piece begins in.
pub(super) fn left_of_frame(piece: &[u8], begun: usize, taken: usize) -> usize {
    let mut end = begun;
    // Bounded: every frame has at least two bytes.
    while end < taken {
        end += frame::unmasked_len(&piece[end..]);
    }
    end.min(piece.len()) - taken
}
