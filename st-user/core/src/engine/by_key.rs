//! All sessions, by what stands for their identifiers. They stand in one piece, and a table that is never full holds no more than
//! where.

use hashbrown::{HashTable, hash_table};

use super::{hash::Fingerprint, packed::Entry};

#[derive(Default)]
pub(super) struct ByKey {
    /// Where nothing is it is vacant.
    slots: Vec<(Fingerprint, Entry)>,
    places: HashTable<u32>,
    /// Where a slot is vacant.
    free: Vec<u32>,
}

impl ByKey {
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    fn find(&self, key: &Fingerprint) -> Option<usize> {
        let found = self.places.find(key.place(), |at| self.slots[*at as usize].0 == *key);
        found.map(|at| *at as usize)
    }

    pub(super) fn contains_key(&self, key: &Fingerprint) -> bool {
        self.find(key).is_some()
    }

    pub(super) fn get(&self, key: &Fingerprint) -> Option<&Entry> {
        self.find(key).map(|at| &self.slots[at].1)
    }

    pub(super) fn get_mut(&mut self, key: &Fingerprint) -> Option<&mut Entry> {
        self.find(key).map(|at| &mut self.slots[at].1)
    }

    /// Makes room for so many more.
    pub(super) fn reserve(&mut self, more: usize) {
        let Self { slots, places, .. } = self;
        places.reserve(more, |at| slots[*at as usize].0.place());
        slots.reserve(more);
    }

    /// In place of another with that key.
    pub(super) fn insert(&mut self, key: Fingerprint, entry: Entry) {
        match self.vacancy(key) {
            Ok(vacancy) => vacancy.fill(entry),
            Err(occupied) => *occupied = entry,
        }
    }

    /// Where one with that key has its place, or who has it.
    pub(super) fn vacancy(&mut self, key: Fingerprint) -> Result<Vacancy<'_>, &mut Entry> {
        let Self { slots, places, free } = self;
        let is_it = |at: &u32| slots[*at as usize].0 == key;
        match places.entry(key.place(), is_it, |at| slots[*at as usize].0.place()) {
            hash_table::Entry::Occupied(place) => Err(&mut slots[*place.get() as usize].1),
            hash_table::Entry::Vacant(place) => Ok(Vacancy { place, slots, free, key }),
        }
    }

    pub(super) fn remove(&mut self, key: &Fingerprint) -> Option<Entry> {
        let found = self.places.find_entry(key.place(), |at| self.slots[*at as usize].0 == *key).ok()?;
        let (at, _) = found.remove();
        self.free.push(at);
        Some(std::mem::take(&mut self.slots[at as usize].1))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Fingerprint, &Entry)> {
        self.slots.iter().filter(|(_, entry)| !entry.is_vacant()).map(|(key, entry)| (key, entry))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&Fingerprint, &mut Entry)> {
        self.slots.iter_mut().filter(|(_, entry)| !entry.is_vacant()).map(|(key, entry)| (&*key, entry))
    }
}

/// A place that is free.
pub(super) struct Vacancy<'a> {
    place: hash_table::VacantEntry<'a, u32>,
    slots: &'a mut Vec<(Fingerprint, Entry)>,
    free: &'a mut Vec<u32>,
    key: Fingerprint,
}

impl Vacancy<'_> {
    pub(super) fn fill(self, entry: Entry) {
        let Self { place, slots, free, key } = self;
        let next = || u32::try_from(slots.len()).unwrap_or(u32::MAX);
        let at = free.pop().unwrap_or_else(next);
        place.insert(at);
        match slots.get_mut(at as usize) {
            Some(slot) => *slot = (key, entry),
            None => slots.push((key, entry)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{hash::Secret, packed::Packed};

    fn entry(number: u8) -> Entry {
        Entry::Packed(Packed::of(&[number, 1]))
    }

    fn number(entry: &Entry) -> u8 {
        match entry {
            Entry::Packed(packed) => packed.bytes()[0],
            Entry::Open(_) => panic!("it is open"),
        }
    }

    #[test]
    fn each_is_found_by_its_own_key_for_as_long_as_it_is_there() {
        let key = |number: u8| Secret::new(1).fingerprint([&[number]]);
        let mut all = ByKey::default();
        (0..200).for_each(|one| all.insert(key(one), entry(one)));
        (0..200).step_by(3).for_each(|one| assert_eq!(all.remove(&key(one)).as_ref().map(number), Some(one)));
        all.insert(key(1), entry(250));
        all.insert(key(210), entry(210));
        assert!(all.remove(&key(0)).is_none() && !all.contains_key(&key(0)));
        assert_eq!((all.len(), all.slots.len(), all.free.len()), (134, 200, 66), "its slot is another's");
        for one in 2..200 {
            assert_eq!(all.get(&key(one)).map(number), Some(one).filter(|one| one % 3 != 0));
        }
        assert_eq!((number(all.get(&key(1)).unwrap()), all.iter().count()), (250, 134));
        all.iter_mut().for_each(|(_, one)| *one = entry(9));
        assert!(all.iter().all(|(_, entry)| number(entry) == 9));
    }
}
