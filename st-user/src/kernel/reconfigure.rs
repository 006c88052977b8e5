//! Other interfaces and ports while the daemon runs.

use super::{Kernel, KernelError, View, maps};
use crate::config::Ports;

impl Kernel {
    /// Attaches to what is new among the interfaces that `terms` stand for, and detaches from those that they do not stand for any more.
    /// One that dialogs with rewritten numbers may depend on stays attached until they are over. Where that cannot be, all is as before.
    /// Returns what was done, for people.
    pub(crate) fn set_interfaces(&mut self, terms: &[String], view: View) -> Result<Vec<String>, KernelError> {
        let done = self.here.set(&mut self.loaded, &self.maps, terms, view)?;
        self.lookout.follow_routes(self.here.follows_routes());
        Ok(done)
    }

    /// Detaches from interfaces that are no longer configured once nothing depends on them.
    pub(crate) fn let_go(&mut self) {
        self.here.let_go(&self.maps);
        self.elsewhere.iter_mut().for_each(|group| group.let_go(&self.maps));
    }

    /// Other ports from now on: those of SIP, and those that cannot be read.
    pub(crate) fn set_ports(&mut self, ports: [&[Ports]; 2]) -> Result<(), KernelError> {
        maps::set_ports(&mut self.loaded.ebpf, ports)
    }
}
