//! What has changed in an engine since it was last asked: [`Engine::poll_change`].

use std::collections::VecDeque;

use super::{
    Dialogs, Engine,
    dialog::Dialog,
    packed::Entry,
    record::{COMMON, TEMPLATES, seal},
    written::Record,
};
use crate::SessionId;

/// Dialogs that are over and whose records nobody has taken away yet; of more, the records stay where they are.
pub const MAX_GONE: usize = 1 << 20;

/// What is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What it is about: [`COMMON`], one of [`TEMPLATES`], or the id of a session.
    pub key: u64,
    /// In place of what was written under this key before; `None`: nothing is to be there any more.
    pub record: Option<Record>,
}

/// What has changed since it was last asked.
#[derive(Default)]
pub(super) struct Changes {
    /// Whether anybody asks.
    wanted: bool,
    listed: VecDeque<SessionId>,
    gone: VecDeque<SessionId>,
}

impl Changes {
    /// A dialog is about to be changed.
    pub(super) fn list(&mut self, dialog: &mut Dialog) {
        if self.wanted && !std::mem::replace(&mut dialog.listed, true) {
            self.listed.push_back(dialog.id);
        }
    }

    pub(super) fn gone(&mut self, dialog: &Dialog) {
        if self.wanted && !dialog.unwritten && self.gone.len() < MAX_GONE {
            self.gone.push_back(dialog.id);
        }
    }
}

impl Engine {
    /// From now on [`Engine::poll_change`] tells what changes; all that there is counts as changed.
    pub fn follow_changes(&mut self) {
        self.dialogs.packing.templates.write_anew();
        self.follow(|_| true);
    }

    /// The same, where all that was taken back stands written as it was: that counts as changed no more than is.
    pub fn follow_on(&mut self) {
        self.follow(|entry| !matches!(entry, Entry::Packed(packed) if packed.is_untouched()));
        let unused = self.dialogs.packing.templates.forget_unused();
        self.dialogs.changes.gone.extend(unused.into_iter().map(|number| SessionId(TEMPLATES + u64::from(number))));
    }

    fn follow(&mut self, wants: impl Fn(&Entry) -> bool) {
        self.ignore_changes();
        self.dialogs.changes.wanted = true;
        self.sx.changed = true;
        let Dialogs { all, keys, changes, .. } = &mut self.dialogs;
        for (session, key) in keys.iter() {
            match all.get_mut(&key).filter(|entry| wants(entry)) {
                Some(Entry::Open(dialog)) => changes.list(dialog),
                // Whoever changes it meanwhile has it written twice.
                Some(Entry::Packed(_)) => changes.listed.push_back(session),
                None => {}
            }
        }
    }

    /// From now on it tells nothing.
    pub fn ignore_changes(&mut self) {
        self.dialogs.changes = Changes::default();
        self.dialogs.opened_mut().for_each(|dialog| dialog.listed = false);
    }

    /// Whether there is one.
    pub fn has_changes(&self) -> bool {
        let Changes { wanted, listed, gone } = &self.dialogs.changes;
        *wanted && (self.sx.changed || !listed.is_empty() || !gone.is_empty())
    }

    /// The next change to be written. To be asked when [`Engine::poll_output`] has nothing more to say.
    pub fn poll_change(&mut self) -> Option<Change> {
        if !self.dialogs.changes.wanted {
            return None;
        }
        if std::mem::take(&mut self.sx.changed) {
            return Some(Change { key: COMMON, record: Some(self.common()) });
        }
        if let Some(session) = self.dialogs.changes.gone.pop_front() {
            return Some(Change { key: session.0, record: None });
        }
        if let Some(template) = self.template() {
            return Some(template);
        }
        loop {
            let session = self.dialogs.changes.listed.pop_front()?;
            // One that is gone has been told as such.
            let Some(record) = self.record(session) else { continue };
            if let Some(template) = self.template() {
                // The session comes after it.
                self.dialogs.changes.listed.push_front(session);
                return Some(template);
            }
            let Dialogs { all, keys, .. } = &mut self.dialogs;
            if let Some(Entry::Open(dialog)) = keys.get(session).and_then(|key| all.get_mut(&key)) {
                (dialog.listed, dialog.unwritten) = (false, false);
            }
            return Some(Change { key: session.0, record: Some(record) });
        }
    }

    /// What records are packed by from now on.
    fn template(&mut self) -> Option<Change> {
        let (number, said) = self.dialogs.packing.templates.unwritten()?;
        Some(Change { key: TEMPLATES + u64::from(number), record: Some(seal(&said)) })
    }
}
