//! Tests of keys and signatures, also of keys that OpenSSL has made.

use super::*;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

#[test]
fn hmac_is_that_of_rfc_4231() {
    // Test case 2.
    let code = authentication_code(b"Jefe", b"what do ya want for nothing?").unwrap();
    assert_eq!(
        STANDARD.encode(code),
        STANDARD.encode(b"\x5b\xdc\xc1\x46\xbf\x60\x75\x4e\x6a\x04\x24\x26\x08\x95\x75\xc7\x5a\x00\x3f\x08\x9d\x27\x39\x83\x9d\xec\x58\xb9\x64\xec\x38\x43")
    );
}

#[test]
fn a_secret_is_taken_as_it_is_or_in_base64_and_has_at_least_32_bytes() {
    let plain = Verifying::parse(Algorithm::Hs256, &format!("{SECRET}\n")).unwrap();
    let encoded = Verifying::parse(Algorithm::Hs256, &format!("base64: {}\n", STANDARD.encode(SECRET))).unwrap();
    assert_eq!(plain, encoded);
    assert!(plain.verify(b"x", &plain.to_signing().unwrap().sign(b"x").unwrap()));
    for (text, bad) in [
        ("", BadKey::Short(0)),
        (" \n", BadKey::Short(0)),
        (&SECRET[1..], BadKey::Short(31)),
        ("base64:", BadKey::Short(0)),
        ("base64:????", BadKey::Base64),
        ("-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n", BadKey::PemAsSecret),
    ] {
        assert_eq!(Verifying::parse(Algorithm::Hs256, text), Err(bad), "{text:?}");
        assert_eq!(Signing::parse(Algorithm::Hs256, text).unwrap_err(), bad, "{text:?}");
    }
    assert!(!format!("{plain:?} {:?}", plain.to_signing()).contains("0123"));
}

#[test]
fn a_cut_or_lengthened_or_empty_signature_is_wrong() {
    let key = Verifying::parse(Algorithm::Hs256, SECRET).unwrap();
    let signature = key.to_signing().unwrap().sign(b"x").unwrap();
    assert!(key.verify(b"x", &signature));
    for wrong in [&b""[..], &signature[..31], &[signature.as_slice(), b"\0"].concat(), &[0; 32]] {
        assert!(!key.verify(b"x", wrong), "{wrong:?}");
    }
    assert!(!key.verify(b"y", &signature));
}

#[cfg(feature = "signatures")]
mod public_keys {
    use super::*;

    /// Keys that OpenSSL has made: `openssl genpkey -algorithm ed25519`, and `-algorithm EC -pkeyopt ec_paramgen_curve:P-256`, with their public keys.
    const ED25519: [&str; 2] = [
        "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIL7KnKSVPVB95jvN0ACTBz67rOeZQYXc21WPBwTv+GSr\n-----END PRIVATE KEY-----\n",
        "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAPO9sauBD2yLXR3VXO55pDRsETMRAkjYhDayjo0UTMZw=\n-----END PUBLIC KEY-----\n",
    ];
    const P256: [&str; 2] = [
        "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgT1TA45H6Z4dlwftk\nPTca5F/IqxMgbEbQ/XjGF+G1vSuhRANCAATJ9uXFb9GZcVCBm2fG0lB93YiVjxCr\n0zsu51nJfO5jIiIAIlvf4i+s3yHmn2bz0y4vfofIr5dGKg0V4sx3+HYZ\n-----END PRIVATE KEY-----\n",
        "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEyfblxW/RmXFQgZtnxtJQfd2IlY8Q\nq9M7LudZyXzuYyIiACJb3+IvrN8h5p9m89MuL36HyK+XRioNFeLMd/h2GQ==\n-----END PUBLIC KEY-----\n",
    ];

    #[test]
    fn keys_of_openssl_sign_and_verify() {
        for (algorithm, [private, public]) in [(Algorithm::EdDsa, ED25519), (Algorithm::Es256, P256)] {
            let (signing, verifying) =
                (Signing::parse(algorithm, private).unwrap(), Verifying::parse(algorithm, public).unwrap());
            let signature = signing.sign(b"message").unwrap();
            assert_eq!((signing.algorithm(), signature.len()), (algorithm, 64));
            assert!(verifying.verify(b"message", &signature));
            assert!(!verifying.verify(b"another", &signature) && !verifying.verify(b"message", &signature[1..]));
            // An ES256 signature of zeros was accepted by some libraries (CVE-2022-21449).
            assert!(!verifying.verify(b"message", &[0; 64]) && !verifying.verify(b"message", b""));
            assert!(verifying.to_signing().is_none() && verifying.mark(b"x").is_none());
        }
    }

    #[test]
    fn a_key_of_another_kind_is_refused_with_a_sentence() {
        for (algorithm, text, bad) in [
            (Algorithm::Es256, ED25519[1], BadKey::NotPublic(Algorithm::Es256)),
            (Algorithm::EdDsa, P256[1], BadKey::NotPublic(Algorithm::EdDsa)),
            (Algorithm::EdDsa, ED25519[0], BadKey::Private),
            (Algorithm::Es256, P256[0], BadKey::Private),
            (Algorithm::Es256, SECRET, BadKey::NotPublic(Algorithm::Es256)),
            (Algorithm::EdDsa, "", BadKey::NotPublic(Algorithm::EdDsa)),
        ] {
            assert_eq!(Verifying::parse(algorithm, text), Err(bad), "{algorithm}");
        }
        for (algorithm, text) in
            [(Algorithm::Es256, ED25519[0]), (Algorithm::EdDsa, P256[0]), (Algorithm::EdDsa, P256[1])]
        {
            assert_eq!(Signing::parse(algorithm, text).unwrap_err(), BadKey::NotPrivate(algorithm));
        }
        assert!(BadKey::Private.to_string().contains("openssl pkey -in FILE -pubout"));
    }
}
