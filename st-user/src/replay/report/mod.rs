//! A replay as one page of HTML, for whoever has to be shown what went wrong: no script, nothing fetched, and nothing from the wire
//! in it that a browser obeys.
//!
//! It is well-formed XML at the same time, so that a test can hold it to that whatever the wire brought.

mod lane;
mod story;

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::Write as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use st_core::{By, Time};

use super::{Call, Summary, Verdict};
use crate::{control::show::left, output::printable};
pub use story::Stories;
use story::{MAX_DRAWN, Mark, Story, drawn};

/// The longest text from the wire, in characters.
const MAX_TEXT: usize = 200;

/// How many lines of a call's summary there are: breaches have no limit of their own.
const MAX_LINES: usize = 40;

/// Lists that are no longer than this are open from the beginning.
const OPEN: usize = 12;

const STYLE: &str = include_str!("style.css");

/// What keeps a browser from running or fetching anything, even if something were to get by.
const HEAD: &str = concat!(
    r#"<meta charset="utf-8"/><meta name="viewport" content="width=device-width, initial-scale=1"/>"#,
    r#"<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'"/>"#,
);

/// Where the page will be.
pub(crate) struct Page {
    path: PathBuf,
    file: File,
}

impl Page {
    /// Opens the file, and leaves what is in it until there is a page.
    ///
    /// # Errors
    /// It cannot be written, or is the capture itself.
    pub(crate) fn create(path: &Path, capture: &Path) -> Result<Self> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path);
        let page = Self { path: path.to_owned(), file: file.with_context(|| unwritable(path))? };
        let same = |own: std::fs::Metadata, its: std::fs::Metadata| (own.dev(), own.ino()) == (its.dev(), its.ino());
        if let (Ok(own), Ok(its)) = (page.file.metadata(), capture.metadata())
            && same(own, its)
        {
            bail!("{} is the capture itself: name another file for the page", path.display());
        }
        Ok(page)
    }

    /// Writes it in place of what was there.
    ///
    /// # Errors
    /// It cannot be written any more.
    pub(crate) fn write(mut self, text: &str) -> Result<()> {
        // What is no regular file has no length.
        let _ = self.file.set_len(0);
        self.file.write_all(text.as_bytes()).with_context(|| unwritable(&self.path))
    }
}

fn unwritable(path: &Path) -> String {
    format!("cannot write {}", path.display())
}

/// A text from the wire, so long at most, with nothing in it that is not to be seen.
fn cut(text: &str, most: usize) -> String {
    let mut seen = String::new();
    for (at, c) in text.chars().enumerate() {
        if at == most {
            seen.push('…');
            break;
        }
        // XML has no place for these two, and a browser no glyph.
        seen.push(if matches!(c, '\u{fffe}' | '\u{ffff}') { '\u{fffd}' } else { c });
    }
    printable(&seen)
}

fn wire(text: &str) -> String {
    cut(text, MAX_TEXT)
}

/// How long after `from`.
fn after(from: Time, at: Time) -> String {
    left(at.since(from).as_secs_f64())
}

/// The time of day, and the day where a page needs it.
fn clock(at: Time) -> String {
    at.to_string().get(11..23).map(|clock| format!("{clock}Z")).unwrap_or_default()
}

const fn verdict(verdict: Verdict) -> (&'static str, &'static str) {
    match verdict {
        Verdict::NoTimer => ("no_timer", "no session timer"),
        Verdict::Sound => ("sound", "sound"),
        Verdict::KeptAlive => ("kept_alive", "kept alive by sipst"),
        Verdict::Outlived => ("outlived", "ran out and went on"),
        Verdict::Overdue => ("overdue", "overdue at its end"),
        Verdict::Lost => ("lost", "lost"),
    }
}

fn or_dash(value: Option<impl fmt::Display>) -> String {
    value.map_or("-".to_owned(), |value| value.to_string())
}

