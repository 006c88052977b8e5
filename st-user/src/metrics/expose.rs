//! The text, made by a thread of its own: with a thousand trunks it takes longer than a packet may wait.

use std::{io, thread};

use hyper::{
    StatusCode,
    header::{CONTENT_TYPE, HeaderValue},
};
use prometheus_client::{
    encoding::{prometheus_text, text as open_metrics},
    registry::Registry,
};
use tokio::sync::{mpsc, oneshot};

use crate::http::{Reply, full, text};
use hyper::Response;

/// Those who wait for the text; whoever comes then waits in its own task.
const WAITING: usize = 8;

/// How it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus's own, which everybody reads.
    Prometheus,
}

impl Form {
    /// As the header `Accept` says.
    pub(super) fn wanted(accept: Option<&str>) -> Self {
        let open = accept.is_some_and(|accept| accept.contains("application/openmetrics-text"));
        if open { Self::OpenMetrics } else { Self::Prometheus }
    }

    const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    fn write(self, registry: &Registry) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        match self {
            Self::OpenMetrics => open_metrics::encode(&mut text, registry)?,
            Self::Prometheus => prometheus_text::encode(&mut text, registry)?,
        }
        Ok(text)
    }
}

type Wanted = (Form, oneshot::Sender<String>);

/// Where the text is asked for. The thread ends with the last of these.
#[derive(Clone, Debug)]
pub(super) struct Exposer(mpsc::Sender<Wanted>);

impl Exposer {
    pub(super) fn start(registry: Registry) -> io::Result<Self> {
        let (send, mut wanted) = mpsc::channel::<Wanted>(WAITING);
        thread::Builder::new().name("metrics".into()).spawn(move || {
            while let Some((form, reply)) = wanted.blocking_recv() {
                if let Ok(text) = form.write(&registry) {
                    // Who asked may be gone.
                    let _ = reply.send(text);
                }
            }
        })?;
        Ok(Self(send))
    }

    pub(super) async fn reply(&self, form: Form) -> Reply {
        let (send, written) = oneshot::channel();
        let sent = self.0.send((form, send)).await;
        let Ok(written) = (match sent {
            Ok(()) => written.await.map_err(drop),
            Err(_) => Err(()),
        }) else {
            return text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written\n");
        };
        let mut reply = Response::new(full(written));
        reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(form.content_type()));
        reply
    }
}
