//! One call as a lane: time from left to right, in parts of the call's own length, so that it is as wide as the page is.

use maud::{Markup, html};
use st_core::{By, EventKind, Time};

use super::{after, clock, details, story::Story, verdict};
use crate::replay::Call;

/// Where the lane begins and how wide it is, in hundredths of the page.
const LEFT: f64 = 2.0;
const WIDTH: f64 = 96.0;

/// Where the faults, the call itself and the time are, from the top.
const FAULTS: f64 = 11.0;
const CALL: f64 = 26.0;
const HIGH: f64 = 26.0;
const TIME: f64 = 80.0;

/// A call's time, as places on the page.
struct Scale {
    from: Time,
    span: f64,
}

impl Scale {
    fn place(&self, at: Time) -> f64 {
        LEFT + WIDTH * (at.since(self.from).as_secs_f64() / self.span).clamp(0.0, 1.0)
    }

    fn x(&self, at: Time) -> String {
        format!("{:.2}%", self.place(at))
    }

    fn width(&self, from: Time, to: Time) -> String {
        format!("{:.2}%", (self.place(to) - self.place(from)).max(0.1))
    }
}

/// Draws a call; `end` is when the capture is over.
pub(super) fn draw(at: usize, call: &Call, story: &Story, end: Option<Time>) -> Markup {
    let last = story.marks.last().map_or(call.started, |mark| mark.at);
    let over = call.ended.or(end).unwrap_or(last).max(last).max(call.started);
    let shown = call.would_have_died.map_or(over, |died| died.max(over));
    let scale = Scale { from: call.started, span: shown.since(call.started).as_secs_f64().max(0.001) };
    let (id, text) = (format!("lane-{at}"), format!("lane-{at}-text"));
    // The bar's height, and that of what stands out from it.
    let (top, bottom) = (CALL - 4.0, CALL + HIGH + 4.0);
    let stretch = |from, to| (scale.x(from), scale.width(from, to));
    html! {
        svg class="lane" role="img" aria-labelledby=(format!("{id} {text}")) data-call=(at) {
            title id=(id) { "The call from its beginning to its end" }
            desc id=(text) { (described(call, story)) }
            @let (x, width) = stretch(call.started, over);
            rect class="life" x=(x) y=(CALL) width=(width) height=(HIGH) {}
            @for (index, interval) in story.intervals.iter().enumerate() {
                @let to = story.intervals.get(index + 1).map_or(over, |next| next.from);
                @let who = interval.refresher.map(|side| side.to_string()).unwrap_or_default();
                @if let Some(deadline) = interval.deadline.filter(|deadline| *deadline < to) {
                    @let (x, width) = stretch(deadline, to);
                    rect class="over" x=(x) y=(CALL) width=(width) height=(HIGH) {}
                }
                @let (x, width) = stretch(interval.from, to);
                rect class=(format!("se {who}")) x=(x) y=(CALL) width=(width) height=(HIGH) {
                    title { (interval.seconds) " s from " (clock(interval.from)) "; the " (who) " must refresh" }
                }
                // One that was refreshed in time has none.
                @if let Some(deadline) = interval.deadline.filter(|deadline| *deadline <= to) {
                    @let x = scale.x(deadline);
                    line class="deadline" x1=(x) x2=(x) y1=(top) y2=(bottom) {
                        title { "deadline: the peer may hang up from " (clock(deadline)) }
                    }
                }
            }
            @for mark in &story.marks {
                @if let Some((class, letter, y)) = sign(mark.kind, mark.by) {
                    circle class=(format!("mark {class}")) cx=(scale.x(mark.at)) cy=(y) r="8" {
                        title { (clock(mark.at)) " " (mark.kind.name()) ": " (details(mark)) }
                    }
                    text class="on" x=(scale.x(mark.at)) y=(y + 4.0) { (letter) }
                }
            }
            @if let Some(ended) = call.ended {
                line class="end" x1=(scale.x(ended)) x2=(scale.x(ended)) y1=(top) y2=(bottom) {
                    title { "ended at " (clock(ended)) }
                }
            }
            @if let Some(died) = call.would_have_died {
                line class="death" x1=(scale.x(died)) x2=(scale.x(died)) y1=(top - 2.0) y2=(bottom) {
                    title { "could have died at " (clock(died)) }
                }
                text class="bad" x=(scale.x(died)) y=(CALL + HIGH + 17.0) { "†" }
            }
            @for quarter in 0..=2_u32 {
                @let part = f64::from(quarter) / 2.0;
                @let seconds = scale.span * part;
                text class="faint" x=(format!("{:.2}%", LEFT + WIDTH * part)) y=(TIME)
                    text-anchor=(["start", "middle", "end"][quarter as usize]) { (crate::control::show::left(seconds)) }
            }
        }
    }
}

/// How an event is drawn: its class, its letter and its height. What only leads to another event is not.
fn sign(kind: EventKind, by: Option<By>) -> Option<(&'static str, &'static str, f64)> {
    let on_the_call = CALL + HIGH / 2.0;
    if kind == EventKind::SessionRefreshed {
        return Some(match by {
            Some(By::Sipst) => ("sipst", "+", on_the_call),
            Some(By::Peer) => ("peer", "P", on_the_call),
            Some(By::Server) | None => ("server", "S", on_the_call),
        });
    }
    kind.is_alert().then_some(("fault", "!", FAULTS))
}

/// The lane in words, for who does not see it.
fn described(call: &Call, story: &Story) -> String {
    let mut text = format!("Verdict: {}. ", verdict(call.verdict).1);
    for interval in story.intervals.iter().take(20) {
        let who = interval.refresher.map_or("nobody".to_owned(), |side| format!("the {side}"));
        let from = after(call.started, interval.from);
        text.push_str(&format!("At {from}: {} s begin, {who} must refresh. ", interval.seconds));
    }
    if story.intervals.len() > 20 {
        text.push_str(&format!("And {} more intervals. ", story.intervals.len() - 20));
    }
    if let Some(died) = call.would_have_died {
        text.push_str(&format!("It could have died after {}. ", after(call.started, died)));
    }
    match call.ended {
        Some(ended) => text.push_str(&format!("It ended after {}.", after(call.started, ended))),
        None => text.push_str("It did not end in this capture."),
    }
    text
}
