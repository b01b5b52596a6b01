//! Tests of tokens: the rights that they give, and attacks with tokens.

use std::fmt::Write as _;

use proptest::prelude::*;
use serde_json::json;

use super::*;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const OTHER: &str = "fedcba9876543210fedcba9876543210";
const NOW: u64 = 1_800_000_000;

fn key(id: &str, secret: &str) -> Arc<Key> {
    Arc::new(Key::new(id, Algorithm::Hs256, secret, None, None).unwrap())
}

fn keys() -> Vec<Arc<Key>> {
    vec![key("app", SECRET), key("other", OTHER)]
}

fn encode(json: &str) -> String {
    URL_SAFE_NO_PAD.encode(json)
}

/// A token of the key `app` with these texts as header and claims, rightly signed.
fn signed(header: &str, claims: &str) -> String {
    let text = format!("{}.{}", encode(header), encode(claims));
    let signature = Signing::parse(Algorithm::Hs256, SECRET).unwrap().sign(text.as_bytes()).unwrap();
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}

const HEADER: &str = r#"{"alg":"HS256","typ":"JWT","kid":"app"}"#;

/// A token of the key `app` with further claims.
fn with_claims(more: &Value) -> String {
    let mut claims = json!({ "sub": "alice", "exp": NOW + 60 });
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    // A claim that is set to null is left out.
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    signed(HEADER, &claims.to_string())
}

fn check(token: &str) -> Result<Grant, BadToken> {
    verify(token, &keys(), &Users::default(), NOW)
}

#[track_caller]
fn assert_refused(token: &str, wanted: BadToken) {
    assert_eq!(check(token).unwrap_err(), wanted, "{:?}", peek(token));
}

#[test]
fn a_token_gives_exactly_the_rights_of_its_claims() {
    let grant =
        check(&with_claims(&json!({ "wsmb.send": ["sms", "mail.*"], "wsmb.receive": "user/alice/*" }))).unwrap();
    assert_eq!((&**grant.user(), grant.expires()), ("alice", NOW + 60));
    let nothing = Permissions::default().with(&["*"], &[], &[]);
    for (channel, send, receive) in
        [("sms", true, false), ("mail.1", true, false), ("user/alice/1", false, true), ("x", false, false)]
    {
        assert_eq!(grant.may_send(&nothing, channel), send, "{channel}");
        assert_eq!(grant.may_receive(&nothing, channel), receive, "{channel}");
    }
    let none = check(&with_claims(&json!({ "wsmb.send": [] }))).unwrap();
    assert!(!none.may_send(&Permissions::default(), "sms"), "an empty list gives no right");
}

#[test]
fn a_token_without_claims_has_the_rights_of_its_user() {
    let grant = check(&with_claims(&json!({}))).unwrap();
    let permissions = Permissions::default().with(&["alice"], &["a".to_owned()], &["b".to_owned()]);
    assert!(grant.may_send(&permissions, "a") && !grant.may_send(&permissions, "b"));
    assert!(grant.may_receive(&permissions, "b") && !grant.may_receive(&permissions, "a"));
}

