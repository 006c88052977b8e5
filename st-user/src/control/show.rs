//! What the daemon answers, for people: lines with nothing in them that a terminal obeys.

use std::fmt::Write as _;

use serde_json::Value;

use super::protocol::{Call, Row};
use crate::output::printable;

/// Above rows.
pub(crate) const HEADING: &str =
    "LEFT       STATE       REFRESHER  TRUNK       SERVER                 PEER                   CALL-ID\n";

/// One session in columns.
pub(crate) fn row(row: &Row) -> String {
    let Row { call_id, server, peer, trunk, held, .. } = row;
    let state = if *held { format!("{} held", row.state) } else { row.state.clone() };
    format!(
        "{:<10} {state:<11} {:<10} {:<11} {:<22} {:<22} {}\n",
        row.left_s.map_or("-".into(), left),
        row.assumed_s.map_or_else(|| row.refresher.as_deref().unwrap_or("-"), |_| "assumed"),
        printable(trunk),
        server.to_string(),
        peer.to_string(),
        printable(call_id),
    )
}

/// A time that is left, or has passed.
pub(crate) fn left(seconds: f64) -> String {
    let sign = if seconds < 0.0 { "-" } else { "" };
    let whole = seconds.abs() as u64;
    let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
    match (hours, minutes) {
        (0, 0) => format!("{sign}{seconds}s"),
        (0, _) => format!("{sign}{minutes}m{seconds:02}s"),
        _ => format!("{sign}{hours}h{minutes:02}m"),
    }
}

/// What sipst would do in a call, as one sentence.
pub(crate) fn outlook(call: &Call) -> String {
    if let Some(method) = &call.would_send {
        return format!("it refreshes the call with {method}, unless the server does so first");
    }
    let why = call.would_not.as_deref().unwrap_or("untimed");
    match why {
        "ended" => "nothing: the call is over".into(),
        "untimed" => "nothing: there is no session timer to keep".into(),
        "peer_refreshes" => "it alerts where the peer does not refresh: sipst never refreshes for the peer".into(),
        "policy" if call.row.action == "observe" => "it watches: the trunk's `action` is `observe`".into(),
        "policy" => "it alerts: the trunk's `action` is `alert`".into(),
        "held" => "it keeps its hands off: `sipst release` ends that".into(),
        why => format!("it alerts, for it cannot refresh: {why}{}", meaning(why)),
    }
}

/// What a reason means, from the table of the documentation.
fn meaning(reason: &str) -> String {
    let known = st_core::engine::reason::ALL.iter().find(|(word, _)| *word == reason);
    let text = known.and_then(|(_, text)| text.split_once(": ")).map(|(_, text)| text.trim());
    text.map_or(String::new(), |text| format!(" ({})", text.trim_end_matches('.')))
}

/// What is special about a call, each behind a comma: it follows the state.
pub(crate) fn marks(row: &Row) -> String {
    let marks = [
        (row.held, "held"),
        (row.relayed, "relayed by this host"),
        (row.mid_call, "met in the middle"),
        (row.unsure, "unsure: it may be over"),
        (row.proven, "refreshed by sipst before"),
    ];
    marks.iter().filter(|(is, _)| *is).map(|(_, mark)| format!(", {mark}")).collect()
}

/// All about a call.
pub(crate) fn call(call: &Call) -> String {
    let Row { call_id, local_tag, remote_tag, server, peer, trunk, action, state, caller, started, age_s, .. } =
        &call.row;
    let row = &call.row;
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name:<10} {value}");
    };
    line("call", printable(call_id));
    line("server", format!("{server}  tag {}", printable(local_tag)));
    line("peer", format!("{peer}  tag {}", printable(remote_tag)));
    line("state", format!("{state}{}", marks(row)));
    line("trunk", format!("{} (action: {action})", printable(trunk)));
    line("started", format!("{started}, {} ago, by the {caller}", left(*age_s as f64)));
    if let (Some(interval), Some(refresher)) = (row.interval_s, &row.refresher) {
        line("interval", format!("{interval} s; the {refresher} must refresh"));
    }
    if let Some(assumed) = row.assumed_s {
        line("assumed", format!("{assumed} s; no timer was negotiated, the trunk's `assume_interval` says so"));
    }
    if let (Some(act), Some(deadline), Some(left_s)) = (&row.act, &row.deadline, row.left_s) {
        line("act", act.clone());
        line("deadline", format!("{deadline}, {}", if left_s < 0.0 { "passed" } else { "when the peer may hang up" }));
        line("left", left(left_s));
    }
    line("sipst", outlook(call));
    if call.kept_since > row.started {
        line("timeline", format!("events since {}; of what was before, alerts at most", call.kept_since));
    } else {
        line("timeline", String::new());
    }
    for event in &call.timeline {
        text.push_str("  ");
        text.push_str(&happening(event));
    }
    text
}

