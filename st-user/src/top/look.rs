//! Colours, bars and how text is made to fit.

use ratatui::{
    buffer::Buffer,
    style::{Color, Modifier, Style},
};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// What the terminal can show.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    /// Whether colours are used.
    pub(crate) colour: bool,
    /// Whether characters other than ASCII are.
    pub(crate) unicode: bool,
}

/// Eighths of a cell, from one to all of them.
const EIGHTHS: [char; 8] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉', '█'];

impl Look {
    /// A state's colour: one of the terminal's own sixteen, so that its theme holds. What needs eyes is bold too.
    pub(crate) fn state(self, state: &str) -> Style {
        let (colour, bold) = match state {
            "running" => (Color::Green, false),
            "refreshing" => (Color::Cyan, false),
            "overdue" => (Color::Yellow, true),
            "expiring" => (Color::LightRed, true),
            "expired" => (Color::Red, true),
            _ => (Color::DarkGray, false),
        };
        let style = if self.colour { Style::new().fg(colour) } else { Style::new() };
        if bold { style.add_modifier(Modifier::BOLD) } else { style }
    }

    /// Something is wrong.
    pub(crate) fn alarm(self) -> Style {
        let style = Style::new().add_modifier(Modifier::BOLD);
        if self.colour { style.fg(Color::LightRed) } else { style.add_modifier(Modifier::REVERSED) }
    }

    /// What matters less.
    pub(crate) fn faint(self) -> Style {
        if self.colour { Style::new().fg(Color::DarkGray) } else { Style::new() }
    }

    /// A bar of `width` cells, of which so much is full; what is more than nothing shows.
    pub(crate) fn bar(self, part: f64, width: usize) -> String {
        let eighths = ((part.clamp(0.0, 1.0) * width as f64 * 8.0).round() as usize).max(usize::from(part > 0.0));
        let (full, rest) = if self.unicode { (eighths / 8, eighths % 8) } else { (eighths.div_ceil(8), 0) };
        let full_cell = if self.unicode { EIGHTHS[7] } else { '#' };
        let mut bar: String = std::iter::repeat_n(full_cell, full).collect();
        bar.extend((rest > 0).then(|| EIGHTHS[rest - 1]));
        let empty = if self.unicode { '·' } else { '.' };
        bar.extend(std::iter::repeat_n(empty, width.saturating_sub(full + usize::from(rest > 0))));
        bar
    }

    /// At most `width` cells of a text; what is left out is left out before its end, where one name differs from the next.
    pub(crate) fn fit(self, text: &str, width: usize) -> String {
        if text.width() <= width {
            return text.to_owned();
        }
        let mark = if self.unicode { "…" } else { "~" };
        let Some(room) = width.checked_sub(1) else { return String::new() };
        let tail = room / 3;
        format!("{}{mark}{}", head(text, room - tail), end(text, tail))
    }

    /// At most `width` cells of a text from its beginning.
    pub(crate) fn cut(self, text: &str, width: usize) -> String {
        if text.width() <= width {
            return text.to_owned();
        }
        let mark = if self.unicode { "…" } else { "~" };
        width.checked_sub(1).map_or(String::new(), |room| format!("{}{mark}", head(text, room)))
    }

    /// The mark of the selected call, which shows without colours too.
    pub(crate) const fn pointer(self) -> &'static str {
        if self.unicode { "▶" } else { ">" }
    }
}

/// The beginning of a text, `room` cells at most.
fn head(text: &str, room: usize) -> &str {
    let mut used = 0;
    let fits = |(_, c): &(usize, char)| {
        used += c.width().unwrap_or(0);
        used <= room
    };
    let end = text.char_indices().take_while(fits).last().map_or(0, |(at, c)| at + c.len_utf8());
    &text[..end]
}

/// The end of a text, `room` cells at most.
fn end(text: &str, room: usize) -> &str {
    let mut used = 0;
    let fits = |(_, c): &(usize, char)| {
        used += c.width().unwrap_or(0);
        used <= room
    };
    let begin = text.char_indices().rev().take_while(fits).last().map_or(text.len(), |(at, _)| at);
    &text[begin..]
}

/// What is in the cells, as lines.
pub(crate) fn text(buffer: &Buffer) -> String {
    let area = buffer.area;
    let mut text = String::new();
    for y in area.top()..area.bottom() {
        let mut line = String::new();
        let mut x = area.left();
        while x < area.right() {
            let symbol = buffer[(x, y)].symbol();
            line.push_str(symbol);
            // A wide character has the next cell too.
            x += u16::try_from(symbol.width()).unwrap_or(1).max(1);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNICODE: Look = Look { colour: true, unicode: true };
    const ASCII: Look = Look { colour: false, unicode: false };

    #[test]
    fn a_bar_empties_and_never_looks_empty_before_it_is() {
        assert_eq!(ASCII.bar(1.0, 8), "########");
        assert_eq!(ASCII.bar(0.5, 8), "####....");
        assert_eq!(ASCII.bar(0.001, 8), "#.......");
        assert_eq!(ASCII.bar(0.0, 8), "........");
        assert_eq!(ASCII.bar(-1.0, 8), "........");
        assert_eq!(UNICODE.bar(0.5, 3), "█▌·");
        assert_eq!(UNICODE.bar(0.001, 3), "▏··");
        assert_eq!(UNICODE.bar(7.0, 3), "███");
        let mut before = usize::MAX;
        for step in (0..=80).rev() {
            let bar = UNICODE.bar(f64::from(step) / 80.0, 10);
            assert_eq!(bar.width(), 10);
            let full: usize = bar.chars().filter_map(|c| EIGHTHS.iter().position(|e| *e == c)).map(|at| at + 1).sum();
            assert!(full < before, "{step}: {bar}");
            before = full;
        }
    }

    #[test]
    fn a_text_that_is_too_long_keeps_its_beginning_and_its_end() {
        assert_eq!(ASCII.fit("short", 8), "short");
        assert_eq!(ASCII.fit("0123456789abcdef", 10), "012345~def");
        for width in 0..20 {
            for text in ["0123456789abcdef0123", "呼叫呼叫呼叫呼叫呼叫", "e\u{301}e\u{301}e\u{301}e\u{301}e\u{301}"]
            {
                assert!(UNICODE.fit(text, width).width() <= width, "{text} {width}");
                assert!(UNICODE.cut(text, width).width() <= width, "{text} {width}");
            }
        }
    }
}
