//! One network namespace and what is attached in it: the interfaces that the configuration stands for there, those that calls may
//! still depend on, and how both follow what the operator says and what becomes of the host. From Linux 6.6 on it needs no capability:
//! every program that may be attached is loaded, and whoever has a program's descriptor may make a link of it.

use std::{collections::HashMap, time::Instant};

use aya::Ebpf;
use st_ebpf::key::DialogKey;

use super::{
    Attach, GONE, Hooks, Interface, KernelError, Maps, View,
    interfaces::{covered, overlaps_among},
    pins::Pins,
    select::{self, Chosen},
};

/// What stands for all of them together, in the place of a name.
const INTERFACES: &str = "interfaces";

/// Entries that are looked up in one go.
const LOOKED_UP: usize = 256;

/// The programs, and how they are attached.
pub(super) struct Loaded {
    pub(super) ebpf: Ebpf,
    pub(super) hooks: Hooks,
}

/// An interface that is no longer meant, with dialogs that may depend on it.
#[derive(Debug)]
struct Leaving {
    interface: Interface,
    /// Dialogs whose numbers the programs followed when it was taken out; none is added, for nothing is sent there any more.
    dialogs: Vec<DialogKey>,
}

/// A namespace, as last seen.
pub(super) struct Place {
    pub(super) pins: Pins,
    pub(super) attach: Attach,
    /// What the configuration has for interfaces.
    terms: Vec<String>,
    /// Those that it stands for, as they were when they were attached to.
    interfaces: Vec<Interface>,
    /// Those that it no longer stands for.
    leaving: Vec<Leaving>,
    /// All that there are.
    all: Vec<Interface>,
    /// Indexes of those that default routes leave by, where they matter.
    defaults: Vec<u32>,
    /// What the entries stand for among these.
    chosen: Chosen,
    /// Indexes of those in `interfaces` where the programs are.
    held: Vec<u32>,
    /// When something was attached.
    changed: Instant,
    /// What the configuration covers and what is not attached to all the same, and why.
    passed_over: Vec<String>,
    /// By interface: where XDP was wanted and is not.
    without_xdp: HashMap<String, String>,
    /// By interface: what was said last of why it cannot be attached to.
    troubles: HashMap<String, String>,
}

impl Place {
    /// Attaches to what the entries stand for, in the place of what is pinned; what is pinned for others is taken away. One that is
    /// named has to be attached to.
    pub(super) fn attach(
        loaded: &mut Loaded,
        pins: Pins,
        attach: Attach,
        terms: &[String],
        chosen: Chosen,
        all: Vec<Interface>,
    ) -> Result<Self, KernelError> {
        for link in pins.links() {
            if !chosen.interfaces.iter().any(|one| one.name == link.interface) {
                tracing::info!(interface = link.interface, "no longer configured: detached");
                Pins::drop_link(&link.path)?;
            }
        }
        let mut place = Self {
            pins,
            attach,
            terms: terms.to_vec(),
            interfaces: Vec::new(),
            leaving: Vec::new(),
            all,
            defaults: Vec::new(),
            chosen: Chosen::default(),
            held: Vec::new(),
            changed: Instant::now(),
            passed_over: Vec::new(),
            without_xdp: HashMap::new(),
            troubles: HashMap::new(),
        };
        for interface in chosen.interfaces {
            match place.put(loaded, &interface) {
                Ok(()) => place.interfaces.push(interface),
                Err(error) if place.is_named(&interface.name) => return Err(error),
                Err(error) => place.trouble(&interface.name, &error),
            }
        }
        place.note(chosen.passed_over);
        if place.interfaces.is_empty() && !terms.is_empty() {
            tracing::warn!(interfaces = terms.join(", "), "nothing is attached: no interface is like that yet");
        }
        place.renew();
        Ok(place)
    }

    /// The interfaces, each with whether the programs are attached to it.
    pub(super) fn attached(&self) -> impl Iterator<Item = (&str, bool)> {
        self.interfaces.iter().map(|one| (one.name.as_str(), self.held.contains(&one.index)))
    }

