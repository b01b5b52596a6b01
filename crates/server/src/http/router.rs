//! Which resource a path names, and which methods the resource has.

use hyper::Method;

use wsmb_core::message::ChannelName;
use wsmb_protocol::handshake::percent_decode;

use super::response::Problem;

/// The first parts of paths that belong to the HTTP interface (SPEC section 9): no WebSocket is served there.
const RESERVED: [&str; 5] = ["/api", "/healthz", "/readyz", "/metrics", "/dashboard"];

/// Whether a path belongs to the HTTP interface.
pub(crate) fn is_reserved(path: &str) -> bool {
    RESERVED
        .iter()
        .any(|reserved| path.strip_prefix(reserved).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

/// Whether these bytes begin with the request line of a request for the HTTP interface. False while the line is incomplete.
pub(crate) fn is_addressed(bytes: &[u8]) -> bool {
    let line = bytes.split(|byte| *byte == b'\n').next().filter(|line| line.len() < bytes.len());
    let target = line.and_then(|line| line.split(|byte| *byte == b' ').nth(1));
    let path = target.and_then(|target| target.split(|byte| *byte == b'?').next());
    path.and_then(|path| std::str::from_utf8(path).ok()).is_some_and(is_reserved)
}

/// A resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Resource {
    /// `/healthz`: whether the process can do its work.
    Health,
    /// `/readyz`: whether the broker takes messages now.
    Readiness,
    /// `/api/v1/channels/{channel}/messages`
    Messages(ChannelName),
    /// `/api/v1/messages`: the messages of the channels in the query.
    AllMessages,
    /// `/api/v1/acks`
    Acks,
    /// `/api/v1/channels`
    Channels,
    /// `/api/v1/channels/{channel}`
    Channel(ChannelName),
    /// `/api/v1/connections`
    Connections,
    /// `/api/v1/connections/{id}`
    Connection(String),
    /// `/api/v1/tokens`
    Tokens,
    /// `/api/v1/tickets`
    Tickets,
    /// `/api/v1/openapi.json`: the description of the interface.
    OpenApi,
}

impl Resource {
    /// Returns the resource of a path; `None` if there is none.
    ///
    /// # Errors
    /// The path contains an invalid channel name.
    pub(super) fn of(path: &str) -> Result<Option<Self>, Problem> {
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        Ok(Some(match parts[..] {
            ["healthz"] => Self::Health,
            ["readyz"] => Self::Readiness,
            ["api", "v1", "channels", channel, "messages"] => Self::Messages(channel_name(channel)?),
            ["api", "v1", "channels"] => Self::Channels,
            ["api", "v1", "channels", channel] => Self::Channel(channel_name(channel)?),
            ["api", "v1", "connections"] => Self::Connections,
            ["api", "v1", "connections", id] => Self::Connection(id.to_owned()),
            ["api", "v1", "messages"] => Self::AllMessages,
            ["api", "v1", "acks"] => Self::Acks,
            ["api", "v1", "tokens"] => Self::Tokens,
            ["api", "v1", "tickets"] => Self::Tickets,
            ["api", "v1", "openapi.json"] => Self::OpenApi,
            _ => return Ok(None),
        }))
    }

    /// The methods of the resource, besides `OPTIONS`.
    pub(super) fn methods(&self) -> &'static [Method] {
        match self {
            Self::Health | Self::Readiness | Self::OpenApi => &[Method::GET, Method::HEAD],
            Self::Messages(_) => &[Method::GET, Method::POST, Method::DELETE],
            Self::Channels | Self::Channel(_) | Self::Connections => &[Method::GET],
            Self::Connection(_) => &[Method::DELETE],
            Self::AllMessages => &[Method::GET],
            Self::Acks | Self::Tokens | Self::Tickets => &[Method::POST],
        }
    }

    /// Whether only administrators may ask.
    pub(super) fn is_for_admins(&self, method: &Method) -> bool {
        match self {
            Self::Messages(_) => *method == Method::DELETE,
            Self::Channels | Self::Channel(_) | Self::Connections | Self::Connection(_) => true,
            _ => false,
        }
    }

    /// Whether everybody may ask, without credentials.
    pub(super) fn is_public(&self) -> bool {
        matches!(self, Self::Health | Self::Readiness | Self::OpenApi)
    }
}

/// Parses a channel's name in a path. A percent-encoded slash is a part of the name.
fn channel_name(text: &str) -> Result<ChannelName, Problem> {
    let name = percent_decode(text)
        .ok_or_else(|| Problem::malformed("the channel in the path must be percent-encoded UTF-8"))?;
    ChannelName::parse(&name).map_err(|bad| Problem::malformed(bad.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_resource_and_an_encoded_slash_is_part_of_a_channel() {
        let messages = |name| Some(Resource::Messages(ChannelName::parse(name).unwrap()));
        for (path, resource) in [
            ("/healthz", Some(Resource::Health)),
            ("/api/v1/channels/sms/messages", messages("sms")),
            ("/api/v1/channels/user%2f42%2Fsms/messages", messages("user/42/sms")),
            ("/api/v1/channels/../messages", messages("..")),
            ("/api/v1/channels/%2e%2e%2Fx/messages", messages("../x")),
            ("/api/v1/channels/a+b/messages", messages("a+b")),
            ("/api/v1/channels/sms/messages/", None),
            ("/api/v1/channels/a/b/messages", None),
            ("/api/v1/channels", Some(Resource::Channels)),
            ("/api/v1/connections/1f", Some(Resource::Connection("1f".to_owned()))),
            ("/api/v2/channels/sms/messages", None),
            ("//api/v1/channels/sms/messages", None),
            ("/healthz/", None),
            ("/api", None),
        ] {
            assert_eq!(Resource::of(path).unwrap(), resource, "{path}");
        }
        for path in ["//", "/%", "/%zz", "/%ff", "/%00", "/%0d%0a"] {
            let path = format!("/api/v1/channels{path}/messages");
            assert!(Resource::of(&path).is_err() || path.contains("//"), "{path}");
        }
        assert!(is_addressed(b"GET /api?x HTTP/1.1\r\nHo") && !is_addressed(b"GET /api HTTP/1.1"));
        assert!(!is_addressed(b"GET /ws?x=/api HTTP/1.1\r\n") && !is_addressed(b"\n\n"));
        assert!(is_reserved("/api/v1/x") && is_reserved("/api") && !is_reserved("/apis") && !is_reserved("/ws/api"));
    }
}