/// The page. `trouble` is why the capture could not be read to its end.
pub(crate) fn page(file: &Path, summary: &Summary, trouble: Option<&str>) -> String {
    let name = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy();
    let title = format!("sipst: {}", wire(&name));
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head { (PreEscaped(HEAD)) title { (title) } style { (PreEscaped(STYLE)) } }
            body {
                a class="skip" href="#calls" { "to the calls" }
                header {
                    h1 { "Session timers in " code { (wire(&name)) } }
                    (about(summary, trouble))
                }
                main id="calls" { (calls(summary)) }
                footer class="faint" {
                    p {
                        "Made by sipst " (env!("CARGO_PKG_VERSION")) ". A deadline is the interval less a third of it, \
                        32 s at most: from then on a peer may hang up. The two ends' clocks, and packets lost between \
                        them, are not in a capture: what is said here is what RFC 4028 allows, not what this peer \
                        would have done."
                    }
                }
            }
        }
    };
    page.into_string()
}

fn about(summary: &Summary, trouble: Option<&str>) -> Markup {
    let span = summary.stories.as_ref().and_then(|stories| stories.span);
    html! {
        @if let Some((from, to)) = span {
            p { "From " time datetime=(from) { (from) } " for " (after(from, to)) "." }
        }
        @if let Some(trouble) = trouble {
            p class="note" { "The capture could not be read to its end: " (wire(trouble)) }
        }
        @for line in summary.to_string().lines().take(MAX_LINES) { p class="faint" { (wire(line)) } }
    }
}

fn calls(summary: &Summary) -> Markup {
    let (Some(calls), Some(stories)) = (&summary.calls, &summary.stories) else { return html! {} };
    let all = calls.iter().len();
    let places = drawn(calls);
    let end = stories.span.map(|(_, end)| end);
    let none = Story::default();
    let left_out = calls.iter().enumerate().filter(|(at, _)| places.binary_search(at).is_err());
    let left_out = tally(left_out.map(|(_, call)| call.verdict));
    let listed: Vec<(usize, &Call)> =
        calls.iter().enumerate().filter(|(at, _)| places.binary_search(at).is_ok()).collect();
    html! {
        h2 { (all) " call" @if all != 1 { "s" } }
        @if all == 0 { p { "No session began in this capture." } }
        @else { p { (tally(calls.iter().map(|call| call.verdict))) } }
        @if all > places.len() {
            p class="note" {
                "Only " (MAX_DRAWN) " calls are shown, the worst. Left out: " (left_out) ". "
                code { "sipst replay --summary" } " tells of all."
            }
        }
        @if calls.beyond() > 0 {
            p class="note" {
                "There were more calls than can be told apart; " (calls.beyond()) " of their events are not in here."
            }
        }
        @if !listed.is_empty() {
            (legend())
            table {
                caption class="skip" { "The calls, in the order in which they began" }
                thead { tr {
                    th scope="col" { "Call" } th scope="col" { "Verdict" } th scope="col" { "Interval" }
                    th scope="col" { "Had to refresh" } th scope="col" { "Did" } th scope="col" { "Failed" }
                    th scope="col" { "Could have died" } th scope="col" { "Ended" }
                } }
                tbody { @for (at, call) in &listed { (row(*at, call)) } }
            }
            h2 { "Each call" }
            @for (at, call) in &listed { (article(*at, call, stories.of(*at).unwrap_or(&none), end)) }
        }
    }
}

/// How many of each verdict.
fn tally(verdicts: impl Iterator<Item = Verdict> + Clone) -> String {
    let all =
        [Verdict::Lost, Verdict::Outlived, Verdict::Overdue, Verdict::KeptAlive, Verdict::Sound, Verdict::NoTimer];
    let parts = all.into_iter().filter_map(|kind| {
        let count = verdicts.clone().filter(|verdict| *verdict == kind).count();
        (count > 0).then(|| format!("{count} {}", verdict(kind).1))
    });
    parts.collect::<Vec<_>>().join(", ")
}

