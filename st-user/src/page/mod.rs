//! The status page: what is up, how long each call has, and the ladder of one. Three files that stand in the program, and two
//! streams of server-sent events, whatever the wire brought as JSON and never as markup. It shows who talks to whom, so it is off
//! unless the configuration says otherwise, and answers no browser that was led here under another site's name.

mod live;
#[cfg(test)]
mod tests;
pub(crate) mod trace;

use std::{net::IpAddr, sync::Arc};

use hyper::{
    HeaderMap, StatusCode,
    header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderName, HeaderValue, REFERRER_POLICY, X_FRAME_OPTIONS},
    http::uri::Authority,
};

use crate::http::{Asked, Reply, Routes, full, text};
pub(crate) use live::Page;

/// Nothing but the page's own files, no frames around it, no forms.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: (&str, &str) = ("text/html; charset=utf-8", include_str!("site/page.html"));
const STYLE: (&str, &str) = ("text/css; charset=utf-8", include_str!("site/page.css"));
const SCRIPT: (&str, &str) = ("text/javascript; charset=utf-8", include_str!("site/page.js"));

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// What answers for the page.
pub(crate) fn routes(page: &Arc<Page>) -> Routes {
    let file = |page: &Arc<Page>, (kind, contents): (&'static str, &'static str), is_entry: bool| {
        let page = Arc::clone(page);
        move |asked: Asked| {
            let refused = page.refuses(&asked.headers, is_entry);
            std::future::ready(refused.unwrap_or_else(|| reply(kind, full(contents))))
        }
    };
    let (all, one) = (Arc::clone(page), Arc::clone(page));
    Routes::default()
        .get("/", file(page, HTML, true))
        .get("/page.css", file(page, STYLE, false))
        .get("/page.js", file(page, SCRIPT, false))
        .stream("/live", move |asked| {
            let refused = all.refuses(&asked.headers, false);
            let page = Arc::clone(&all);
            async move { refused.unwrap_or_else(|| reply(live::EVENTS, page.all())) }
        })
        .stream("/call", move |asked| {
            let refused = one.refuses(&asked.headers, false);
            let page = Arc::clone(&one);
            async move {
                if let Some(refused) = refused {
                    return refused;
                }
                match asked.query.as_deref().and_then(call_id) {
                    Some(call_id) => reply(live::EVENTS, page.one(call_id)),
                    None => text(StatusCode::BAD_REQUEST, "name a call: /call?id=CALL-ID, percent-encoded\n"),
                }
            }
        })
}

/// The Call-ID in a query.
fn call_id(query: &str) -> Option<String> {
    let coded = query.split('&').find_map(|pair| pair.strip_prefix("id="))?;
    let decoded = percent_encoding::percent_decode_str(coded).decode_utf8().ok()?;
    (!decoded.is_empty()).then(|| decoded.into_owned())
}

fn reply(kind: &'static str, body: crate::http::Body) -> Reply {
    let mut reply = Reply::new(body);
    let headers = reply.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (RESOURCE_POLICY, "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    reply
}

impl Page {
    /// Why whoever asks gets nothing.
    fn refuses(&self, headers: &HeaderMap, is_entry: bool) -> Option<Reply> {
        if !self.is_on() {
            let why = "the status page is off: `metrics: { page: true }` and `sipst reload` switch it on\n";
            return Some(text(StatusCode::NOT_FOUND, why));
        }
        if !is_own_name(headers) {
            let why = "the status page is opened by an address, as http://192.0.2.1:9464/, or by `localhost`: under a name of its own \
                       another site could read it. `ssh -L 9464:127.0.0.1:9464 HOST`, then http://localhost:9464/\n";
            return Some(text(StatusCode::MISDIRECTED_REQUEST, why));
        }
        let from = headers.get(FETCH_SITE).map(HeaderValue::as_bytes);
        let foreign = from.is_some_and(|site| site != b"same-origin" && site != b"none");
        (foreign && !is_entry).then(|| text(StatusCode::FORBIDDEN, "for the status page alone, not for other sites\n"))
    }
}

/// Whether the browser believes to talk to an address, or to this host itself. A name that somebody else can point here (DNS
/// rebinding) is neither.
fn is_own_name(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let Ok(authority) = Authority::try_from(host.as_bytes()) else { return false };
    let name = authority.host();
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    bare.parse::<IpAddr>().is_ok() || name.eq_ignore_ascii_case("localhost")
}
