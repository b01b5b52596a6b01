//! Splits a byte stream into packets, independently of WebSocket frames: a frame may have several packets, and a packet may span several frames.

/// The largest buffered part of a packet, in bytes: more than the longest message of a measurement.
const LONGEST: usize = 65 * 1024 * 1024;

/// The bytes of an incomplete packet.
#[derive(Debug, Default)]
pub struct Packets {
    rest: Vec<u8>,
}

impl Packets {
    /// Processes the payload of one frame. `next` gets the remaining bytes, handles the packet at their front and returns its length, or `None` if the
    /// packet is incomplete.
    ///
    /// # Errors
    /// The errors of `next`, or a packet that is too long.
    #[inline]
    pub fn take(
        &mut self,
        payload: &[u8],
        mut next: impl FnMut(&[u8]) -> Result<Option<usize>, String>,
    ) -> Result<(), String> {
        if self.rest.is_empty() {
            let taken = all(payload, &mut next)?;
            self.rest.extend_from_slice(&payload[taken..]);
        } else {
            self.rest.extend_from_slice(payload);
            let taken = all(&self.rest, &mut next)?;
            self.rest.drain(..taken);
        }
        if self.rest.len() > LONGEST { Err("a packet is too long".to_owned()) } else { Ok(()) }
    }
}

/// Handles all complete packets. Returns their total length.
#[inline]
fn all(bytes: &[u8], next: &mut impl FnMut(&[u8]) -> Result<Option<usize>, String>) -> Result<usize, String> {
    let mut taken = 0;
    while taken < bytes.len() {
        match next(&bytes[taken..])? {
            Some(length) => taken += length,
            None => break,
        }
    }
    Ok(taken)
}
