//! Random numbers of the system: keys of handshakes and masks of frames. Never uses a predictable source.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::error::Error;

/// Returns a `Sec-WebSocket-Key` for one handshake: 16 random bytes in base64.
///
/// # Errors
/// [`Error::NoRandomness`].
pub fn new_key() -> Result<String, Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(Error::NoRandomness)?;
    Ok(BASE64.encode(bytes))
}

/// Unpredictable masks (RFC 6455 section 5.3). One system call makes the masks for 64 frames.
pub(crate) struct MaskPool {
    pool: [u8; 256],
    used: usize,
}

impl MaskPool {
    pub(crate) fn new() -> Result<Self, Error> {
        let mut pool = [0; 256];
        getrandom::fill(&mut pool).map_err(Error::NoRandomness)?;
        Ok(Self { pool, used: 0 })
    }

    pub(crate) fn next(&mut self) -> Result<[u8; 4], Error> {
        if self.used == self.pool.len() {
            *self = Self::new()?;
        }
        let mask = [0, 1, 2, 3].map(|offset| self.pool[self.used + offset]);
        self.used += 4;
        Ok(mask)
    }
}
