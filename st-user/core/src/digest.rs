//! Answers to 401 and 407 (RFC 3261, section 22; RFC 7616): Digest with MD5 or SHA-256, with `qop=auth` or without.
//!
//! The password goes into the hash as it lies in memory: no copy of it is made, and what is derived from it is zeroed.

use std::fmt::Write as _;

use md5::{Digest, Md5};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::{Zeroize as _, Zeroizing};

use crate::{
    Credentials,
    message::{Challenge, Elements, HeaderName, Message, MethodName},
};

/// How many challenges of one response are answered: one for each realm on the way.
pub const MAX_ANSWERS: usize = 4;

/// Why a challenge is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// A 401 or 407 without a challenge.
    #[error("there is no challenge")]
    Absent,
    /// Not the Digest scheme.
    #[error("the scheme is not Digest")]
    Scheme,
    /// Realm or nonce is missing, or the challenge is garbled.
    #[error("realm or nonce is missing or garbled")]
    Garbled,
    /// Neither MD5 nor SHA-256.
    #[error("the algorithm is neither MD5 nor SHA-256")]
    Algorithm,
    /// A quality of protection is asked for, but not `auth`.
    #[error("the quality of protection cannot be auth")]
    Qop,
    /// The Request-URI cannot be signed: not UTF-8, or blanks or quotes in it.
    #[error("the Request-URI cannot be signed")]
    Request,
    /// More than [`MAX_ANSWERS`] realms.
    #[error("more than {MAX_ANSWERS} realms")]
    TooMany,
}

/// An Authorization or Proxy-Authorization.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    proxy: bool,
    realm: String,
    value: String,
}

impl Answer {
    /// Which header.
    pub const fn header(&self) -> HeaderName {
        if self.proxy { HeaderName::ProxyAuthorization } else { HeaderName::Authorization }
    }

    /// The header's value.
    pub fn value(&self) -> &[u8] {
        self.value.as_bytes()
    }

    /// The realm that it is for.
    pub fn realm(&self) -> &str {
        &self.realm
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").field("proxy", &self.proxy).field("realm", &self.realm).finish_non_exhaustive()
    }
}

/// What is signed.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The method of the request that will carry the answer.
    pub method: MethodName,
    /// Its Request-URI.
    pub uri: &'a [u8],
    /// A fresh random word of letters and digits.
    pub cnonce: &'a str,
}

/// Answers all challenges of a response: for each realm the first that can be answered (RFC 8760, section 2.4).
pub fn answers(
    response: &Message<'_>,
    request: &Request<'_>,
    credentials: &Credentials,
) -> Result<Vec<Answer>, DigestError> {
    let mut found: Vec<Answer> = Vec::new();
    let mut failed = DigestError::Absent;
    for challenge in response.challenges() {
        match answer(&challenge, request, credentials) {
            Ok(answer) if found.iter().any(|a| a.proxy == answer.proxy && a.realm == answer.realm) => {}
            Ok(_) if found.len() == MAX_ANSWERS => return Err(DigestError::TooMany),
            Ok(answer) => found.push(answer),
            Err(error) => failed = error,
        }
    }
    if found.is_empty() { Err(failed) } else { Ok(found) }
}

/// Answers one challenge.
pub fn answer(
    challenge: &Challenge<'_>,
    request: &Request<'_>,
    credentials: &Credentials,
) -> Result<Answer, DigestError> {
    let asked = Asked::parse(challenge.value)?;
    let uri = std::str::from_utf8(request.uri).map_err(|_| DigestError::Request)?;
    if uri.contains(|c: char| c == '"' || c.is_ascii_whitespace()) {
        return Err(DigestError::Request);
    }
    let response = match asked.algorithm {
        None | Some(Algorithm::Md5) => response::<Md5>(&asked, request, credentials),
        Some(Algorithm::Sha256) => response::<Sha256>(&asked, request, credentials),
    };
    let response = response.as_str();
    let username = credentials.username.replace('\\', "\\\\").replace('"', "\\\"");
    let mut value = format!(
        "Digest username=\"{username}\", realm=\"{}\", nonce=\"{}\", uri=\"{uri}\", response=\"{response}\"",
        asked.realm, asked.nonce
    );
    if let Some(algorithm) = asked.algorithm {
        value.push_str(&format!(", algorithm={}", algorithm.name()));
    }
    if let Some(opaque) = asked.opaque {
        value.push_str(&format!(", opaque=\"{opaque}\""));
    }
    if asked.qop {
        value.push_str(&format!(", qop=auth, nc={COUNT}, cnonce=\"{}\"", request.cnonce));
    }
    Ok(Answer { proxy: challenge.proxy, realm: asked.realm.to_owned(), value })
}

