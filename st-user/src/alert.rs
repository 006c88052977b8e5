//! Alerts: to the log at once, to webhooks from threads of their own.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use st_core::Event;
use ureq::{Agent, http::Uri};

use crate::{config::Webhook, sink::EventSink};

/// How many alerts wait for one webhook; past that the newest are dropped and counted.
const QUEUE: usize = 256;
/// How often one alert is posted until somebody takes it.
const ATTEMPTS: u32 = 3;
/// The pause before the second attempt; each further one is four times as long.
const BACKOFF: Duration = Duration::from_millis(500);

/// Raises alerts.
pub struct Alerts {
    hooks: Vec<Hook>,
}

struct Hook {
    name: String,
    bodies: SyncSender<Arc<str>>,
    shared: Arc<Shared>,
    done: Receiver<()>,
    /// Dropping it ends the pauses between attempts.
    stop: SyncSender<()>,
}

#[derive(Default)]
struct Shared {
    /// Alerts that found the queue full and have not been told of.
    dropped: AtomicU64,
    /// Whether those that are still queued are given up.
    hurry: AtomicBool,
}

impl Shared {
    /// Says how many alerts found the queue full since the last time.
    fn tell_dropped(&self, name: &str) {
        let dropped = self.dropped.swap(0, Relaxed);
        if dropped > 0 {
            tracing::warn!(webhook = name, dropped, "alerts were not posted: too many at once");
        }
    }
}

impl Alerts {
    /// Starts a thread for every webhook.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(webhooks: &[Webhook]) -> io::Result<Self> {
        Self::start_with(webhooks, BACKOFF)
    }

    fn start_with(webhooks: &[Webhook], backoff: Duration) -> io::Result<Self> {
        Ok(Self { hooks: webhooks.iter().map(|webhook| Hook::start(webhook, backoff)).collect::<io::Result<_>>()? })
    }

    /// Posts what is queued, for at most `wait` in all, and gives up the rest.
    pub fn finish(self, wait: Duration) {
        let until = Instant::now() + wait;
        let waiting: Vec<_> = self
            .hooks
            .into_iter()
            .map(|Hook { name, bodies, shared, done, stop }| {
                drop(bodies);
                (name, shared, done, stop)
            })
            .collect();
        for (name, shared, done, stop) in waiting {
            if done.recv_timeout(until.saturating_duration_since(Instant::now())) == Err(RecvTimeoutError::Timeout) {
                shared.hurry.store(true, Relaxed);
                tracing::warn!(webhook = name, "the last alerts could not be posted in time");
            }
            shared.tell_dropped(&name);
            drop(stop);
        }
    }
}

impl EventSink for Alerts {
    fn event(&mut self, event: &Event) {
        if !event.kind.is_alert() {
            return;
        }
        let Ok(body) = serde_json::to_string(event) else { return };
        tracing::warn!("alert {body}");
        let body: Arc<str> = body.into();
        for hook in &self.hooks {
            match hook.bodies.try_send(Arc::clone(&body)) {
                Ok(()) => {}
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                    if hook.shared.dropped.fetch_add(1, Relaxed) == 0 {
                        tracing::warn!(webhook = hook.name, "too many alerts are waiting: the newest are dropped");
                    }
                }
            }
        }
    }
}

impl Hook {
    fn start(webhook: &Webhook, backoff: Duration) -> io::Result<Self> {
        let (bodies, queue) = sync_channel(QUEUE);
        let (finished, done) = sync_channel(1);
        let (stop, stopped) = sync_channel(0);
        let shared = Arc::new(Shared::default());
        let name = name(&webhook.url);
        let poster = Poster { url: webhook.url.clone(), name: name.clone(), agent: agent(webhook), backoff, stopped };
        let theirs = Arc::clone(&shared);
        thread::Builder::new().name("webhook".into()).spawn(move || {
            poster.post_all(&queue, &theirs);
            // The other end is gone where nobody waits.
            let _ = finished.send(());
        })?;
        Ok(Self { name, bodies, shared, done, stop })
    }
}

struct Poster {
    url: String,
    name: String,
    agent: Agent,
    backoff: Duration,
    stopped: Receiver<()>,
}

