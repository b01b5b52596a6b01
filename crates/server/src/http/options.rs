//! The options of a publication, from the query and from headers (SPEC section 9.3). Their names are case-blind.

use std::time::Duration;

use hyper::HeaderMap;

use super::response::Problem;
use crate::limits;
use wsmb_core::duration::{format_duration, parse_duration};
use wsmb_protocol::handshake::pairs;

/// The options of a publication.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// The time to live; zero: never expires.
    pub(super) ttl: Option<Duration>,
    pub(super) delay: Option<Duration>,
    /// The number of receivers; 0: all.
    pub(super) receivers: Option<u32>,
    /// How long the response may wait until the message is delivered.
    pub(super) wait: Option<Duration>,
    /// The sender's id of the publication.
    pub(super) key: Option<String>,
}

const NAMES: [&str; 5] = ["ttl", "delay", "receivers", "wait", "idempotency-key"];

impl Options {
    /// Reads the options of a request.
    ///
    /// # Errors
    /// An option is unknown, given twice or invalid. A header that is no option is ignored.
    pub(super) fn read(query: &str, headers: &HeaderMap) -> Result<Self, Problem> {
        let mut options = Self::default();
        let mut given: Vec<String> = Vec::new();
        let mut add = |name: &str, value: &str| {
            if given.iter().any(|known| known == name) {
                return Err(Problem::malformed(format!("'{name}' is given twice")));
            }
            given.push(name.to_owned());
            options.set(name, value)
        };
        for (name, value) in pairs(query) {
            let (Some(name), Some(value)) = (name, value) else {
                return Err(Problem::malformed("the query is not percent-encoded UTF-8"));
            };
            let name = name.to_ascii_lowercase();
            if name == "ticket" {
                continue;
            }
            if !NAMES.contains(&&*name) {
                let known = NAMES.join(", ");
                return Err(Problem::malformed(format!("the query has an unknown option; the options are {known}")));
            }
            add(&name, &value)?;
        }
        for name in NAMES {
            for value in headers.get_all(name) {
                let value = value.to_str().map_err(|_| Problem::malformed(format!("'{name}' is not ASCII text")))?;
                add(name, value)?;
            }
        }
        Ok(options)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), Problem> {
        match name {
            "ttl" => self.ttl = Some(duration(name, value)?),
            "delay" => self.delay = Some(duration(name, value)?),
            "wait" => {
                let wait = duration(name, value)?;
                if wait > limits::HTTP_WAIT {
                    let most = format_duration(limits::HTTP_WAIT);
                    return Err(Problem::malformed(format!("'wait' must be at most {most}")));
                }
                self.wait = Some(wait);
            }
            "receivers" => {
                let count = value.trim().parse::<u32>();
                self.receivers =
                    Some(count.map_err(|_| Problem::malformed("'receivers' must be a whole number; 0 = all"))?);
            }
            _ => self.key = Some(key(value)?),
        }
        Ok(())
    }
}

fn duration(name: &str, value: &str) -> Result<Duration, Problem> {
    parse_duration(value)
        .ok_or_else(|| Problem::malformed(format!("'{name}' must be a time like 90 (seconds), 500ms, 5m or 1h30m")))
}

/// Reads an `Idempotency-Key`: quoted, as the IETF's draft has it, or bare.
fn key(value: &str) -> Result<String, Problem> {
    let value = value.trim();
    let bare = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
    let most = wsmb_core::limits::NAME_BYTES;
    if bare.is_empty() || bare.len() > most {
        return Err(Problem::malformed(format!("'idempotency-key' must have 1 to {most} bytes")));
    }
    Ok(bare.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn options_come_from_the_query_and_from_headers() {
        let read =
            Options::read("TTL=5m&wait=5", &headers(&[("delay", "500ms"), ("idempotency-key", "\"a b\"")])).unwrap();
        assert_eq!(
            read,
            Options {
                ttl: Some(Duration::from_secs(300)),
                delay: Some(Duration::from_millis(500)),
                receivers: None,
                wait: Some(Duration::from_secs(5)),
                key: Some("a b".to_owned()),
            }
        );
        assert_eq!(Options::read("", &headers(&[("receivers", " 0 "), ("x", "y")])).unwrap().receivers, Some(0));
        assert_eq!(Options::read("idempotency-key=a%20b", &HeaderMap::new()).unwrap().key.as_deref(), Some("a b"));
    }

    #[test]
    fn a_wrong_option_is_an_error() {
        for query in [
            "tll=5",
            "ttl=",
            "ttl=x",
            "ttl=-1",
            "ttl=1&TTL=1",
            "wait=61s",
            "receivers=-1",
            "receivers=all",
            "idempotency-key=",
            "ttl=%ff",
        ] {
            assert!(Options::read(query, &HeaderMap::new()).is_err(), "{query}");
        }
        assert!(Options::read("ttl=1", &headers(&[("ttl", "1")])).is_err(), "in both places");
        let long = format!("idempotency-key={}", "x".repeat(129));
        assert!(Options::read(&long, &HeaderMap::new()).is_err());
    }
}
