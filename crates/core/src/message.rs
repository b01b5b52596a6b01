//! The types that all crates share: names, numbers and payloads. Each value is checked when it is made, so that it is valid afterwards.
//!
//! Never here: I/O, a protocol, a clock.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::limits;

mod answer;

pub use answer::{Answer, DeadLetter, DeliveryName, Nack, Why};

/// A point in time: milliseconds since the Unix epoch, UTC.
///
/// The broker core uses elapsed time: it starts with the wall clock's time at start-up and counts on, so that a change of the wall clock
/// while the broker runs neither expires nor revives a message. Stored and reported times are those of the wall clock. The server converts
/// between the two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Returns this time plus `duration`; saturates.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }

    /// Returns this time moved by this number of milliseconds; saturates.
    #[must_use]
    pub fn shifted(self, millis: i64) -> Self {
        Self(self.0.saturating_add_signed(millis))
    }

    /// Returns the time from `earlier` to this time; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// The number of a connection. A number is never used again after the connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// The order in which a receiver's channels are served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// A channel takes precedence over those that the receiver names after it.
    #[default]
    List,
    /// The channels take turns.
    Fair,
}

/// The name of a group of receivers: 1 to [`limits::NAME_BYTES`] bytes. Names of groups are separate for each channel; receivers of
/// different users may name the same group.
pub type GroupName = Arc<str>;

/// The number of a message in the order of acceptance, and the message's `data_id` in the store.
///
/// At most `i64::MAX`, because the store's column is signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u64);

/// The name of a channel: 1–100 characters, none of them a control character.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelName(Arc<str>);

/// The reason why a text is not a [`ChannelName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadChannelName {
    /// The text is empty.
    Empty,
    /// The text has more than [`limits::CHANNEL_NAME_CHARS`] characters.
    TooLong,
    /// The text contains a control character (Unicode category Cc).
    ControlCharacter,
}

impl fmt::Display for BadChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the channel name is empty"),
            Self::TooLong => {
                write!(f, "the channel name is longer than {} characters", limits::CHANNEL_NAME_CHARS)
            }
            Self::ControlCharacter => f.write_str("the channel name contains a control character"),
        }
    }
}

impl std::error::Error for BadChannelName {}

impl ChannelName {
    /// Checks `name`. Nothing is trimmed or folded.
    ///
    /// # Errors
    /// [`BadChannelName`] names the broken rule.
    pub fn parse(name: &str) -> Result<Self, BadChannelName> {
        if name.is_empty() {
            return Err(BadChannelName::Empty);
        }
        if name.chars().count() > limits::CHANNEL_NAME_CHARS {
            return Err(BadChannelName::TooLong);
        }
        if name.chars().any(char::is_control) {
            return Err(BadChannelName::ControlCharacter);
        }
        Ok(Self(Arc::from(name)))
    }

    /// Whether both names are equal. Faster than `==` if both share their text, as copies of one name do.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self == other
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Lets a map with [`ChannelName`] keys be searched with a `&str`.
impl std::borrow::Borrow<str> for ChannelName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Whether a payload is text or bytes. For a topic client this is the frame's opcode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Valid UTF-8.
    Text,
    /// Any bytes.
    Binary,
}

/// The content of one message. If its kind is [`Kind::Text`], the bytes are valid UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// The exact bytes.
    pub bytes: Bytes,
    /// Whether the bytes are text.
    pub kind: Kind,
}

impl Payload {
    /// Makes a text payload.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self { bytes: Bytes::from(text.into()), kind: Kind::Text }
    }

    /// Returns the payload's text; `None` if the bytes are not UTF-8.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        std::str::from_utf8(&self.bytes).ok()
    }
}

/// The format in which a connection sends and receives messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// JSON commands and replies.
    Envelope,
    /// One frame is one message.
    Topic,
}

/// Bytes of a frame around a message that the message may hold in memory: the frame's header and the members of an ordinary command.
const FRAME_SURPLUS: usize = 128;

/// The bytes of one WebSocket frame (server side, unmasked, header included), borrowed from a read buffer or shared.
#[derive(Clone, Debug)]
pub enum Frame<'a> {
    /// Borrowed from a buffer that is reused after the current event is handled.
    Borrowed(&'a [u8]),
    /// Shared bytes without a time limit.
    Shared(Bytes),
}

impl Frame<'_> {
    /// Returns the frame as shared bytes; copies it if it was borrowed.
    #[must_use]
    pub fn to_shared(&self) -> Bytes {
        match self {
            Self::Borrowed(bytes) => Bytes::copy_from_slice(bytes),
            Self::Shared(bytes) => bytes.clone(),
        }
    }
}

impl std::ops::Deref for Frame<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

/// The byte range of each message within the frame of its publication. Nearly every publication has one message.
pub type Spans = SmallVec<[Range<usize>; 1]>;

/// The content of one `send-message` command or one topic frame: one or more messages that are delivered together.
///
/// It borrows from the read buffer as far as possible: content that is only forwarded is first copied into the receivers' queues. To keep a
/// message, make a [`Payload`] of it.
#[derive(Clone, Debug)]
pub struct Publication<'a> {
    /// The channel to which it was sent.
    pub channel: Cow<'a, ChannelName>,
    /// The sender's format.
    pub dialect: Dialect,
    /// Whether its messages are text.
    pub kind: Kind,
    /// The frame that is forwarded unchanged to receivers with the same format.
    pub frame: Frame<'a>,
    /// The messages' byte ranges in `frame`, in order. If the kind is [`Kind::Text`], each message is valid UTF-8.
    pub messages: Spans,
    /// Whether the frame may be forwarded unchanged. False for an envelope that a receiver's parser could read differently.
    pub verbatim: bool,
}