    /// What is not as the configuration has it, for people.
    pub(super) fn remarks(&self) -> Vec<String> {
        let fallen = self.without_xdp.iter().filter(|(name, _)| self.interfaces.iter().any(|one| one.name == **name));
        let fallen = fallen.map(|(name, why)| format!("{name}: TC in the place of XDP: {why}"));
        let passed_over = self.passed_over.iter().map(|why| format!("not attached to {why}"));
        let mut remarks: Vec<String> = passed_over.chain(fallen).collect();
        remarks.extend(self.troubles.iter().map(|(name, why)| format!("{name}: {why}")));
        remarks.sort();
        remarks
    }

    /// Whether the default routes matter.
    pub(super) fn follows_routes(&self) -> bool {
        select::follows_routes(&self.terms)
    }

    /// Whether every packet that leaves by the interface crosses `st_egress`.
    pub(super) fn covers(&self, index: u32) -> bool {
        covered(&self.all, &self.held, index)
    }

    /// Whether there is nothing to follow.
    pub(super) fn is_as_it_was(&self, view: &View) -> bool {
        let held = |one: &Interface| self.held.contains(&one.index) && view.linked.contains(&one.index);
        self.all == view.interfaces && self.defaults == view.defaults && self.interfaces.iter().all(held)
    }

    /// Attaches anew to interfaces that were deleted and made again, and to those whose links somebody took away; to those that patterns
    /// and default routes have come to stand for, and no longer to those that they do not. False: until now the programs have not seen
    /// all.
    pub(super) fn follow(&mut self, loaded: &mut Loaded, maps: &Maps, view: View) -> bool {
        if view.began < self.changed {
            return true;
        }
        // Hosts have hundreds of them, and mostly they stay as they are.
        if self.all != view.interfaces || self.defaults != view.defaults || self.chosen == Chosen::default() {
            self.chosen = select::choose(&view.interfaces, &view.defaults, &self.terms);
        }
        let chosen = self.chosen.clone();
        (self.all, self.defaults) = (view.interfaces, view.defaults);
        self.held = self.interfaces.iter().map(|one| one.index).filter(|index| *index != GONE).collect();
        self.held.retain(|index| self.all.iter().any(|one| one.index == *index) && view.linked.contains(index));
        let mut saw_all = self.interfaces.iter().all(|one| self.held.contains(&one.index));
        let mut interfaces = std::mem::take(&mut self.interfaces);
        for interface in &mut interfaces {
            let name = &interface.name;
            match self.all.iter().find(|one| one.name == *name).cloned() {
                None if interface.index == GONE => {}
                None => {
                    tracing::warn!(interface = name, "the interface is gone: nothing is seen there until it is back");
                    if self.all.iter().any(|one| one.index == interface.index) {
                        // It has another name now, and may be meant by that.
                        self.detach(name);
                        self.changed = Instant::now();
                    }
                    interface.index = GONE;
                }
                Some(now) if now.index == interface.index && self.held.contains(&now.index) => {}
                Some(now) if !chosen.interfaces.iter().any(|one| one.index == now.index) => {}
                Some(now) => match self.put(loaded, &now) {
                    Ok(()) => {
                        tracing::warn!(
                            interface = name,
                            "the interface or its programs were taken away: attached again"
                        );
                        self.held.push(now.index);
                        self.changed = Instant::now();
                        *interface = now;
                    }
                    // Tried again the next time; until then nothing may be sent there.
                    Err(error) => self.trouble(&interface.name, &error),
                },
            }
        }
        let waited_for = |one: &Interface| one.index != GONE || self.is_named(&one.name);
        interfaces.retain(waited_for);
        self.interfaces = interfaces;
        match self.exchange(loaded, maps, &chosen.interfaces, false) {
            Ok((done, moved)) => {
                self.troubles.remove(INTERFACES);
                done.iter().for_each(|done| tracing::warn!("what the configuration stands for has changed: {done}"));
                saw_all &= !moved;
            }
            Err(error) => self.trouble(INTERFACES, &error),
        }
        self.note(chosen.passed_over);
        saw_all
    }