/// How often the nonce was used: once.
const COUNT: &str = "00000001";

/// RFC 7616, section 3.4.1.
fn response<D: Digest>(asked: &Asked<'_>, request: &Request<'_>, credentials: &Credentials) -> Zeroizing<String> {
    let Credentials { username, password } = credentials;
    let secret = hash::<D>(&[username.as_bytes(), asked.realm.as_bytes(), password.expose_secret().as_bytes()]);
    let signed = hash::<D>(&[request.method.name().as_bytes(), request.uri]);
    let (secret, nonce, signed) = (secret.as_bytes(), asked.nonce.as_bytes(), signed.as_bytes());
    if asked.qop {
        hash::<D>(&[secret, nonce, COUNT.as_bytes(), request.cnonce.as_bytes(), b"auth", signed])
    } else {
        hash::<D>(&[secret, nonce, signed])
    }
}

/// The hash of the parts with colons between them, in lower-case hexadecimal.
fn hash<D: Digest>(parts: &[&[u8]]) -> Zeroizing<String> {
    let mut hash = D::new();
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            hash.update(b":");
        }
        hash.update(part);
    }
    let mut sum = hash.finalize();
    // With room for all from the start: to grow would leave a copy behind.
    let mut text = Zeroizing::new(String::with_capacity(2 * sum.len()));
    for byte in &sum {
        let _ = write!(text, "{byte:02x}");
    }
    sum.as_mut_slice().zeroize();
    text
}

/// What the response is computed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Md5,
    Sha256,
}

impl Algorithm {
    /// As it is written on the wire.
    const fn name(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Sha256 => "SHA-256",
        }
    }
}

/// A challenge taken apart. Quoted values are without their quotes, escapes as they are.
struct Asked<'a> {
    realm: &'a str,
    nonce: &'a str,
    opaque: Option<&'a str>,
    algorithm: Option<Algorithm>,
    qop: bool,
}

impl<'a> Asked<'a> {
    fn parse(value: &'a [u8]) -> Result<Self, DigestError> {
        let value = value.trim_ascii();
        let (scheme, rest) = value.split_at(value.iter().position(u8::is_ascii_whitespace).unwrap_or(value.len()));
        if !scheme.eq_ignore_ascii_case(b"Digest") {
            return Err(DigestError::Scheme);
        }
        let (mut realm, mut nonce, mut opaque, mut algorithm, mut qop) = (None, None, None, None, None);
        for param in Elements::new(rest) {
            let Some(at) = param.iter().position(|&b| b == b'=') else { continue };
            let (name, value) = (param[..at].trim_ascii(), param[at + 1..].trim_ascii());
            let place = match &*name.to_ascii_lowercase() {
                b"realm" => &mut realm,
                b"nonce" => &mut nonce,
                b"opaque" => &mut opaque,
                b"algorithm" => &mut algorithm,
                b"qop" => &mut qop,
                _ => continue,
            };
            if place.replace(text(value)?).is_some() {
                return Err(DigestError::Garbled);
            }
        }
        let algorithm = match algorithm {
            None => None,
            Some(name) if name.eq_ignore_ascii_case(Algorithm::Md5.name()) => Some(Algorithm::Md5),
            Some(name) if name.eq_ignore_ascii_case(Algorithm::Sha256.name()) => Some(Algorithm::Sha256),
            Some(_) => return Err(DigestError::Algorithm),
        };
        if qop.is_some_and(|list| !list.split(',').any(|option| option.trim().eq_ignore_ascii_case("auth"))) {
            return Err(DigestError::Qop);
        }
        let (Some(realm), Some(nonce)) = (realm, nonce) else { return Err(DigestError::Garbled) };
        Ok(Self { realm, nonce, opaque, algorithm, qop: qop.is_some() })
    }
}

