//! What an Alertmanager is sent: firing, again while it fires, and resolved.

use st_core::Names;

use super::*;

const RESEND: Duration = Duration::from_secs(60);

fn event(call: &str, kind: EventKind, reason: Option<&str>) -> Arc<Event> {
    let [server, peer] = ["192.0.2.1:5060", "198.51.100.2:5060"].map(|address| address.parse().unwrap());
    Arc::new(Event {
        names: Some(Arc::new(Names::new(call.as_bytes(), b"l", b"r", server, peer))),
        reason: reason.map(|reason| reason.to_owned().into()),
        trunk: Some("carrier".into()),
        deadline: Some(Time::from_micros(1_700_000_060_000_000)),
        ..Event::new(Time::from_micros(1_700_000_000_000_000), kind)
    })
}

/// A clock and what fires by it.
struct Watch {
    firing: Firing,
    counts: SinkCounts,
    now: Instant,
}

impl Watch {
    fn new() -> Self {
        let firing = Firing { instance: "host".into(), ..Firing::new(None, RESEND) };
        Self { firing, counts: SinkCounts::default(), now: Instant::now() }
    }

    fn hear(&mut self, signal: Signal) {
        self.firing.hear(signal, self.now, &self.counts);
    }

    fn fire(&mut self, event: &Arc<Event>) {
        self.hear(Signal::Tell(Notice::Alert(Arc::clone(event))));
    }

    /// What is sent now, and taken: name and whether it is over, in order.
    fn sent(&mut self) -> Vec<(String, bool)> {
        let mut sent = Vec::new();
        while let Some(batch) = self.firing.batch(self.now, SystemTime::UNIX_EPOCH, false) {
            let alerts: Vec<Value> = serde_json::from_str(&batch.body).unwrap();
            sent.extend(alerts.iter().map(|alert| {
                let name = alert["labels"]["alertname"].as_str().unwrap().to_owned();
                (name, alert["endsAt"] == "1970-01-01T00:00:00.000Z")
            }));
            self.firing.taken(&batch, self.now);
        }
        sent.sort();
        sent
    }
}

fn named(names: &[&str], over: bool) -> Vec<(String, bool)> {
    names.iter().map(|name| ((*name).to_owned(), over)).collect()
}

#[test]
fn an_alert_has_the_labels_and_annotations_that_its_reader_needs() {
    let mut watch = Watch::new();
    watch.fire(&event("c@h", EventKind::RefreshFailed, Some("refused: 403")));
    let batch = watch.firing.batch(watch.now, SystemTime::UNIX_EPOCH, false).unwrap();
    let sent: Value = serde_json::from_str(&batch.body).unwrap();
    let labels = json!({
        "alertname": "SipstRefreshFailed", "instance": "host", "trunk": "carrier", "severity": "warning", "call_id": "c@h",
        "local_tag": "l", "remote_tag": "r", "server": "192.0.2.1:5060", "peer": "198.51.100.2:5060", "reason": "refused",
    });
    assert_eq!(sent[0]["labels"], labels);
    assert_eq!(sent[0]["startsAt"], "2023-11-14T22:13:20.000000Z");
    assert_eq!(sent[0]["endsAt"], "1970-01-01T00:04:00.000Z");
    let annotations = &sent[0]["annotations"];
    assert!(annotations["runbook_url"].as_str().unwrap().ends_with("/docs/events.md#refresh_failed"));
    assert!(annotations["description"].as_str().unwrap().contains("(refused: 403)"));
    assert_eq!(annotations["deadline"], "2023-11-14T22:14:20.000000Z");
}

#[test]
fn it_is_sent_again_before_its_end_until_the_session_is_refreshed_and_no_longer() {
    let mut watch = Watch::new();
    let overdue = event("a", EventKind::RefreshOverdue, None);
    watch.fire(&overdue);
    watch.fire(&event("b", EventKind::RefreshOverdue, None));
    assert_eq!(watch.sent(), named(&["SipstRefreshOverdue"; 2], false));
    assert_eq!(watch.firing.due(), Some(watch.now + RESEND));
    watch.hear(Signal::Repeat(Arc::clone(&overdue)));
    assert_eq!(watch.sent(), []);
    for _ in 0..3 {
        watch.now += RESEND;
        assert_eq!(watch.sent(), named(&["SipstRefreshOverdue"; 2], false));
    }
    watch.hear(Signal::Over(event("a", EventKind::SessionRefreshed, None)));
    assert_eq!(watch.sent(), named(&["SipstRefreshOverdue"], true));
    watch.now += RESEND;
    assert_eq!(watch.sent(), named(&["SipstRefreshOverdue"], false));
    // It is overdue once more: it fires anew, though the dispatcher has told of it a moment ago.
    watch.hear(Signal::Repeat(overdue));
    assert_eq!(watch.sent(), named(&["SipstRefreshOverdue"], false));
}

#[test]
fn what_an_event_ends_is_what_it_is_about() {
    let mut watch = Watch::new();
    let breaker =
        Arc::new(Event { trunk: Some("carrier".into()), ..Event::new(Time::from_micros(0), EventKind::BreakerOpened) });
    watch.fire(&breaker);
    watch.fire(&event("a", EventKind::NegotiationFault, Some("session_expires_malformed")));
    watch.fire(&event("a", EventKind::SessionExpiring, None));
    watch.fire(&event("a", EventKind::RefreshFailed, Some("held")));
    assert_eq!(watch.sent().len(), 4);
    watch.hear(Signal::Over(event("a", EventKind::SessionReleased, None)));
    assert_eq!(watch.sent(), named(&["SipstRefreshFailed"], true));
    watch.hear(Signal::Over(event("a", EventKind::SessionRefreshed, None)));
    assert_eq!(watch.sent(), named(&["SipstSessionExpiring"], true));
    watch.hear(Signal::Over(event("a", EventKind::SessionEnded, None)));
    assert_eq!(watch.sent(), named(&["SipstNegotiationFault"], true));
    watch.hear(Signal::Over(Arc::new(Event { kind: EventKind::BreakerClosed, ..Event::clone(&breaker) })));
    assert_eq!(watch.sent(), named(&["SipstBreakerOpened"], true));
    assert!(watch.firing.alerts.is_empty());
}

#[test]
fn what_nothing_ends_passes_and_what_fires_has_a_limit() {
    let mut watch = Watch::new();
    watch.fire(&Arc::new(Event::new(Time::from_micros(0), EventKind::CaptureLoss)));
    watch.fire(&event("a", EventKind::SessionExpired, None));
    assert_eq!(watch.sent().len(), 2);
    watch.now += PASSING;
    assert_eq!(watch.sent(), [named(&["SipstCaptureLoss"], true), named(&["SipstSessionExpired"], false)].concat());
    watch.now += LONGEST;
    assert_eq!(watch.sent(), named(&["SipstSessionExpired"], true));
    for call in 0..FIRING + 3 {
        watch.fire(&event(&call.to_string(), EventKind::SessionExpiring, None));
    }
    assert_eq!(watch.sent().len(), FIRING);
    assert_eq!(watch.counts.dropped.into_inner(), 3);
}
