//! Packets of a protocol that does not care for the frames they travel in: several in one frame, one in several. It knows lengths only.

/// The longest beginning of a packet that is kept, in bytes: more than the longest message of a measurement.
const LONGEST: usize = 65 * 1024 * 1024;

/// What is kept of a packet that has not ended yet.
#[derive(Debug, Default)]
pub struct Packets {
    rest: Vec<u8>,
}

impl Packets {
    /// Takes the payload of one frame. `next` is given what has not been taken yet, takes one packet from its front and returns its length, or `None` if
    /// that is not whole.
    ///
    /// # Errors
    /// Those of `next`; or a packet has no end.
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
        if self.rest.len() > LONGEST { Err("a packet that has no end".to_owned()) } else { Ok(()) }
    }
}

/// Takes every whole packet. Returns their length.
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
