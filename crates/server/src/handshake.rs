//! The handshake of an accepted socket: the request head, the login, the upgrade reply; and the plain HTTP answers.
//!
//! The handshake is a future of its own. It is dropped before the session's task begins, so that its buffers use no memory of an idle connection. No
//! session is created before the credentials are verified.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tracing::debug;

use super::access::{Access, Credentials, Identity, Login};
use super::counters::Counters;
use super::engine::NoRoom;
use super::failed_logins::Reason;
use super::handshakes::Slot;
#[cfg(feature = "http")]
use super::http;
use super::hub::Hub;
use super::interpret;
use super::proxies::Client;
use super::reader::Reader;
use super::replies::greeting;
use super::request::Request as EngineRequest;
use super::session::{Outlet, Peer, Profile, Session};
use super::timers::Hold;
use super::transport::Transport;
use crate::limits;
use wsmb_auth::Users;
use wsmb_protocol::envelope::{self, Code};
use wsmb_protocol::handshake::{self, BadRequest, PROXY_SETTINGS, Request, Upgrade};
use wsmb_protocol::proxy::{self, BadHeader, Header};

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// Paths that belong to the HTTP interface (SPEC section 9): no WebSocket is served there.
const RESERVED: [&str; 5] = ["/api", "/healthz", "/readyz", "/metrics", "/dashboard"];

/// The headers of every answer to a request that should have been an upgrade. Operators of the PHP broker have a script that starts that broker
/// unless an answer contains the word "Ratchet", the name of its library. The script must not start the PHP broker beside this one.
const UPGRADE_REQUIRED: [(&str, &str); 3] =
    [("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"), ("X-Powered-By", "wsmb (compatible with Ratchet)")];

/// An accepted socket.
#[derive(Debug)]
pub(super) struct Accepted {
    /// The peer's address.
    pub(super) peer: SocketAddr,
    /// The connection must begin with a PROXY protocol header.
    pub(super) proxy_protocol: bool,
    /// The loop that serves it.
    pub(super) home: u16,
    /// In a box, because only encrypted connections have it.
    pub(super) secured: Option<Box<Secured>>,
}

/// What is known of an encrypted connection before its request.
#[derive(Debug)]
pub(super) struct Secured {
    /// The PROXY header before the TLS handshake.
    pub(super) header: Option<Header>,
    /// The user that the client certificate names.
    pub(super) user: Option<Arc<str>>,
    /// When the TLS handshake began.
    pub(super) began: Instant,
}

/// A request head, the PROXY header before it, and the bytes after it.
struct Head {
    header: Option<Header>,
    request: Request,
    rest: Vec<u8>,
}

/// Why there is no [`Head`].
enum NoHead {
    /// The client has gone.
    Gone,
    /// The PROXY header is missing or bad. Not answered, because the peer may not speak HTTP.
    Header(BadHeader),
    /// The request is long, and nearly all memory is used.
    Memory,
    /// The request is refused.
    Bad(BadRequest),
    /// The request belongs to the HTTP interface: the PROXY header before it, and the bytes so far.
    #[cfg(feature = "http")]
    Http(Option<Header>, Vec<u8>),
}

/// The answer to a request.
enum Answer {
    /// A plain HTTP response.
    Http(Vec<u8>),
    /// A connection, of a user who was accepted according to this list.
    Upgrade(Box<Upgrade>, Profile, Arc<Users>),
}

/// Serves an accepted socket up to the session's task; `None` if no session was created. The socket may be evicted until its request has arrived, and after
/// a refusal.
pub(super) async fn run(hub: Arc<Hub>, transport: Transport, accepted: Accepted, slot: Slot) -> Option<Box<Reader>> {
    tokio::select! {
        biased;
        () = slot.evicted() => None,
        reader = serve(hub, transport, accepted, &slot) => reader,
    }
}

