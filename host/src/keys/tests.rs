//! Keys: what parses, what signs, what is refused.

use aws_lc_rs::encoding::{AsDer, EcPrivateKeyRfc5915Der, Pkcs8V1Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, KeyPair};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};

use super::jwt::reads_as_jws;
use super::*;
use crate::model::time::UnixTime;

const NOW: UnixTime = UnixTime::from_secs(1_700_000_000);
const HMAC_KEY: &str = "0123456789abcdef0123456789abcdef";

fn pem(label: &str, der: &[u8]) -> Secret<String> {
    let body = STANDARD.encode(der);
    let lines: Vec<&str> = body
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    Secret::new(format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    ))
}

struct Pair {
    pkcs8: Vec<u8>,
    public: Vec<u8>,
}

fn rsa() -> Pair {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let pkcs8 = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair)
        .unwrap()
        .as_ref()
        .to_vec();
    Pair {
        pkcs8,
        public: pair.public_key().as_ref().to_vec(),
    }
}

fn ec() -> (Pair, Vec<u8>) {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let pkcs8 = pair.to_pkcs8v1().unwrap().as_ref().to_vec();
    let sec1 = AsDer::<EcPrivateKeyRfc5915Der<'_>>::as_der(&pair.private_key())
        .unwrap()
        .as_ref()
        .to_vec();
    (
        Pair {
            pkcs8,
            public: pair.public_key().as_ref().to_vec(),
        },
        sec1,
    )
}

fn ed() -> Pair {
    let pair = Ed25519KeyPair::generate().unwrap();
    Pair {
        pkcs8: pair.to_pkcs8v1().unwrap().as_ref().to_vec(),
        public: pair.public_key().as_ref().to_vec(),
    }
}

fn claims(more: Value) -> String {
    let mut claims = json!({ "iss": "svc", "exp": NOW.as_secs() + 300 });
    claims
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    claims.to_string()
}

fn verified(token: &Secret<String>, alg: Algorithm, key: &DecodingKey) -> (Value, Value) {
    let mut rules = Validation::new(alg);
    rules.validate_exp = false;
    rules.validate_aud = false;
    let token = jsonwebtoken::decode::<Value>(token.expose(), key, &rules).unwrap();
    (serde_json::to_value(token.header).unwrap(), token.claims)
}

#[test]
fn every_algorithm_makes_a_jwt_that_another_library_verifies() {
    let rsa = rsa();
    let (ec, sec1) = ec();
    let ed = ed();
    // PKCS#1 lies inside PKCS#8 after 26 bytes of wrapping, for an RSA key of this size.
    let pkcs1 = pem("RSA PRIVATE KEY", &rsa.pkcs8[26..]);
    let folded = Secret::new(pem("PRIVATE KEY", &ed.pkcs8).expose().replace('\n', "\\n"));
    let base64 = Secret::new(format!("base64:{}", STANDARD.encode(HMAC_KEY)));
    let rsa_key = DecodingKey::from_rsa_der(&rsa.public);
    let ec_key = DecodingKey::from_ec_der(&ec.public);
    let ed_key = DecodingKey::from_ed_der(&ed.public);
    let hmac_key = DecodingKey::from_secret(HMAC_KEY.as_bytes());
    let cases = [
        (
            SigningAlg::Rs256,
            pem("PRIVATE KEY", &rsa.pkcs8),
            Algorithm::RS256,
            &rsa_key,
        ),
        (SigningAlg::Rs256, pkcs1, Algorithm::RS256, &rsa_key),
        (
            SigningAlg::Es256,
            pem("PRIVATE KEY", &ec.pkcs8),
            Algorithm::ES256,
            &ec_key,
        ),
        (
            SigningAlg::Es256,
            pem("EC PRIVATE KEY", &sec1),
            Algorithm::ES256,
            &ec_key,
        ),
        (
            SigningAlg::EdDsa,
            pem("PRIVATE KEY", &ed.pkcs8),
            Algorithm::EdDSA,
            &ed_key,
        ),
        (SigningAlg::EdDsa, folded, Algorithm::EdDSA, &ed_key),
        (
            SigningAlg::Hs256,
            HMAC_KEY.into(),
            Algorithm::HS256,
            &hmac_key,
        ),
        (SigningAlg::Hs256, base64, Algorithm::HS256, &hmac_key),
    ];
    for (alg, value, algorithm, decoding) in cases {
        let key = SigningKey::parse(alg, &value, Some("k1")).unwrap();
        assert_eq!(key.alg(), alg);
        let token = key
            .sign_jwt("{}", &claims(json!({ "sub": "ü" })), &[], NOW)
            .unwrap();
        let (header, claims) = verified(&token, algorithm, decoding);
        assert_eq!(
            header,
            json!({ "alg": alg.name(), "kid": "k1", "typ": "JWT" })
        );
        assert_eq!(claims["sub"], "ü");
    }
}

