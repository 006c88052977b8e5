//! The screen as cells.

use std::time::Duration;

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::{Modifier, Style},
    text::{Line, Span},
    widgets::{Clear, Widget as _},
};
use serde_json::Value;
use unicode_width::UnicodeWidthStr as _;

use super::{
    detail,
    look::Look,
    state::{DANGER, Pane, Screen},
};
use crate::{
    control::{protocol::Row, show},
    output::printable,
};

/// Less than this is no screen.
const LEAST: (u16, u16) = (40, 8);

/// From so many lines on there is room for one call's story below the list.
const ROOMY: u16 = 32;

/// The lines above the calls, and below them.
const ABOVE: u16 = 4;
const BELOW: u16 = 1;

/// What keys do, for whoever asks; in the order in which they are needed.
const KEYS: [(&str, &str); 10] = [
    ("up, down, j, k", "select a call (also PgUp, PgDn, Home, End)"),
    ("enter", "tell all about it; again: on the whole screen; again: not"),
    ("esc", "one step back"),
    ("/", "filter: words in Call-ID, trunk, state or address"),
    ("s", "sort by deadline, state, trunk or age"),
    ("p, space", "pause: nothing moves; again: go on"),
    ("ctrl-l", "draw the screen anew"),
    ("q, ctrl-c", "quit"),
    ("", ""),
    ("FLG", "h held  ? may be over  + kept alive before  m met midway  r relayed"),
];

/// Draws all of it. `now` is the time since the program began.
pub(crate) fn draw(screen: &mut Screen, now: Duration, look: Look, buffer: &mut Buffer) {
    let area = buffer.area;
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let text = format!("{}x{} at least", LEAST.0, LEAST.1);
        buffer.set_stringn(area.x, area.y, text, area.width.into(), Style::new());
        return;
    }
    screen.roomy = area.height >= ROOMY;
    header(screen, now, look, Rect { height: ABOVE - 1, ..area }, buffer);
    let body = Rect { y: area.y + ABOVE - 1, height: area.height - (ABOVE - 1) - BELOW, ..area };
    let (list, pane) = match screen.pane() {
        Pane::Auto | Pane::Closed => (Some(body), None),
        Pane::Open => {
            let pane = (body.height * 9 / 20).max(3);
            let list = body.height - pane;
            (Some(Rect { height: list, ..body }), Some(Rect { y: body.y + list, height: pane, ..body }))
        }
        Pane::Whole => (None, Some(body)),
    };
    if let Some(list) = list {
        calls(screen, now, look, list, buffer);
    }
    if let Some(pane) = pane {
        detail::draw(screen, now, look, pane, buffer);
    }
    footer(screen, look, Rect { y: area.bottom() - BELOW, height: BELOW, ..area }, buffer);
    if screen.help {
        help(look, area, buffer);
    }
}

/// Who answers, how many calls there are in each state, and what went wrong.
fn header(screen: &Screen, now: Duration, look: Look, area: Rect, buffer: &mut Buffer) {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let nothing = Value::Null;
    let status = screen.report().map_or(&nothing, |report| &report.status);
    let text = |value: &Value| value.as_str().map(printable).unwrap_or_default();

    let mut right = format!("by {}", screen.sort.name());
    if !screen.filter.is_empty() {
        right = format!("only \"{}\"  {right}", printable(&screen.filter));
    }
    if screen.is_paused() {
        right = format!("PAUSED  {right}");
    }
    let right = look.cut(&right, usize::from(area.width) / 2);
    let room = usize::from(area.width).saturating_sub(right.width() + 2);
    let interfaces: Vec<String> = status["interfaces"].as_array().into_iter().flatten().map(text).collect();
    let up = show::left(status["uptime_s"].as_f64().unwrap_or_default() + screen.late(now).as_secs_f64());
    let left = format!("sipst {}  {}  up {up}", text(&status["version"]), interfaces.join(", "));
    buffer.set_stringn(area.x, area.y, look.cut(&left, room), room, bold);
    let style = if screen.is_paused() { bold.add_modifier(Modifier::REVERSED) } else { Style::new() };
    buffer.set_string(area.right() - right.width() as u16, area.y, &right, style);

    Line::from(counts(screen, status, look)).render(Rect { y: area.y + 1, height: 1, ..area }, buffer);
    let (text, style) = news(screen, now, status, look);
    buffer.set_stringn(area.x, area.y + 2, look.cut(&text, area.width.into()), area.width.into(), style);
}

