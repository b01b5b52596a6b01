//! Decides which web pages may connect (SPEC section 3, Origin): a browser sends remembered credentials with the request of any page.

use tracing::warn;

use super::counters::WarningLimit;
use super::proxies::Client;
use wsmb_protocol::handshake::Page;
use wsmb_protocol::origin::{Host, Origin};

/// The rate limit of warnings about refused pages.
#[derive(Debug, Default)]
pub(super) struct Origins {
    refused: WarningLimit,
}

impl Origins {
    /// Returns why the page may not connect, as a sentence that names the setting that would allow it; `None` if the page may connect. Logs the refusal.
    /// `allowed`: `server.origins`; `anonymous`: the request has no credentials and needs none.
    pub(super) fn refusal(&self, page: &Page, client: &Client, allowed: &[Origin], anonymous: bool) -> Option<String> {
        let hosts = hosts(page, client.is_trusted);
        let text = page.origins.iter().find(|text| !may_connect(text, &hosts, allowed, anonymous))?;
        let written = match Origin::parse(text) {
            Some(origin) => origin.to_string(),
            None => text.chars().take(80).flat_map(char::escape_debug).collect(),
        };
        let sentence = format!(
            "a web page of \"{written}\" may not connect; if it should, add \"{written}\" to server.origins: origins = [\"{written}\"]"
        );
        if let Some(withheld) = self.refused.admit() {
            warn!(client = %client.address, withheld, "refused a connection: {sentence}");
        }
        Some(sentence)
    }
}

/// The hosts to which the request was sent. A page cannot set these headers; a proxy may replace `Host` by its own name.
fn hosts(page: &Page, is_trusted: bool) -> Vec<Host> {
    let forwarded = page.forwarded_host.iter().filter(|_| is_trusted).flat_map(|list| list.split(','));
    page.host.iter().map(String::as_str).chain(forwarded).filter_map(Host::parse).collect()
}

fn may_connect(text: &str, hosts: &[Host], allowed: &[Origin], anonymous: bool) -> bool {
    let Some(origin) = Origin::parse(text) else { return false };
    if allowed.contains(&origin) {
        return true;
    }
    // DNS rebinding: an attacker may point a host name at this machine. The browser has no credentials for that name. Where no credentials are needed, only
    // hosts that DNS cannot redirect are accepted.
    hosts.iter().any(|host| origin.is_of(host) && (!anonymous || host.is_fixed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Case {
        origin: &'static str,
        host: Option<&'static str>,
        forwarded_host: Option<&'static str>,
        trusted: bool,
        anonymous: bool,
    }

    fn may(case: &Case) -> bool {
        let page = Page {
            origins: vec![case.origin.to_owned()],
            host: case.host.map(str::to_owned),
            forwarded_host: case.forwarded_host.map(str::to_owned),
        };
        let peer: std::net::SocketAddr = "192.0.2.1:5".parse().unwrap();
        let client = Client { address: peer.into(), is_proxied: case.trusted, is_trusted: case.trusted };
        let allowed = [Origin::parse("https://app.example").unwrap()];
        Origins::default().refusal(&page, &client, &allowed, case.anonymous).is_none()
    }

    #[test]
    fn a_page_of_the_broker_s_own_host_or_of_a_listed_origin_may_connect() {
        let case = Case {
            origin: "http://broker.example:8888",
            host: Some("broker.example:8888"),
            forwarded_host: None,
            trusted: false,
            anonymous: false,
        };
        assert!(may(&case));
        assert!(!may(&Case { host: None, ..case }));
        assert!(!may(&Case { origin: "http://evil.example:8888", ..case }));
        assert!(!may(&Case { origin: "null", ..case }));
        assert!(!may(&Case { origin: "http://broker.example/x", ..case }));
        assert!(may(&Case { origin: "https://app.example", ..case }));
        assert!(!may(&Case { origin: "http://app.example", ..case }));
        assert!(!may(&Case { origin: "https://app.example:444", ..case }));
    }

    #[test]
    fn a_forwarded_host_counts_only_from_a_trusted_proxy() {
        let case = Case {
            origin: "https://broker.example",
            host: Some("127.0.0.1:8888"),
            forwarded_host: Some("broker.example, inner"),
            trusted: true,
            anonymous: false,
        };
        assert!(may(&case));
        assert!(!may(&Case { trusted: false, ..case }));
    }

    #[test]
    fn without_credentials_only_a_host_that_dns_cannot_redirect_may_connect() {
        let case = Case {
            origin: "http://evil.example:8888",
            host: Some("evil.example:8888"),
            forwarded_host: None,
            trusted: false,
            anonymous: true,
        };
        assert!(!may(&case));
        assert!(may(&Case { anonymous: false, ..case }));
        assert!(may(&Case { origin: "http://127.0.0.1:8888", host: Some("127.0.0.1:8888"), ..case }));
        assert!(may(&Case { origin: "http://localhost:8888", host: Some("localhost:8888"), ..case }));
        assert!(may(&Case { origin: "https://app.example", host: Some("app.example"), ..case }));
    }
}