    /// Other entries. Where what they stand for cannot be attached to, all is as before. Returns what was done, for people.
    pub(super) fn set(
        &mut self,
        loaded: &mut Loaded,
        maps: &Maps,
        terms: &[String],
        view: View,
    ) -> Result<Vec<String>, KernelError> {
        let known = |text: &&String| !self.interfaces.iter().any(|one| one.name == **text);
        select::check(&view.interfaces, &terms.iter().filter(known).cloned().collect::<Vec<_>>()).or_else(|error| {
            // Of those that are left nothing has to be there.
            if matches!(error, KernelError::NoInterfaces) && !terms.is_empty() { Ok(()) } else { Err(error) }
        })?;
        let chosen = select::choose(&view.interfaces, &view.defaults, terms);
        let all = std::mem::replace(&mut self.all, view.interfaces);
        let before = std::mem::replace(&mut self.terms, terms.to_vec());
        // Made anew at the next look.
        self.chosen = Chosen::default();
        match self.exchange(loaded, maps, &chosen.interfaces, true) {
            Ok((done, _)) => {
                self.note(chosen.passed_over);
                Ok(done)
            }
            Err(error) => {
                (self.all, self.terms) = (all, before);
                Err(error)
            }
        }
    }

    /// Attaches to what is new among `chosen`, and detaches from what is not among it any more. One that dialogs with rewritten numbers
    /// may depend on stays attached until they are over. Returns what was done, and whether packets may have gone by another way
    /// before. With `whole` all that is new is attached to, or nothing is changed.
    fn exchange(
        &mut self,
        loaded: &mut Loaded,
        maps: &Maps,
        chosen: &[Interface],
        whole: bool,
    ) -> Result<(Vec<String>, bool), KernelError> {
        let is_known = |one: &&Interface| !self.interfaces.iter().any(|known| known.name == one.name);
        let new: Vec<Interface> = chosen.iter().filter(is_known).cloned().collect();
        let waits = |one: &Interface| one.index == GONE && self.is_named(&one.name);
        let stays = |one: &Interface| chosen.iter().any(|other| other.name == one.name) || waits(one);
        let out: Vec<String> = self.interfaces.iter().filter(|one| !stays(one)).map(|one| one.name.clone()).collect();
        if new.is_empty() && out.is_empty() {
            return Ok((Vec::new(), false));
        }
        let is_out = |interface: &Interface| out.contains(&interface.name);
        let dialogs = if maps.shifting() > 0 { maps.dialogs() } else { Vec::new() };
        let names: Vec<String> = new.iter().map(|one| one.name.clone()).collect();
        self.refuse_overlaps(&names, dialogs.len(), is_out)?;

        let mut attached: Vec<Interface> = Vec::new();
        for interface in &new {
            match self.put(loaded, interface) {
                Ok(()) => attached.push(interface.clone()),
                Err(error) if whole => {
                    attached.iter().chain([interface]).for_each(|interface| self.detach(&interface.name));
                    return Err(error);
                }
                Err(error) => {
                    self.detach(&interface.name);
                    self.trouble(&interface.name, &error);
                }
            }
        }
        let mut done: Vec<String> = attached.iter().map(|one| format!("interface {}: attached", one.name)).collect();
        self.leaving.retain(|leaving| !names.contains(&leaving.interface.name));
        let moved = !attached.is_empty() && !out.is_empty();
        self.interfaces.extend(attached);
        let (gone, stay): (Vec<_>, Vec<_>) = std::mem::take(&mut self.interfaces).into_iter().partition(is_out);
        self.interfaces = stay;
        for interface in gone {
            if dialogs.is_empty() {
                self.detach(&interface.name);
                done.push(format!("interface {}: detached", interface.name));
            } else {
                done.push(format!(
                    "interface {}: nothing new is sent there; it stays attached until the calls are over whose CSeq numbers may be \
                     rewritten there ({})",
                    interface.name,
                    dialogs.len()
                ));
                self.leaving.push(Leaving { interface, dialogs: dialogs.clone() });
            }
        }
        self.renew();
        Ok((done, moved))
    }

