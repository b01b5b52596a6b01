//! Tests of the tokens that the broker issues.

use std::sync::Arc;

use super::*;
use crate::Credentials;
use crate::token::{Grant, verify};

const NOW: u64 = 1_800_000_000;
/// The passwords `secret` and `other` of the user `shop`.
const SHOP: &str = "shop:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=";
const SHOP_CHANGED: &str = "shop:{SHA}0JQeaNqPOBUf+Gph/Fn3xc+fyqI=";

fn users(entries: &[&str]) -> Arc<Users> {
    let entries: Vec<String> = entries.iter().map(ToString::to_string).collect();
    Credentials::load(&[], &entries).users()
}

fn list(patterns: &[&str]) -> Vec<String> {
    patterns.iter().map(ToString::to_string).collect()
}

fn permissions() -> Permissions {
    Permissions::default().with(&["shop"], &list(&["sms", "mail.*"]), &list(&["user/*"]))
}

const SHOP_ASKS: Asker<'static> = Asker { user: "shop", is_admin: false, has_token: false };

fn request(send: &[&str], receive: &[&str]) -> TokenRequest {
    TokenRequest { send: list(send), receive: list(receive), ..TokenRequest::default() }
}

fn ask(asker: Asker<'_>, request: &TokenRequest) -> Result<IssuedToken, IssueError> {
    issue(&Key::own([7; 32]), asker, &permissions(), &users(&[SHOP]), request, NOW)
}

fn grant(token: &str, users: &Users) -> Result<Grant, crate::BadToken> {
    verify(token, &[Arc::new(Key::own([7; 32]))], users, NOW)
}

#[test]
fn an_issued_token_is_accepted_with_the_rights_that_were_asked_for() {
    let issued = ask(SHOP_ASKS, &request(&["sms"], &["user/42/*"])).unwrap();
    assert_eq!((issued.user.as_str(), issued.expires), ("shop", NOW + 900));
    let grant = grant(&issued.token, &users(&[SHOP])).unwrap();
    assert_eq!((&**grant.user(), grant.expires()), ("shop", NOW + 900));
    for (channel, send, receive) in
        [("sms", true, false), ("mail.1", false, false), ("user/42/x", false, true), ("user/43/x", false, false)]
    {
        assert_eq!(grant.may_send(&permissions(), channel), send, "{channel}");
        assert_eq!(grant.may_receive(&permissions(), channel), receive, "{channel}");
    }
    assert!(!format!("{issued:?}").contains(&issued.token));
}

#[test]
fn nobody_gives_a_right_that_he_does_not_have() {
    for (send, receive, wanted) in [
        (&["*"][..], &[][..], Some(("send", "*"))),
        (&["sms", "mail*"], &[], Some(("send", "mail*"))),
        (&["sms?"], &[], Some(("send", "sms?"))),
        (&["user/1"], &[], Some(("send", "user/1"))),
        (&[], &["sms"], Some(("receive", "sms"))),
        (&[], &["user*"], Some(("receive", "user*"))),
        (&["mail.1", "mail.*", "mail.?x"], &["user/*", "user/"], None),
    ] {
        let found = ask(SHOP_ASKS, &request(send, receive)).err();
        let wanted = wanted.map(|(right, pattern)| IssueError::Right(right, pattern.to_owned()));
        assert_eq!(found, wanted, "{send:?} {receive:?}");
        assert!(found.is_none_or(|error| error.is_forbidden() && error.to_string().starts_with("you may not ")));
    }
}

#[test]
fn a_right_that_the_asker_loses_is_lost_to_the_token() {
    let issued = ask(SHOP_ASKS, &request(&["sms", "mail.*"], &[])).unwrap();
    let grant = grant(&issued.token, &users(&[SHOP])).unwrap();
    let less = Permissions::default().with(&["shop"], &list(&["mail.1"]), &[]);
    assert!(!grant.may_send(&less, "sms") && grant.may_send(&less, "mail.1") && !grant.may_send(&less, "mail.2"));
}

#[test]
fn a_token_ends_when_its_asker_is_removed_or_has_another_password() {
    let issued = ask(SHOP_ASKS, &request(&["sms"], &[])).unwrap();
    let before = grant(&issued.token, &users(&[SHOP])).unwrap();
    let keys = [Arc::new(Key::own([7; 32]))];
    assert!(before.is_still_accepted(&keys, &users(&[SHOP, "b:{SHA}0JQeaNqPOBUf+Gph/Fn3xc+fyqI="])));
    for changed in [users(&[]), users(&[SHOP_CHANGED])] {
        assert!(!before.is_still_accepted(&keys, &changed));
        assert_eq!(grant(&issued.token, &changed).unwrap_err(), crate::BadToken::AskerChanged);
    }
}

#[test]
fn a_token_of_another_broker_is_refused() {
    let issued = ask(SHOP_ASKS, &request(&["sms"], &[])).unwrap();
    let other = [Arc::new(Key::own([8; 32]))];
    assert_eq!(verify(&issued.token, &other, &users(&[SHOP]), NOW).unwrap_err(), crate::BadToken::Signature);
}

#[test]
fn only_an_administrator_names_another_user() {
    let other = |user: &str| TokenRequest { user: Some(user.to_owned()), ..request(&["sms"], &[]) };
    assert_eq!(ask(SHOP_ASKS, &other("alice")), Err(IssueError::OtherUser));
    assert_eq!(ask(SHOP_ASKS, &other("shop")).unwrap().user, "shop");
    let admin = Asker { is_admin: true, ..SHOP_ASKS };
    assert_eq!(ask(admin, &other("alice")).unwrap().user, "alice");
    assert_eq!(ask(admin, &other("")), Err(IssueError::UserName));
    assert_eq!(ask(admin, &other("a\nb")), Err(IssueError::UserName));
    assert!(
        ask(admin, &TokenRequest { send: list(&["*"]), ..other("alice") }).is_err(),
        "an administrator gives no more rights, either"
    );
}

#[test]
fn only_a_user_with_a_password_gets_a_token() {
    let wanted = request(&["sms"], &[]);
    assert_eq!(ask(Asker { has_token: true, ..SHOP_ASKS }, &wanted), Err(IssueError::HasToken));
    for user in ["", "nobody"] {
        assert_eq!(ask(Asker { user, ..SHOP_ASKS }, &wanted), Err(IssueError::NoPassword));
    }
}

#[test]
fn time_and_size_of_a_token_are_bounded() {
    let of = |seconds: u64| TokenRequest { ttl: Some(Duration::from_secs(seconds)), ..request(&["sms"], &[]) };
    assert_eq!(ask(SHOP_ASKS, &of(86_400)).unwrap().expires, NOW + 86_400);
    for seconds in [0, 86_401, u64::MAX] {
        assert_eq!(ask(SHOP_ASKS, &of(seconds)), Err(IssueError::Ttl));
    }
    assert_eq!(ask(SHOP_ASKS, &request(&[], &[])), Err(IssueError::NoChannels));
    let many = vec!["sms"; limits::TOKEN_PATTERNS + 1];
    assert_eq!(ask(SHOP_ASKS, &request(&many, &[])), Err(IssueError::TooLong));
    let long = format!("mail.{}", "x".repeat(4_000));
    assert_eq!(ask(SHOP_ASKS, &request(&[&long], &[])), Err(IssueError::TooLong));
}