#[test]
fn a_wrong_key_says_what_was_found_and_what_is_expected() {
    let rsa = pem("PRIVATE KEY", &rsa().pkcs8);
    let (ec, _) = ec();
    let ec = pem("PRIVATE KEY", &ec.pkcs8);
    let p384 = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
    let p384 = pem("PRIVATE KEY", p384.to_pkcs8v1().unwrap().as_ref());
    let broken = Secret::from("-----BEGIN PRIVATE KEY-----\n!!\n-----END PRIVATE KEY-----\n");
    let cases: [(SigningAlg, Secret<String>, &str); 11] = [
        (SigningAlg::Es256, rsa.clone(), "found an RSA key"),
        (SigningAlg::Rs256, ec.clone(), "found a P-256 key"),
        (SigningAlg::EdDsa, ec, "found a P-256 key"),
        (
            SigningAlg::Es256,
            p384,
            "found a key of another kind, curve or size",
        ),
        (
            SigningAlg::Rs256,
            "hunter2hunter2".into(),
            "found no PEM armour",
        ),
        (SigningAlg::Rs256, broken, "found PEM that does not decode"),
        (
            SigningAlg::Rs256,
            pem("PUBLIC KEY", b"x"),
            "found a public key",
        ),
        (
            SigningAlg::Rs256,
            pem("ENCRYPTED PRIVATE KEY", b"x"),
            "decrypt it first",
        ),
        (SigningAlg::Hs256, rsa, "found a PEM file"),
        (SigningAlg::Hs256, "".into(), "too short"),
        (SigningAlg::Hs256, "base64:!".into(), "not base64"),
    ];
    for (alg, value, words) in cases {
        let error = SigningKey::parse(alg, &value, None).unwrap_err();
        assert!(error.to_string().contains(words), "{alg:?}: {error}");
        assert!(!error.to_string().contains("hunter2"));
    }
    assert_eq!(SigningAlg::parse("none"), Err(KeyError::Algorithm));
    assert_eq!(SigningAlg::parse("HS512"), Err(KeyError::Algorithm));
}

#[test]
fn header_parameters_that_choose_another_key_or_algorithm_are_refused() {
    let key = SigningKey::parse(SigningAlg::Hs256, &HMAC_KEY.into(), Some("k1")).unwrap();
    let sign = |header: Value| key.sign_jwt(&header.to_string(), &claims(json!({})), &[], NOW);
    for name in ["alg", "kid", "crit", "jwk", "jku", "x5u", "b64"] {
        let refused = sign(json!({ name: "none" })).unwrap_err();
        assert_eq!(refused, JwtFault::Parameter(name.to_owned()));
    }
    let token =
        sign(json!({ "alg": "HS256", "kid": "k1", "typ": "at+jwt", "x5t": "abc" })).unwrap();
    let (header, _) = verified(
        &token,
        Algorithm::HS256,
        &DecodingKey::from_secret(HMAC_KEY.as_bytes()),
    );
    assert_eq!(
        header,
        json!({ "alg": "HS256", "kid": "k1", "typ": "at+jwt", "x5t": "abc" })
    );
    for bad in ["", "[]", "{", "null", "{} {}"] {
        assert_eq!(
            key.sign_jwt(bad, "{}", &[], NOW).unwrap_err(),
            JwtFault::NotAnObject("header")
        );
    }
}

