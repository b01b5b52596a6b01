//! Parsers for arguments that several subcommands share: durations, channel names, other names.

use std::time::Duration;

use crate::limits;
use wsmb_core::message::ChannelName;

/// Parses a channel name.
pub(crate) fn channel(text: &str) -> Result<ChannelName, String> {
    ChannelName::parse(text).map_err(|error| error.to_string())
}

/// Parses a duration as the configuration does: `90` (seconds), `90s`, `500ms`, `5m30s`, `2h`, `1d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let example = "write it as 90 (seconds), 90s, 500ms, 5m30s, 2h or 1d";
    wsmb_config::parse_duration(text).ok_or_else(|| format!("`{text}` is not a duration; {example}"))
}

/// Parses the `--timeout` of `send`: a duration of at most [`limits::SEND_TIMEOUT`].
pub(crate) fn send_timeout(text: &str) -> Result<Duration, String> {
    let timeout = duration(text)?;
    if timeout > limits::SEND_TIMEOUT {
        return Err(format!(
            "at most {} seconds: the broker recognises a repeated message for two minutes; a later repetition would be delivered twice",
            limits::SEND_TIMEOUT.as_secs()
        ));
    }
    Ok(timeout)
}

/// Parses a name that the broker remembers for a connection or a publication: not empty, at most [`wsmb_core::limits::NAME_BYTES`] bytes.
pub(crate) fn name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > wsmb_core::limits::NAME_BYTES {
        return Err(format!("the name must have 1 to {} bytes", wsmb_core::limits::NAME_BYTES));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_the_syntax_of_the_configuration() {
        assert_eq!(duration("5"), duration("5s"));
        assert_eq!(duration("5m30s"), Ok(Duration::from_secs(330)));
        assert!(duration("soon").unwrap_err().contains("5m30s"));
    }

    #[test]
    fn the_timeout_of_send_is_shorter_than_the_deduplication_window() {
        assert!(send_timeout("100s").is_ok());
        assert!(send_timeout("101s").unwrap_err().contains("delivered twice"));
    }
}