impl Poster {
    fn post_all(&self, queue: &Receiver<Arc<str>>, shared: &Shared) {
        for body in queue {
            if shared.hurry.load(Relaxed) {
                return;
            }
            self.post(&body);
            shared.tell_dropped(&self.name);
        }
    }

    fn post(&self, body: &str) {
        let mut pause = self.backoff;
        for attempt in 1..=ATTEMPTS {
            match self.attempt(body) {
                Ok(()) => return,
                Err(Failure { reason, again }) if again && attempt < ATTEMPTS => {
                    tracing::debug!(webhook = self.name, attempt, reason, "an alert could not be posted: again soon");
                }
                Err(Failure { reason, again: _ }) => {
                    tracing::warn!(webhook = self.name, attempt, reason, "an alert could not be posted: given up");
                    return;
                }
            }
            match self.stopped.recv_timeout(pause) {
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => pause *= 4,
            }
        }
    }

    fn attempt(&self, body: &str) -> Result<(), Failure> {
        let request = self.agent.post(&self.url).content_type("application/json");
        match request.send(body) {
            Ok(response) => {
                let status = response.status();
                // RFC 9110, section 15.5: what the client did wrong stays wrong, but for "too slow" and "too much".
                let again = status.is_server_error() || matches!(status.as_u16(), 408 | 429);
                if status.is_success() { Ok(()) } else { Err(Failure { reason: format!("answered {status}"), again }) }
            }
            Err(error) => Err(Failure { reason: error.to_string(), again: true }),
        }
    }
}

struct Failure {
    reason: String,
    again: bool,
}

/// No redirects, which would leave the place that the operator named, and no proxy from the environment.
fn agent(webhook: &Webhook) -> Agent {
    let config = Agent::config_builder()
        .timeout_global(Some(webhook.timeout))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .user_agent(concat!("sipst/", env!("CARGO_PKG_VERSION")));
    config.build().into()
}

/// What the log calls it: paths and queries of webhooks are often secrets.
fn name(url: &str) -> String {
    match url.parse::<Uri>() {
        Ok(uri) => format!("{}://{}", uri.scheme_str().unwrap_or("http"), host_and_port(&uri)),
        Err(_) => "webhook".to_owned(),
    }
}

