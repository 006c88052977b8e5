//! Hooks: TCX links and XDP links, pinned; below Linux 6.6 clsact filters in the place of TCX links.

use std::path::Path;

use aya::{
    Ebpf,
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode,
        links::{FdLink, PinnedLink as AyaPin},
        tc::TcAttachOptions,
    },
    util::KernelVersion,
};
use st_ebpf::abi::names;

use super::{
    Attached, Hook, KernelError,
    bpf::{self, LinkKind},
    filters,
    interfaces::{Interface, Kind, XdpHook},
    pins::{PinnedLink, Pins, Side},
};
use crate::config::Attach;

/// Attaches to interfaces, by links or by filters.
pub(crate) struct Hooks {
    tcx: bool,
}

impl Hooks {
    /// TCX came with Linux 6.6.
    pub(crate) fn new() -> Self {
        Self { tcx: KernelVersion::current().map_or(true, |now| now >= KernelVersion::new(6, 6, 0)) }
    }

    /// Loads every program that may be attached, now or when an interface comes back: that needs more capabilities than the
    /// daemon keeps, and what the verifier refuses must not be found out when links are half taken over.
    pub(crate) fn load(&self, ebpf: &mut Ebpf, attach: Attach) -> Result<(), KernelError> {
        classifier(ebpf, names::EGRESS)?;
        // In the place of XDP where that cannot be attached, too.
        classifier(ebpf, names::INGRESS_TC)?;
        if attach != Attach::Tc {
            express(ebpf)?;
        }
        Ok(())
    }

    /// Whether it is links that hold the TC programs, and not filters.
    pub(crate) fn links(&self) -> bool {
        self.tcx
    }

    #[cfg(test)]
    pub(crate) fn filters() -> Self {
        Self { tcx: false }
    }

    /// Which program sees the packets that come in. What is there already stays, unless the operator says otherwise.
    fn ingress(&self, attach: Attach, interface: &Interface, pinned: Option<&PinnedLink>) -> LinkKind {
        let tc = self.tc_kind();
        match attach {
            Attach::Tc => tc,
            Attach::Xdp => LinkKind::Xdp,
            Attach::Auto => match pinned.and_then(|link| link.info.kind) {
                Some(kind) => kind,
                // A native attach makes many a NIC reset, and costs a veth more than TC does.
                None if interface.up || interface.kind == Kind::Veth || interface.loopback => tc,
                None => LinkKind::Xdp,
            },
        }
    }

    /// Attaches to one interface, in the place of what is pinned for it. Returns why XDP was wanted and is not, where that is so.
    pub(crate) fn attach(
        &self,
        ebpf: &mut Ebpf,
        pins: &Pins,
        interface: &Interface,
        attach: Attach,
    ) -> Result<Option<String>, KernelError> {
        let pinned = pins.links();
        let (mine, stale): (Vec<_>, Vec<_>) = pinned
            .into_iter()
            .filter(|link| link.interface == interface.name)
            .partition(|link| link.info.interface == interface.index);
        for link in stale {
            tracing::info!(interface = interface.name, "the pinned link belongs to an interface that is gone");
            Pins::drop_link(&link.path)?;
        }
        let of = |side| mine.iter().find(|link| link.side == side);
        let mut ingress = self.ingress(attach, interface, of(Side::Ingress));
        let mut fallen = None;
        let held = of(Side::Ingress).and_then(|link| link.info.kind);
        if ingress == LinkKind::Xdp && held != Some(LinkKind::Xdp) && interface.xdp.is_some() {
            // Not even tried: so the TC program that may be there goes on without a gap.
            ingress = self.tc_kind();
            fallen = Some("another XDP program is there".to_owned());
        }
        if let Some(link) = of(Side::Ingress).filter(|link| link.info.kind != Some(ingress)) {
            // Another hook: the old program goes first, so that no packet meets both.
            Pins::drop_link(&link.path)?;
        }
        if of(Side::Egress).is_none() {
            self.refuse_twice(pins, interface)?;
        }
        // Egress first: a refresh needs it, and without it no number is ever committed.
        self.tc(ebpf, pins, interface, Side::Egress)?;
        if ingress == LinkKind::Xdp {
            // Whoever insists on it takes it behind a driver that knows nothing of it, too; else TC costs less.
            let mode = if attach == Attach::Xdp { XdpMode::Default } else { XdpMode::Driver };
            match self.xdp(ebpf, pins, interface, mode) {
                Ok(()) => return Ok(None),
                Err(error) if held == Some(LinkKind::Xdp) => return Err(error),
                Err(error) => fallen = Some(crate::output::chain(&error)),
            }
        }
        self.tc(ebpf, pins, interface, Side::Ingress)?;
        Ok(fallen)
    }

