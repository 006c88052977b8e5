//! Templates: sessions of which others are written as what they differ in. A template has a number for as long as any record by it
//! may be on the disk, and stands there before the first of these.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    limits::{MAX_NUMBERS, MAX_TEMPLATES},
    written,
};
use crate::Side;

/// So many sessions in a row that a template does not make half as small want another one.
const POOR: u8 = 16;

/// Of which trunk sessions are, and who called.
pub(super) type Kind = (u32, Side);

struct Template {
    of: Kind,
    bytes: Arc<[u8]>,
    /// Sessions in memory that are packed by it.
    users: usize,
    /// How many in a row it was of little use to.
    poor: u8,
    /// Whether it was written down.
    written: bool,
    /// Whether there may be records by it.
    on_disk: bool,
}

/// What stands in a template's record.
#[derive(Serialize, Deserialize)]
pub(super) struct Said<'t> {
    of: Kind,
    #[serde(with = "serde_bytes")]
    bytes: &'t [u8],
}

/// All of them.
#[derive(Default)]
pub(super) struct Templates {
    /// By number; `None`: no session in memory is packed by it any more, but there may be records by it.
    all: Vec<Option<Template>>,
    /// Numbers that are given again.
    free: Vec<u16>,
    live: usize,
    /// Whether there is one that is to be written down.
    news: bool,
}

impl Templates {
    fn get(&self, number: u16) -> Option<&Template> {
        self.all.get(usize::from(number))?.as_ref()
    }

    fn get_mut(&mut self, number: u16) -> Option<&mut Template> {
        self.all.get_mut(usize::from(number))?.as_mut()
    }

    /// In the order of their numbers.
    fn numbered(&self) -> impl DoubleEndedIterator<Item = (u16, &Template)> {
        let all = self.all.iter().enumerate();
        all.filter_map(|(at, template)| Some((u16::try_from(at).ok()?, template.as_ref()?)))
    }

    /// How many sessions are packed.
    pub(super) fn users(&self) -> usize {
        self.all.iter().flatten().map(|template| template.users).sum()
    }

    /// The number of the template for such a session: the youngest one, unless that is of little use. One that is not there yet, or is
    /// to take another's place, is made of the session's own bytes.
    pub(super) fn serving(&mut self, of: Kind, plain: &[u8]) -> Option<u16> {
        let found = self.numbered().rfind(|(_, template)| template.of == of);
        let (found, serves) = (found.map(|(number, _)| number), found.is_some_and(|(_, found)| found.poor < POOR));
        if serves {
            return found;
        }
        let has_numbers = !self.free.is_empty() || self.all.len() < MAX_NUMBERS;
        if has_numbers && self.live >= MAX_TEMPLATES {
            let unused = |template: &&mut Option<Template>| template.as_ref().is_some_and(|one| one.users == 0);
            if let Some(unused) = self.all.iter_mut().find(unused) {
                *unused = None;
                self.live -= 1;
            }
        }
        if !has_numbers || self.live >= MAX_TEMPLATES {
            // Any is better than none.
            return found.or_else(|| self.numbered().next().map(|(number, _)| number));
        }
        let number = self.free.pop().or_else(|| u16::try_from(self.all.len()).ok())?;
        self.put(number, of, plain, false);
        Some(number)
    }

    fn put(&mut self, number: u16, of: Kind, bytes: &[u8], written: bool) {
        let at = usize::from(number);
        if self.all.len() <= at {
            self.all.resize_with(at + 1, || None);
        }
        self.live += 1;
        self.news |= !written;
        self.all[at] = Some(Template { of, bytes: bytes.into(), users: 0, poor: 0, written, on_disk: false });
    }

    /// A session was packed by it, into so many bytes of so many.
    pub(super) fn used(&mut self, number: u16, packed: usize, plain: usize) {
        if let Some(template) = self.get_mut(number) {
            template.poor = if packed * 2 > plain { template.poor.saturating_add(1) } else { 0 };
            template.users += 1;
        }
    }

    pub(super) fn more(&mut self, number: u16) {
        if let Some(template) = self.get_mut(number) {
            template.users += 1;
        }
    }

    pub(super) fn less(&mut self, number: u16) {
        if let Some(template) = self.get_mut(number) {
            template.users = template.users.saturating_sub(1);
        }
    }

    pub(super) fn bytes(&self, number: u16) -> Option<&[u8]> {
        self.get(number).map(|template| &*template.bytes)
    }

    pub(super) fn share(&self, number: u16) -> Option<Arc<[u8]>> {
        self.get(number).map(|template| Arc::clone(&template.bytes))
    }

    pub(super) fn unpack(&self, body: &[u8]) -> Option<Vec<u8>> {
        written::unpack(body, |number| self.bytes(number))
    }

    /// Whether there is what a body is packed by, which is on the disk then.
    pub(super) fn serve(&mut self, body: &[u8]) -> bool {
        let Some(number) = written::template_of(body) else { return true };
        self.get_mut(number).is_some_and(|template| {
            template.on_disk = true;
            true
        })
    }

    // What is on the disk.

