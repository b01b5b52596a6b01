//! TLS to the database server: required, verified, and refused.

use wsmb_store::{StoreError, StoreSettings};

use crate::servers::{Certificates, Database, Kind, Options, Server};
use crate::{appends, assert_says, message, open, refusal};

fn with(database: &Database, query: &str) -> StoreSettings {
    StoreSettings { url: format!("{}?{query}", database.url()), ..database.settings() }
}

/// Whether the database's only connection is encrypted, according to the server.
fn is_encrypted(server: &Server, database: &Database) -> bool {
    let name = &database.name;
    let query = format!("SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = '{name}'");
    server.sql(&query).trim() == "t"
}

#[test]
fn tls_is_used_and_the_server_is_verified() {
    for kind in Kind::all() {
        let server = Server::start_with(kind, Options { tls: Some(Certificates::new()), ..Options::default() });
        let database = server.database();
        if kind.is_mysql() {
            server.sql(&format!("ALTER USER {}@'127.0.0.1' REQUIRE SSL", database.name));
        }
        let authority = server.authority();
        let authority = authority.display();
        let (required, checked, named) =
            kind.pick(("REQUIRED", "VERIFY_CA", "VERIFY_IDENTITY"), ("require", "verify-ca", "verify-full"));
        for query in [
            format!("ssl-mode={required}"),
            format!("ssl-mode={checked}&ssl-ca={authority}"),
            format!("ssl-mode={named}&ssl-ca={authority}"),
        ] {
            let mut store = open(&with(&database, &query));
            store.commit(&appends(vec![message(1, "1")])).expect("stored");
            assert!(kind.is_mysql() || is_encrypted(&server, &database), "{query} is not encrypted");
        }
        let directory = tempfile::tempdir().expect("a directory");
        let other = Certificates::new().authority_in(directory.path());
        let error = refusal(&with(&database, &format!("ssl-mode={checked}&ssl-ca={}", other.display())));
        assert!(matches!(&error, StoreError::Denied { .. }), "{error:?}");
        assert_says(&error, &database, &["encrypted", &database.name]);
        let error = refusal(&with(&database, "ssl-mode=sometimes"));
        assert!(matches!(&error, StoreError::BadUrl { .. }), "{error:?}");
    }
}

#[test]
fn a_certificate_for_another_name_is_refused_if_the_name_is_verified() {
    for kind in Kind::all() {
        let tls = Some(Certificates::for_names(&["db.example.com"]));
        let server = Server::start_with(kind, Options { tls, ..Options::default() });
        let database = server.database();
        let authority = server.authority();
        let (checked, named) = kind.pick(("VERIFY_CA", "VERIFY_IDENTITY"), ("verify-ca", "verify-full"));
        let query = |mode: &str| format!("ssl-mode={mode}&ssl-ca={}", authority.display());
        drop(open(&with(&database, &query(checked))));
        let error = refusal(&with(&database, &query(named)));
        assert!(matches!(&error, StoreError::Denied { .. }), "{error:?}");
        assert_says(&error, &database, &["encrypted"]);
    }
}

#[test]
fn a_server_without_tls_is_refused_if_tls_is_required() {
    for kind in Kind::all() {
        let server = Server::shared(kind);
        let database = server.database();
        let error = refusal(&with(&database, &format!("ssl-mode={}", kind.pick("REQUIRED", "require"))));
        assert!(matches!(&error, StoreError::Denied { .. }), "{error:?}");
        assert_says(&error, &database, &["encrypted"]);
    }
}