    /// What holds the TC programs.
    fn tc_kind(&self) -> LinkKind {
        if self.tcx { LinkKind::Tcx } else { LinkKind::Filter }
    }

    fn tc(&self, ebpf: &mut Ebpf, pins: &Pins, interface: &Interface, side: Side) -> Result<(), KernelError> {
        let (name, attach_type, hook) = match side {
            Side::Ingress => (names::INGRESS_TC, TcAttachType::Ingress, "tc ingress"),
            Side::Egress => (names::EGRESS, TcAttachType::Egress, "tc egress"),
        };
        let program = classifier(ebpf, name)?;
        let attached = if self.tcx {
            tcx(program, &pins.link(&interface.name, side), interface, attach_type)
        } else {
            filters::put(program, pins, interface, side)
        };
        attached.map_err(|source| KernelError::Attach { interface: interface.name.clone(), hook, source })
    }

    fn xdp(&self, ebpf: &mut Ebpf, pins: &Pins, interface: &Interface, mode: XdpMode) -> Result<(), KernelError> {
        let path = pins.link(&interface.name, Side::Ingress);
        xdp(express(ebpf)?, &path, interface, mode).map_err(|source| KernelError::Attach {
            interface: interface.name.clone(),
            hook: "xdp ingress",
            source,
        })?;
        if interface.kind == Kind::Veth {
            // `veth_xdp_xmit` and `veth_xdp_flush` of drivers/net/veth.c.
            tracing::warn!(
                interface = interface.name,
                "XDP on a veth: what it sends back is lost unless the other end has an XDP program too, so that no ACK leaves \
                 while no daemon lives; `attach: auto` takes TC, which needs none"
            );
        }
        Ok(())
    }

    /// The programs of another pin directory would take ours for forged: requests of this daemon's would not leave, and
    /// the answers to them would not arrive.
    fn refuse_twice(&self, pins: &Pins, interface: &Interface) -> Result<(), KernelError> {
        let attached = if self.tcx {
            bpf::egress_programs(interface.index).unwrap_or_else(|error| {
                // The kernel lists them for CAP_NET_ADMIN, which is given up by the time that an interface comes back.
                let interface = &interface.name;
                tracing::info!(interface, %error, "cannot look whether a sipst with another pin directory is attached there too");
                Vec::new()
            })
        } else {
            filters::program(interface.index, Side::Egress).unwrap_or_default().into_iter().collect()
        };
        let other = pins.links_elsewhere().into_iter().find(|link| attached.contains(&link.info.program));
        match other {
            Some(link) => {
                let pin_dir = pin_dir_of(&link.path).to_owned();
                Err(KernelError::Twice { interface: interface.name.clone(), pin_dir })
            }
            None => Ok(()),
        }
    }
}

/// What is attached to an interface by a pinned link.
pub(crate) fn describe(link: &PinnedLink, interface: Option<&Interface>) -> Attached {
    let hook = match (link.info.kind, link.side) {
        (Some(LinkKind::Xdp), _) => match interface.and_then(|one| one.xdp) {
            Some(XdpHook::Generic) => Hook::XdpGeneric,
            Some(XdpHook::Native) | None => Hook::XdpNative,
        },
        (_, Side::Ingress) => Hook::TcIngress,
        (_, Side::Egress) => Hook::TcEgress,
    };
    Attached {
        namespace: None,
        interface: link.interface.clone(),
        hook,
        program: link.info.program,
        pin: link.path.clone(),
        gone: interface.is_none_or(|one| one.index != link.info.interface),
    }
}

/// The same in a group's namespace, whose interfaces nobody lists.
pub(crate) fn describe_elsewhere(group: &str, link: &PinnedLink) -> Attached {
    let gone = link.info.interface == 0;
    Attached { namespace: Some(group.to_owned()), gone, ..describe(link, None) }
}