impl Publication<'_> {
    /// Returns the bytes of each message, in order.
    pub fn bodies(&self) -> impl ExactSizeIterator<Item = &[u8]> + Clone {
        self.messages.iter().map(|span| self.frame.get(span.clone()).unwrap_or_default())
    }

    /// Returns the messages as payloads. A message shares the memory of the frame if the frame is little larger than the message; else it gets
    /// memory of its own. So a message never holds much more memory than its own length, whatever surrounded it in the frame.
    pub fn payloads(&self) -> impl ExactSizeIterator<Item = Payload> {
        let mut shared = None;
        // A borrowed frame must be copied in any case. The only message of it needs no memory that can be shared, which costs one more allocation.
        let is_copied = matches!(self.frame, Frame::Borrowed(_)) && self.messages.len() == 1;
        self.messages.iter().map(move |span| {
            let bytes = if !is_copied && self.frame.len() <= span.len() + span.len() / 4 + FRAME_SURPLUS {
                shared.get_or_insert_with(|| self.frame.to_shared()).slice(span.clone())
            } else {
                Bytes::copy_from_slice(self.frame.get(span.clone()).unwrap_or_default())
            };
            Payload { bytes, kind: self.kind }
        })
    }

    /// Returns a copy without borrowed parts.
    #[must_use]
    pub fn to_owned(&self) -> Publication<'static> {
        Publication {
            channel: Cow::Owned(ChannelName::clone(&self.channel)),
            dialect: self.dialect,
            kind: self.kind,
            frame: Frame::Shared(self.frame.to_shared()),
            messages: self.messages.clone(),
            verbatim: self.verbatim,
        }
    }
}

/// The id that a sender gives to a publication (`id` in `send-message`), together with the sender's user name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicationId(Arc<str>);

impl PublicationId {
    /// Makes the id that `user` (empty if anonymous) chose. A user name never contains a colon (RFC 7617), so the text up to the first
    /// colon is the user name.
    #[must_use]
    pub fn new(user: &str, id: &str) -> Self {
        // Built on the stack; longer texts allocate.
        let mut text = SmallVec::<[u8; 128]>::new();
        for share in [user, ":", id] {
            text.extend_from_slice(share.as_bytes());
        }
        Self(Arc::from(&*String::from_utf8_lossy(&text)))
    }

    /// Parses the text that [`Self::as_str`] returns.
    #[must_use]
    pub fn from_stored(text: &str) -> Self {
        Self(Arc::from(text))
    }

    /// Returns user and id as one text, as the store holds it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the name of the user who chose the id.
    #[must_use]
    pub fn user(&self) -> &str {
        self.colon().map_or("", |colon| &self.0[..colon])
    }

    /// Returns the id as the sender wrote it.
    #[must_use]
    pub fn id(&self) -> &str {
        self.colon().map_or(&self.0, |colon| &self.0[colon + 1..])
    }

    /// Returns the position of the first colon. A byte-wise search is fast, because the colon is near the start.
    fn colon(&self) -> Option<usize> {
        self.0.as_bytes().iter().position(|byte| *byte == b':')
    }
}

/// The id of an accepted publication, as it is remembered for `dedup_window` and over a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptedId {
    /// The time of acceptance.
    pub at: Timestamp,
    /// The hash of the channel, the user and the id.
    pub key: [u64; 2],
    /// The hash of the user name.
    pub user: u64,
}

/// A kept message as the store holds it: one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The message's number in the order of acceptance.
    pub id: MessageId,
    /// Its channel.
    pub channel: ChannelName,
    /// The content.
    pub payload: Payload,
    /// The time of acceptance.
    pub created: Timestamp,
    /// The message is not delivered at or after this time; `None` = never expires.
    pub expires: Option<Timestamp>,
    /// The message is not delivered before this time; `None` = at once. A message with a due time is never paged: the core holds it in
    /// memory from its acceptance or the start-up.
    pub due: Option<Timestamp>,
    /// The receiver limit that the publication asked for (0 = all); `None` = the channel's limit.
    pub receivers: Option<u32>,
    /// The id of its publication.
    pub publication: Option<PublicationId>,
    /// The number of deliveries.
    pub deliveries: u32,
    /// Present if the message is a dead letter.
    pub dead: Option<Box<DeadLetter>>,
}

impl Message {
    /// Returns the channel to which the message was first sent. The id of its publication is remembered for this channel.
    #[must_use]
    pub fn first_channel(&self) -> &ChannelName {
        self.dead.as_ref().map_or(&self.channel, |dead| &dead.channel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publication(frame: Frame<'_>, messages: Spans) -> Publication<'_> {
        Publication {
            channel: Cow::Owned(ChannelName::parse("a").expect("a valid name")),
            dialect: Dialect::Envelope,
            kind: Kind::Text,
            frame,
            messages,
            verbatim: true,
        }
    }

    #[test]
    fn a_small_message_does_not_hold_a_large_frame() {
        let frame = Bytes::from(vec![b'x'; 1 << 20]);
        let inside = frame.as_ptr_range();
        let messages = Spans::from_vec(vec![10..11, 100..900_000, 5..(1 << 20)]);
        let shared = publication(Frame::Shared(frame.clone()), messages.clone());
        let shares: Vec<bool> = shared.payloads().map(|payload| inside.contains(&payload.bytes.as_ptr())).collect();
        assert_eq!(shares, [false, true, true], "most of the frame is the message, or it has memory of its own");
        let payloads = publication(Frame::Borrowed(&frame), messages.clone()).payloads().collect::<Vec<_>>();
        let lengths: Vec<usize> = payloads.iter().map(|payload| payload.bytes.len()).collect();
        assert_eq!(lengths, messages.iter().map(ExactSizeIterator::len).collect::<Vec<_>>());
    }
}
