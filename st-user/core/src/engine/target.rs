//! Where requests of ours go in a dialog, and what they look like: the server's own ones are the template (R23, R24).

use std::{
    net::{IpAddr, SocketAddr},
    ops::BitXor,
    sync::Arc,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    ahead::of_first_line,
    hash::{Fingerprint, Secret},
    limits::{MAX_HEADERS, MAX_IDENTIFIER, MAX_ROUTES, MAX_TARGET},
    record,
};
use crate::{
    build::{Path, own_headers},
    message::{HeaderName, Message, Uri, Via, has_lr, route_uri},
};

/// The port of a SIP URI without one (RFC 3261, section 19.1.2).
const SIP_PORT: u16 = 5060;

/// The way to the peer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Target {
    #[serde(with = "crate::build::lists")]
    routes: Vec<Vec<u8>>,
    path: Path,
    /// Where the server's last request in the dialog went.
    seen: Option<SocketAddr>,
    /// Where the INVITE came from or went to.
    source: SocketAddr,
    #[serde(with = "serde_bytes")]
    sent_by: Option<Vec<u8>>,
    /// What stands for what the server's last request said of all that, while nothing else has changed it.
    template: Option<Fingerprint>,
}

impl Target {
    /// From the peer's Contact and the route set in the order in which it is travelled; `None` where they are too long.
    pub(super) fn new(contact: &[u8], routes: Vec<Vec<u8>>, source: SocketAddr) -> Option<Self> {
        let path = Path::new(contact, routes.iter().map(Vec::as_slice));
        Some(Self { routes, path, seen: None, source, sent_by: None, template: None }).filter(Self::fits)
    }

    /// From a request of the server's inside the dialog; `None` with a strict router ahead, behind which the remote target
    /// cannot be told from the routes.
    pub(super) fn learnt(to: SocketAddr, request: &Message<'_>, via: Option<Via<'_>>) -> Option<Self> {
        let path = Path::of(request).filter(|path| path.routes.first().is_none_or(|first| has_lr(first)))?;
        let mut target =
            Self { routes: path.routes.clone(), path, seen: None, source: to, sent_by: None, template: None };
        target.take(to, request, via);
        Some(target).filter(Self::fits)
    }

    /// For [`super::Engine::look_ahead`]: what is given back with it.
    pub(super) fn glance_at_routes(&self) -> usize {
        let routes = self.routes.iter().chain(&self.path.routes).map(|route| of_first_line(route));
        routes.fold(0, BitXor::bitxor)
    }

    /// What the last request was sent to.
    pub(super) fn uri(&self) -> &[u8] {
        &self.path.uri
    }

    /// For [`super::Engine::look_ahead`].
    pub(super) fn glance(&self) -> bool {
        self.seen.is_some() ^ self.template.is_some() ^ self.sent_by.is_some() ^ self.routes.is_empty()
    }

    fn fits(&self) -> bool {
        let bytes = self.path.uri.len() + self.path.routes.iter().map(Vec::len).sum::<usize>();
        bytes <= MAX_HEADERS && self.path.routes.len() <= MAX_ROUTES
    }

    /// R24: the remote target is another one now; the route set never changes.
    pub(super) fn redirect(&mut self, contact: &[u8]) {
        let is_known = self.path.uri == contact && self.path.routes == self.routes;
        if !is_known && contact.len() <= MAX_TARGET {
            self.path = Path::new(contact, self.routes.iter().map(Vec::as_slice));
            self.template = None;
        }
    }

    /// Takes the server's own request, with its topmost Via, for a template.
    pub(super) fn saw(&mut self, secret: Secret, to: SocketAddr, request: &Message<'_>, via: Option<Via<'_>>) {
        let mut routes = request.lines(HeaderName::Route);
        let (route, is_one) = (routes.next().unwrap_or_default(), routes.next().is_none());
        // Nearly all say the same as the one before.
        let said = via.zip(request.request_uri()).filter(|_| is_one);
        let template = said.map(|(via, uri)| secret.fingerprint([via.sent_by, uri, route]));
        if template.is_some() && template == self.template {
            self.seen = Some(to);
            return;
        }
        self.take(to, request, via);
        self.template = template;
    }

    fn take(&mut self, to: SocketAddr, request: &Message<'_>, via: Option<Via<'_>>) {
        self.seen = Some(to);
        let news = |via: &Via<'_>| self.sent_by.as_deref() != Some(via.sent_by) && via.sent_by.len() <= MAX_IDENTIFIER;
        if let Some(via) = via.filter(news) {
            self.sent_by = Some(via.sent_by.to_vec());
        }
        if request.request_uri() == Some(&self.path.uri)
            && request.routes().eq(self.path.routes.iter().map(Vec::as_slice))
            && self.path.routes == self.routes
        {
            return;
        }
        // With a strict router ahead the Request-URI is not the remote target: then what was reckoned stays.
        if let Some(path) = Path::of(request).filter(|path| path.routes.first().is_none_or(|first| has_lr(first))) {
            let seen = Self { routes: path.routes.clone(), path, ..self.clone() };
            if seen.fits() {
                *self = seen;
            }
        }
    }

    /// The remote target: the peer's last Contact.
    pub(super) fn remote(&self) -> &[u8] {
        let strict =
            self.path.routes.len() == self.routes.len() && !self.routes.is_empty() && self.path.routes != self.routes;
        match self.path.routes.last() {
            Some(last) if strict => route_uri(last),
            Some(_) | None => &self.path.uri,
        }
    }

