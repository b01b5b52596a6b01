//! `wsmb token`, tokens for the client commands, and PyJWT as an oracle.

use std::fs;
use std::path::Path;
use std::process::Command;

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
use serde_json::{Value, json};

use crate::harness::{Ended, Running, run, run_with_input, wsmb};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A directory with a key of each algorithm, and the configuration of a broker that has them.
fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    write("hs.secret", &format!("{SECRET}\n"));
    for (name, algorithm) in [("es", &PKCS_ECDSA_P256_SHA256), ("ed", &PKCS_ED25519)] {
        let pair = KeyPair::generate_for(algorithm).unwrap();
        write(&format!("{name}.pem"), &pair.serialize_pem());
        write(&format!("{name}.pub"), &pair.public_key_pem());
    }
    let key = |id: &str, algorithm: &str, file: &str, more: &str| {
        format!("[[auth.key]]\nid = \"{id}\"\nalgorithm = \"{algorithm}\"\nkey_file = \"{file}\"\n{more}")
    };
    let keys = [
        key("hs", "HS256", "hs.secret", ""),
        key("es", "ES256", "es.pub", "audience = \"sms.example\"\nissuer = \"https://app.example\"\n"),
        key("ed", "EdDSA", "ed.pub", ""),
    ]
    .concat();
    let user = "[auth]\nusers = [\"app:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\"]\n";
    write("wsmb.toml", &format!("[server]\nlisten = \"127.0.0.1:0\"\n{user}{keys}[store]\nurl = \"memory:\"\n"));
    directory
}

fn token(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = wsmb(directory);
    command.args(["token", "--config", "wsmb.toml"]).args(arguments);
    command
}

fn inspect(directory: &Path, text: &str) -> Ended {
    run_with_input(&mut token(directory, &["--inspect"]), text)
}

#[test]
fn client_commands_log_in_with_a_token() {
    let directory = directory();
    let directory = directory.path();
    let mut broker = Running::start(wsmb(directory).args(["serve", "--config", "wsmb.toml"]));
    let url = broker.stdout.wait_for("wsmb is listening on ").split_whitespace().last().unwrap().to_owned();
    for key in [&["--key-id", "hs"][..], &["--key-id", "es", "--key", "es.pem"], &["--key-id", "ed", "--key", "ed.pem"]]
    {
        let arguments = [&["--user", "alice", "--send", "sms", "--receive", "user/alice/*"], key].concat();
        let token = run(&mut token(directory, &arguments)).with(0).stdout;
        let client = |arguments: &[&str]| {
            let mut command = wsmb(directory);
            command.args(arguments).env("WSMB_URL", &url).env("WSMB_TOKEN", token.trim());
            run(&mut command)
        };
        client(&["send", "sms", "1"]).with(0);
        client(&["ping"]).with(0);
        client(&["send", "user/alice/1", "1"]).with(1).with_stderr("may not send to channel");
        client(&["receive", "sms", "--count", "1"]).with(1).with_stderr("may not receive from channel");
        fs::write(directory.join("token.txt"), &token).unwrap();
        run(wsmb(directory).args(["send", "sms", "1", "--url", &url, "--token-file", "token.txt"])).with(0);
    }
    let expired = run(&mut token(directory, &["--user", "a", "--key-id", "hs", "--ttl", "0"])).with(0).stdout;
    let mut wrong = expired.trim().to_owned();
    wrong.replace_range(wrong.len() - 4.., "AAAA");
    let refused = run(wsmb(directory).args(["ping", "--url", &url]).env("WSMB_TOKEN", &wrong)).with(1);
    assert!(refused.stderr.contains("refused the token (401): the token's signature is wrong"), "{}", refused.stderr);
    assert!(!refused.stderr.contains(&wrong), "{}", refused.stderr);
    run(wsmb(directory).args(["ping", "--url", &url]).env("WSMB_TOKEN", "a b"))
        .with(2)
        .with_stderr("the token has blanks");
}

