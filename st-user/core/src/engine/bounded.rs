//! A map that never holds more than its limit: what was put in or used longest ago goes first.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, HashMap},
    hash::{BuildHasher, Hash},
};

#[derive(Debug)]
pub(super) struct Bounded<K, V, S> {
    limit: usize,
    clock: u64,
    entries: HashMap<K, (u64, V), S>,
    order: BTreeMap<u64, K>,
    evicted: u64,
}

impl<K: Clone + Eq + Hash, V, S: BuildHasher> Bounded<K, V, S> {
    pub(super) fn new(limit: usize, hasher: S) -> Self {
        Self { limit, clock: 0, entries: HashMap::with_hasher(hasher), order: BTreeMap::new(), evicted: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many entries had to go for others.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    pub(super) fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.entries.get(key).map(|(_, value)| value)
    }

    pub(super) fn get_mut<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.entries.get_mut(key).map(|(_, value)| value)
    }

    pub(super) fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let (stamp, value) = self.entries.remove(key)?;
        self.order.remove(&stamp);
        Some(value)
    }

    /// Puts a value in, as the youngest; a limit of 0 keeps nothing.
    pub(super) fn insert(&mut self, key: K, value: V) {
        self.remove(&key);
        while self.entries.len() >= self.limit {
            let Some((_, oldest)) = self.order.pop_first() else { return };
            self.entries.remove(&oldest);
            self.evicted += 1;
        }
        self.clock += 1;
        self.order.insert(self.clock, key.clone());
        self.entries.insert(key, (self.clock, value));
    }

    /// The value of a key, made if absent; either way it is now the youngest. `None` with a limit of 0.
    pub(super) fn touch(&mut self, key: K, make: impl FnOnce() -> V) -> Option<&mut V> {
        let value = self.remove(&key).unwrap_or_else(make);
        self.insert(key.clone(), value);
        self.get_mut(&key)
    }

    /// Makes an entry the youngest, if it is there.
    pub(super) fn touch_existing(&mut self, key: &K) {
        if let Some(value) = self.remove(key) {
            self.insert(key.clone(), value);
        }
    }

    /// The entry that goes next.
    pub(super) fn oldest(&self) -> Option<(&K, &V)> {
        let key = self.order.first_key_value()?.1;
        Some((key, self.get(key)?))
    }
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
}