/// Reads the request head. Requests of the HTTP interface are answered here, and bad requests are refused: then there is no head.
async fn receive_head(
    hub: &Arc<Hub>,
    transport: Transport,
    Accepted { peer, proxy_protocol, secured, .. }: &Accepted,
    slot: &Slot,
) -> Option<(Transport, Head)> {
    #[cfg(not(feature = "http"))]
    let _ = slot;
    let spent = secured.as_ref().map_or(Duration::ZERO, |secured| secured.began.elapsed());
    let time = limits::HANDSHAKE_TIME.saturating_sub(spent);
    // With TLS the PROXY header came before the TLS handshake.
    let known = secured.as_ref().and_then(|secured| secured.header);
    let refusal = match timeout(time, read_head(hub, &transport, *proxy_protocol)).await {
        Ok(Ok(head)) => return Some((transport, Head { header: known.or(head.header), ..head })),
        #[cfg(feature = "http")]
        Ok(Err(NoHead::Http(header, bytes))) => {
            let (header, certified) = (known.or(header), secured.as_ref().and_then(|secured| secured.user.clone()));
            let kept =
                http::serve(hub, transport, bytes, http::Origin { peer: *peer, header, certified }, slot).await?;
            return Some((kept.transport, Head { header, request: kept.request, rest: kept.rest }));
        }
        Ok(Err(NoHead::Gone)) => return None,
        Ok(Err(NoHead::Header(bad))) => {
            hub.proxies.note_bad_header(*peer, bad);
            return None;
        }
        Ok(Err(NoHead::Memory)) => crowded(hub, NoRoom::Memory),
        Ok(Err(NoHead::Bad(bad))) => {
            hub.proxies.note_bad_request(*peer, bad);
            bad_request(bad)
        }
        Err(_) => plain(408, "the request did not arrive in time"),
    };
    refuse(&transport, &refusal).await;
    None
}

async fn serve(hub: Arc<Hub>, transport: Transport, accepted: Accepted, slot: &Slot) -> Option<Box<Reader>> {
    let (transport, head) = receive_head(&hub, transport, &accepted, slot).await?;
    let Accepted { peer, home, secured, .. } = accepted;
    if !slot.protect() {
        return None;
    }
    let Head { header, request, mut rest } = head;
    let client = hub.proxies.client(peer, header, &request.forwarding, &hub.access().trusted);
    let certified = secured.as_ref().and_then(|secured| secured.user.as_ref());
    let answer = match timeout(limits::LOGIN_TIME, answer(&hub, request, &client, certified)).await {
        Ok(answer) => answer,
        Err(_) => Answer::Http(busy()),
    };
    let (upgrade, profile, users) = match answer {
        Answer::Http(response) => {
            slot.expose(client.address.ip());
            return refuse(&transport, &response).await;
        }
        Answer::Upgrade(upgrade, profile, users) => (upgrade, profile, users),
    };
    let identity = profile.identity.clone();
    // The reader is created with the session, because its drop reports the end of the session to the core.
    let (session, mut reader) = match hub.establish(Outlet::Socket(transport), profile, home) {
        Ok(session) => (session.clone(), Box::new(Reader::new(hub.clone(), session))),
        Err((outlet, no_room)) => {
            slot.expose(client.address.ip());
            let Outlet::Socket(transport) = outlet else { return None };
            return refuse(&transport, &crowded(&hub, no_room)).await;
        }
    };
    // After the registration: a later change of the users finds the session (`enforce`).
    if !hub.access().is_still_accepted(&identity, &users) {
        // No other thread writes, because `head_written` was not called.
        let _ = write_all(&session, &unauthorized(&hub, None)).await;
        return None;
    }
    open(&hub, &session, &upgrade).await.ok()?;
    if !rest.is_empty() {
        reader.take(&mut rest);
    }
    Some(reader)
}

fn crowded(hub: &Hub, no_room: NoRoom) -> Vec<u8> {
    match no_room {
        NoRoom::GoingDown => going_down(),
        NoRoom::Memory => {
            Counters::add(&hub.counters.crowded, 1);
            plain(503, "the broker is short of memory (server.memory_budget); try again later")
        }
        NoRoom::Crowded => {
            Counters::add(&hub.counters.crowded, 1);
            plain(503, "no room for a further connection of this user (server.max_connections)")
        }
    }
}

