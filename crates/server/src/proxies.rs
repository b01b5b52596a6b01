//! Who the client is behind the proxies in front of the broker (SPEC section 3), and what is said in the log when they are set up wrongly.
//!
//! What a proxy says is read in `protocol::proxy`; here is decided whom to believe. Every warning is rate-limited: anybody can cause it.

use std::net::SocketAddr;

use tracing::{debug, warn};

use super::counters::WarningLimit;
use super::session::Peer;
use wsmb_core::network::Networks;
use wsmb_protocol::handshake::{BadRequest, BrokenUpgrade};
use wsmb_protocol::proxy::{BadHeader, Forwarding, Header};

/// Where a connection comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client {
    /// The client's address, as far as it can be believed.
    pub(super) address: Peer,
    /// A proxy stands between: what the peer's TCP has acknowledged says nothing about the client.
    pub(super) is_proxied: bool,
    /// The peer is a proxy that is believed.
    pub(super) is_trusted: bool,
}

/// What was said about proxies already, so that it is not said all the time.
#[derive(Debug, Default)]
pub(super) struct Proxies {
    untrusted: WarningLimit,
    contradiction: WarningLimit,
    no_header: WarningLimit,
    header: WarningLimit,
    broken_upgrades: WarningLimit,
}

impl Proxies {
    /// The client of a request. `peer`: of the TCP connection; `header`: the PROXY header that came before the request.
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

    /// A connection to a listener with `proxy_protocol` has no good PROXY header and is refused.
    pub(super) fn note_bad_header(&self, peer: SocketAddr, bad: BadHeader) {
        if let Some(withheld) = self.no_header.admit() {
            warn!(
                %peer, withheld,
                "refused a connection: {bad}; this [[listener]] has proxy_protocol = true, so only a proxy that sends the header may connect to it"
            );
        }
    }

    /// The head of a request is bad: worth a line in the log only where a proxy's configuration is to blame.
    pub(super) fn note_bad_request(&self, peer: SocketAddr, bad: BadRequest) {
        if bad == BadRequest::ProxyHeader
            && let Some(withheld) = self.header.admit()
        {
            warn!(%peer, withheld, "refused a connection: {bad}");
        } else {
            debug!(%peer, %bad, "refused a request");
        }
    }

    /// A request for a WebSocket came spoilt.
    pub(super) fn note_broken_upgrade(&self, client: &Client, broken: BrokenUpgrade) {
        if let Some(withheld) = self.broken_upgrades.admit() {
            warn!(peer = %client.address, withheld, "{broken}");
        }
    }
}
