//! All that is known of one call, below the list or in its place.

use std::time::Duration;

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::{Modifier, Style},
};
use unicode_width::UnicodeWidthStr as _;

use super::{
    look::Look,
    state::{Pane, Screen},
};
use crate::{
    control::{
        protocol::{Call, Row},
        show,
    },
    output::printable,
};

/// Draws it; what happened last is always seen, unless somebody has gone back in it.
pub(crate) fn draw(screen: &mut Screen, now: Duration, look: Look, area: Rect, buffer: &mut Buffer) {
    let width = usize::from(area.width);
    let late = screen.late(now).as_secs_f64();
    let Some((row, call)) = screen.call() else {
        title("no call is selected", area, buffer, look);
        return;
    };
    title(&format!("call {}", printable(&row.call_id)), area, buffer, look);
    let facts = facts(row, call, late);
    let happened: Option<Vec<String>> = call.map(|call| story(row, call));
    // A pane that has no room for both shows who must act, and what happened last.
    let lines = usize::from(area.height) - 1;
    let room = if screen.pane() == Pane::Whole { facts.len() } else { facts.len().min(lines.saturating_sub(3)) };
    let alarming = ["overdue", "expiring", "expired"].contains(&row.state.as_str());
    let state = look.state(&row.state);
    let mut y = area.y + 1;
    for (name, value) in facts.iter().take(room.min(lines)) {
        let style = if *name == "deadline" && alarming || *name == "state" { state } else { Style::new() };
        buffer.set_stringn(area.x, y, name, width, look.faint());
        let left = width.saturating_sub(10);
        buffer.set_stringn(area.x + 9.min(area.width), y, look.cut(value, left), left, style);
        y += 1;
    }
    let lines = lines.saturating_sub(room.min(lines));
    let Some(happened) = happened else {
        if lines > 0 {
            buffer.set_stringn(area.x, y, "asking what happened in it", width, look.faint());
        }
        return;
    };
    let above = screen.scroll(happened.len(), lines);
    for line in happened.iter().skip(above).take(lines) {
        buffer.set_stringn(area.x, y, look.cut(line, width), width, Style::new());
        y += 1;
    }
}

fn title(text: &str, area: Rect, buffer: &mut Buffer, look: Look) {
    let width = usize::from(area.width);
    let style = Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED);
    let text = look.fit(text, width);
    let text = format!("{text}{}", " ".repeat(width.saturating_sub(text.width())));
    buffer.set_stringn(area.x, area.y, text, width, style);
}

/// The most important first.
fn facts(row: &Row, call: Option<&Call>, late: f64) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    let ahead = |seconds: f64| {
        let left = show::left((seconds - late).abs());
        if seconds - late < 0.0 { format!("{left} ago") } else { format!("in {left}") }
    };
    let clock = |time: &str| format!("{}Z", printable(time.get(11..19).unwrap_or(time)));
    let by = match (&row.act, row.due_s) {
        (Some(act), Some(due)) => format!(" by {}, {}", clock(act), ahead(due)),
        _ => String::new(),
    };
    let timer = match (row.assumed_s, row.interval_s, &row.refresher) {
        (Some(assumed), ..) => Some(format!("{assumed} s, by the trunk's `assume_interval`: sipst has to act{by}")),
        (None, Some(interval), Some(refresher)) => {
            Some(format!("{interval} s: the {} must refresh{by}", printable(refresher)))
        }
        (None, ..) => None,
    };
    if let Some(timer) = timer {
        facts.push(("timer", timer));
        if let (Some(deadline), Some(left)) = (&row.deadline, row.left_s) {
            let text = format!("{}, {}: from then on the peer may hang up", clock(deadline), ahead(left));
            facts.push(("deadline", text));
        }
    } else {
        facts.push(("timer", "none: nobody has to refresh it".to_owned()));
    }
    facts.push(("state", format!("{}{}", printable(&row.state), show::marks(row))));
    facts.push(("sipst", call.map_or("...".to_owned(), show::outlook)));
    let tag = |tag: &str| format!("tag {}", printable(tag));
    facts.push(("server", format!("{}  {}", row.server, tag(&row.local_tag))));
    facts.push(("peer", format!("{}  {}", row.peer, tag(&row.remote_tag))));
    facts.push(("trunk", format!("{} (action: {})", printable(&row.trunk), printable(&row.action))));
    let age = show::left(row.age_s as f64 + late);
    facts.push(("started", format!("{}, {age} ago, by the {}", clock(&row.started), printable(&row.caller))));
    facts
}

/// What happened, one line each: the time of day, and the rest as `sipst show` has it.
fn story(row: &Row, call: &Call) -> Vec<String> {
    let mut lines = Vec::new();
    if call.kept_since > row.started {
        lines.push("(events before these are no longer kept, alerts apart)".to_owned());
    }
    lines.extend(call.timeline.iter().map(|event| {
        let line = show::happening(event);
        let line = line.trim_end();
        // The day is in `sipst show`.
        let day = event["time"].as_str().is_some_and(|time| time.is_ascii() && time.len() == 27);
        if day { format!("{}{}", &line[11..23], &line[27..]) } else { line.to_owned() }
    }));
    lines
}
