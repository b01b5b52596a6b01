//! Splits the bytes from a server into frames by their headers alone. It must never copy or read a payload, except to complete a frame
//! that arrived in parts.

/// One frame from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    /// The payload of a data frame or of a fragment.
    Data(&'a [u8]),
    /// The payload of a ping, which the pong must repeat.
    Ping(&'a [u8]),
    /// A pong.
    Pong,
    /// The payload of a close frame.
    Close(&'a [u8]),
}

/// The inbound stream of one connection. Buffers only an incomplete frame.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    partial: Vec<u8>,
}

struct Header {
    opcode: u8,
    /// The bytes of the header.
    size: usize,
    /// The bytes of the whole frame.
    total: usize,
}

impl Inbound {
    /// Passes each complete frame of the input to `take`, in order.
    ///
    /// # Errors
    /// The first error of `take`, or the problem of a header. The stream cannot be read any further then.
    pub(super) fn feed<E: From<&'static str>>(
        &mut self,
        mut input: &[u8],
        mut take: impl FnMut(Frame<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if !self.partial.is_empty() {
            let Some(frame) = self.complete(&mut input)? else { return Ok(()) };
            let result = frame_of(&frame.0, &self.partial).and_then(&mut take);
            self.partial.clear();
            self.partial.shrink_to(wsmb_protocol::limits::READ_BUFFER);
            result?;
        }
        while let Some(header) = Header::parse(input)? {
            let Some((whole, rest)) = input.split_at_checked(header.total) else { break };
            take(frame_of(&header, whole)?)?;
            input = rest;
        }
        self.partial.extend_from_slice(input);
        Ok(())
    }

    /// Appends input to the incomplete frame. Returns the frame's header if the frame is complete now.
    fn complete(&mut self, input: &mut &[u8]) -> Result<Option<Whole>, &'static str> {
        let header = loop {
            if let Some(header) = Header::parse(&self.partial)? {
                break header;
            }
            let Some((first, rest)) = input.split_first() else { return Ok(None) };
            self.partial.push(*first);
            *input = rest;
        };
        let missing = (header.total - self.partial.len()).min(input.len());
        let (now, rest) = input.split_at(missing);
        self.partial.extend_from_slice(now);
        *input = rest;
        Ok((self.partial.len() == header.total).then_some(Whole(header)))
    }
}

/// The header of a complete frame.
struct Whole(Header);

impl Header {
    /// Parses the header at the start of `bytes`; `None` if it is incomplete.
    #[inline]
    fn parse(bytes: &[u8]) -> Result<Option<Self>, &'static str> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        if second & 0x80 != 0 {
            return Err("a masked frame");
        }
        let (length, size) = match second & 0x7f {
            126 => match rest.first_chunk() {
                Some(length) => (u64::from(u16::from_be_bytes(*length)), 4),
                None => return Ok(None),
            },
            127 => match rest.first_chunk() {
                Some(length) => (u64::from_be_bytes(*length), 10),
                None => return Ok(None),
            },
            short => (u64::from(short), 2),
        };
        match usize::try_from(length) {
            Ok(length) if length <= wsmb_client::limits::CLIENT_MESSAGE => {
                Ok(Some(Self { opcode: first & 0xf, size, total: size + length }))
            }
            _ => Err("a frame that is longer than any message"),
        }
    }
}

/// Returns the frame of a header. `whole` has the length in the header.
#[inline]
fn frame_of<'a, E: From<&'static str>>(header: &Header, whole: &'a [u8]) -> Result<Frame<'a>, E> {
    let payload = whole.get(header.size..).unwrap_or_default();
    match header.opcode {
        0..=2 => Ok(Frame::Data(payload)),
        8 => Ok(Frame::Close(payload)),
        9 => Ok(Frame::Ping(payload)),
        10 => Ok(Frame::Pong),
        _ => Err(E::from("a frame with an opcode that RFC 6455 does not define")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wsmb_protocol::frame::{Opcode, encode, encode_close};

    #[derive(Debug)]
    struct Bad(&'static str);

    impl From<&'static str> for Bad {
        fn from(wrong: &'static str) -> Self {
            Self(wrong)
        }
    }

    /// What is given out when the stream comes in pieces of this size.
    fn frames(stream: &[u8], piece: usize) -> Result<Vec<(u8, Vec<u8>)>, Bad> {
        let mut inbound = Inbound::default();
        let mut found = Vec::new();
        for part in stream.chunks(piece) {
            inbound.feed::<Bad>(part, |frame| {
                found.push(match frame {
                    Frame::Data(payload) => (1, payload.to_vec()),
                    Frame::Ping(payload) => (9, payload.to_vec()),
                    Frame::Pong => (10, Vec::new()),
                    Frame::Close(payload) => (8, payload.to_vec()),
                });
                Ok(())
            })?;
        }
        Ok(found)
    }

    #[test]
    fn frames_are_found_in_pieces_of_any_size() {
        let mut stream = Vec::new();
        let mut expected = Vec::new();
        for size in [0, 1, 125, 126, 300, 65_535, 65_536, 100_000] {
            let payload = vec![b'x'; size];
            stream.extend_from_slice(&encode(Opcode::Text, &payload));
            stream.extend_from_slice(&encode(Opcode::Ping, b"p"));
            expected.extend([(1, payload), (9, b"p".to_vec())]);
        }
        stream.extend_from_slice(&encode(Opcode::Pong, b""));
        stream.extend_from_slice(&encode_close(1008, "slow receiver"));
        expected.extend([(10, Vec::new()), (8, [&1008_u16.to_be_bytes()[..], b"slow receiver"].concat())]);
        for piece in [1, 2, 3, 7, 1_000, 65_536, stream.len()] {
            assert_eq!(frames(&stream, piece).unwrap(), expected, "{piece}");
        }
    }

    #[test]
    fn invalid_frames_are_errors() {
        assert_eq!(frames(&[0x81, 0x81, 0, 0, 0, 0, 0], 100).unwrap_err().0, "a masked frame");
        let long = [&[0x82, 127][..], &u64::MAX.to_be_bytes()].concat();
        assert_eq!(frames(&long, 1).unwrap_err().0, "a frame that is longer than any message");
        assert!(frames(&[0x83, 0], 2).is_err());
    }
}