async fn read_head(hub: &Hub, transport: &Transport, proxy_protocol: bool) -> Result<Head, NoHead> {
    // Allocated when the socket is readable: a silent socket uses no memory for a head.
    let mut bytes = Vec::new();
    let mut header = None;
    loop {
        transport.readable().await.map_err(|_| NoHead::Gone)?;
        bytes.reserve(1 << 10);
        match transport.try_read_buf(&mut bytes) {
            Ok(0) => return Err(NoHead::Gone),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(_) => return Err(NoHead::Gone),
        }
        if proxy_protocol && header.is_none() {
            header = proxy::header::parse(&bytes).map_err(NoHead::Header)?;
            match header {
                Some(Header { length, .. }) => drop(bytes.drain(..length)),
                None => continue,
            }
        }
        #[cfg(feature = "http")]
        if http::is_addressed(&bytes) {
            return Err(NoHead::Http(header, bytes));
        }
        match handshake::parse_request(&bytes) {
            Ok(Some((request, length))) => return Ok(Head { header, request, rest: bytes.split_off(length) }),
            Ok(None) if bytes.len() > limits::MEMORY_HEAD && hub.memory.is_nearly_used() => return Err(NoHead::Memory),
            Ok(None) if bytes.len() < wsmb_protocol::limits::REQUEST_HEAD => {}
            Ok(None) => return Err(NoHead::Bad(BadRequest::HeadTooLong)),
            Err(bad) => return Err(NoHead::Bad(bad)),
        }
    }
}

fn bad_request(bad: BadRequest) -> Vec<u8> {
    let headers: &[_] = match bad {
        // For the operators' script, which sends neither a version nor a key.
        BadRequest::Version | BadRequest::Key => &UPGRADE_REQUIRED,
        _ => &[],
    };
    handshake::response(bad.status(), headers, TEXT, &format!("{bad}\n"))
}

/// The answer to a request without an upgrade on a path that serves only WebSocket connections.
fn upgrade_required(request: &Request) -> Vec<u8> {
    let hint = match request.broken_upgrade {
        Some(broken) => format!("{broken}\n"),
        // The request may come from a browser, or a proxy has removed all headers of the upgrade.
        None if request.forwarding.is_forwarded => format!("if a WebSocket client has sent this, {PROXY_SETTINGS}\n"),
        None => String::new(),
    };
    let http = if cfg!(feature = "http") { ", or send HTTP requests to /api/v1/" } else { "" };
    let body = format!("this is a message broker; connect with a WebSocket client{http}\n{hint}");
    handshake::response(426, &UPGRADE_REQUIRED, TEXT, &body)
}

/// Whether the request is a GET or HEAD without an upgrade. `HEAD` is answered like `GET`, without the body (RFC 9110 section 9.3.2).
fn is_plain_read(request: &Request) -> bool {
    matches!(request.method.as_str(), "GET" | "HEAD") && request.upgrade.is_none()
}