fn counts<'a>(screen: &Screen, status: &Value, look: Look) -> Vec<Span<'a>> {
    let sessions = &status["sessions"];
    let states = &sessions["states"];
    let count = |state: &str| states[state].as_u64().unwrap_or_default();
    let total: u64 = DANGER.iter().map(|state| count(state)).sum();
    let mut spans = vec![Span::raw(format!("{total} call{}", if total == 1 { "" } else { "s" }))];
    for state in DANGER.iter().filter(|state| count(state) > 0) {
        let gap = if spans.len() == 1 { ": " } else { ", " };
        spans.push(Span::raw(gap));
        spans.push(Span::styled(format!("{} {state}", count(state)), look.state(state)));
    }
    for (name, count) in [("held", &sessions["held"]), ("unsure", &sessions["unsure"])] {
        if let Some(count) = count.as_u64().filter(|count| *count > 0) {
            spans.push(Span::raw(format!("; {count} {name}")));
        }
    }
    if let Some(report) = screen.report().filter(|report| report.more) {
        let of = report.found.map_or(String::new(), |found| format!(" of {found}"));
        spans.push(Span::styled(format!("  (first {}{of} listed)", report.rows.len()), look.faint()));
    }
    spans
}

/// What has to be known first: that the daemon is silent, that it is another one, that its configuration was refused, or what it
/// alerted of last.
fn news(screen: &Screen, now: Duration, status: &Value, look: Look) -> (String, Style) {
    let text = |value: &Value| value.as_str().map(printable).unwrap_or_default();
    if let Some((why, since)) = &screen.trouble {
        let ago = show::left(now.saturating_sub(*since).as_secs_f64());
        return (format!("NO ANSWER for {ago}, trying again: {}", printable(why)), look.alarm());
    }
    let alerts = &status["alerts"];
    let mut line = match (alerts["count"].as_u64(), &alerts["last"]) {
        (Some(count @ 1..), last) => {
            let time = text(&last["time"]);
            let time = time.get(11..19).unwrap_or_default();
            let mut line = format!("{count} alert{}, the last {time}Z", if count == 1 { "" } else { "s" });
            for word in ["event", "reason", "call_id"].map(|name| text(&last[name])) {
                line.push_str(if word.is_empty() { "" } else { " " });
                line.push_str(&word);
            }
            line
        }
        _ => "no alerts".to_owned(),
    };
    let mut style = Style::new();
    if status["open_breakers"].as_u64() > Some(0) {
        line = format!("breakers open: {}; {line}", status["open_breakers"]);
        style = look.alarm();
    }
    if let Some(error) = status["reload"]["error"].as_str() {
        line = format!("reload NOT taken: {}; {line}", printable(error));
        style = look.alarm();
    }
    if screen.is_restarted(now) {
        line = format!("sipst was restarted; {line}");
        style = look.alarm();
    }
    (line, style)
}

/// A column of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Left,
    Bar,
    State,
    Flags,
    Refresher,
    Interval,
    Age,
    Trunk,
    Server,
    Peer,
    CallId,
}

