//! Arguments that several subcommands read alike: durations, channel names.

use std::time::Duration;

use crate::limits;
use wsmb_core::message::ChannelName;

/// A channel name.
pub(crate) fn channel(text: &str) -> Result<ChannelName, String> {
    ChannelName::parse(text).map_err(|error| error.to_string())
}

/// A duration, as the configuration takes it: `90` (seconds), `90s`, `500ms`, `5m30s`, `2h`, `1d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let example = "write it as 90 (seconds), 90s, 500ms, 5m30s, 2h or 1d";
    wsmb_config::parse_duration(text).ok_or_else(|| format!("`{text}` is not a duration; {example}"))
}

/// How long `send` keeps trying.
pub(crate) fn send_timeout(text: &str) -> Result<Duration, String> {
    let timeout = duration(text)?;
    if timeout > limits::SEND_TIMEOUT {
        return Err(format!(
            "at most {} seconds: the broker recognises a repetition for two minutes, and a later one would double the message",
            limits::SEND_TIMEOUT.as_secs()
        ));
    }
    Ok(timeout)
}

/// A name that the broker keeps for a connection or a publication.
pub(crate) fn name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > wsmb_core::limits::NAME_BYTES {
        return Err(format!("it must have 1 to {} bytes", wsmb_core::limits::NAME_BYTES));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_read_as_the_configuration_reads_it() {
        assert_eq!(duration("5"), duration("5s"));
        assert_eq!(duration("5m30s"), Ok(Duration::from_secs(330)));
        assert!(duration("soon").unwrap_err().contains("5m30s"));
    }

    #[test]
    fn sending_is_not_tried_for_longer_than_the_broker_remembers() {
        assert!(send_timeout("100s").is_ok());
        assert!(send_timeout("101s").unwrap_err().contains("double"));
    }
}
