//! MQTT 3.1.1 over WebSocket (OASIS, section 6): the part that a measurement needs. No I/O.
//!
//! Unconfirmed sends have QoS 0. Confirmed sends have QoS 1: the server answers each PUBLISH with a PUBACK, and the receiver answers each delivery
//! with a PUBACK. Sessions are clean. There is no keep-alive, because a measurement is shorter than a keep-alive interval.

use wsmb_load::{ConnectionPlan, Handshake, Payload, Publication, Session, SessionEvent, Wire, frame};
use wsmb_protocol::frame::Opcode;

use crate::packets::Packets;

const CONNECT: u8 = 0x10;
const CONNACK: u8 = 0x20;
const PUBLISH: u8 = 0x30;
const PUBACK: u8 = 0x40;
const SUBSCRIBE: u8 = 0x82;
const SUBACK: u8 = 0x90;

/// QoS 1, in the first byte of a PUBLISH.
const AT_LEAST_ONCE: u8 = 0x02;

/// The QoS bits of the first byte of a PUBLISH.
const QOS: u8 = 0x06;

/// The return code of a refused subscription in a SUBACK.
const REFUSED: u8 = 0x80;

/// The protocol of MQTT servers.
#[derive(Clone, Copy, Debug)]
pub struct Mqtt;

impl Wire for Mqtt {
    type Session = MqttSession;

    fn name(&self) -> &'static str {
        "mqtt"
    }

    fn handshake(&self, _: &ConnectionPlan) -> Handshake {
        Handshake { parameter: None, subprotocol: Some("mqtt") }
    }

    fn session(&self, plan: &ConnectionPlan, _: &Payload) -> MqttSession {
        let mut opening = Vec::new();
        frame(&mut opening, Opcode::Binary, &connect(&format!("{}-{}", plan.channels.run(), plan.index)));
        if plan.receives {
            let names: Vec<String> = plan.channel_numbers.clone().map(|index| plan.channels.name(index)).collect();
            frame(&mut opening, Opcode::Binary, &subscribe(&names, u8::from(plan.confirmed)));
        }
        MqttSession {
            opening,
            awaits: if plan.receives { SUBACK } else { CONNACK },
            is_ready: false,
            packets: Packets::default(),
            acknowledgements: Vec::new(),
        }
    }

    fn publication(&self, plan: &ConnectionPlan, payload: &Payload) -> Publication {
        let head = publish_head(plan.channel().len(), payload.size(), plan.confirmed);
        let publication = Publication::new(Opcode::Binary).bytes(&head).channel(plan);
        let publication = if plan.confirmed { publication.packet_id() } else { publication };
        publication.payload(payload)
    }

    fn confirms(&self) -> bool {
        true
    }

    fn receiver_channels(&self) -> u32 {
        /// A SUBSCRIBE with this number of topics is far below the packet limit of every server.
        const SUBSCRIPTIONS: u32 = 100;
        SUBSCRIPTIONS
    }
}

/// Returns a packet: the first byte, the length of the rest in base 128, the rest.
fn packet(first: u8, rest: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    push_length(&mut packet, rest.len());
    packet.extend_from_slice(rest);
    packet
}

fn push_length(packet: &mut Vec<u8>, mut length: usize) {
    loop {
        let digit = length.to_le_bytes()[0] & 0x7f;
        length >>= 7;
        packet.push(if length > 0 { digit | 0x80 } else { digit });
        if length == 0 {
            return;
        }
    }
}

/// Appends a text with its length. The texts here are shorter than 64 KiB.
fn push_text(packet: &mut Vec<u8>, text: &str) {
    packet.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    packet.extend_from_slice(text.as_bytes());
}

/// Returns a CONNECT: version 4, clean session, no keep-alive.
pub fn connect(client: &str) -> Vec<u8> {
    let mut rest = Vec::new();
    push_text(&mut rest, "MQTT");
    rest.extend([4, 0x02, 0, 0]);
    push_text(&mut rest, client);
    packet(CONNECT, &rest)
}

