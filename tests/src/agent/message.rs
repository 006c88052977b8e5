//! A SIP message as the agents read and write it: well-formed or refused. No code is shared with the engine, so that
//! what sipst sends is read by a second pair of eyes.

use std::fmt;

use anyhow::{Context as _, Result, ensure};

/// A request or a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its first line.
    pub start: String,
    /// Its headers in order, by their long names, Content-Length left out.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: String,
}

/// CSeq.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CSeq {
    /// The number.
    pub number: u32,
    /// The method.
    pub method: String,
}

impl Message {
    /// A request.
    pub fn request(method: &str, uri: &str) -> Self {
        Self { start: format!("{method} {uri} SIP/2.0"), headers: Vec::new(), body: String::new() }
    }

    /// A response with what it must copy of its request.
    pub fn response(request: &Self, status: u16, reason: &str) -> Self {
        let mut response =
            Self { start: format!("SIP/2.0 {status} {reason}"), headers: Vec::new(), body: String::new() };
        for name in ["Via", "Record-Route", "From", "To", "Call-ID", "CSeq"] {
            for value in request.all(name) {
                response.headers.push((name.into(), value.into()));
            }
        }
        response
    }

    /// The same with one more header.
    pub fn with(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.headers.push((name.into(), value.to_string()));
        self
    }

    /// The same with this body.
    pub fn with_body(mut self, content_type: &str, body: impl Into<String>) -> Self {
        self.body = body.into();
        self.with("Content-Type", content_type)
    }

    /// Reads one; an error tells what is not as RFC 3261 wants it.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(bytes).context("not UTF-8")?;
        let (head, body) = text.split_once("\r\n\r\n").context("headers without an end")?;
        let mut lines = head.split("\r\n");
        let start = lines.next().filter(|line| !line.is_empty()).context("no start line")?.to_owned();
        ensure!(!head.replace("\r\n", "").contains(['\r', '\n']), "a line end that is not CRLF");
        let words: Vec<_> = start.splitn(3, ' ').collect();
        let whole = words.len() == 3 && words[..2].iter().all(|word| !word.is_empty());
        ensure!(whole && (words[0] == "SIP/2.0" || words[2] == "SIP/2.0"), "start line `{start}`");
        let mut message = Self { start, headers: Vec::new(), body: body.into() };
        let mut length = None;
        for line in lines {
            let (name, value) = line.split_once(':').with_context(|| format!("a header without colon: {line}"))?;
            let (name, value) = (long(name.trim()), value.trim());
            if name.eq_ignore_ascii_case("content-length") {
                ensure!(length.is_none(), "two Content-Length headers");
                length = Some(value.parse::<usize>().context("Content-Length")?);
            } else {
                message.headers.push((name.into(), value.into()));
            }
        }
        ensure!(length == Some(message.body.len()), "Content-Length {length:?}, body {}", message.body.len());
        for name in ["Via", "From", "To", "Call-ID", "CSeq"] {
            ensure!(message.header(name).is_some(), "no {name}");
        }
        ensure!(message.all("CSeq").count() == 1 && message.cseq().is_some(), "CSeq {:?}", message.header("CSeq"));
        Ok(message)
    }

    /// The method of a request.
    pub fn method(&self) -> Option<&str> {
        (!self.start.starts_with("SIP/2.0 ")).then(|| self.start.split(' ').next().unwrap_or_default())
    }

    /// The status of a response.
    pub fn status(&self) -> Option<u16> {
        self.start.strip_prefix("SIP/2.0 ")?.get(..3)?.parse().ok()
    }

    /// The first header of a name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// All headers of a name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers.iter().filter(move |(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Whether a comma list holds a token.
    pub fn lists(&self, name: &str, token: &str) -> bool {
        self.all(name).flat_map(|value| value.split(',')).any(|one| one.trim().eq_ignore_ascii_case(token))
    }

    /// CSeq.
    pub fn cseq(&self) -> Option<CSeq> {
        let (number, method) = self.header("CSeq")?.split_once(' ')?;
        Some(CSeq { number: number.parse().ok()?, method: method.trim().into() })
    }

    /// A parameter of a header, e.g. the tag of From.
    pub fn param(&self, name: &str, param: &str) -> Option<&str> {
        let value = self.header(name)?;
        let params = value.rsplit_once('>').map_or(value, |(_, params)| params);
        params.split(';').skip(1).find_map(|one| {
            let (key, value) = one.split_once('=')?;
            key.trim().eq_ignore_ascii_case(param).then_some(value.trim())
        })
    }

    /// Session-Expires: seconds, and the refresher if it is named.
    pub fn session_expires(&self) -> Option<(u32, Option<&str>)> {
        let seconds = self.header("Session-Expires")?.split(';').next()?.trim().parse().ok()?;
        Some((seconds, self.param("Session-Expires", "refresher")))
    }

    /// The URI of a header: between its angle brackets, or, where it has none, up to its parameters.
    pub fn uri(&self, name: &str) -> Option<&str> {
        let value = self.header(name)?;
        match value.split_once('<') {
            Some((_, rest)) => rest.split_once('>').map(|(uri, _)| uri),
            None => value.split(';').next().map(str::trim),
        }
    }

    /// As it goes on the wire. `cseq` is what stands between the name and the number of CSeq: `": "` is usual.
    pub fn to_bytes(&self, cseq: &str) -> Vec<u8> {
        let mut text = format!("{}\r\n", self.start);
        for (name, value) in &self.headers {
            let colon = if name == "CSeq" { cseq } else { ": " };
            text.push_str(&format!("{name}{colon}{value}\r\n"));
        }
        text.push_str(&format!("Content-Length: {}\r\n\r\n{}", self.body.len(), self.body));
        text.into_bytes()
    }
}

/// The start line, and the CSeq where it tells more than that.
impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start =
            self.start.strip_prefix("SIP/2.0 ").unwrap_or(self.start.strip_suffix(" SIP/2.0").unwrap_or(&self.start));
        write!(f, "{start} (CSeq {})", self.header("CSeq").unwrap_or("-"))
    }
}

fn long(name: &str) -> &str {
    match name {
        "v" => "Via",
        "f" => "From",
        "t" => "To",
        "i" => "Call-ID",
        "m" => "Contact",
        "l" => "Content-Length",
        "c" => "Content-Type",
        "k" => "Supported",
        "x" => "Session-Expires",
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let message = Message::request("BYE", "sip:a@10.0.0.1")
            .with("Via", "SIP/2.0/UDP 10.0.0.2:5060;branch=z9hG4bK1;rport")
            .with("From", "<sip:b@10.0.0.2>;tag=bb")
            .with("To", "\"A; tag=x\" <sip:a@10.0.0.1>;tag=aa")
            .with("Call-ID", "1@b")
            .with("CSeq", "9 BYE")
            .with_body("text/plain", "x\r\n");
        let read = Message::parse(&message.to_bytes(":")).unwrap();
        assert_eq!(read, message);
        assert_eq!(read.param("To", "tag"), Some("aa"));
        assert_eq!(read.cseq(), Some(CSeq { number: 9, method: "BYE".into() }));
    }

    #[test]
    fn refuses_a_wrong_length() {
        let bytes =
            b"SIP/2.0 200 OK\r\nVia: x\r\nFrom: x\r\nTo: x\r\nCall-ID: x\r\nCSeq: 1 BYE\r\nContent-Length: 1\r\n\r\n";
        assert!(Message::parse(bytes).unwrap_err().to_string().contains("Content-Length"));
    }
}