fn row(at: usize, call: &Call) -> Markup {
    let (class, words) = verdict(call.verdict);
    let had: Vec<String> = call.refreshers.iter().map(ToString::to_string).collect();
    let died = call.would_have_died.map(|died| format!("after {}", after(call.started, died)));
    let ended = call.ended.map(|ended| format!("after {}{}", after(call.started, ended), by(call.ended_by)));
    html! {
        tr role="row" {
            td role="cell" data-name="Call" { a href=(format!("#call-{at}")) { code { (wire(&call.call_id)) } } }
            td role="cell" data-name="Verdict" { span class=(format!("verdict {class}")) { (words) } }
            td role="cell" data-name="Interval" { (or_dash(call.interval_s.map(|seconds| format!("{seconds} s")))) }
            td role="cell" data-name="Had to refresh" { @if had.is_empty() { "-" } @else { (had.join(", then ")) } }
            td role="cell" data-name="Did" { (call.refreshed) }
            td role="cell" data-name="Failed" { (call.failed) }
            td role="cell" data-name="Could have died" { (or_dash(died)) }
            td role="cell" data-name="Ended" { (ended.unwrap_or("not in this capture".into())) }
        }
    }
}

fn by(by: Option<By>) -> String {
    by.map_or(String::new(), |by| {
        format!(" by {}", if by == By::Sipst { "sipst".to_owned() } else { format!("the {by}") })
    })
}

fn article(at: usize, call: &Call, story: &Story, end: Option<Time>) -> Markup {
    let (class, words) = verdict(call.verdict);
    let text = call.to_string();
    let lines: Vec<&str> = text.lines().collect();
    html! {
        article id=(format!("call-{at}")) aria-labelledby=(format!("name-{at}")) data-verdict=(class) {
            h3 id=(format!("name-{at}")) { (wire(&call.call_id)) }
            p { span class=(format!("verdict {class}")) { (words) } }
            (lane::draw(at, call, story, end))
            div class="beside" {
                ul class="facts" {
                    @for line in lines.iter().take(MAX_LINES) { li { (cut(line, 2 * MAX_TEXT)) } }
                    @if lines.len() > MAX_LINES { li { "and " (lines.len() - MAX_LINES) " more lines" } }
                }
                @if story.marks.len() <= OPEN {
                    details open="open" { (happened(call, story)) }
                } @else {
                    details { (happened(call, story)) }
                }
            }
        }
    }
}

fn happened(call: &Call, story: &Story) -> Markup {
    html! {
        summary { "What happened (" (story.marks.len()) ")" }
        table {
            thead { tr {
                th scope="col" { "Time" } th scope="col" { "After" }
                th scope="col" { "Event" } th scope="col" { "Who, why" }
            } }
            tbody { @for mark in &story.marks { tr role="row" {
                td role="cell" data-name="Time" { time datetime=(mark.at) { (clock(mark.at)) } }
                td role="cell" data-name="After" { (after(call.started, mark.at)) }
                td role="cell" data-name="Event" { code { (mark.kind.name()) } }
                td role="cell" data-name="Who, why" { (details(mark)) }
            } } }
        }
        @if story.more > 0 { p class="note" { (story.more) " further events of this call are left out." } }
    }
}

fn details(mark: &Mark) -> String {
    let parts = [
        mark.by.map(|by| by.to_string()),
        mark.method.map(ToOwned::to_owned),
        mark.status.map(|status| status.to_string()),
        // It is fit to be seen since it was kept.
        mark.reason.clone(),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() { "-".into() } else { parts.join(", ") }
}

fn legend() -> Markup {
    let disc = |class: &str, letter: &str| {
        html! {
            circle class=(format!("mark {class}")) cx="11" cy="9" r="8" {}
            text class="on" x="11" y="13" { (letter) }
        }
    };
    let stroke = |class: &str| html! { line class=(class) x1="11" x2="11" y1="0" y2="18" {} };
    let signs = [
        (disc("server", "S"), "refreshed by the server"),
        (disc("peer", "P"), "by the peer"),
        (disc("sipst", "+"), "by sipst"),
        (disc("fault", "!"), "fault or alert"),
        (stroke("deadline"), "from here on the peer may hang up"),
        (stroke("death"), "† could have died"),
        (stroke("end"), "ended"),
    ];
    html! {
        ul class="legend" aria-label="Marks" {
            @for (sign, means) in &signs { li { svg class="sign" aria-hidden="true" { (sign) } (means) } }
        }
    }
}