impl Column {
    const fn name(self) -> &'static str {
        match self {
            Self::Left => "LEFT",
            Self::Bar => "",
            Self::State => "STATE",
            Self::Flags => "FLG",
            Self::Refresher => "REFR.",
            Self::Interval => "SE",
            Self::Age => "AGE",
            Self::Trunk => "TRUNK",
            Self::Server => "SERVER",
            Self::Peer => "PEER",
            Self::CallId => "CALL-ID",
        }
    }

    const fn is_number(self) -> bool {
        matches!(self, Self::Left | Self::Interval | Self::Age)
    }

    /// Which ones there are on a screen of this width, and how wide they are.
    fn of(width: u16) -> Vec<(Self, usize)> {
        use Column::*;
        let columns: &[(Self, usize)] = if width < 64 {
            &[(Left, 7), (Bar, 6), (State, 10)]
        } else if width < 100 {
            &[(Left, 7), (Bar, 8), (State, 10), (Flags, 3), (Refresher, 6), (Peer, 15)]
        } else if width < 150 {
            &[(Left, 7), (Bar, 10), (State, 10), (Flags, 3), (Refresher, 6), (Trunk, 10), (Peer, 21)]
        } else {
            &[
                (Left, 7),
                (Bar, 16),
                (State, 10),
                (Flags, 3),
                (Refresher, 6),
                (Interval, 5),
                (Age, 7),
                (Trunk, 12),
                (Server, 21),
                (Peer, 21),
            ]
        };
        let used: usize = columns.iter().map(|(_, width)| width + 1).sum();
        // The pointer and its gap come first.
        let rest = usize::from(width).saturating_sub(used + 2);
        columns.iter().copied().chain([(CallId, rest)]).collect()
    }
}

fn calls(screen: &mut Screen, now: Duration, look: Look, area: Rect, buffer: &mut Buffer) {
    let columns = Column::of(area.width);
    let heading = Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED);
    buffer.set_stringn(area.x, area.y, " ".repeat(area.width.into()), area.width.into(), heading);
    let mut x = area.x + 2;
    for (column, width) in &columns {
        let name = column.name();
        let text = if column.is_number() { format!("{name:>width$}") } else { name.to_owned() };
        buffer.set_stringn(x, area.y, text, *width, heading);
        x += *width as u16 + 1;
    }
    let late = screen.late(now).as_secs_f64();
    if screen.listed() == 0 {
        let why = if screen.filter.is_empty() {
            "no calls".to_owned()
        } else {
            format!("no call has \"{}\"", printable(&screen.filter))
        };
        let why = look.cut(&why, usize::from(area.width).saturating_sub(4));
        buffer.set_string(area.x + 2, area.y + 2.min(area.height - 1), why, look.faint());
        return;
    }
    let lines = usize::from(area.height - 1);
    let (rows, selected) = screen.window(lines);
    for (line, row) in rows.into_iter().enumerate() {
        one(row, late, selected == Some(line), look, &columns, (area.x, area.y + 1 + line as u16), buffer);
    }
}

/// How long a peer waits of the interval before it may hang up: all but a third, 32 s at most.
fn span(interval_s: u32) -> f64 {
    let interval = f64::from(interval_s);
    interval - (interval / 3.0).min(32.0)
}

fn one(
    row: &Row,
    late: f64,
    selected: bool,
    look: Look,
    columns: &[(Column, usize)],
    (mut x, y): (u16, u16),
    buffer: &mut Buffer,
) {
    let state = look.state(&row.state);
    let left = row.left_s.map(|left| left - late);
    let plain = if selected { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() };
    if selected {
        buffer.set_string(x, y, look.pointer(), Style::new().add_modifier(Modifier::BOLD));
    }
    x += 2;
    for &(column, width) in columns {
        let marked = if selected { state.add_modifier(Modifier::REVERSED) } else { state };
        let (text, style) = match column {
            Column::Left => (left.map_or("-".into(), show::left), marked),
            Column::Bar => {
                let part = left.zip(row.assumed_s.or(row.interval_s)).map(|(left, interval)| left / span(interval));
                // A bar that were reversed would read the other way.
                (part.map_or(String::new(), |part| look.bar(part, width)), state)
            }
            Column::State => (printable(&row.state), marked),
            Column::Flags => (flags(row), plain),
            Column::Refresher if row.assumed_s.is_some() => ("config".into(), plain),
            Column::Refresher => (row.refresher.clone().unwrap_or("-".into()), plain),
            Column::Interval => {
                (row.assumed_s.or(row.interval_s).map_or("-".into(), |interval| interval.to_string()), plain)
            }
            Column::Age => (show::left(row.age_s as f64 + late), plain),
            Column::Trunk => (printable(&row.trunk), plain),
            Column::Server => (row.server.to_string(), plain),
            // Where there is no room for the port, the address tells them apart.
            Column::Peer if width < 21 => (row.peer.ip().to_string(), plain),
            Column::Peer => (row.peer.to_string(), plain),
            Column::CallId => (printable(&row.call_id), plain),
        };
        let text = look.fit(&text, width);
        let pad = width.saturating_sub(text.width());
        let text = if column.is_number() {
            format!("{}{text}", " ".repeat(pad))
        } else {
            format!("{text}{}", " ".repeat(pad))
        };
        buffer.set_stringn(x, y, &text, width, style);
        x += width as u16;
        if selected && column != Column::Left && column != Column::Bar && column != Column::CallId {
            buffer.set_string(x, y, " ", plain);
        }
        x += 1;
    }
}