fn host_and_port(uri: &Uri) -> String {
    let host = uri.host().unwrap_or_default();
    uri.port_u16().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader, Read as _, Write as _},
        net::{TcpListener, TcpStream},
        sync::mpsc::channel,
    };

    use st_core::{EventKind, Time};

    use super::*;

    /// Longer than anything here takes.
    const PATIENCE: Duration = Duration::from_secs(60);

    fn event(kind: EventKind, reason: &str) -> Event {
        Event { reason: Some(reason.to_owned().into()), ..Event::new(Time::from_micros(0), kind) }
    }

    /// In place of a status: the request is read and never answered.
    const SILENCE: u16 = 0;

    /// A web server on the loopback that answers the n-th request with the n-th status, the last one from then on, and
    /// tells what it was asked.
    fn server(statuses: &'static [u16], timeout: Duration) -> (Webhook, Receiver<(String, serde_json::Value)>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/secret", listener.local_addr().unwrap());
        let (seen, requests) = channel();
        thread::spawn(move || {
            let mut held = Vec::new();
            for (n, stream) in listener.incoming().enumerate() {
                let mut stream = stream.unwrap();
                let request = read(&stream);
                if seen.send(request).is_err() {
                    return;
                }
                match statuses[n.min(statuses.len() - 1)] {
                    SILENCE => held.push(stream),
                    status => {
                        let answer = format!("HTTP/1.1 {status} -\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                        stream.write_all(answer.as_bytes()).unwrap();
                    }
                }
            }
        });
        (Webhook { url, timeout }, requests)
    }

    /// The header lines and the body.
    fn read(stream: &TcpStream) -> (String, serde_json::Value) {
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
        }
        let head = head.to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        (head, serde_json::from_slice(&body).unwrap())
    }

    fn reasons(requests: &Receiver<(String, serde_json::Value)>, count: usize) -> Vec<String> {
        let reason = |_| requests.recv_timeout(PATIENCE).unwrap().1["reason"].as_str().unwrap().to_owned();
        (0..count).map(reason).collect()
    }

    #[test]
    fn alerts_are_posted_as_json_and_other_events_are_not() {
        let (webhook, requests) = server(&[200], PATIENCE);
        let mut alerts = Alerts::start_with(&[webhook], Duration::ZERO).unwrap();
        alerts.event(&event(EventKind::SessionStarted, "no alert"));
        alerts.event(&event(EventKind::RefreshOverdue, "late"));
        alerts.finish(PATIENCE);
        let (head, body) = requests.recv_timeout(PATIENCE).unwrap();
        assert!(head.starts_with("post /secret http/1.1\r\n"), "{head}");
        assert!(head.contains("content-type: application/json\r\n"), "{head}");
        assert_eq!(body["event"], "refresh_overdue");
        assert_eq!(body["reason"], "late");
        assert!(requests.try_recv().is_err());
    }

    #[test]
    fn a_failing_webhook_is_tried_three_times_and_then_the_next_alert_has_its_turn() {
        let (webhook, requests) = server(&[500, 503, 429, 200], PATIENCE);
        let mut alerts = Alerts::start_with(&[webhook], Duration::ZERO).unwrap();
        alerts.event(&event(EventKind::RefreshFailed, "one"));
        alerts.event(&event(EventKind::RefreshFailed, "two"));
        alerts.finish(PATIENCE);
        assert_eq!(reasons(&requests, 4), ["one", "one", "one", "two"]);
        assert!(requests.try_recv().is_err());
    }

    #[test]
    fn what_cannot_get_better_is_not_tried_again() {
        let (webhook, requests) = server(&[404, 302, 200], PATIENCE);
        let mut alerts = Alerts::start_with(&[webhook], Duration::ZERO).unwrap();
        for reason in ["one", "two", "three"] {
            alerts.event(&event(EventKind::SessionExpired, reason));
        }
        alerts.finish(PATIENCE);
        assert_eq!(reasons(&requests, 3), ["one", "two", "three"]);
        assert!(requests.try_recv().is_err());
    }

    #[test]
    fn a_webhook_that_does_not_answer_is_left_at_its_timeout() {
        let (webhook, requests) = server(&[SILENCE, 200], Duration::from_millis(100));
        let mut alerts = Alerts::start_with(&[webhook], Duration::ZERO).unwrap();
        alerts.event(&event(EventKind::SessionExpiring, "one"));
        assert_eq!(reasons(&requests, 2), ["one", "one"]);
        alerts.finish(PATIENCE);
    }

    #[test]
    fn a_queue_that_is_full_drops_the_newest_and_holds_up_nobody() {
        let (webhook, requests) = server(&[SILENCE], PATIENCE);
        let (other, others) = server(&[200], PATIENCE);
        let mut alerts = Alerts::start_with(&[webhook, other], Duration::ZERO).unwrap();
        alerts.event(&event(EventKind::CaptureLoss, "held"));
        assert_eq!(reasons(&requests, 1), ["held"]);
        assert_eq!(reasons(&others, 1), ["held"]);
        for index in 0..QUEUE + 3 {
            alerts.event(&event(EventKind::CaptureLoss, &index.to_string()));
            // The other webhook keeps up, whatever this one does.
            assert_eq!(reasons(&others, 1), [index.to_string()]);
        }
        assert_eq!(alerts.hooks[0].shared.dropped.load(Relaxed), 3);
        assert_eq!(alerts.hooks[1].shared.dropped.load(Relaxed), 0);
        let shared = Arc::clone(&alerts.hooks[0].shared);
        alerts.finish(Duration::ZERO);
        assert!(shared.hurry.load(Relaxed));
    }

    #[test]
    fn nobody_listening_is_given_up_within_the_wait() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let webhook = Webhook { url: format!("http://127.0.0.1:{port}/"), timeout: PATIENCE };
        let mut alerts = Alerts::start_with(&[webhook], Duration::ZERO).unwrap();
        alerts.event(&event(EventKind::NegotiationFault, "one"));
        alerts.finish(PATIENCE);
    }

    #[test]
    fn the_log_names_a_webhook_without_its_secrets() {
        assert_eq!(name("https://user:pw@hooks.example:8443/services/T0/B0?token=x"), "https://hooks.example:8443");
        assert_eq!(name("http://h/"), "http://h");
    }
}