    /// Whether a Contact names another host or port than the one in use.
    pub(super) fn is_elsewhere(&self, contact: &[u8]) -> bool {
        let place = |uri| Uri::parse(uri).map(|uri| (uri.host.to_ascii_lowercase(), uri.port.unwrap_or(SIP_PORT)));
        place(self.remote()) != place(contact)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn sent_by(&self, server: SocketAddr) -> Vec<u8> {
        self.sent_by.clone().unwrap_or_else(|| server.to_string().into_bytes())
    }

    /// The next hop: where the server sends itself; before it has sent anything, where the INVITE's other end is, or what its
    /// route or Contact names if that is an address among the trunk's `peers`. `None`: not known.
    pub(super) fn hop(&self, peers: &[IpNet]) -> Option<SocketAddr> {
        if let Some(seen) = self.seen {
            return Some(seen);
        }
        let source = self.source;
        let loose = self.path.routes.first().filter(|first| has_lr(first));
        let named = Uri::parse(loose.map_or(&self.path.uri, |first| route_uri(first)))?;
        let host = std::str::from_utf8(named.host).ok().and_then(|host| host.parse::<IpAddr>().ok());
        match host {
            Some(host) if host != source.ip() => peers
                .iter()
                .any(|net| net.contains(&host))
                .then(|| SocketAddr::new(host, named.port.unwrap_or(SIP_PORT))),
            // A name cannot be resolved here; the peer's own address takes what its name would.
            Some(_) | None => Some(source),
        }
    }
}

/// The headers of [`own_headers`], which dialogs of the same server share.
pub(super) type OwnHeaders = Arc<Vec<(HeaderName, Box<[u8]>)>>;

/// How the server presents itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Look {
    #[serde(with = "serde_bytes")]
    contact: Option<Vec<u8>>,
    #[serde(with = "record::headers")]
    own: OwnHeaders,
}

impl Look {
    /// For [`super::Engine::look_ahead`].
    pub(super) fn glance(&self) -> usize {
        self.own.len() ^ self.contact.as_ref().map_or(0, |contact| of_first_line(contact))
    }

    /// Takes in the server's INVITE or 2xx to one; `last`: what was taken in last, in whatever dialog.
    pub(super) fn saw(&mut self, last: &mut OwnHeaders, message: &Message<'_>) {
        self.saw_contact(message);
        let own = own_headers(message);
        let known = last.iter().map(|(name, value)| (*name, &value[..]));
        if !known.eq(own.clone()) {
            if own.clone().map(|(_, value)| value.len()).sum::<usize>() > MAX_HEADERS {
                return;
            }
            *last = Arc::new(own.map(|(name, value)| (name, value.into())).collect());
        }
        if !Arc::ptr_eq(&self.own, last) {
            self.own = Arc::clone(last);
        }
    }

    /// Takes in another message with a Contact.
    pub(super) fn saw_contact(&mut self, message: &Message<'_>) {
        let is_new = |value: &[u8]| self.contact() != Some(value) && value.len() <= MAX_HEADERS;
        if let Some(contact) = message.contact().filter(|contact| is_new(contact.value)) {
            self.contact = Some(contact.value.to_vec());
        }
    }

    /// Shares the headers with those that were taken in last, where they are the same: a record does not tell.
    pub(super) fn share(&mut self, last: &mut OwnHeaders) {
        if self.own == *last {
            self.own = Arc::clone(last);
        } else {
            *last = Arc::clone(&self.own);
        }
    }

    pub(super) fn contact(&self) -> Option<&[u8]> {
        self.contact.as_deref()
    }

    pub(super) fn own(&self) -> Vec<(HeaderName, &[u8])> {
        self.own.iter().map(|(name, value)| (*name, &value[..])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> SocketAddr {
        "203.0.113.1:5070".parse().unwrap()
    }

    fn hop(contact: &str, routes: &[&str], peers: &[&str]) -> Option<SocketAddr> {
        let routes = routes.iter().map(|route| route.as_bytes().to_vec()).collect();
        let peers: Vec<IpNet> = peers.iter().map(|net| net.parse().unwrap()).collect();
        Target::new(contact.as_bytes(), routes, source()).unwrap().hop(&peers)
    }

    #[test]
    fn without_a_request_of_the_servers_the_invites_source_is_the_next_hop() {
        assert_eq!(hop("sip:a@203.0.113.1:9", &[], &[]), Some(source()));
        assert_eq!(hop("sip:a@carrier.example", &[], &[]), Some(source()));
        assert_eq!(hop("sip:a@10.0.0.9", &["<sip:203.0.113.1;lr>"], &[]), Some(source()));
        assert_eq!(hop("sip:a@203.0.113.1", &["<sip:10.0.0.9;lr>"], &[]), None);
        assert_eq!(hop("sip:a@10.0.0.9", &[], &["203.0.113.0/24"]), None);
        assert_eq!(hop("sip:a@10.0.0.9:5080", &[], &["10.0.0.0/8"]), "10.0.0.9:5080".parse().ok());
        assert_eq!(hop("tel:+1", &[], &[]), None);
    }

    #[test]
    fn r23_a_strict_router_is_the_next_hop_and_the_request_uri() {
        assert_eq!(hop("sip:a@203.0.113.1", &["<sip:10.0.0.9>"], &["10.0.0.0/8"]), "10.0.0.9:5060".parse().ok());
    }

    #[test]
    fn routes_that_are_too_long_are_not_kept() {
        assert!(Target::new(b"sip:a@b", vec![vec![b'x'; MAX_HEADERS]], source()).is_none());
        assert!(Target::new(b"sip:a@b", vec![b"x".to_vec(); MAX_ROUTES], source()).is_some());
        assert!(Target::new(b"sip:a@b", vec![b"x".to_vec(); MAX_ROUTES + 1], source()).is_none());
    }
}
