//! The conversion between rows and messages.
//!
//! Reading is lenient, because other programs write the table too: missing values and values of another type are interpreted as far as possible.

use std::borrow::Cow;

use super::super::Columns;
use super::super::datetime::{self, Texts};
use super::driver::{Row, Value, number, text};
use super::table::MessageTable;
use super::text::{Charset, decode, encode};
use wsmb_core::message::{ChannelName, DeadLetter, Message, MessageId, PublicationId, Timestamp, Why};

/// Decodes a row of the selected columns of a message; `None` if the id or the channel name is invalid.
pub(super) fn message(row: Row, table: &MessageTable) -> Option<Message> {
    let mut cells = row.into_iter();
    let mut next = || cells.next().flatten();
    let id = next();
    let name = next();
    let data = next();
    let created = moment(next());
    let (expires, due, receivers) = (number(next()), number(next()), number(next()));
    let publication = text(next());
    let deliveries = number(next());
    let count = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let (why, first_channel) =
        (text(next()).and_then(|why| Why::parse(&why)), self::channel(next(), table.dead_channel));
    let (attempts, reason) = (number(next()).map_or(0, count), text(next()).map(String::into_boxed_str));
    let dead = why.zip(first_channel).map(|(why, channel)| Box::new(DeadLetter { why, channel, attempts, reason }));
    Some(Message {
        id: message_id(id)?,
        channel: channel(name, table.channel)?,
        payload: decode(data, table.data),
        created,
        expires: expires.map(Timestamp),
        due: due.map(Timestamp),
        receivers: receivers.map(count),
        publication: publication.map(|stored| PublicationId::from_stored(&stored)),
        deliveries: deliveries.map_or(0, count),
        dead,
    })
}

/// A message's id; `None` if it is not positive.
pub(super) fn message_id(cell: Option<Vec<u8>>) -> Option<MessageId> {
    number(cell).filter(|id| *id > 0).map(MessageId)
}

/// A channel, from a column with this character set; `None` if the name is invalid.
pub(super) fn channel(cell: Option<Vec<u8>>, column: Charset) -> Option<ChannelName> {
    ChannelName::parse(&column.read(text(cell)?)).ok()
}

/// The time of `created`; 1970 if it is missing or not a date.
pub(super) fn moment(cell: Option<Vec<u8>>) -> Timestamp {
    text(cell).and_then(|text| datetime::from_text(&text)).unwrap_or_default()
}

/// Appends the values of a message's row. `nulls` has a bit for each user-defined column that is written as NULL; the lowest bit is the first column.
pub(super) fn push_values<'a>(
    values: &mut Vec<Value<'a>>,
    message: &'a Message,
    table: &MessageTable,
    columns: &Columns,
    nulls: u32,
    texts: &mut Texts,
) {
    values.push(Value::from(message.id.0));
    values.push(Value::Text(Some(table.channel.written(message.channel.as_str()))));
    values.push(Value::Text(Some(encode(&message.payload, table.data))));
    values.push(Value::Text(Some(Cow::Owned(texts.of(message.created).to_owned()))));
    let whole = |number: Option<u64>| number.map_or(Value::Integer(None), Value::from);
    // A dead letter's first channel is required, so if the table cannot hold the channel's name, the row has none of the dead-letter columns.
    let dead = message.dead.as_deref().filter(|dead| table.dead_channel.holds_name(dead.channel.as_str()));
    for (name, _, _) in table.optional() {
        values.push(match name {
            "expires" => whole(message.expires.map(|moment| moment.0)),
            "due" => whole(message.due.map(|moment| moment.0)),
            "receivers" => whole(message.receivers.map(u64::from)),
            "deliveries" => whole((message.deliveries > 0).then_some(u64::from(message.deliveries))),
            "dead_why" => Value::Text(dead.map(|dead| Cow::Borrowed(dead.why.as_str()))),
            "dead_channel" => Value::Text(dead.map(|dead| table.dead_channel.written(dead.channel.as_str()))),
            "dead_attempts" => whole(dead.map(|dead| u64::from(dead.attempts))),
            "dead_reason" => Value::Text(
                dead.and_then(|dead| dead.reason.as_deref())
                    .filter(|reason| table.dead_reason.holds(reason))
                    .map(Cow::Borrowed),
            ),
            _ => Value::Text(publication(message, table.publication).map(Cow::Borrowed)),
        });
    }
    for ((index, field), value) in table.fields.iter().enumerate().zip(columns.values(&message.payload.bytes)) {
        let written = field.form.write(&value).filter(|_| nulls & (1 << index) == 0);
        values.push(Value::Text(written.map(|text| Cow::Owned(text.into_owned()))));
    }
}

/// The values of a message's row.
pub(super) fn values<'a>(message: &'a Message, table: &MessageTable, columns: &Columns) -> Vec<Value<'a>> {
    let mut values = Vec::new();
    push_values(&mut values, message, table, columns, 0, &mut Texts::default());
    values
}

/// The publication id; `None` if the column cannot hold it: an unrecognised repetition is better than a refused message.
fn publication(message: &Message, column: Charset) -> Option<&str> {
    message.publication.as_ref().map(PublicationId::as_str).filter(|publication| column.holds(publication))
}

/// The approximate size of the values in a statement, in bytes.
pub(super) fn weight(values: &[Value<'_>]) -> usize {
    let of = |value: &Value<'_>| match value {
        Value::Text(Some(text)) => text.len() + 9,
        _ => 9,
    };
    values.iter().map(of).sum()
}
