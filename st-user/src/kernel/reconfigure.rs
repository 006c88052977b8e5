//! Other interfaces and ports while the daemon runs. From Linux 6.6 on it needs no capability: every program that may be attached
//! is loaded, and whoever has a program's descriptor may make a link of it.

use std::time::Instant;

use st_ebpf::key::DialogKey;

use super::{GONE, Interface, Kernel, KernelError, View, choose, interfaces::overlaps_among, maps, pins::Pins};

/// Entries that are looked up in one go.
const LOOKED_UP: usize = 256;

/// An interface that is no longer configured, with dialogs that may depend on it.
#[derive(Debug)]
pub(super) struct Leaving {
    interface: Interface,
    /// Dialogs whose numbers the programs followed when it was taken out; none is added, for nothing is sent there any more.
    dialogs: Vec<DialogKey>,
}

impl Kernel {
    /// Attaches to interfaces that are new among `names`, and detaches from those that are not among them any more. One that dialogs
    /// with rewritten numbers may depend on stays attached until they are over. Where that cannot be, all is as before. Returns what
    /// was done, for people.
    pub(crate) fn set_interfaces(&mut self, names: &[String], view: View) -> Result<Vec<String>, KernelError> {
        let is_known = |name: &String| self.interfaces.iter().any(|one| one.name == *name);
        let new: Vec<String> = names.iter().filter(|name| !is_known(name)).cloned().collect();
        let chosen = if new.is_empty() { Vec::new() } else { choose(&view.interfaces, &new)? };
        let out = |interface: &Interface| !names.contains(&interface.name);
        let dialogs = if self.maps.shifting() > 0 { self.maps.dialogs() } else { Vec::new() };
        self.refuse_overlaps(&view, &new, dialogs.len(), out)?;

        let mut attached: Vec<Interface> = Vec::new();
        for interface in &chosen {
            if let Err(error) = self.hooks.attach(&mut self.ebpf, &self.pins, interface, self.attach) {
                let back = [attached.as_slice(), std::slice::from_ref(interface)].concat();
                back.iter().for_each(|interface| self.detach(&interface.name));
                return Err(error);
            }
            attached.push(interface.clone());
        }
        let mut done: Vec<String> = new.iter().map(|name| format!("interface {name}: attached")).collect();
        self.leaving.retain(|leaving| !new.contains(&leaving.interface.name));
        self.interfaces.extend(chosen);
        let (gone, stay): (Vec<_>, Vec<_>) = std::mem::take(&mut self.interfaces).into_iter().partition(out);
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
        self.all = view.interfaces;
        self.held = self.interfaces.iter().map(|one| one.index).filter(|index| *index != GONE).collect();
        self.changed = Instant::now();
        Ok(done)
    }

    /// One packet at two attach points would have its numbers shifted twice.
    fn refuse_overlaps(
        &self,
        view: &View,
        new: &[String],
        dialogs: usize,
        out: impl Fn(&Interface) -> bool,
    ) -> Result<(), KernelError> {
        let going = self.interfaces.iter().filter(|one| dialogs > 0 && out(one));
        let staying: Vec<&str> =
            going.chain(self.leaving.iter().map(|leaving| &leaving.interface)).map(|one| one.name.as_str()).collect();
        let staying: Vec<&str> = staying.into_iter().filter(|name| !new.iter().any(|new| new == name)).collect();
        let all: Vec<String> = new.iter().cloned().chain(staying.iter().map(|name| (*name).to_owned())).collect();
        let crossed = overlaps_among(&view.interfaces, &all).into_iter().find_map(|overlap| {
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

    /// Detaches from interfaces that are no longer configured once nothing depends on them.
    pub(crate) fn let_go(&mut self) {
        let mut looked_up = 0;
        let mut free = Vec::new();
        for leaving in &mut self.leaving {
            while let Some(key) = leaving.dialogs.last()
                && looked_up < LOOKED_UP
                && self.maps.state(*key).is_err()
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

    /// Other ports from now on.
    pub(crate) fn set_ports(&mut self, ports: &[u16]) -> Result<(), KernelError> {
        maps::set_ports(&mut self.ebpf, ports)
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
