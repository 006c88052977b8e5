//! A map that never holds more than its limit: what was put in or used longest ago goes first.

use std::{
    borrow::Borrow,
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, Hash},
};

#[derive(Debug)]
pub(crate) struct Bounded<K, V, S> {
    limit: usize,
    clock: u64,
    /// Each with the moment of its last use.
    entries: HashMap<K, (u64, V), S>,
    /// All uses, oldest first; one that was not its entry's last counts no more.
    uses: VecDeque<(u64, K)>,
    evicted: u64,
}

impl<K: Clone + Eq + Hash, V, S: BuildHasher> Bounded<K, V, S> {
    pub(crate) fn new(limit: usize, hasher: S) -> Self {
        Self { limit, clock: 0, entries: HashMap::with_hasher(hasher), uses: VecDeque::new(), evicted: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// All of them, the one used longest ago first.
    pub(crate) fn by_use(&self) -> Vec<(&K, &V)> {
        let mut all: Vec<_> = self.entries.iter().map(|(key, (used, value))| (*used, key, value)).collect();
        all.sort_by_key(|(used, ..)| *used);
        all.into_iter().map(|(_, key, value)| (key, value)).collect()
    }

    /// How many entries had to go for others.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted
    }

    pub(crate) fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.entries.get(key).map(|(_, value)| value)
    }

    pub(crate) fn get_mut<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.entries.get_mut(key).map(|(_, value)| value)
    }

    pub(crate) fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.entries.remove(key).map(|(_, value)| value)
    }

    /// Puts a value in, as the youngest; a limit of 0 keeps nothing.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        self.remove(&key);
        while self.entries.len() >= self.limit {
            let Some(oldest) = self.oldest().map(|(key, _)| key.clone()) else { return };
            self.remove(&oldest);
            self.evicted += 1;
        }
        let used = self.used(&key);
        self.entries.insert(key, (used, value));
    }

    /// The value of a key, made if absent; either way it is now the youngest. `None` with a limit of 0.
    pub(crate) fn touch(&mut self, key: K, make: impl FnOnce() -> V) -> Option<&mut V> {
        if self.get(&key).is_none() {
            self.insert(key.clone(), make());
        }
        self.touch_existing(&key)
    }

    /// Makes an entry the youngest, if it is there.
    pub(crate) fn touch_existing(&mut self, key: &K) -> Option<&mut V> {
        let used = self.used(key);
        let (last, value) = self.entries.get_mut(key)?;
        *last = used;
        Some(value)
    }

    /// The entry that goes next.
    pub(crate) fn oldest(&mut self) -> Option<(&K, &V)> {
        while self.uses.front().is_some_and(|(used, key)| !is_last(&self.entries, *used, key)) {
            self.uses.pop_front();
        }
        let key = &self.uses.front()?.1;
        Some((key, &self.entries.get(key)?.1))
    }

    /// Takes in a use, and when that was.
    fn used(&mut self, key: &K) -> u64 {
        // Most of them count no more.
        if self.uses.len() > 2 * self.entries.len() + 16 {
            self.uses.retain(|(used, key)| is_last(&self.entries, *used, key));
        }
        self.clock += 1;
        self.uses.push_back((self.clock, key.clone()));
        self.clock
    }
}

/// Whether that use was the last of an entry that is there.
fn is_last<K: Eq + Hash, V, S: BuildHasher>(entries: &HashMap<K, (u64, V), S>, used: u64, key: &K) -> bool {
    entries.get(key).is_some_and(|(last, _)| *last == used)
}

#[cfg(test)]
mod tests {
    use super::{super::hash::Secret, *};

    #[test]
    fn the_one_used_longest_ago_goes_first() {
        let mut map = Bounded::new(2, Secret::new(1));
        map.insert("a", 1);
        map.insert("b", 2);
        map.touch("a", || 0);
        map.insert("c", 3);
        assert_eq!((map.get("a"), map.get("b"), map.get("c")), (Some(&1), None, Some(&3)));
        assert_eq!((map.len(), map.evicted(), map.oldest()), (2, 1, Some((&"a", &1))));
        assert!(Bounded::<u8, u8, _>::new(0, Secret::new(1)).touch(1, || 1).is_none());
    }

    #[test]
    fn however_often_entries_are_used_no_more_uses_than_twice_as_many_are_kept() {
        let mut map = Bounded::new(8, Secret::new(1));
        for key in 0..8 {
            map.insert(key, ());
        }
        for use_ in 0..10_000 {
            map.touch_existing(&(use_ % 7));
        }
        assert!(map.uses.len() <= 2 * 8 + 17);
        assert_eq!(map.oldest(), Some((&7, &())));
        map.remove(&7);
        assert_eq!(map.oldest().map(|(key, ())| *key), Some(10_000 % 7));
    }
}
