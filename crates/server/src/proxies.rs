//! Determines the client's address behind proxies (SPEC section 3), and logs warnings about wrongly configured proxies.
//!
//! `protocol::proxy` parses the proxies' headers; this module decides which of them to trust. Every warning is rate-limited, because any client can
//! cause it.

use std::net::SocketAddr;

use tracing::{debug, warn};

use super::counters::WarningLimit;
use super::session::Peer;
use wsmb_core::network::Networks;
use wsmb_protocol::handshake::{BadRequest, BrokenUpgrade};
use wsmb_protocol::proxy::{BadHeader, Forwarding, Header};

/// The origin of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client {
    /// The client's address, as trusted proxies report it.
    pub(super) address: Peer,
    /// The connection comes through a proxy, so acknowledgements of its TCP prove nothing about the client.
    pub(super) is_proxied: bool,
    /// The peer is a trusted proxy.
    pub(super) is_trusted: bool,
}

/// The rate limits of warnings about proxies.
#[derive(Debug, Default)]
pub(super) struct Proxies {
    untrusted: WarningLimit,
    contradiction: WarningLimit,
    no_header: WarningLimit,
    header: WarningLimit,
    broken_upgrades: WarningLimit,
    tls: WarningLimit,
}

impl Proxies {
    /// Determines the client of a request. `peer`: the peer of the TCP connection; `header`: the PROXY header before the request.
    pub(super) fn client(
        &self,
        peer: SocketAddr,
        header: Option<Header>,
        forwarding: &Forwarding,
        trusted: &Networks,
    ) -> Client {
        let is_trusted = trusted.contain(peer.ip());
        let said = header.and_then(|header| header.source);
        if !is_trusted && (said.is_some() || forwarding.names_client()) {
            self.note_untrusted(peer, said.is_some());
        }
        let nearest = said.filter(|_| is_trusted).unwrap_or(peer);
        let claim = forwarding.client(nearest, trusted);
        if claim.is_contradictory
            && let Some(withheld) = self.contradiction.admit()
        {
            warn!(
                %peer, withheld,
                "X-Forwarded-For and Forwarded name different clients, so neither is believed; have the proxy remove the one that it does not write"
            );
        }
        let is_proxied = is_trusted || header.is_some() || forwarding.is_forwarded;
        Client { address: claim.address.into(), is_proxied, is_trusted }
    }

    fn note_untrusted(&self, peer: SocketAddr, by_header: bool) {
        if let Some(withheld) = self.untrusted.admit() {
            let how = if by_header { "in a PROXY protocol header" } else { "in X-Forwarded-For or Forwarded" };
            warn!(
                %peer, withheld,
                "a peer that is not trusted names a client {how}, which is not believed; if it is your proxy, add \"{}\" to server.trusted_proxies",
                peer.ip().to_canonical()
            );
        }
    }

    /// Warns that a connection to a listener with `proxy_protocol` has no valid PROXY header and is refused.
    pub(super) fn note_bad_header(&self, peer: SocketAddr, bad: BadHeader) {
        if let Some(withheld) = self.no_header.admit() {
            warn!(
                %peer, withheld,
                "refused a connection: {bad}; this [[listener]] has proxy_protocol = true, so only a proxy that sends the header may connect to it"
            );
        }
    }

    /// Logs a bad request head: as a warning only if the configuration of a proxy causes it, or if the client speaks TLS.
    pub(super) fn note_bad_request(&self, peer: SocketAddr, bad: BadRequest) {
        let limit = match bad {
            BadRequest::ProxyHeader => Some(&self.header),
            BadRequest::Tls => Some(&self.tls),
            _ => None,
        };
        if let Some(withheld) = limit.and_then(WarningLimit::admit) {
            warn!(%peer, withheld, "refused a connection: {bad}");
        } else {
            debug!(%peer, %bad, "refused a request");
        }
    }

    /// Warns that headers of an upgrade request are missing or changed.
    pub(super) fn note_broken_upgrade(&self, client: &Client, broken: BrokenUpgrade) {
        if let Some(withheld) = self.broken_upgrades.admit() {
            warn!(peer = %client.address, withheld, "{broken}");
        }
    }
}