#[test]
fn inspect_shows_the_claims_and_the_verdict_and_never_the_signature() {
    let directory = directory();
    let directory = directory.path();
    let made =
        run(&mut token(directory, &["--user", "alice", "--send", "sms", "--key-id", "hs", "--ttl", "1h", "--json"]))
            .with(0);
    let made: Value = serde_json::from_str(&made.stdout).unwrap();
    let text = made["token"].as_str().unwrap();
    let said = inspect(directory, text).with(0).stdout;
    assert!(said.contains(r#"header    {"alg":"HS256","kid":"hs","typ":"JWT"}"#), "{said}");
    assert!(said.contains(r#""sub":"alice","wsmb.receive":[],"wsmb.send":["sms"]}"#), "{said}");
    let expires = made["expires"].as_str().unwrap();
    assert!(said.contains(&format!("accepted  as the user alice until {expires}")), "{said}");
    let (signed, signature) = text.rsplit_once('.').unwrap();
    assert!(!said.contains(signature), "{said}");

    let said = inspect(directory, &format!("{signed}.AAAA")).with(1).stdout;
    assert!(said.contains("\"sub\":\"alice\"") && said.contains("refused   the token's signature is wrong"), "{said}");
    inspect(directory, "").with(1);
    fs::write(directory.join("token.txt"), format!("{text}\n")).unwrap();
    let said = run(&mut token(directory, &["--inspect", "--token-file", "token.txt", "--json"])).with(0).stdout;
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (&said["accepted"], &said["reason"], &said["claims"]["sub"]),
        (&json!(true), &Value::Null, &json!("alice"))
    );
}

#[test]
fn mistakes_with_keys_are_named() {
    let directory = directory();
    let directory = directory.path();
    for (arguments, code, words) in [
        (&["--user", "a"][..], 2, "the configuration has several keys; add --key-id with one of: hs, es, ed"),
        (&["--user", "a", "--key-id", "x"], 2, "has no [[auth.key]] with the id x; there are hs, es, ed"),
        (&["--user", "a", "--key-id", "es"], 2, "has only the public key of es; add --key FILE"),
        (&["--user", "a", "--key-id", "es", "--key", "ed.pem"], 1, "not a PEM file with a private key for ES256"),
        (&["--user", "a", "--key-id", "ed", "--key", "ed.pub"], 1, "not a PEM file with a private key for EdDSA"),
        (&["--user", "", "--key-id", "hs"], 2, "the name must have 1 to 128 bytes"),
        (&["--key-id", "hs"], 2, "--user"),
    ] {
        run(&mut token(directory, arguments)).with(code).with_stderr(words);
    }
    let other = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    fs::write(directory.join("other.pem"), other.serialize_pem()).unwrap();
    let arguments = ["--user", "a", "--key-id", "ed", "--key", "other.pem"];
    run(&mut token(directory, &arguments))
        .with(1)
        .with_stderr("would refuse this token: the token's signature is wrong");

    let text = fs::read_to_string(directory.join("wsmb.toml")).unwrap();
    for (file, replacement, words) in [
        ("hs.secret", "short", "[[auth.key]] \"hs\": the secret has 5 bytes, and HS256 needs at least 32"),
        ("hs.secret", "es.pub", "[[auth.key]] \"hs\": the secret of HS256 is a PEM file"),
        ("es.pub", "es.pem", "[[auth.key]] \"es\": this is a private key, which only the application needs"),
        ("es.pub", "ed.pub", "[[auth.key]] \"es\": this is not a PEM file with a public key for ES256"),
        ("ed.pub", "missing", "[[auth.key]] \"ed\": the key file missing cannot be read"),
    ] {
        fs::write(directory.join("short"), "short").unwrap();
        let changed = text.replace(&format!("\"{file}\""), &format!("\"{replacement}\""));
        fs::write(directory.join("changed.toml"), changed).unwrap();
        let checked = run(wsmb(directory).args(["check", "--config", "changed.toml"])).with(1);
        assert!(checked.stdout.contains(words), "{}", checked.stdout);
        run(wsmb(directory).args(["serve", "--config", "changed.toml"])).with(1).with_stderr(words);
    }
    let checked = run(wsmb(directory).args(["check", "--config", "wsmb.toml"])).with(0).stdout;
    assert!(checked.contains("hs (HS256), es (ES256), ed (EdDSA)"), "{checked}");
}

/// Debian's Python, for which Debian's packages are installed. `cargo xtask test` installs them.
const PYTHON: &str = "/usr/bin/python3";

/// Runs a Python script with PyJWT. Returns its lines.
#[track_caller]
fn python(directory: &Path, script: &str, input: &str) -> Vec<String> {
    let mut command = Command::new(PYTHON);
    let output = run_with_input(command.current_dir(directory).args(["-c", script]), input).with(0).stdout;
    output.lines().map(str::to_owned).collect()
}

#[test]
fn pyjwt_and_the_broker_agree_about_tokens() {
    let directory = directory();
    let directory = directory.path();
    let script = r#"
import jwt, time
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
# OpenSSL 3.0 does not read the form of Ed25519 keys that rcgen writes.
ed = Ed25519PrivateKey.generate()
open("ed.pem", "wb").write(ed.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
open("ed.pub", "wb").write(ed.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
now = int(time.time())
keys = {"hs": ("HS256", open("hs.secret").read().strip()), "es": ("ES256", open("es.pem").read()), "ed": ("EdDSA", open("ed.pem").read())}
claims = {"sub": "alice", "exp": now + 600, "aud": ["wsmb", "sms.example"], "iss": "https://app.example", "wsmb.send": ["sms"]}
for kid, (algorithm, key) in keys.items():
    for change, good in [({}, 1), ({"nbf": now}, 1), ({"exp": now - 90}, 0), ({"nbf": now + 600}, 0), ({"aud": "x"}, 0)]:
        print(good, jwt.encode({**claims, **change}, key, algorithm=algorithm, headers={"kid": kid}))
    print(0, jwt.encode(claims, None, algorithm="none", headers={"kid": kid}))
    print(0, jwt.encode(claims, "x" * 64, algorithm="HS512", headers={"kid": kid}))
    print(0, jwt.encode(claims, "x" * 64, algorithm="HS256", headers={"kid": kid}))
"#;
    let lines = python(directory, script, "");
    assert_eq!(lines.len(), 3 * 8);
    for line in lines {
        let (good, token) = line.split_once(' ').unwrap();
        let said = inspect(directory, token);
        assert_eq!(said.code, Some(i32::from(good == "0")), "{}", said.stdout);
    }
    let script = r#"
import jwt, sys
for line in sys.stdin.read().split():
    kid = jwt.get_unverified_header(line)["kid"]
    algorithm, file = {"hs": ("HS256", "hs.secret"), "es": ("ES256", "es.pub"), "ed": ("EdDSA", "ed.pub")}[kid]
    audience = "sms.example" if kid == "es" else None
    claims = jwt.decode(line, open(file).read().strip(), algorithms=[algorithm], audience=audience)
    print(kid, claims["sub"], claims["wsmb.send"], claims["wsmb.receive"])
"#;
    let made =
        [&["--key-id", "hs"][..], &["--key-id", "es", "--key", "es.pem"], &["--key-id", "ed", "--key", "ed.pem"]].map(
            |key| run(&mut token(directory, &[&["--user", "böb", "--receive", "a*"], key].concat())).with(0).stdout,
        );
    let lines = python(directory, script, &made.join("\n"));
    assert_eq!(lines, ["hs böb [] ['a*']", "es böb [] ['a*']", "ed böb [] ['a*']"]);
}