/// A parameter's value without its quotes. Refused is what could not be written back between quotes.
fn text(value: &[u8]) -> Result<&str, DigestError> {
    let (inner, quoted) = match value {
        [b'"', inner @ .., b'"'] => (inner, true),
        _ => (value, false),
    };
    let mut escaped = false;
    for &b in inner {
        if b.is_ascii_control() || (b == b'"' && !escaped) || (b == b'\\' && !quoted) {
            return Err(DigestError::Garbled);
        }
        escaped = b == b'\\' && !escaped;
    }
    if escaped {
        return Err(DigestError::Garbled);
    }
    std::str::from_utf8(inner).map_err(|_| DigestError::Garbled)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RFC_2617: &[u8] = b"Digest realm=\"testrealm@host.com\",\r\n qop=\"auth,auth-int\",\r\n \
        nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", opaque=\"5ccc069c403ebaf9f0171e9517f40e41\"";

    const NONCE_7616: &str = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v";
    const CNONCE_7616: &str = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";

    fn credentials(username: &str, password: &str) -> Credentials {
        Credentials { username: username.into(), password: password.into() }
    }

    fn ask(value: &[u8]) -> Challenge<'_> {
        Challenge { proxy: false, value }
    }

    fn sign<'a>(method: MethodName, uri: &'a str, cnonce: &'a str) -> Request<'a> {
        Request { method, uri: uri.as_bytes(), cnonce }
    }

    fn value(answer: Result<Answer, DigestError>) -> String {
        String::from_utf8(answer.unwrap().value().to_vec()).unwrap()
    }

    // The RFCs' own examples with a SIP method in the place of GET, which SIP lacks. The responses were computed apart
    // from this code, by what gives the RFCs' own responses for GET.

    #[test]
    fn f17_rfc_2617_example_with_qop() {
        let request = sign(MethodName::Invite, "/dir/index.html", "0a4f113b");
        let mufasa = credentials("Mufasa", "Circle Of Life");
        assert_eq!(
            value(answer(&ask(RFC_2617), &request, &mufasa)),
            "Digest username=\"Mufasa\", realm=\"testrealm@host.com\", nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", \
             uri=\"/dir/index.html\", response=\"65ec046479396d60f5eaa08006a1c351\", \
             opaque=\"5ccc069c403ebaf9f0171e9517f40e41\", qop=auth, nc=00000001, cnonce=\"0a4f113b\""
        );
    }

    #[test]
    fn f17_rfc_2617_example_without_qop() {
        let challenge = b"digest NONCE = \"dcd98b7102dd2f0e8b11d0f600bfb0c093\" , Realm=\"testrealm@host.com\"";
        let request = sign(MethodName::Invite, "/dir/index.html", "unused");
        let found = value(answer(&ask(challenge), &request, &credentials("Mufasa", "Circle Of Life")));
        assert!(found.contains("response=\"131414ecb196ead7dcca0fdb72324b03\""), "{found}");
        assert!(!found.contains("qop") && !found.contains("cnonce"), "{found}");
    }

    #[test]
    fn f17_rfc_7616_examples() {
        for (algorithm, expected) in [
            ("SHA-256", "c1051d34d8fd92eecc2733465b112f05487498138ac0d023d6bb71b8ddfaf408"),
            ("MD5", "d21d349ef727a09a576ceeb4a36fabb1"),
        ] {
            let challenge = format!(
                "Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", algorithm={algorithm}, \
                 nonce=\"{NONCE_7616}\", opaque=\"x\""
            );
            let request = sign(MethodName::Update, "/dir/index.html", CNONCE_7616);
            let found = value(answer(&ask(challenge.as_bytes()), &request, &credentials("Mufasa", "Circle of Life")));
            assert!(found.contains(&format!("response=\"{expected}\", algorithm={algorithm}, ")), "{found}");
        }
    }

    #[test]
    fn the_request_uri_is_signed_as_it_is_written() {
        let uri = "sip:b@[2001:db8::1]:5070;transport=udp?x=y";
        let challenge = b"Digest realm=\"sip.example.net\",nonce=\"n1\"";
        let found =
            value(answer(&ask(challenge), &sign(MethodName::Update, uri, "c"), &credentials("line1", "pa\"ss")));
        assert!(found.contains(&format!("uri=\"{uri}\", response=\"e1dc6a63d6178cce218c974d5b0bdf09\"")), "{found}");
    }

    #[test]
    fn challenges_that_cannot_be_answered_say_why() {
        let cases: [(&[u8], DigestError); 14] = [
            (b"", DigestError::Scheme),
            (b"Basic realm=\"x\"", DigestError::Scheme),
            (b"Digest", DigestError::Garbled),
            (b"Digest nonce=\"n\"", DigestError::Garbled),
            (b"Digest realm=\"x\"", DigestError::Garbled),
            (b"Digest realm=\"x, nonce=\"n\"", DigestError::Garbled),
            (b"Digest realm=\"x\", nonce=\"n\", nonce=\"m\"", DigestError::Garbled),
            (b"Digest realm=\"x\r\nEvil: 1\", nonce=\"n\"", DigestError::Garbled),
            (b"Digest realm=\"\xe9\", nonce=\"n\"", DigestError::Garbled),
            (b"Digest realm=\"x\\\", nonce=\"n\"", DigestError::Garbled),
            (b"Digest realm=\"x\", nonce=\"n\", algorithm=MD5-sess", DigestError::Algorithm),
            (b"Digest realm=\"x\", nonce=\"n\", algorithm=SHA-512-256", DigestError::Algorithm),
            (b"Digest realm=\"x\", nonce=\"n\", qop=\"auth-int\"", DigestError::Qop),
            (b"Digest realm=\"x\", nonce=\"n\", qop=\"\"", DigestError::Qop),
        ];
        for (challenge, error) in cases {
            let found = answer(&ask(challenge), &sign(MethodName::Update, "sip:a", "c"), &credentials("u", "p"));
            assert_eq!(found.unwrap_err(), error, "{}", challenge.escape_ascii());
        }
        let good = b"Digest realm=\"x\", nonce=\"n\"";
        for uri in [&b"sip:\xe9"[..], b"sip:a b", b"sip:\"a"] {
            let request = Request { method: MethodName::Update, uri, cnonce: "c" };
            assert_eq!(answer(&ask(good), &request, &credentials("u", "p")).unwrap_err(), DigestError::Request);
        }
    }

    #[test]
    fn a_user_name_with_quotes_stays_in_its_quotes() {
        let good = b"Digest realm=\"x\", nonce=\"n\"";
        let found = value(answer(&ask(good), &sign(MethodName::Update, "sip:a", "c"), &credentials("a\"b\\", "p")));
        assert!(found.starts_with("Digest username=\"a\\\"b\\\\\", realm=\"x\""), "{found}");
    }

    #[test]
    fn each_realm_is_answered_once_by_the_first_challenge_that_can_be() {
        let bytes = b"SIP/2.0 407 x\r\n\
            WWW-Authenticate: Digest realm=\"a\", nonce=\"1\", algorithm=SHA-512-256\r\n\
            WWW-Authenticate: Digest realm=\"a\", nonce=\"2\", algorithm=SHA-256\r\n\
            WWW-Authenticate: Digest realm=\"a\", nonce=\"3\"\r\n\
            Proxy-Authenticate: Digest realm=\"a\", nonce=\"4\"\r\n\r\n";
        let response = Message::scan(bytes, false).unwrap();
        let found = answers(&response, &sign(MethodName::Update, "sip:a", "c"), &credentials("u", "p")).unwrap();
        let lines: Vec<_> = found.iter().map(|a| (a.header(), a.realm())).collect();
        assert_eq!(lines, [(HeaderName::Authorization, "a"), (HeaderName::ProxyAuthorization, "a")]);
        assert!(String::from_utf8_lossy(found[0].value()).contains("nonce=\"2\""));
    }

    #[test]
    fn no_challenge_or_too_many_are_errors() {
        let sign = sign(MethodName::Update, "sip:a", "c");
        let user = credentials("u", "p");
        let none = Message::scan(b"SIP/2.0 401 x\r\n\r\n", false).unwrap();
        assert_eq!(answers(&none, &sign, &user).unwrap_err(), DigestError::Absent);
        let lines: String =
            (0..=MAX_ANSWERS).map(|n| format!("WWW-Authenticate: Digest realm=\"{n}\", nonce=\"n\"\r\n")).collect();
        let bytes = format!("SIP/2.0 401 x\r\n{lines}\r\n");
        let many = Message::scan(bytes.as_bytes(), false).unwrap();
        assert_eq!(answers(&many, &sign, &user).unwrap_err(), DigestError::TooMany);
    }

    #[test]
    fn the_password_and_the_response_are_never_printed() {
        let good = b"Digest realm=\"x\", nonce=\"n\"";
        let found = answer(&ask(good), &sign(MethodName::Update, "sip:a", "c"), &credentials("u", "p")).unwrap();
        assert!(!format!("{found:?}").contains("response"));
    }

    proptest! {
        #[test]
        fn any_challenge_is_survived_and_adds_no_line(
            challenge in "[Dd]igest [ -~\r\n\t\u{e9}]{0,20}realm=[ -~]{0,10},nonce=[ -~\r\n]{0,10}[\",=\\\\a-z]{0,30}",
        ) {
            let request = sign(MethodName::Update, "sip:a", "c");
            if let Ok(answer) = answer(&ask(challenge.as_bytes()), &request, &credentials("u", "p")) {
                prop_assert!(!answer.value().iter().any(u8::is_ascii_control));
            }
        }
    }
}
