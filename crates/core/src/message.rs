//! The vocabulary of every other module: names, numbers and payloads, parsed once at the edge and valid ever after.
//!
//! Nothing here does I/O, knows a protocol or reads a clock.

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

/// A moment: milliseconds since the Unix epoch, UTC.
///
/// There are two kinds. The broker's own time begins with the wall clock's at the start and counts elapsed time, so that a clock that is set while
/// the broker runs neither expires nor revives a message. What is stored and told is the wall clock's time; the server translates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// This moment plus `duration`, at most the end of time.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }

    /// This moment moved by so many milliseconds, within the bounds of time.
    #[must_use]
    pub fn shifted(self, millis: i64) -> Self {
        Self(self.0.saturating_add_signed(millis))
    }

    /// The time from `earlier` to this moment; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// One connection of one client; never used again after the connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Which of a receiver's channels goes first when there is a choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// The one that it names first.
    #[default]
    List,
    /// They take turns.
    Fair,
}

/// The name of a group of receivers: 1 to [`limits::NAME_BYTES`] bytes. It is good for one channel, and for whoever receives that.
pub type GroupName = Arc<str>;

/// The place of a message in the broker's order, and its `data_id` in the store. Given in the order of acceptance.
///
/// At most `i64::MAX`, because the store's column is signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u64);

/// A name that messages are sent to and received from: 1–100 characters, none of them a control character.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelName(Arc<str>);

/// Why a text is no [`ChannelName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadChannelName {
    /// No characters at all.
    Empty,
    /// More than [`limits::CHANNEL_NAME_CHARS`] characters.
    TooLong,
    /// A control character (Unicode category Cc) in it.
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
    /// Takes `name` as it stands: nothing is trimmed or folded.
    ///
    /// # Errors
    /// [`BadChannelName`] says which rule the name breaks.
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

/// So that a map keyed by [`ChannelName`] can be asked with a `&str`.
impl std::borrow::Borrow<str> for ChannelName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Whether a payload is text or bytes: the opcode with which a topic client sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Valid UTF-8.
    Text,
    /// Any bytes.
    Binary,
}

/// What one message carries. If its kind is [`Kind::Text`], the bytes are valid UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// The exact bytes.
    pub bytes: Bytes,
    /// How they are framed.
    pub kind: Kind,
}

impl Payload {
    /// A text payload.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self { bytes: Bytes::from(text.into()), kind: Kind::Text }
    }

    /// The payload's text; `None` if its bytes are not UTF-8.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        std::str::from_utf8(&self.bytes).ok()
    }
}

/// How a connection frames messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// JSON commands and replies.
    Envelope,
    /// One frame is one message.
    Topic,
}

/// The bytes of one WebSocket frame (server side, unmasked, header included): in somebody's read buffer, or shared.
#[derive(Clone, Debug)]
pub enum Frame<'a> {
    /// In a buffer that will be used again: good for as long as the event that it belongs to is handled.
    Borrowed(&'a [u8]),
    /// Its own.
    Shared(Bytes),
}

impl Frame<'_> {
    /// The frame as bytes of its own; copied if it was borrowed.
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

/// Where each message of a publication lies in its frame; nearly always there is one.
pub type Spans = SmallVec<[Range<usize>; 1]>;

/// What one `send-message`, or one topic frame, carries: one or more messages that are delivered together.
///
/// It borrows what it can from the buffer that it was read into: what is only passed on is never copied before it goes into the
/// receivers' queues. Who keeps a message makes a [`Payload`] of it.
#[derive(Clone, Debug)]
pub struct Publication<'a> {
    /// Where it was sent to.
    pub channel: Cow<'a, ChannelName>,
    /// The dialect of its sender.
    pub dialect: Dialect,
    /// How its messages are framed.
    pub kind: Kind,
    /// The frame that forwards it verbatim to receivers of the same dialect.
    pub frame: Frame<'a>,
    /// Its messages, in order, within the frame. If the kind is [`Kind::Text`], each is valid UTF-8.
    pub messages: Spans,
    /// The frame can be read in one way only, so that it may be passed on as it is. False for an envelope that a receiver could read as something else than
    /// this delivery.
    pub verbatim: bool,
}

impl Publication<'_> {
    /// The bytes of each message, in order.
    pub fn bodies(&self) -> impl ExactSizeIterator<Item = &[u8]> + Clone {
        self.messages.iter().map(|span| self.frame.get(span.clone()).unwrap_or_default())
    }

    /// Its messages as payloads that live on their own and share one copy of the frame.
    pub fn payloads(&self) -> impl ExactSizeIterator<Item = Payload> {
        let frame = self.frame.to_shared();
        self.messages.iter().map(move |span| Payload { bytes: frame.slice(span.clone()), kind: self.kind })
    }

    /// The same, with nothing borrowed.
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

/// The sender's name for a publication (`id` in `send-message`), made unique by the user who sent it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicationId(Arc<str>);

impl PublicationId {
    /// The id that `user` (empty for an anonymous one) chose. A user name never contains a colon (RFC 7617), so the
    /// first colon ends it.
    #[must_use]
    pub fn new(user: &str, id: &str) -> Self {
        // Put together where it costs no allocation, unless it is long.
        let mut text = SmallVec::<[u8; 128]>::new();
        for part in [user, ":", id] {
            text.extend_from_slice(part.as_bytes());
        }
        Self(Arc::from(&*String::from_utf8_lossy(&text)))
    }

    /// Reads back what [`Self::as_str`] gave.
    #[must_use]
    pub fn from_stored(text: &str) -> Self {
        Self(Arc::from(text))
    }

    /// User and id, as stored.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The user who chose it.
    #[must_use]
    pub fn user(&self) -> &str {
        self.colon().map_or("", |colon| &self.0[..colon])
    }

    /// The id as the sender wrote it.
    #[must_use]
    pub fn id(&self) -> &str {
        self.colon().map_or(&self.0, |colon| &self.0[colon + 1..])
    }

    /// Where the user's name ends: byte by byte, for it is near the start.
    fn colon(&self) -> Option<usize> {
        self.0.as_bytes().iter().position(|byte| *byte == b':')
    }
}

/// The id of an accepted publication, as it is remembered for `dedup_window`, also over a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptedId {
    /// When it was accepted.
    pub at: Timestamp,
    /// The hash of its channel, its user and the id.
    pub key: [u64; 2],
    /// The hash of its user.
    pub user: u64,
}

/// A kept message, as the store holds it: one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its place in the order.
    pub id: MessageId,
    /// Its channel.
    pub channel: ChannelName,
    /// What it carries.
    pub payload: Payload,
    /// When it was accepted.
    pub created: Timestamp,
    /// From when on it is never delivered; `None` = never expires.
    pub expires: Option<Timestamp>,
    /// Not delivered before this; `None` = at once. A message with a due time is never paged: the core holds it in memory from
    /// acceptance (or start-up) on.
    pub due: Option<Timestamp>,
    /// To how many receivers it goes if its publication said so (0 = all); `None` = as the channel is configured.
    pub receivers: Option<u32>,
    /// The idempotency key of its publication.
    pub publication: Option<PublicationId>,
    /// How often it has been given to a receiver.
    pub deliveries: u32,
    /// It is a dead letter, and this is known of it.
    pub dead: Option<Box<DeadLetter>>,
}

impl Message {
    /// The channel in which its publication's id is remembered: the one that it was sent to.
    #[must_use]
    pub fn first_channel(&self) -> &ChannelName {
        self.dead.as_ref().map_or(&self.channel, |dead| &dead.channel)
    }
}