#[test]
fn a_jwt_ends_within_the_hour_and_names_granted_audiences_only() {
    let key = SigningKey::parse(SigningAlg::Hs256, &HMAC_KEY.into(), None).unwrap();
    let granted = ["https://login.acme.example".to_owned()];
    let sign = |claims: Value| key.sign_jwt("{}", &claims.to_string(), &granted, NOW);
    let now = NOW.as_secs();
    for exp in [
        json!(null),
        json!("soon"),
        json!(-1),
        json!(now),
        json!(now + 3601),
        json!(1.0e300),
    ] {
        assert!(
            matches!(sign(json!({ "exp": exp })), Err(JwtFault::Expiry(_))),
            "{exp}"
        );
    }
    for aud in [
        json!("https://evil.example"),
        json!(["https://login.acme.example", "https://evil.example"]),
    ] {
        assert!(
            matches!(
                sign(json!({ "exp": now + 60, "aud": aud })),
                Err(JwtFault::Audience(_))
            ),
            "{aud}"
        );
    }
    for aud in [json!(1), json!([1]), json!(null), json!({})] {
        assert_eq!(
            sign(json!({ "exp": now + 60, "aud": aud })).unwrap_err(),
            JwtFault::AudienceShape
        );
    }
    for aud in [
        json!("https://login.acme.example/"),
        json!(["https://login.acme.example"]),
        json!([]),
    ] {
        assert!(
            sign(json!({ "exp": now + 3600, "aud": aud })).is_ok(),
            "{aud}"
        );
    }
    let twice = format!(
        r#"{{"exp":{0},"aud":"https://evil.example","exp":{0},"aud":[]}}"#,
        now + 60
    );
    let token = key.sign_jwt("{}", &twice, &granted, NOW).unwrap();
    let (_, claims) = verified(
        &token,
        Algorithm::HS256,
        &DecodingKey::from_secret(HMAC_KEY.as_bytes()),
    );
    assert_eq!(
        claims["aud"],
        json!([]),
        "what was checked is what was signed"
    );
}

#[test]
fn a_short_hmac_key_signs_bytes_and_no_jwt() {
    let key = SigningKey::parse(SigningAlg::Hs256, &"Jefe".into(), None).unwrap();
    // RFC 4231, section 4.3.
    let mac = key
        .sign_bytes(b"what do ya want for nothing?", BytesEncoding::Hex)
        .unwrap();
    assert_eq!(
        mac.expose(),
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    );
    let mac = key
        .sign_bytes(b"what do ya want for nothing?", BytesEncoding::Base64)
        .unwrap();
    assert_eq!(mac.expose(), "W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEM=");
    let refused = key
        .sign_jwt("{}", &claims(json!({})), &[], NOW)
        .unwrap_err();
    assert_eq!(
        refused,
        JwtFault::Key(KeyError::TooShort {
            alg: SigningAlg::Hs256
        })
    );
}

#[test]
fn bytes_that_a_verifier_could_read_as_a_jwt_are_recognised() {
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#);
    for payload in [
        format!("{header}.e30"),
        format!("{header}="),
        format!(" {header}=.x.y"),
        format!("{header}."),
    ] {
        assert_eq!(reads_as_jws(&payload), payload.contains('.'), "{payload}");
    }
    for payload in [
        "",
        "a.b",
        "POST\nhttps://api.example/x?a.b",
        "1700000000.{\"a\":1}",
    ] {
        assert!(!reads_as_jws(payload), "{payload}");
    }
}

#[test]
fn a_key_does_not_print() {
    let key = SigningKey::parse(SigningAlg::Hs256, &HMAC_KEY.into(), Some("k1")).unwrap();
    assert_eq!(format!("{key:?}"), "HS256 key");
}
