//! A certificate authority and a server's certificate, created for one test.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use super::instance::Kind;
use super::process::Account;

/// A server's certificate and key, and the authority that signed the certificate.
#[derive(Clone, Debug)]
pub struct Certificates {
    authority: String,
    certificate: String,
    key: String,
    /// The directory of the files, set by [`Self::install`].
    dir: PathBuf,
}

impl Certificates {
    /// Creates certificates for these names and addresses.
    #[track_caller]
    pub fn for_names(names: &[&str]) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name.push(DnType::CommonName, "wsmb test authority");
        let authority_key = KeyPair::generate().expect("a key");
        let authority = params.self_signed(&authority_key).expect("an authority");
        let issuer = Issuer::new(params, authority_key);
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name.push(DnType::CommonName, "wsmb test server");
        let certificate = params.signed_by(&key, &issuer).expect("a certificate");
        Self {
            authority: authority.pem(),
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            dir: PathBuf::new(),
        }
    }

    /// Creates certificates for `127.0.0.1` and `localhost`.
    #[track_caller]
    pub fn new() -> Self {
        Self::for_names(&["127.0.0.1", "localhost"])
    }

    /// Writes the files for the server, readable only by its account.
    #[track_caller]
    pub(super) fn install(&mut self, dir: &Path, account: &Account) {
        dir.clone_into(&mut self.dir);
        let files =
            [(self.authority(), &self.authority), (self.certificate(), &self.certificate), (self.key(), &self.key)];
        for (path, text) in files {
            std::fs::write(&path, text).expect("a file for the server");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("its rights");
            account.own(&path);
        }
    }

    /// The server's settings that name the files.
    pub(super) fn settings(&self, kind: Kind) -> Vec<String> {
        let names = kind.pick(["ssl-ca", "ssl-cert", "ssl-key"], ["ssl_ca_file", "ssl_cert_file", "ssl_key_file"]);
        let files = names.into_iter().zip([self.authority(), self.certificate(), self.key()]);
        let settings = files.map(|(name, file)| format!("{name}={}", file.display()));
        settings.chain(kind.pick(None, Some("ssl=on".to_owned()))).collect()
    }

    /// Writes the authority to a file in this directory, for tests of an untrusted server.
    #[track_caller]
    pub fn authority_in(&self, dir: &Path) -> PathBuf {
        let path = dir.join("other-ca.pem");
        std::fs::write(&path, &self.authority).expect("a file");
        path
    }

    pub fn authority(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    pub fn certificate(&self) -> PathBuf {
        self.dir.join("server.pem")
    }

    pub fn key(&self) -> PathBuf {
        self.dir.join("server-key.pem")
    }
}