fn flags(row: &Row) -> String {
    let flags = [(row.held, 'h'), (row.unsure, '?'), (row.proven, '+'), (row.mid_call, 'm'), (row.relayed, 'r')];
    flags.iter().filter(|(is, _)| *is).map(|(_, flag)| flag).collect()
}

fn footer(screen: &Screen, look: Look, area: Rect, buffer: &mut Buffer) {
    let width = usize::from(area.width);
    if screen.typing {
        let text = format!("filter: {}_", printable(&screen.filter));
        // Where it is long, its end is what is being typed.
        let text = if text.width() > width { look.fit(&text, width) } else { text };
        buffer.set_stringn(area.x, area.y, text, width, Style::new().add_modifier(Modifier::BOLD));
        let hint = "enter keeps, esc clears";
        if width > hint.width() + screen.filter.width() + 12 {
            buffer.set_string(area.right() - hint.width() as u16, area.y, hint, look.faint());
        }
        return;
    }
    let pause = if screen.is_paused() { "p go on" } else { "p pause" };
    let keys = match screen.pane() {
        Pane::Whole => format!("q quit  ? help  {pause}  esc back  pgup, pgdn scroll  up, down other call"),
        Pane::Auto | Pane::Closed | Pane::Open => {
            format!("q quit  ? help  {pause}  / filter  s sort  enter all about it  esc back")
        }
    };
    buffer.set_stringn(area.x, area.y, look.cut(&keys, width), width, Style::new().add_modifier(Modifier::REVERSED));
}

fn help(look: Look, area: Rect, buffer: &mut Buffer) {
    let states = DANGER.map(|state| {
        let means = match state {
            "expired" => "the interval has run out",
            "expiring" => "the peer may hang up soon",
            "overdue" => "somebody should have refreshed",
            "refreshing" => "sipst's refresh is under way",
            "running" => "nobody has to act yet",
            "ignored" => "a timer shorter than interval_floor",
            _ => "no session timer",
        };
        (state, means)
    });
    let lines = KEYS.len() + states.len() + 2;
    let (width, height) = (area.width.min(86), area.height.min(lines as u16));
    let inner = Rect { x: (area.width - width) / 2, y: (area.height - height) / 2, width, height };
    Clear.render(inner, buffer);
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let title = format!(" {:<width$}", "sipst top: keys and states (any key goes on)", width = usize::from(width) - 1);
    buffer.set_stringn(inner.x, inner.y, title, width.into(), bold.add_modifier(Modifier::REVERSED));
    let keys = KEYS.iter().map(|(key, what)| (*key, *what, bold));
    let states = states.into_iter().map(|(state, means)| (state, means, look.state(state)));
    for (at, (name, what, style)) in keys.chain([("", "", bold)]).chain(states).enumerate() {
        let y = inner.y + 1 + at as u16;
        if y >= inner.bottom() {
            break;
        }
        buffer.set_stringn(inner.x + 1, y, name, 16, style);
        let room = usize::from(width).saturating_sub(18);
        buffer.set_stringn(inner.x + 17, y, look.cut(what, room), room, Style::new());
    }
}