/// `certified`: the user of the client certificate.
async fn answer(hub: &Hub, request: Request, client: &Client, certified: Option<&Arc<str>>) -> Answer {
    let is_reserved = RESERVED.iter().any(|reserved| {
        request.path.strip_prefix(reserved).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    if is_plain_read(&request) && request.path == "/healthz" {
        // 200 also during an orderly stop: the process still does its work.
        let (status, word) = match (hub.fatal.is_declared(), hub.stop.has_begun()) {
            (true, _) => (503, "failed"),
            (false, true) => (200, "stopping"),
            (false, false) => (200, "ok"),
        };
        let answer = plain(status, word);
        return Answer::Http(if request.method == "HEAD" { handshake::without_body(answer) } else { answer });
    }
    if is_reserved {
        return Answer::Http(plain(404, "there is nothing here"));
    }
    let Some(upgrade) = request.upgrade else {
        if let Some(broken) = request.broken_upgrade {
            hub.proxies.note_broken_upgrade(client, broken);
        }
        return Answer::Http(upgrade_required(&request));
    };
    if hub.stop.has_begun() {
        return Answer::Http(going_down());
    }
    let access = hub.access();
    let credentials = Credentials {
        authorization: request.authorization.as_deref(),
        token: upgrade.token.as_deref(),
        ticket: upgrade.ticket.as_deref(),
        certified,
    };
    let anonymous = access.anonymous && credentials.are_missing();
    if let Some(page) = request.page.as_ref().filter(|_| !credentials.are_explicit())
        && let Some(sentence) = hub.origins.refusal(page, client, &access.origins, anonymous)
    {
        Counters::add(&hub.counters.forbidden, 1);
        return Answer::Http(plain(403, &sentence));
    }
    let peer = &client.address;
    let (identity, users) = match login(hub, &access, credentials, peer, upgrade.topic.is_some()).await {
        Ok(welcome) => welcome,
        Err(response) => return Answer::Http(response),
    };
    if let Some(channel) = &upgrade.topic
        && !access.may_send(&identity, channel)
        && !access.may_receive(&identity, channel)
    {
        let user = identity.user();
        hub.note_forbidden(user, peer, channel);
        return Answer::Http(plain(
            403,
            &format!("user \"{user}\" may neither send to nor receive from \"{channel}\""),
        ));
    }
    let profile = Profile {
        identity,
        peer: *peer,
        topic: upgrade.topic.clone(),
        receiver: upgrade.receiver.as_deref().map(Arc::from).map(Box::new),
        modern: upgrade.modern,
        proxied: client.is_proxied,
        internal: false,
    };
    Answer::Upgrade(upgrade, profile, users)
}

/// Checks the credentials and the rate of their user. Without a password, the user is that of the client certificate. The error is the HTTP response.
async fn login(
    hub: &Hub,
    access: &Access,
    credentials: Credentials<'_>,
    peer: &Peer,
    is_topic: bool,
) -> Result<(Identity, Arc<Users>), Vec<u8>> {
    match access.login(credentials, peer.ip()).await {
        Login::Welcome(identity, users) => match rate_wait(hub, access, identity.user(), is_topic) {
            None => Ok((identity, users)),
            Some(wait) => {
                hub.note_above_rate(identity.user(), peer);
                Err(above_rate(identity.user(), wait))
            }
        },
        Login::Busy => Err(busy()),
        Login::Slowed(user) => {
            hub.failed_logins.log(peer.ip(), &user, Reason::TooMany);
            Err(slowed())
        }
        Login::Rejected(user, reason) => {
            Counters::add(&hub.counters.unauthorized, 1);
            hub.failed_logins.log(peer.ip(), &user, reason);
            Err(unauthorized(hub, Some(reason)))
        }
    }
}

/// Counts a connection of the user. Returns how long the user must wait, if its rate is reached. A topic connection also has to wait while the
/// user may not publish, because a message on it cannot be refused.
fn rate_wait(hub: &Hub, access: &Access, user: &Arc<str>, is_topic: bool) -> Option<Duration> {
    let now = hub.now();
    let rate = access.rates.of(user, now)?;
    let publish_wait = if is_topic { rate.publish_wait(now) } else { Duration::ZERO };
    let wait = if publish_wait.is_zero() { rate.connect(now).err().unwrap_or_default() } else { publish_wait };
    (!wait.is_zero()).then_some(wait)
}

/// Writes to a session before its queue does.
async fn write_all(session: &Session, bytes: &[u8]) -> io::Result<()> {
    match session.transport() {
        Some(transport) => transport.write_all(bytes).await,
        None => Ok(()),
    }
}

/// Subscribes the session, then writes the upgrade reply: a client that has read the reply receives every message that is sent from then on.
async fn open(hub: &Arc<Hub>, session: &Arc<Session>, upgrade: &Upgrade) -> io::Result<()> {
    let Profile { identity, peer, topic, modern, proxied, .. } = &session.profile;
    let is_admin = hub.access().is_admin(identity);
    debug!(connection = session.id.0, user = %identity.user(), %peer, ?topic, modern, proxied, is_admin, "connected");
    // A modern envelope client gets the connect reply first.
    let reply = (*modern && topic.is_none()).then(|| EngineRequest::Frame(greeting(hub.wall_now())));
    let initial = interpret::initial_request(session, &hub.access());
    hub.apply_all(session, &mut [reply, initial]);
    write_all(session, &handshake::upgrade_reply(upgrade)).await?;
    session.queue().head_written();
    if *modern {
        session.flush();
    } else {
        // The connect reply of an envelope client may be the answer to its first frame.
        hub.hold(if topic.is_some() { Hold::Shadow } else { Hold::FirstFrame }, session.id);
    }
    let interval = hub.options().limits.heartbeat;
    if !interval.is_zero() {
        hub.schedule_check(hub.now().after(interval.max(limits::FIRST_PING)), session.id);
    }
    Ok(())
}

/// The answer to a new client while the broker stops. Usually the next process is ready within two seconds.
fn going_down() -> Vec<u8> {
    handshake::response(503, &[("Retry-After", "1")], TEXT, "the broker is going down; try again\n")
}

/// `reason`: `None` if the credentials were right, and were withdrawn during the handshake.
fn unauthorized(hub: &Hub, reason: Option<Reason>) -> Vec<u8> {
    const BASIC: (&str, &str) = ("WWW-Authenticate", "Basic realm=\"wsmb\"");
    const BEARER: (&str, &str) = ("WWW-Authenticate", "Bearer error=\"invalid_token\"");
    let sentence = reason.and_then(Reason::sentence);
    let headers = if sentence.is_some() { &[BASIC, BEARER][..] } else { &[BASIC] };
    let body = envelope::connect_reply(hub.wall_now(), Code::Rejected, sentence.as_deref().unwrap_or_default());
    handshake::response(401, headers, JSON, &body)
}

fn busy() -> Vec<u8> {
    handshake::response(503, &[("Retry-After", "5")], TEXT, "too many clients log in at once; try again\n")
}

/// The answer to a client whose login was throttled. `Retry-After` is the longest pause between two guesses.
fn slowed() -> Vec<u8> {
    let wait = wsmb_auth::limits::LOGIN_DELAY_MAX.as_secs().to_string();
    let sentence = "too many logins from this address have failed; try again\n";
    handshake::response(429, &[("Retry-After", &wait)], TEXT, sentence)
}

/// The answer to a user who connects more often than its rate allows.
fn above_rate(user: &str, wait: Duration) -> Vec<u8> {
    let seconds = (wait.as_secs() + 1).to_string();
    let sentence = format!("user \"{user}\" has reached its rate; try again in {seconds} s\n");
    handshake::response(429, &[("Retry-After", &seconds)], TEXT, &sentence)
}

pub(super) fn plain(status: u16, sentence: &str) -> Vec<u8> {
    handshake::response(status, &[], TEXT, &format!("{sentence}\n"))
}

/// Sends a response, then reads the rest of the request for at most [`limits::HTTP_LINGER`], so that a reset does not discard the response.
pub(super) async fn refuse(transport: &Transport, response: &[u8]) -> Option<Box<Reader>> {
    let answer = async {
        transport.write_all(response).await?;
        transport.finish()?;
        // Bounded by the time-out below.
        loop {
            transport.readable().await?;
            let taken = {
                // In a block, so that the future holds no buffer while it waits.
                let mut sink = [0; 1 << 10];
                transport.try_read(&mut sink)
            };
            match taken {
                Ok(0) => return io::Result::Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    };
    // An error means that the client did not read the response; the socket is closed in any case.
    let _ = timeout(limits::HTTP_LINGER, answer).await;
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The default of `server.max_handshakes` and `wsmb_auth::limits::WAITING_LOGINS` assume this size.
    #[test]
    fn a_handshake_is_small() {
        fn size<T>(_: impl FnOnce(Arc<Hub>, Transport, Accepted, Slot) -> T) -> usize {
            size_of::<T>()
        }
        let bytes = size(run);
        assert!(bytes <= 3 << 10, "{bytes} bytes");
    }
}
