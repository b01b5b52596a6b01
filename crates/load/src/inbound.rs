//! What a server sends, cut into frames by their headers alone. No payload is looked at, and none is copied but that of a frame which
//! has not come whole.

/// One frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    /// The payload of a data frame, or of a fragment of one.
    Data(&'a [u8]),
    /// A ping and what its pong must carry.
    Ping(&'a [u8]),
    /// A pong.
    Pong,
    /// The close frame's payload.
    Close(&'a [u8]),
}

/// The inbound stream of one connection. Holds nothing while no frame is unfinished.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    partial: Vec<u8>,
}

struct Header {
    opcode: u8,
    /// Bytes of the header and of the whole frame.
    size: usize,
    total: usize,
}

impl Inbound {
    /// Takes what was read and gives out each frame that is whole, in order.
    ///
    /// # Errors
    /// The first one that `take` returns, or what is wrong with a header; nothing can be read from then on.
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

    /// Moves bytes from the input behind the part of a frame that came before; the frame's header if it is whole now.
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

/// The header of a frame that is all there.
struct Whole(Header);

impl Header {
    /// The header at the start of `bytes`; `None` if it is not all there.
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

/// `whole` is as long as its header says.
#[inline]
fn frame_of<'a, E: From<&'static str>>(header: &Header, whole: &'a [u8]) -> Result<Frame<'a>, E> {
    let payload = whole.get(header.size..).unwrap_or_default();
    match header.opcode {
        0..=2 => Ok(Frame::Data(payload)),
        8 => Ok(Frame::Close(payload)),
        9 => Ok(Frame::Ping(payload)),
        10 => Ok(Frame::Pong),
        _ => Err(E::from("a frame of a kind that RFC 6455 does not have")),
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
    fn frames_are_found_however_the_stream_is_cut() {
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
    fn what_is_no_frame_is_an_error() {
        assert_eq!(frames(&[0x81, 0x81, 0, 0, 0, 0, 0], 100).unwrap_err().0, "a masked frame");
        let long = [&[0x82, 127][..], &u64::MAX.to_be_bytes()].concat();
        assert_eq!(frames(&long, 1).unwrap_err().0, "a frame that is longer than any message");
        assert!(frames(&[0x83, 0], 2).is_err());
    }
}