#[test]
fn an_unsigned_token_is_refused() {
    let claims = encode(&json!({ "sub": "alice", "exp": NOW + 60 }).to_string());
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        let header = encode(&json!({ "alg": alg, "kid": "app" }).to_string());
        assert_refused(&format!("{header}.{claims}."), BadToken::Algorithm);
    }
    assert_refused(&format!("{}.{claims}.", encode(HEADER)), BadToken::Signature);
    assert_refused(&format!("{}.{claims}", encode(HEADER)), BadToken::NotAToken);
    assert_refused(&signed(r#"{"kid":"app"}"#, "{}"), BadToken::Algorithm);
}

#[test]
fn the_algorithm_is_the_key_s_and_never_the_token_s() {
    for alg in ["RS256", "ES256", "EdDSA", "HS384", "HS512", "hs256", "HS256 ", "PS256"] {
        assert_refused(&signed(&json!({ "alg": alg, "kid": "app" }).to_string(), "{}"), BadToken::Algorithm);
    }
    assert_refused(&signed(r#"{"alg":["HS256"],"kid":"app"}"#, "{}"), BadToken::Algorithm);
}

#[cfg(feature = "signatures")]
#[test]
fn a_public_key_is_no_secret() {
    let pem = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEyfblxW/RmXFQgZtnxtJQfd2IlY8Q\nq9M7LudZyXzuYyIiACJb3+IvrN8h5p9m89MuL36HyK+XRioNFeLMd/h2GQ==\n-----END PUBLIC KEY-----\n";
    let es256 = Arc::new(Key::new("app", Algorithm::Es256, pem, None, None).unwrap());
    let claims = encode(&json!({ "sub": "alice", "exp": NOW + 60 }).to_string());
    let bytes = STANDARD_PEM.decode(pem.lines().filter(|line| !line.starts_with('-')).collect::<String>()).unwrap();
    // The forms of the public key that a careless library takes for the secret of HS256.
    for secret in [pem.as_bytes(), pem.trim().as_bytes(), &bytes, &bytes[26..]] {
        for alg in ["HS256", "ES256"] {
            let text = format!("{}.{claims}", encode(&json!({ "alg": alg, "kid": "app" }).to_string()));
            let mut padded = [0; limits::HS256_SECRET_BYTES];
            padded.copy_from_slice(&secret[..limits::HS256_SECRET_BYTES]);
            for secret in [secret.to_vec(), padded.to_vec()] {
                let encoded = format!("base64:{}", STANDARD_PEM.encode(secret));
                let signature = Signing::parse(Algorithm::Hs256, &encoded).unwrap().sign(text.as_bytes()).unwrap();
                let token = format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature));
                let wanted = if alg == "HS256" { BadToken::Algorithm } else { BadToken::Signature };
                let found = verify(&token, std::slice::from_ref(&es256), &Users::default(), NOW).unwrap_err();
                assert_eq!(found, wanted);
            }
        }
    }
}

#[cfg(feature = "signatures")]
use base64::engine::general_purpose::STANDARD as STANDARD_PEM;

#[test]
fn the_key_is_chosen_by_its_exact_id() {
    let traversals = [
        "../../app",
        "app/../app",
        "APP",
        "app ",
        "app\0",
        "",
        "*",
        "/dev/null",
        "file:///dev/null",
        "' OR 1=1 --",
        "http://attacker.example/key",
    ];
    for id in traversals {
        assert_refused(&signed(&json!({ "alg": "HS256", "kid": id }).to_string(), "{}"), BadToken::UnknownKey);
    }
    // Rightly signed, but by another key than the one named.
    assert_refused(&signed(r#"{"alg":"HS256","kid":"other"}"#, "{}"), BadToken::Signature);
    assert_refused(&signed(r#"{"alg":"HS256","kid":["app"]}"#, "{}"), BadToken::Header("kid"));
    // Keys that the token brings along are never used.
    let own =
        r#"{"alg":"HS256","kid":"x","jku":"http://attacker.example","jwk":{"kty":"oct","k":"AAAA"},"x5c":["AAAA"]}"#;
    assert_refused(&signed(own, "{}"), BadToken::UnknownKey);
}

#[test]
fn a_token_that_names_no_key_is_verified_with_the_only_key() {
    let token = signed(r#"{"alg":"HS256"}"#, &json!({ "sub": "alice", "exp": NOW }).to_string());
    assert_refused(&token, BadToken::NoKeyId);
    let one = [key("app", SECRET), Arc::new(Key::own([1; 32]))];
    assert!(verify(&token, &one, &Users::default(), NOW).is_ok(), "the broker's own key does not count");
    assert_eq!(verify(&token, &one[1..], &Users::default(), NOW).unwrap_err(), BadToken::NoKeyId);
}

#[test]
fn critical_extensions_and_other_kinds_of_objects_are_refused() {
    for header in
        [r#"{"alg":"HS256","kid":"app","crit":["b64"],"b64":false}"#, r#"{"alg":"HS256","kid":"app","crit":[]}"#]
    {
        assert_refused(&signed(header, "{}"), BadToken::Critical);
    }
    for kind in [json!("JWE"), json!("dpop+jwt"), json!("logout+jwt"), json!(1)] {
        assert_refused(
            &signed(&json!({ "alg": "HS256", "kid": "app", "typ": kind }).to_string(), "{}"),
            BadToken::Header("typ"),
        );
    }
    for kind in ["jwt", "at+jwt"] {
        let header = json!({ "alg": "HS256", "kid": "app", "typ": kind }).to_string();
        assert!(check(&signed(&header, &json!({ "sub": "a", "exp": NOW }).to_string())).is_ok(), "{kind}");
    }
}

#[test]
fn duplicated_members_are_refused() {
    for claims in [
        format!(r#"{{"sub":"alice","sub":"admin","exp":{NOW}}}"#),
        format!(r#"{{"sub":"alice","exp":1,"exp":{NOW}}}"#),
        format!(r#"{{"sub":"alice","exp":{NOW},"wsmb.send":[],"wsmb\u002esend":["*"]}}"#),
    ] {
        assert_refused(&signed(HEADER, &claims), BadToken::Duplicate);
    }
    assert_refused(&signed(r#"{"alg":"none","alg":"HS256","kid":"app"}"#, "{}"), BadToken::Duplicate);
}

#[test]
fn times_are_checked_with_a_minute_of_skew() {
    for (claims, wanted) in [
        (json!({ "exp": null }), Some(BadToken::NoExpiry)),
        (json!({ "exp": NOW - 59 }), None),
        (json!({ "exp": NOW - 60 }), Some(BadToken::Expired)),
        (json!({ "exp": 0 }), Some(BadToken::Expired)),
        (json!({ "exp": -1 }), Some(BadToken::Claim("exp"))),
        (json!({ "exp": "2030-01-01" }), Some(BadToken::Claim("exp"))),
        (json!({ "exp": (NOW + 1).to_string() }), Some(BadToken::Claim("exp"))),
        (json!({ "exp": [NOW] }), Some(BadToken::Claim("exp"))),
        (json!({ "exp": 1.0e300 }), None),
        (json!({ "exp": u64::MAX }), None),
        (json!({ "exp": NOW as f64 + 0.5 }), None),
        (json!({ "nbf": NOW + 60 }), None),
        (json!({ "nbf": NOW + 61 }), Some(BadToken::NotYetValid)),
        (json!({ "nbf": true }), Some(BadToken::Claim("nbf"))),
        (json!({ "iat": NOW + 60 }), None),
        (json!({ "iat": NOW + 61 }), Some(BadToken::FromTheFuture)),
        (json!({ "iat": "now" }), Some(BadToken::Claim("iat"))),
    ] {
        assert_eq!(check(&with_claims(&claims)).err(), wanted, "{claims}");
    }
    let grant = check(&with_claims(&json!({ "exp": NOW }))).unwrap();
    assert!(!grant.has_expired(NOW + 59) && grant.has_expired(NOW + 60));
}

#[test]
fn a_token_for_another_service_or_of_another_issuer_is_refused() {
    let demanding =
        [Arc::new(Key::new("app", Algorithm::Hs256, SECRET, Some("sms".to_owned()), Some("shop".to_owned())).unwrap())];
    for (claims, free, bound) in [
        (json!({}), None, Some(BadToken::Audience)),
        (json!({ "aud": "wsmb", "iss": "shop" }), None, Some(BadToken::Audience)),
        (json!({ "aud": "sms", "iss": "shop" }), Some(BadToken::Audience), None),
        (json!({ "aud": ["x", "sms", "wsmb"], "iss": "shop" }), None, None),
        (json!({ "aud": [], "iss": "shop" }), Some(BadToken::Audience), Some(BadToken::Audience)),
        (json!({ "aud": 7, "iss": "shop" }), Some(BadToken::Claim("aud")), Some(BadToken::Claim("aud"))),
        (json!({ "aud": ["sms"], "iss": "Shop" }), Some(BadToken::Audience), Some(BadToken::Issuer)),
        (json!({ "aud": ["sms", "wsmb"] }), None, Some(BadToken::Issuer)),
    ] {
        let token = with_claims(&claims);
        assert_eq!(check(&token).err(), free, "{claims}");
        assert_eq!(verify(&token, &demanding, &Users::default(), NOW).err(), bound, "{claims}");
    }
}

#[test]
fn claims_of_a_wrong_type_or_name_are_refused() {
    let long = "x".repeat(wsmb_core::limits::NAME_BYTES + 1);
    let many: Vec<_> = (0..=limits::TOKEN_PATTERNS).map(|number| number.to_string()).collect();
    for (claims, wanted) in [
        (json!({ "sub": null }), BadToken::Claim("sub")),
        (json!({ "sub": "" }), BadToken::Claim("sub")),
        (json!({ "sub": 7 }), BadToken::Claim("sub")),
        (json!({ "sub": "a\nb" }), BadToken::Claim("sub")),
        (json!({ "sub": long }), BadToken::Claim("sub")),
        (json!({ "wsmb.send": { "sms": true } }), BadToken::Claim("wsmb.send")),
        (json!({ "wsmb.receive": ["sms", 7] }), BadToken::Claim("wsmb.receive")),
        (json!({ "wsmb.receive": true }), BadToken::Claim("wsmb.receive")),
        (json!({ "wsmb.send": many }), BadToken::Claim("wsmb.send")),
        (json!({ "wsmb.recieve": ["sms"] }), BadToken::UnknownClaim),
        (json!({ "wsmb": { "send": ["sms"] } }), BadToken::UnknownClaim),
        (json!({ "wsmb.asker": "admin", "wsmb.mark": "x" }), BadToken::UnknownClaim),
    ] {
        assert_refused(&with_claims(&claims), wanted);
    }
}

#[test]
fn a_huge_or_garbled_token_is_refused_at_once() {
    let huge = with_claims(&json!({ "x": "y".repeat(limits::TOKEN_BYTES) }));
    assert_refused(&huge, BadToken::TooLong);
    let good = with_claims(&json!({}));
    assert!(check(&good).is_ok());
    let (signed_part, signature) = good.rsplit_once('.').unwrap();
    for garbled in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "....".to_owned(),
        format!("{good}."),
        format!("{good}.x"),
        format!("{good}="),
        format!("{good} "),
        format!("{good}\n"),
        format!("{signed_part}.{}+/", &signature[..41]),
        signed("[]", "{}"),
        signed("\"alg\"", "{}"),
        signed(HEADER, "[]"),
        signed(HEADER, "null"),
        signed(HEADER, "{\"sub\":"),
    ] {
        assert_refused(&garbled, BadToken::NotAToken);
    }
    // The last character of a signature has two bits that encode nothing; they must be zero.
    let last = good.chars().last().unwrap();
    let similar = ('A'..='z')
        .filter(|c| c.is_ascii_alphanumeric() && *c != last)
        .map(|c| format!("{}{c}", &good[..good.len() - 1]));
    assert!(similar.into_iter().all(|token| check(&token).is_err()));
}

#[test]
fn a_token_ends_with_its_key() {
    let grant = check(&with_claims(&json!({}))).unwrap();
    assert!(grant.is_still_accepted(&keys(), &Users::default()));
    for others in [vec![], vec![key("other", OTHER)], vec![key("app", OTHER)]] {
        assert!(!grant.is_still_accepted(&others, &Users::default()), "{others:?}");
        assert!(verify(&with_claims(&json!({})), &others, &Users::default(), NOW).is_err());
    }
}

#[test]
fn no_error_and_no_debug_output_shows_a_token_or_a_key() {
    let token = with_claims(&json!({ "wsmb.send": ["geheim"], "exp": 1 }));
    let bad = check(&token).unwrap_err();
    let mut shown = format!("{bad} {bad:?} {:?}", keys());
    write!(shown, "{:?}", check(&with_claims(&json!({})))).unwrap();
    for secret in [&token[..20], &token[token.len() - 20..], "geheim", SECRET, "0123"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

proptest! {
    #[test]
    fn a_change_of_any_byte_is_refused(at in 0_usize..1_000, by in 1_u8..=255) {
        let mut token = with_claims(&json!({ "wsmb.send": ["sms"] })).into_bytes();
        let at = at % token.len();
        token[at] ^= by;
        if let Ok(token) = String::from_utf8(token) {
            prop_assert!(check(&token).is_err());
        }
    }

    #[test]
    fn any_text_is_refused_without_a_panic(text in "[A-Za-z0-9_.=-]{0,200}", other in "\\PC{0,60}") {
        prop_assert!(check(&text).is_err() && check(&other).is_err());
        let _ = peek(&other);
    }

    #[test]
    fn any_signed_claims_are_read_without_a_panic(claims in "\\PC{0,80}", number in any::<f64>()) {
        let _ = check(&signed(HEADER, &claims));
        let _ = check(&signed(HEADER, &format!("{{\"sub\":\"a\",\"exp\":{number},\"nbf\":{number}}}")));
    }
}
