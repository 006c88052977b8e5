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
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_kind_has_its_own_id_in_the_documentation_and_in_the_catalog() {
        let page = include_str!("../../../docs/events.md");
        let catalog = include_str!("../../../config/sipst.catalog");
        for kind in EventKind::ALL {
            let id = message_id(kind);
            assert!(id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{id}");
            let name = kind.name();
            let section = page.split(&format!("\n## {name}\n")).nth(1).and_then(|rest| rest.split("\n## ").next());
            assert!(section.is_some_and(|section| section.contains(&format!("`MESSAGE_ID` {id}"))), "{name}");
            let entry = format!("-- {id}\nSubject: sipst: {name} @SIPST_CALL_ID@\n");
            assert!(catalog.contains(&entry), "no {entry}");
        }
        assert_eq!(
            EventKind::ALL.iter().map(|kind| message_id(*kind)).collect::<HashSet<_>>().len(),
            EventKind::ALL.len()
        );
    }
}