    /// Detaches from interfaces that are no longer meant once nothing depends on them.
    pub(super) fn let_go(&mut self, maps: &Maps) {
        let mut looked_up = 0;
        let mut free = Vec::new();
        for leaving in &mut self.leaving {
            while let Some(key) = leaving.dialogs.last()
                && looked_up < LOOKED_UP
                && maps.state(*key).is_err()
            {
                looked_up += 1;
                leaving.dialogs.pop();
            }
            if leaving.dialogs.is_empty() {
                free.push(leaving.interface.name.clone());
            }
        }
        for name in free {
            self.leaving.retain(|leaving| leaving.interface.name != name);
            self.detach(&name);
            tracing::info!(interface = name, "no longer configured, and no call depends on it any more: detached");
        }
    }

    /// All that is in `interfaces` has just been attached to.
    fn renew(&mut self) {
        self.held = self.interfaces.iter().map(|one| one.index).filter(|index| *index != GONE).collect();
        self.changed = Instant::now();
    }

    fn is_named(&self, name: &str) -> bool {
        self.terms.iter().any(|text| text == name && select::is_name(text))
    }

    fn put(&mut self, loaded: &mut Loaded, interface: &Interface) -> Result<(), KernelError> {
        let Loaded { ebpf, hooks } = loaded;
        let fallen = hooks.attach(ebpf, &self.pins, interface, self.attach)?;
        self.troubles.remove(&interface.name);
        match fallen {
            Some(why) => {
                tracing::warn!(interface = interface.name, "XDP cannot be attached: TC takes its place: {why}");
                self.without_xdp.insert(interface.name.clone(), why);
            }
            None => drop(self.without_xdp.remove(&interface.name)),
        }
        Ok(())
    }

    /// Tells once what is not attached to, though the configuration covers it.
    fn note(&mut self, passed_over: Vec<String>) {
        for why in passed_over.iter().filter(|why| !self.passed_over.contains(why)) {
            tracing::warn!("not attached to {why}");
        }
        self.passed_over = passed_over;
        self.troubles.retain(|name, _| name == INTERFACES || self.all.iter().any(|one| one.name == *name));
    }

    /// Tells once why an interface cannot be attached to.
    fn trouble(&mut self, name: &str, error: &KernelError) {
        let why = crate::output::chain(error);
        if self.troubles.get(name) != Some(&why) {
            tracing::error!(interface = name, "cannot attach yet: {why}");
            self.troubles.insert(name.to_owned(), why);
        }
    }

    /// One packet at two attach points would have its numbers shifted twice.
    fn refuse_overlaps(
        &self,
        new: &[String],
        dialogs: usize,
        out: impl Fn(&Interface) -> bool,
    ) -> Result<(), KernelError> {
        let going = self.interfaces.iter().filter(|one| dialogs > 0 && out(one));
        let staying: Vec<&str> =
            going.chain(self.leaving.iter().map(|leaving| &leaving.interface)).map(|one| one.name.as_str()).collect();
        let staying: Vec<&str> = staying.into_iter().filter(|name| !new.iter().any(|new| new == name)).collect();
        let all: Vec<String> = new.iter().cloned().chain(staying.iter().map(|name| (*name).to_owned())).collect();
        let crossed = overlaps_among(&self.all, &all).into_iter().find_map(|overlap| {
            let pair = [(&overlap.a, &overlap.b), (&overlap.b, &overlap.a)];
            pair.into_iter()
                .find(|(a, b)| new.contains(a) && staying.contains(&b.as_str()))
                .map(|(a, b)| (a.clone(), b.clone()))
        });
        match crossed {
            Some((new, old)) => Err(KernelError::StillNeeded { new, old }),
            None => Ok(()),
        }
    }

    fn detach(&self, name: &str) {
        for link in self.pins.links().iter().filter(|link| link.interface == name) {
            if let Err(error) = Pins::drop_link(&link.path) {
                let error: &dyn std::error::Error = &error;
                tracing::error!(interface = name, error, "cannot detach");
            }
        }
    }
}
