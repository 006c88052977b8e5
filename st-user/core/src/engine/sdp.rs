//! Session descriptions as messages carry them.

use serde::{Deserialize, Serialize};

use super::limits::MAX_SDP;
use crate::message::{Body, Message};

/// One, byte for byte (R22).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sdp {
    #[serde(with = "serde_bytes")]
    pub(super) content_type: Vec<u8>,
    #[serde(with = "serde_bytes")]
    pub(super) bytes: Vec<u8>,
}

/// What the body of a message says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Said {
    /// There is none.
    Nothing,
    /// It is an SDP.
    Sdp(Sdp),
    /// It was cut, is too long, or is something else: multipart, say.
    Unclear,
}

impl Said {
    pub(super) fn by(message: &Message<'_>) -> Self {
        match (message.body(), message.content_type()) {
            (Body::None, _) => Self::Nothing,
            (Body::Whole(bytes), Some(content_type))
                if message.is_sdp() && bytes.len() + content_type.len() <= MAX_SDP =>
            {
                Self::Sdp(Sdp { content_type: content_type.to_vec(), bytes: bytes.to_vec() })
            }
            (Body::Whole(_) | Body::Cut, _) => Self::Unclear,
        }
    }

    /// The SDP, if it is one.
    pub(super) fn sdp(self) -> Option<Sdp> {
        match self {
            Self::Sdp(sdp) => Some(sdp),
            Self::Nothing | Self::Unclear => None,
        }
    }
}

/// Whether two SDPs of one side are the same line by line, the version in `o=` aside (RFC 4566, section 5.2): some stacks raise
/// that with every refresh.
pub(super) fn is_repeated(before: &[u8], now: &[u8]) -> bool {
    let lines = |sdp| <[u8]>::split(sdp, |byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
    let (mut before, mut now) = (lines(before), lines(now));
    loop {
        match (before.next(), now.next()) {
            (None, None) => return true,
            (Some(before), Some(now)) if before == now || is_same_origin(before, now) => {}
            (_, _) => return false,
        }
    }
}

fn is_same_origin(before: &[u8], now: &[u8]) -> bool {
    let words = |line| <[u8]>::split(line, |byte| *byte == b' ').enumerate().filter(|(at, _)| *at != 2);
    before.starts_with(b"o=") && words(before).eq(words(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_sdp_is_repeated_whatever_its_version_and_nothing_else() {
        let sdp = "v=0\r\no=- 7 7 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nm=audio 4000 RTP/AVP 0\r\n";
        let repeated = |now: &str| is_repeated(sdp.as_bytes(), now.as_bytes());
        assert!(repeated(sdp) && repeated(&sdp.replace("7 7", "7 8")) && repeated(&sdp.replace("\r\n", "\n")));
        for other in [
            sdp.replace("7 7", "8 7"),
            sdp.replace("4000", "4002"),
            sdp.replace("s=-", "s=- 7"),
            sdp.replace("o=-", "x=-"),
            format!("{sdp}a=sendonly\r\n"),
            sdp.replace("m=audio 4000 RTP/AVP 0\r\n", ""),
            String::new(),
        ] {
            assert!(!repeated(&other), "{other}");
        }
    }
}