/// DIR of a link's DIR/vN/links/NAME or DIR/vN/places/GROUP/links/NAME.
fn pin_dir_of(link: &Path) -> &Path {
    let up = |levels| link.ancestors().nth(levels).unwrap_or(link);
    if up(3).file_name().is_some_and(|name| name == "places") { up(5) } else { up(3) }
}

/// A loaded TC program.
pub(super) fn classifier<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut SchedClassifier, KernelError> {
    let program = ebpf.program_mut(name).ok_or(KernelError::Lacks { name })?;
    let program: &mut SchedClassifier = program.try_into().map_err(|error| KernelError::program(name, error))?;
    load(name, program.fd().is_ok(), || program.load())?;
    Ok(program)
}

/// The loaded XDP program.
fn express(ebpf: &mut Ebpf) -> Result<&mut Xdp, KernelError> {
    let name = names::INGRESS_XDP;
    let program = ebpf.program_mut(name).ok_or(KernelError::Lacks { name })?;
    let program: &mut Xdp = program.try_into().map_err(|error| KernelError::program(name, error))?;
    load(name, program.fd().is_ok(), || program.load())?;
    Ok(program)
}

fn load(name: &str, loaded: bool, load: impl FnOnce() -> Result<(), ProgramError>) -> Result<(), KernelError> {
    if loaded { Ok(()) } else { load().map_err(|error| KernelError::program(name, error)) }
}

fn tcx(
    program: &mut SchedClassifier,
    path: &Path,
    interface: &Interface,
    attach_type: TcAttachType,
) -> Result<(), ProgramError> {
    match AyaPin::from_pin(path) {
        // The same link goes on with the new program: never none, never two.
        Ok(pinned) => program.attach_to_link(FdLink::from(pinned).try_into().map_err(link_error)?).map(drop),
        Err(_) => {
            // First in the chain: a program ahead that ends it with TC_ACT_OK would switch the shift off, while ours lets
            // every program behind it run.
            let order = TcAttachOptions::TcxOrder(LinkOrder::first());
            let id = program.attach_with_options(&interface.name, attach_type, order)?;
            let link = FdLink::try_from(program.take_link(id)?).map_err(link_error)?;
            link.pin(path).map(drop).map_err(pin_error)
        }
    }
}

fn xdp(program: &mut Xdp, path: &Path, interface: &Interface, mode: XdpMode) -> Result<(), ProgramError> {
    match AyaPin::from_pin(path) {
        Ok(pinned) => program.attach_to_link(FdLink::from(pinned).try_into().map_err(link_error)?).map(drop),
        Err(_) => {
            let id = program.attach_to_if_index(interface.index, mode)?;
            let link = FdLink::try_from(program.take_link(id)?).map_err(link_error)?;
            link.pin(path).map(drop).map_err(pin_error)
        }
    }
}

fn link_error(error: aya::programs::links::LinkError) -> ProgramError {
    ProgramError::IOError(std::io::Error::other(error))
}

fn pin_error(error: aya::pin::PinError) -> ProgramError {
    ProgramError::IOError(std::io::Error::other(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_takes_tc_on_a_link_that_is_up_and_on_veth() {
        let ingress = |tcx, attach, kind, up| {
            let interface = Interface {
                index: 2,
                name: "x".into(),
                up,
                ethernet: true,
                loopback: false,
                kind,
                lower: None,
                master: None,
                xdp: None,
            };
            Hooks { tcx }.ingress(attach, &interface, None)
        };
        assert_eq!(ingress(true, Attach::Auto, Kind::Other, true), LinkKind::Tcx);
        assert_eq!(ingress(true, Attach::Auto, Kind::Other, false), LinkKind::Xdp);
        assert_eq!(ingress(true, Attach::Auto, Kind::Veth, false), LinkKind::Tcx);
        assert_eq!(ingress(true, Attach::Xdp, Kind::Veth, true), LinkKind::Xdp);
        assert_eq!(ingress(true, Attach::Tc, Kind::Other, false), LinkKind::Tcx);
        assert_eq!(ingress(false, Attach::Tc, Kind::Other, false), LinkKind::Filter);
        assert_eq!(ingress(false, Attach::Auto, Kind::Veth, true), LinkKind::Filter);
        assert_eq!(ingress(false, Attach::Xdp, Kind::Veth, true), LinkKind::Xdp);
    }
}
