//! TLS of the client: the trusted authorities, the server's name, and the errors.

use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use super::error::Error;
use super::url::Url;

/// Returns the settings for a connection. `ca`: a PEM file with the only certificates that are trusted; `None`: the system's authorities. Blocks: reads files, those
/// of the system only once.
///
/// # Errors
/// [`Error::Tls`]: the file cannot be used, or the system has no authorities.
pub fn config(url: &Url, ca: Option<&Path>) -> Result<Arc<ClientConfig>, Error> {
    static SYSTEM: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    let make = || {
        let made = wsmb_tls::client::config(ca);
        made.map(Arc::new).map_err(|fault| Error::Tls { address: url.authority(), reason: fault.to_string() })
    };
    if ca.is_some() {
        return make();
    }
    if let Some(config) = SYSTEM.get() {
        return Ok(config.clone());
    }
    let made = make()?;
    Ok(SYSTEM.get_or_init(|| made).clone())
}

/// Returns the name that the server's certificate must have.
///
/// # Errors
/// [`Error::Tls`]: no certificate can have this name.
pub fn server_name(url: &Url) -> Result<ServerName<'static>, Error> {
    ServerName::try_from(url.host().to_owned()).map_err(|_| Error::Tls {
        address: url.authority(),
        reason: format!("\"{}\" is not a name that a certificate can have", url.host()),
    })
}

/// Returns the error of a failed handshake, or of a connection that was lost.
#[must_use]
pub fn error(address: String, error: io::Error) -> Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(tls) => match wsmb_tls::client::certificate_fault(tls) {
            Some(fault) => Error::Certificate { address, fault },
            None => Error::Tls { address, reason: wsmb_tls::client::reason(tls) },
        },
        None if error.kind() == io::ErrorKind::UnexpectedEof => Error::Tls {
            address,
            reason: "the server ended the connection during the handshake; is it a port for ws://?".to_owned(),
        },
        None => Error::Lost { address, source: Some(error) },
    }
}
