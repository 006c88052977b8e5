//! What finds a session by its id. In the order of the ids, which is that of their age: so whoever goes through all of them in pieces
//! misses none that is there throughout. Ids are given one after the other, so those that come together stand together.

use std::{collections::BTreeMap, ops::RangeFrom};

use super::hash::Fingerprint;
use crate::SessionId;

/// How many ids have a page together.
const PAGE: u64 = 64;

/// Those of a page's ids that there are.
#[derive(Default)]
struct Page {
    /// Where each stands in the page, in order.
    places: Vec<u8>,
    keys: Vec<Fingerprint>,
}

#[derive(Default)]
pub(super) struct ById {
    pages: BTreeMap<u64, Page>,
}

/// Its page, and where it stands there.
fn place(session: SessionId) -> (u64, u8) {
    (session.0 / PAGE, (session.0 % PAGE) as u8)
}

impl ById {
    pub(super) fn get(&self, session: SessionId) -> Option<Fingerprint> {
        let (page, place) = place(session);
        let page = self.pages.get(&page)?;
        page.places.binary_search(&place).ok().map(|at| page.keys[at])
    }

    /// Has it found by another key, where it is there.
    pub(super) fn insert(&mut self, session: SessionId, key: Fingerprint) {
        let (number, place) = place(session);
        // Those that come one after the other are all of the last page.
        let page = if self.pages.last_key_value().is_some_and(|(last, _)| *last == number) {
            self.pages.last_entry().map(|last| last.into_mut())
        } else {
            Some(self.pages.entry(number).or_default())
        };
        let Some(page) = page else { return };
        match page.places.binary_search(&place) {
            Ok(at) => page.keys[at] = key,
            Err(at) => {
                page.places.insert(at, place);
                page.keys.insert(at, key);
            }
        }
    }

    pub(super) fn remove(&mut self, session: SessionId) -> Option<Fingerprint> {
        let (number, place) = place(session);
        let page = self.pages.get_mut(&number)?;
        let at = page.places.binary_search(&place).ok()?;
        page.places.remove(at);
        let key = page.keys.remove(at);
        if page.keys.is_empty() {
            self.pages.remove(&number);
        } else if page.keys.len() * 2 <= page.keys.capacity() {
            page.places.shrink_to_fit();
            page.keys.shrink_to_fit();
        }
        Some(key)
    }

    /// All of them from one on.
    pub(super) fn range(
        &self,
        RangeFrom { start }: RangeFrom<SessionId>,
    ) -> impl Iterator<Item = (SessionId, Fingerprint)> {
        let pages = self.pages.range(place(start).0..);
        let all = pages.flat_map(|(number, page)| {
            let id = move |place: &u8| SessionId(number * PAGE + u64::from(*place));
            page.places.iter().map(id).zip(page.keys.iter().copied())
        });
        all.skip_while(move |(session, _)| *session < start)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (SessionId, Fingerprint)> {
        self.range(SessionId(0)..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::hash::Secret;

    fn key(number: u64) -> Fingerprint {
        Secret::new(1).fingerprint([&number.to_le_bytes()])
    }

    #[test]
    fn it_says_what_an_ordered_map_says() {
        let (mut found, mut expected) = (ById::default(), BTreeMap::new());
        let ids = || (1..2_000).chain([u64::MAX - 1, u64::MAX, 1 << 40]).map(SessionId);
        for id in ids() {
            found.insert(id, key(id.0));
            expected.insert(id, key(id.0));
        }
        for id in ids().filter(|id| id.0 % 3 != 0 || (300..700).contains(&id.0)) {
            assert_eq!(found.remove(id), expected.remove(&id));
            assert_eq!(found.remove(id), None);
        }
        found.insert(SessionId(30), key(7));
        expected.insert(SessionId(30), key(7));
        for id in ids() {
            assert_eq!(found.get(id), expected.get(&id).copied());
        }
        for from in [0, 1, 63, 64, 299, 650, 2_000, u64::MAX] {
            let pairs = expected.range(SessionId(from)..).map(|(id, key)| (*id, *key));
            assert!(found.range(SessionId(from)..).eq(pairs), "from {from}");
        }
        assert_eq!(
            found.pages.len(),
            expected.keys().map(|id| id.0 / PAGE).collect::<std::collections::HashSet<_>>().len()
        );
    }
}