/// Returns a SUBSCRIBE to these topics.
pub fn subscribe(topics: &[String], qos: u8) -> Vec<u8> {
    let mut rest = vec![0, 1];
    for topic in topics {
        push_text(&mut rest, topic);
        rest.push(qos);
    }
    packet(SUBSCRIBE, &rest)
}

/// Returns the start of a PUBLISH before the topic. `topic` and `payload` are lengths in bytes.
pub fn publish_head(topic: usize, payload: usize, confirmed: bool) -> Vec<u8> {
    let (first, id) = if confirmed { (PUBLISH | AT_LEAST_ONCE, 2) } else { (PUBLISH, 0) };
    let mut head = vec![first];
    push_length(&mut head, 2 + topic + id + payload);
    head.extend(u16::try_from(topic).unwrap_or(u16::MAX).to_be_bytes());
    head
}

/// One connection to an MQTT server.
#[derive(Debug)]
pub struct MqttSession {
    /// The frames to send first.
    opening: Vec<u8>,
    /// The type of the packet that makes the session ready.
    awaits: u8,
    is_ready: bool,
    packets: Packets,
    /// The PUBACKs for the deliveries of one frame.
    acknowledgements: Vec<u8>,
}

impl Session for MqttSession {
    fn open(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.opening);
    }

    fn is_ready(&self) -> bool {
        self.is_ready
    }

    fn handle_payload(
        &mut self,
        payload: &[u8],
        out: &mut Vec<u8>,
        mut on_event: impl FnMut(SessionEvent<'_>),
    ) -> Result<(), String> {
        let Self { awaits, is_ready, packets, acknowledgements, .. } = self;
        packets.take(payload, |bytes| {
            let Some((head, length)) = length(bytes)? else { return Ok(None) };
            let Some(rest) = bytes.get(head..head + length) else { return Ok(None) };
            match bytes[0] & 0xf0 {
                PUBLISH => {
                    let (message, id) = published(bytes[0], rest).ok_or("a PUBLISH is too short")?;
                    if let Some(id) = id {
                        acknowledgements.extend([PUBACK, 2, id[0], id[1]]);
                    }
                    on_event(SessionEvent::Delivery(message));
                }
                PUBACK => on_event(SessionEvent::Confirmation),
                CONNACK if rest.get(1) != Some(&0) => {
                    return Err(format!("the server refuses the connection, code {:?}", rest.get(1)));
                }
                SUBACK if rest.get(2..).is_none_or(|codes| codes.contains(&REFUSED)) => {
                    return Err("the server refuses the subscription".to_owned());
                }
                kind @ (CONNACK | SUBACK) => *is_ready |= kind == *awaits,
                kind => return Err(format!("an unexpected packet of type {}", kind >> 4)),
            }
            Ok(Some(head + length))
        })?;
        if !acknowledgements.is_empty() {
            frame(out, Opcode::Binary, acknowledgements);
            acknowledgements.clear();
        }
        Ok(())
    }
}

/// Returns the lengths of a packet's head and of the rest, or `None` if the head is incomplete.
#[inline]
fn length(bytes: &[u8]) -> Result<Option<(usize, usize)>, String> {
    let mut length = 0;
    for (index, byte) in bytes.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((index + 2, length)));
        }
    }
    if bytes.len() > 4 { Err("the length of a packet has more than four bytes".to_owned()) } else { Ok(None) }
}

/// Returns the payload of a PUBLISH, and the packet identifier if the QoS is not 0.
#[inline]
fn published(first: u8, rest: &[u8]) -> Option<(&[u8], Option<[u8; 2]>)> {
    let (topic, rest) = rest.split_first_chunk()?;
    let rest = rest.get(usize::from(u16::from_be_bytes(*topic))..)?;
    if first & QOS == 0 {
        return Some((rest, None));
    }
    let (id, rest) = rest.split_first_chunk()?;
    Some((rest, Some(*id)))
}
