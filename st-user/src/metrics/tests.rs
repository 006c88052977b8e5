//! What is declared, documented and shown is the same.

use st_core::{By, Event, EventKind, Side, Time};

use super::{declaration::Families, *};
use crate::written;

const HEAD: &str = "# Metrics

`metrics: { listen: \"127.0.0.1:9464\" }` has sipst answer on that address:

| path | |
|---|---|
| `/metrics` | what follows, as OpenMetrics or in Prometheus's own format, whichever is asked for |
| `/health` | 200 while the daemon's loop turns: packets and deadlines were both worked on in the last 5 s; else 503, and since when |
| `/ready` | 200 where it is attached to every interface of the configuration's, reads, and keeps what it knows of the calls; else 503, and what is amiss |

Values are published once a second, counters as things happen. Labels are bounded: `trunk` is a name of the configuration's, `default`, or
empty where no one call is concerned, the others are one of a few words. No label names a call.

This list is made from `st-user/src/metrics/declaration.rs`.

| metric | kind | labels | meaning |
|---|---|---|---|
";

#[test]
fn the_list_of_metrics_is_what_is_declared() {
    let rows: String = Families::declared().iter().map(declaration::Declared::row).collect();
    written::holds("docs/metrics.md", &format!("{HEAD}{rows}"));
}

/// The text, in both forms.
pub(super) fn shown(metrics: &Metrics) -> [String; 2] {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    [Form::OpenMetrics, Form::Prometheus].map(|form| {
        let reply = runtime.block_on(metrics.exposer.reply(form));
        let body = http_body_util::BodyExt::collect(reply.into_body());
        String::from_utf8(runtime.block_on(body).unwrap().to_bytes().to_vec()).unwrap()
    })
}

#[test]
fn what_is_shown_is_named_as_declared() {
    let metrics = Metrics::start().unwrap();
    for kind in EventKind::ALL {
        let lag = (kind == EventKind::RefreshSent).then_some(std::time::Duration::from_millis(7));
        metrics.event(&Event { lag, ..Event::new(Time::from_micros(0), kind) });
    }
    process::publish(&metrics.families);
    let declared: Vec<String> = Families::declared().iter().flat_map(declaration::Declared::series).collect();
    for text in shown(&metrics) {
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap();
            assert!(declared.iter().any(|declared| declared == name), "{line}");
        }
    }
}

fn value(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

#[test]
fn events_are_counted_by_trunk_and_never_by_what_the_wire_brings() {
    let metrics = Metrics::start().unwrap();
    let event = |kind, reason: Option<&str>| Event {
        trunk: Some("car\"rier".into()),
        by: Some(By::Server),
        refresher: Some(Side::Peer),
        reason: reason.map(|reason| reason.to_owned().into()),
        ..Event::new(Time::from_micros(0), kind)
    };
    metrics.event(&event(EventKind::SessionRefreshed, None));
    metrics.event(&event(EventKind::SessionRefreshed, None));
    metrics.event(&event(EventKind::RefreshFailed, Some("refused: Call-ID evil")));
    metrics.event(&event(EventKind::RefreshFailed, Some("evil\n: x")));
    metrics.event(&event(EventKind::SessionExpired, None));
    metrics.event(&Event::new(Time::from_micros(0), EventKind::CaptureLoss));
    for text in shown(&metrics) {
        let of = |series: &str| value(&text, series);
        assert_eq!(of("sipst_events_total{event=\"session_refreshed\",trunk=\"car\\\"rier\"}"), Some(2.0), "{text}");
        assert_eq!(
            of("sipst_refreshes_total{trunk=\"car\\\"rier\",by=\"server\",result=\"succeeded\"}"),
            Some(2.0),
            "{text}"
        );
        assert_eq!(
            of("sipst_refreshes_total{trunk=\"car\\\"rier\",by=\"sipst\",result=\"failed\"}"),
            Some(2.0),
            "{text}"
        );
        assert_eq!(of("sipst_refresh_failures_total{trunk=\"car\\\"rier\",reason=\"refused\"}"), Some(1.0), "{text}");
        assert_eq!(of("sipst_refresh_failures_total{trunk=\"car\\\"rier\",reason=\"other\"}"), Some(1.0), "{text}");
        assert_eq!(of("sipst_sessions_expired_total{trunk=\"car\\\"rier\",refresher=\"peer\"}"), Some(1.0), "{text}");
        assert_eq!(of("sipst_events_total{event=\"capture_loss\",trunk=\"\"}"), Some(1.0), "{text}");
        assert!(!text.contains("evil"), "{text}");
    }
}

#[test]
fn trunks_past_the_bound_are_counted_as_others() {
    let metrics = Metrics::start().unwrap();
    for number in 0..=events::MAX_TRUNKS + 1 {
        let trunk = Some(number.to_string());
        metrics.event(&Event { trunk, ..Event::new(Time::from_micros(0), EventKind::SessionStarted) });
    }
    let [text, _] = shown(&metrics);
    assert_eq!(value(&text, "sipst_events_total{event=\"session_started\",trunk=\"other\"}"), Some(2.0));
    assert_eq!(text.matches("\nsipst_events_total{").count(), events::MAX_TRUNKS + 1);
}

#[test]
fn who_asks_for_open_metrics_gets_them() {
    assert_eq!(Form::wanted(None), Form::Prometheus);
    assert_eq!(Form::wanted(Some("*/*")), Form::Prometheus);
    let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
    assert_eq!(Form::wanted(Some(prometheus)), Form::OpenMetrics);
}

#[test]
fn health_is_the_loops_and_readiness_what_it_says() {
    let health = Health::default();
    assert!(health.lives().is_err() && health.ready().is_err());
    health.turned();
    assert!(health.lives().is_ok());
    assert!(health.ready().unwrap_err()[0].contains("earlier run"));
    health.publish(vec!["interface eth0: not attached".into()]);
    assert_eq!(health.ready(), Err(vec!["interface eth0: not attached".into()]));
    health.publish(vec![]);
    assert_eq!(health.ready(), Ok(()));
}