    /// The next one that is not written down.
    pub(super) fn unwritten(&mut self) -> Option<(u16, Said<'_>)> {
        if !self.news {
            return None;
        }
        let fresh = self.all.iter_mut().zip(0..).find_map(|(template, number)| {
            let template = template.as_mut().filter(|template| !template.written)?;
            (template.written, template.on_disk) = (true, true);
            Some((number, Said { of: template.of, bytes: &template.bytes }))
        });
        self.news = fresh.is_some();
        fresh
    }

    /// None of them is written down any more.
    pub(super) fn write_anew(&mut self) {
        self.all.iter_mut().flatten().for_each(|template| template.written = false);
        self.news = true;
    }

    /// Takes one back; false where that number is none.
    pub(super) fn take_back(&mut self, number: u16, said: &Said<'_>) -> bool {
        let fits =
            usize::from(number) < MAX_NUMBERS && self.get(number).is_none() && said.bytes.len() <= u16::MAX.into();
        if fits {
            self.put(number, said.of, said.bytes, true);
        }
        fits
    }

    /// Forgets those that were taken back, but no record by them: their numbers.
    pub(super) fn forget_unused(&mut self) -> Vec<u16> {
        let unused =
            self.numbered().filter(|(_, template)| template.written && !template.on_disk && template.users == 0);
        let unused: Vec<u16> = unused.map(|(number, _)| number).collect();
        for number in &unused {
            self.all[usize::from(*number)] = None;
        }
        self.live -= unused.len();
        self.free = (0..).zip(&self.all).filter(|(_, template)| template.is_none()).map(|(number, _)| number).collect();
        unused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(templates: &mut Templates, trunk: usize, text: &str) -> Vec<u8> {
        let number = templates.serving((u32::try_from(trunk).unwrap(), Side::Server), text.as_bytes()).unwrap();
        let mut body = Vec::new();
        assert!(written::pack(number, templates.bytes(number).unwrap(), text.as_bytes(), &mut body));
        templates.used(number, body.len(), text.len());
        body
    }

    fn numbers(templates: &Templates) -> Vec<u16> {
        templates.numbered().map(|(number, _)| number).collect()
    }

    /// Bytes in which nothing repeats.
    fn noise(seed: u32) -> String {
        let mut state = seed;
        let mut letter = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            char::from(b' ' + u8::try_from(state >> 26).unwrap())
        };
        (0..500).map(|_| letter()).collect()
    }

    #[test]
    fn what_is_alike_is_written_once() {
        let mut templates = Templates::default();
        let first = noise(1);
        let all: Vec<_> = (0..100).map(|number| format!("{first}{number}")).collect();
        let packed: Vec<_> = all.iter().map(|text| pack(&mut templates, 0, text)).collect();
        assert!(packed.iter().all(|packed| packed.len() < 30));
        for (packed, text) in packed.iter().zip(&all) {
            assert_eq!(templates.unpack(packed).unwrap(), text.as_bytes());
        }
        assert_eq!((numbers(&templates), templates.users()), (vec![0], 100));
    }

    #[test]
    fn a_template_that_is_of_no_more_use_is_followed_by_another() {
        let mut templates = Templates::default();
        let old = pack(&mut templates, 0, &noise(1));
        for _ in 0..POOR {
            assert!(pack(&mut templates, 0, &noise(2)).len() > 300);
        }
        assert!(pack(&mut templates, 0, &noise(2)).len() < 30);
        assert_eq!(templates.unpack(&old).unwrap(), noise(1).as_bytes());
    }

    #[test]
    fn with_more_trunks_than_templates_others_serve_until_one_is_not_in_use() {
        let mut templates = Templates::default();
        let all: Vec<_> = (0..MAX_TEMPLATES + 3).map(|trunk| pack(&mut templates, trunk, &noise(3))).collect();
        assert_eq!((numbers(&templates).len(), templates.users()), (MAX_TEMPLATES, all.len()));
        assert!(all.iter().all(|packed| templates.unpack(packed).unwrap() == noise(3).as_bytes()));
        templates.less(7);
        let packed = pack(&mut templates, MAX_TEMPLATES + 3, &noise(4));
        // There may be records by the old one: its number is not given again.
        assert_eq!(written::template_of(&packed), u16::try_from(MAX_TEMPLATES).ok());
        assert_eq!((numbers(&templates).len(), templates.bytes(7)), (MAX_TEMPLATES, None));
    }

    #[test]
    fn numbers_come_to_an_end_and_are_given_again_once_no_record_needs_them() {
        let mut templates = Templates::default();
        for trunk in 0..MAX_NUMBERS + 3 {
            let packed = pack(&mut templates, trunk, &noise(3));
            templates.less(written::template_of(&packed).unwrap());
        }
        assert_eq!((numbers(&templates).len(), templates.all.len()), (MAX_TEMPLATES, MAX_NUMBERS));
        let mut templates = Templates::default();
        for number in 0..10 {
            assert!(templates.take_back(number, &Said { of: (0, Side::Server), bytes: b"template" }));
            assert!(!templates.take_back(number, &Said { of: (0, Side::Server), bytes: b"another" }));
        }
        assert!(templates.serve(&[3, 0, 0, 0]) && !templates.serve(&[10, 0, 0, 0]) && templates.unwritten().is_none());
        assert_eq!(templates.forget_unused().len(), 9);
        assert_eq!((numbers(&templates), templates.free.len()), (vec![3], 9));
        assert!(templates.serving((1, Side::Server), b"fresh") < Some(10) && templates.unwritten().is_some());
    }
}
