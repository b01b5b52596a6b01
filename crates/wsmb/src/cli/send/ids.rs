//! The ids of the messages that `wsmb send` sends.

use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use crate::cli::Failure;
use wsmb_client::Error;
use wsmb_core::message::ChannelName;

/// Returns a random prefix for the ids of this run, so that no two runs use the same id.
pub(super) fn random_prefix() -> Result<String, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| Failure::from(Error::NoRandomness(error)))?;
    Ok(hex::encode(bytes))
}

/// Returns an id that is the same for the same message on the same channel, and differs for all others.
pub(super) fn content_id(channel: &ChannelName, message: &RawValue) -> String {
    let hash = Sha256::new().chain_update(channel.as_str()).chain_update([0]).chain_update(message.get()).finalize();
    // 128 bits are enough: a collision by accident is practically impossible.
    format!("content-{}", hex::encode(&hash[..16]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use wsmb_client::frames;

    fn id(channel: &str, message: &str) -> String {
        content_id(&ChannelName::parse(channel).unwrap(), &frames::string(message))
    }

    #[test]
    fn the_content_id_depends_on_the_channel_and_the_bytes_of_the_message() {
        assert_eq!(id("sms", "x"), id("sms", "x"));
        let others = [id("sms", "x"), id("sm", "sx"), id("mail", "x"), id("sms", "x "), id("sms", "X")];
        for (index, one) in others.iter().enumerate() {
            assert!(one.len() <= wsmb_core::limits::NAME_BYTES);
            assert!(others[index + 1..].iter().all(|other| other != one));
        }
    }
}
