//! Which path is answered by what. A module that has something to show makes [`Routes`] of its own, and the daemon puts them together.

use std::{convert::Infallible, pin::Pin};

use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::{
    HeaderMap, Method, Response, StatusCode,
    body::Bytes,
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    http::request::Parts,
};

/// What is sent: whole, or as a stream.
pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// An answer.
pub(crate) type Reply = Response<Body>;

type Answering = Pin<Box<dyn Future<Output = Reply> + Send>>;

/// What is asked; a body is never read.
#[derive(Debug)]
#[allow(dead_code, reason = "what a handler may want to know")]
pub(crate) struct Asked {
    /// What stands behind the path of a route that answers for all below it, as it came; else empty.
    pub(crate) rest: String,
    /// What stands behind the question mark, as it came.
    pub(crate) query: Option<String>,
    /// The headers.
    pub(crate) headers: HeaderMap,
}

/// How long an answer may last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lasts {
    /// It is sent and done.
    Short,
    /// It goes on for as long as its reader reads: server-sent events.
    Stream,
}

struct Route {
    path: &'static str,
    /// Whether it answers for all that begins so.
    below: bool,
    lasts: Lasts,
    handler: Box<dyn Fn(Asked) -> Answering + Send + Sync>,
}

/// Paths and what answers them; the first one that fits does.
#[derive(Default)]
pub(crate) struct Routes(Vec<Route>);

/// What a request leads to.
pub(crate) struct Found {
    pub(crate) lasts: Lasts,
    pub(crate) answer: Answering,
}

impl Routes {
    /// One path.
    pub(crate) fn get<F>(self, path: &'static str, handler: impl Fn(Asked) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Reply> + Send + 'static,
    {
        self.add(path, false, Lasts::Short, handler)
    }

    /// All paths that begin with `path`, which ends with a slash. The handler finds the rest in [`Asked::rest`].
    #[allow(dead_code, reason = "for whoever shows one of many things")]
    pub(crate) fn below<F>(self, path: &'static str, handler: impl Fn(Asked) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Reply> + Send + 'static,
    {
        self.add(path, true, Lasts::Short, handler)
    }

    /// One path whose answer goes on for as long as somebody reads it.
    pub(crate) fn stream<F>(self, path: &'static str, handler: impl Fn(Asked) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Reply> + Send + 'static,
    {
        self.add(path, false, Lasts::Stream, handler)
    }

    /// These and others.
    pub(crate) fn and(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    fn add<F>(
        mut self,
        path: &'static str,
        below: bool,
        lasts: Lasts,
        handler: impl Fn(Asked) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Reply> + Send + 'static,
    {
        self.0.push(Route { path, below, lasts, handler: Box::new(move |asked| Box::pin(handler(asked))) });
        self
    }

    /// What answers a request.
    ///
    /// # Errors
    /// Nothing does, and this says so.
    pub(crate) fn find(&self, request: Parts) -> Result<Found, Box<Reply>> {
        let path = request.uri.path();
        let fits = |route: &&Route| if route.below { path.starts_with(route.path) } else { path == route.path };
        let Some(route) = self.0.iter().find(fits) else {
            let known: String = self.0.iter().map(|route| format!("{}\n", route.path)).collect();
            return Err(text(StatusCode::NOT_FOUND, format!("nothing is here; there is:\n{known}")).into());
        };
        if !matches!(request.method, Method::GET | Method::HEAD) {
            let mut reply =
                text(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD alone: nothing can be changed from here\n");
            reply.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return Err(reply.into());
        }
        let rest = path.strip_prefix(route.path).unwrap_or_default().to_owned();
        let query = request.uri.query().map(Into::into);
        let asked = Asked { rest, query, headers: request.headers };
        Ok(Found { lasts: route.lasts, answer: (route.handler)(asked) })
    }
}

/// A body that is there as a whole.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

/// Plain text.
pub(crate) fn text(status: StatusCode, text: impl Into<String>) -> Reply {
    let mut reply = Response::new(full(text.into()));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    reply
}
