//! The contents of deliveries as frames. A frame is encoded once for all receivers that get the same bytes, and only in the encodings that they need.

use bytes::Bytes;

use crate::batch::{Batch, Span};
use crate::encoding::Encoding;
use crate::limits;
use wsmb_core::broker::{Backlog, Content};
use wsmb_core::message::{ChannelName, DeadLetter, Frame, Payload, Publication};
use wsmb_protocol::delivery::{self, Manual};

/// The content of a delivery.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Body<'a> {
    Publication(&'a Publication<'a>),
    Backlog(&'a ChannelName, &'a [Payload], Option<&'a DeadLetter>),
}

impl<'a> Body<'a> {
    /// Converts the core's content. `live`: the publication of the event that the core has just handled.
    pub(crate) fn of(content: &'a Content, live: Option<&'a Publication<'a>>) -> Option<Self> {
        match content {
            Content::Live => live.map(Self::Publication),
            Content::Due(publication) => Some(Self::Publication(publication)),
            Content::Backlog(backlog) => {
                let Backlog { channel, messages, dead } = &**backlog;
                Some(Self::Backlog(channel, messages, dead.as_deref()))
            }
        }
    }

    /// Appends the frames, or the line.
    pub(super) fn push(self, out: &mut Vec<u8>, encoding: Encoding, manual: Option<Manual>) {
        let (start, dialect) = (out.len(), encoding.dialect());
        match self {
            Self::Publication(publication) => delivery::push_live(out, publication, dialect, manual),
            Self::Backlog(channel, messages, dead) => {
                delivery::push_backlog(out, channel, messages, dialect, (manual, dead));
            }
        }
        if encoding == Encoding::Lines {
            delivery::frame_into_line(out, start);
        }
    }

    /// Whether the content is one message in one frame. (A topic receiver gets no frame for an empty message.)
    pub(super) fn is_single(self) -> bool {
        match self {
            Self::Publication(publication) => matches!(&publication.messages[..], [only] if !only.is_empty()),
            Self::Backlog(_, messages, _) => matches!(messages, [only] if !only.bytes.is_empty()),
        }
    }

    /// Whether a copy costs more than a shared buffer: then the queues share the frames.
    pub(super) fn is_large(self) -> bool {
        let size = match self {
            Self::Publication(publication) => publication.frame.len(),
            Self::Backlog(_, messages, _) => messages.iter().map(|message| message.bytes.len()).sum(),
        };
        size >= limits::BATCH_SHARE
    }

    /// The publication's own frame, if receivers get the same bytes and a copy would cost more than a shared buffer.
    fn large(self, encoding: Encoding, manual: Option<Manual>) -> Option<&'a Bytes> {
        let is_verbatim =
            |publication| encoding != Encoding::Lines && delivery::is_verbatim(publication, encoding.dialect(), manual);
        match self {
            Self::Publication(publication) if is_verbatim(publication) => match &publication.frame {
                Frame::Shared(frame) if frame.len() >= limits::BATCH_SHARE => Some(frame),
                Frame::Shared(_) | Frame::Borrowed(_) => None,
            },
            _ => None,
        }
    }
}

/// A delivery's frames.
#[derive(Clone, Debug)]
pub(super) enum Frames {
    /// A range of this turn's batch.
    Batch(Span),
    /// A buffer that the queues share.
    Own(Bytes),
}

/// The frames of one content in one encoding, as far as they were encoded.
#[derive(Clone, Debug, Default)]
pub(super) struct Rendered {
    span: Option<Span>,
    own: Option<Bytes>,
}

impl Rendered {
    /// Returns the frames. `flowing`: the receiver's queue is flushed at once.
    pub(super) fn frames(
        &mut self,
        batch: &mut Batch,
        flowing: bool,
        (body, encoding, manual): (Body<'_>, Encoding, Option<Manual>),
    ) -> Frames {
        if let Some(own) = &self.own
            && (!flowing || self.span.is_none())
        {
            return Frames::Own(own.clone());
        }
        if let Some(span) = self.span {
            if flowing {
                return Frames::Batch(span);
            }
            let own = Bytes::copy_from_slice(batch.get(span));
            self.own = Some(own.clone());
            return Frames::Own(own);
        }
        if flowing && batch.has_room() && body.large(encoding, manual).is_none() {
            let span = batch.append(|out| body.push(out, encoding, manual));
            self.span = Some(span);
            return Frames::Batch(span);
        }
        let own = body.large(encoding, manual).cloned().unwrap_or_else(|| {
            let mut out = Vec::new();
            body.push(&mut out, encoding, manual);
            Bytes::from(out)
        });
        self.own = Some(own.clone());
        Frames::Own(own)
    }
}
