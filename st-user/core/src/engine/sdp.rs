//! Session descriptions as messages carry them.

use serde::{Deserialize, Serialize};

use super::limits::MAX_SDP;
use crate::message::{Body, Message};

/// One, byte for byte (R22).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sdp {
    pub(super) content_type: Vec<u8>,
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