/// An event of a call that everybody knows, as one line.
pub(crate) fn happening(event: &Value) -> String {
    let word = |name: &str| event[name].as_str().map(printable);
    let mut line = format!("{}  {:<17}", word("time").unwrap_or_default(), word("event").unwrap_or_default());
    let _ = write!(line, "  {:<6}", word("by").unwrap_or_else(|| "-".into()));
    for name in ["method", "status", "interval_s", "refresher", "reason"] {
        let value = &event[name];
        if let Some(text) = value.as_str() {
            let _ = write!(line, "  {name}={}", printable(text));
        } else if let Some(number) = value.as_u64() {
            let _ = write!(line, "  {name}={number}");
        }
    }
    let breaches = event["breaches"].as_array().map(Vec::as_slice).unwrap_or_default();
    for breach in breaches {
        let of = |name: &str| breach[name].as_str().map(printable).unwrap_or_default();
        let _ = write!(line, "  breach={}:{}", of("by"), of("reason"));
    }
    line.truncate(line.trim_end().len());
    line.push('\n');
    line
}

/// An event, with the call that it is about.
pub(crate) fn event(event: &Value) -> String {
    let mut line = happening(event);
    line.pop();
    for name in ["trunk", "peer", "deadline", "call_id"] {
        if let Some(text) = event[name].as_str() {
            let _ = write!(line, "  {name}={}", printable(text));
        }
    }
    line.push('\n');
    line
}

/// How the daemon does.
pub(crate) fn daemon(status: &Value) -> String {
    let mut text = String::new();
    let word = |value: &Value| value.as_str().map(printable).unwrap_or_default();
    let uptime = left(status["uptime_s"].as_f64().unwrap_or_default());
    let _ = writeln!(
        text,
        "sipst     {}, process {}, since {} ({uptime} ago)",
        word(&status["version"]),
        status["pid"],
        word(&status["started"]),
    );
    let sessions = &status["sessions"];
    let states = sessions["states"].as_object();
    let states: Vec<String> = states
        .into_iter()
        .flatten()
        .filter(|(_, count)| count.as_u64() != Some(0))
        .map(|(state, count)| format!("{count} {state}"))
        .chain([("held", &sessions["held"]), ("unsure", &sessions["unsure"])].into_iter().filter_map(
            |(name, count)| count.as_u64().filter(|count| *count > 0).map(|count| format!("{count} {name}")),
        ))
        .collect();
    let states = if states.is_empty() { "none".to_owned() } else { states.join(", ") };
    let next =
        sessions["next_deadline_s"].as_f64().map_or(String::new(), |next| format!("; next deadline in {}", left(next)));
    let _ = writeln!(text, "calls     {states}{next}");
    if status["waiting_refreshes"].as_u64() > Some(0) || status["open_breakers"].as_u64() > Some(0) {
        let _ = writeln!(
            text,
            "refreshes {} wait for their turn, {} breakers are open",
            status["waiting_refreshes"], status["open_breakers"]
        );
    }
    for remark in status["remarks"].as_array().into_iter().flatten() {
        let _ = writeln!(text, "remark    {}", word(remark));
    }
    let reload = &status["reload"];
    if reload.is_object() {
        let outcome =
            reload["error"].as_str().map_or("taken".to_owned(), |error| format!("NOT taken: {}", printable(error)));
        let _ = writeln!(text, "reload    {} {outcome}", word(&reload["time"]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_reads_at_a_glance() {
        for (seconds, text) in
            [(0.4, "0s"), (59.9, "59s"), (60.0, "1m00s"), (3_599.0, "59m59s"), (3_600.0, "1h00m"), (-5.0, "-5s")]
        {
            assert_eq!(left(seconds), text);
        }
    }

    #[test]
    fn nothing_from_the_wire_reaches_the_terminal_as_a_command() {
        let event: Value =
            serde_json::json!({"time": "t", "event": "session_ended", "reason": "bye: \u{1b}[2J", "call_id": "\u{7}"});
        let line = super::event(&event);
        assert!(!line.contains('\u{1b}') && !line.contains('\u{7}'), "{line}");
        assert_eq!(line.matches('\n').count(), 1);
    }

    #[test]
    fn a_reason_is_explained() {
        assert!(meaning("next_hop_unknown").contains("peers"), "{}", meaning("next_hop_unknown"));
        assert_eq!(meaning("unheard_of"), "");
    }
}
