//! The `MESSAGE_ID` of each kind of event. They never change: `config/sipst.catalog` and people's filters name them.

use st_core::EventKind;

/// 128 random bits, as systemd writes them.
pub const fn message_id(kind: EventKind) -> &'static str {
    match kind {
        EventKind::SessionStarted => "e2a214e8bbe946759d52490575ffc53d",
        EventKind::TimerNegotiated => "03aa3897fcf446b6986c39e8c7bb69f6",
        EventKind::SessionRefreshed => "5c22c46963e948fda4d4748ca3c77ebf",
        EventKind::RefreshDue => "b2609a0bdd2b45508c656018eee38dc1",
        EventKind::RefreshSent => "5bd0f521be84462bbb9be05d0e8e2329",
        EventKind::RefreshSucceeded => "7ea3ef27e2e94528a4e0689e1888df20",
        EventKind::RefreshFailed => "5c3981a844ab46d8bb81e5e0309e6043",
        EventKind::AtRisk => "0bcc0d1cd5a9414599ba695ab78d8387",
        EventKind::RefreshOverdue => "e08137f33a084ec99f95e90587134be1",
        EventKind::RefreshRejected => "6b8816776b5a4b73a94472d1a7d32946",
        EventKind::RefreshIgnored => "c9ce5ddc2a52483e96dfd21e9d1f5c01",
        EventKind::SessionExpiring => "f41fae4a5518483da98647fe161b80de",
        EventKind::SessionExpired => "6cc3ba5031834d1db933dffe9f578985",
        EventKind::SessionEnded => "dbc01b3d2ea2438ca4e166c70794a750",
        EventKind::SessionHeld => "60b3bedce0ec4deabc434d6e6054aa24",
        EventKind::SessionReleased => "a0d0861e4f7e43538227e820e6a60526",
        EventKind::NegotiationFault => "b3c478b638e64772b86ed285da543b3d",
        EventKind::CaptureLoss => "449ab166818648568c529b4839c340b3",
        EventKind::RefreshAnswered => "78e8b5bcefb74578b78e1ffad9cf7a0c",
        EventKind::AnswerWithheld => "f03198c45f954f9cbef12c37ca6cd66c",
        EventKind::ServerTold => "0fd539ac359d41d684b11609cef605c9",
        EventKind::BreakerOpened => "15c0e0b73abb4e85b0a037efd7376ab4",
        EventKind::BreakerClosed => "c54a55eb16014892921f7305e164f982",
        EventKind::ExpiredMediaFlowing => "1d7163de5cf84d93982ed19d185f80d2",
        EventKind::ByeSent => "64cec5fe01d84fbcb39897dbbf44e1ec",
        EventKind::ByeFailed => "e39626c901d6494caa602675de5e3a9f",
        EventKind::StateNotKept => "9b31f6ab674545279afad5ab4bae8b9b",
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, fmt::Write as _};

    use super::*;
    use crate::{words, written};

    const HEAD: &str =
        "# What `journalctl -x` says of sipst's events. Installed as /usr/lib/systemd/catalog/sipst.catalog; then \
                        `journalctl --update-catalog`.
# Made from docs/events.md.
";

    /// How long its lines are.
    const COLUMNS: usize = 100;

    /// What docs/events.md says of a kind: its paragraphs, of which the last has the id.
    fn section(kind: EventKind) -> Vec<&'static str> {
        let page = include_str!("../../../docs/events.md");
        let section = page.split(&format!("\n## {}\n", kind.name())).nth(1).and_then(|rest| rest.split("\n## ").next());
        section.unwrap_or_else(|| panic!("no {}", kind.name())).trim().split("\n\n").collect()
    }

    /// A paragraph of Markdown as lines that a terminal shows.
    fn plain(paragraph: &str) -> String {
        let mut text = paragraph.trim_start_matches("**Alert.** ").to_owned();
        while let Some((before, link)) = text.split_once("](") {
            let (before, shown) = before.rsplit_once('[').unwrap();
            text = format!("{before}{shown}{}", link.split_once(')').unwrap().1);
        }
        let (mut lines, mut line) = (String::new(), String::new());
        for word in text.split_whitespace() {
            if !line.is_empty() && line.len() + 1 + word.len() > COLUMNS {
                lines += &std::mem::take(&mut line);
                lines.push('\n');
            }
            line += if line.is_empty() { "" } else { " " };
            line += word;
        }
        lines + &line
    }

    #[test]
    fn every_kind_has_its_own_id_which_stands_in_the_documentation() {
        for kind in EventKind::ALL {
            let id = message_id(kind);
            assert!(id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{id}");
            assert_eq!(section(kind).last(), Some(&&*format!("`MESSAGE_ID` {id}")), "{}", kind.name());
        }
        assert_eq!(
            EventKind::ALL.iter().map(|kind| message_id(*kind)).collect::<HashSet<_>>().len(),
            EventKind::ALL.len()
        );
    }

    #[test]
    fn the_catalog_says_what_the_documentation_says() {
        let mut catalog = HEAD.to_owned();
        for kind in EventKind::ALL {
            let (id, name) = (message_id(kind), kind.name());
            let page = words::runbook(None, name);
            let _ = writeln!(catalog, "\n-- {id}\nSubject: sipst: {name} @SIPST_CALL_ID@\nDefined-By: sipst");
            let _ = writeln!(catalog, "Documentation: {page}");
            let mut paragraphs = section(kind);
            paragraphs.pop();
            for paragraph in paragraphs {
                let _ = writeln!(catalog, "\n{}", plain(paragraph));
            }
        }
        written::holds("config/sipst.catalog", &catalog);
    }

    #[test]
    fn links_are_shown_as_their_text_and_lines_end_in_time() {
        assert_eq!(plain("**Alert.** As with [a](#a) ([b.md](b.md)),\nor so."), "As with a (b.md), or so.");
        let long = ["word"; 41].join(" ");
        assert!(plain(&long).lines().all(|line| line.len() <= COLUMNS) && plain(&long).lines().count() == 3);
    }
}
