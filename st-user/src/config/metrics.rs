//! Where monitoring asks.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::{
    fields::{Fields, Given, boolean, parsed},
    problem::Problem,
};

/// The address that monitoring asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Where it listens; `None`: nobody can ask.
    pub listen: Option<SocketAddr>,
    /// Whether the status page is shown there, with the parties of the calls.
    pub page: bool,
}

pub(super) fn metrics(given: Given<'_>, problems: &mut Vec<Problem>) -> Option<Metrics> {
    let mut fields = Fields::open(given, problems)?;
    let expected = "an IP address and a port";
    let listen = fields.get("listen", parsed(expected, "127.0.0.1:9464, 9464 for the same, or `off` for none", listen));
    let page = fields.get("page", boolean);
    let sound = fields.sound("listen") && fields.sound("page");
    if let (Some(true), None, Some(at)) = (page, listen.flatten(), fields.value_at("page"))
        && fields.sound("listen")
    {
        fields.note(at, "`page` is shown at `metrics.listen`, which is `off`", "add `listen: 9464`");
    }
    fields.close();
    sound.then(|| Metrics { listen: listen.flatten(), page: page.unwrap_or_default() })
}

/// A port alone is one of the loopback.
fn listen(text: &str) -> Option<Option<SocketAddr>> {
    if text == "off" {
        return Some(None);
    }
    let loopback = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    let address = text.parse().or_else(|_| text.parse().map(loopback)).ok()?;
    (address.port() > 0).then_some(Some(address))
}
