//! Filters of a clsact qdisc, which hold the TC programs where there are no TCX links (below Linux 6.6). Nobody holds a
//! filter: it stays until it is taken away, and is found again by its place. The program in it is pinned in the place where
//! a link would be, so that what is ours is known by its id.

use std::{fs, io, path::Path};

use aya::programs::{
    ProgramError, SchedClassifier, TcAttachType,
    tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle},
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcFilterBpfOption, TcHandle as Handle, TcMessage, TcOption},
};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::{
    interfaces::Interface,
    pins::{Pins, Side},
};
use crate::netlink::{Netlink, Want};

/// Where the filter stands: ahead of what has no place of its own, and always there, so that the next daemon replaces it
/// instead of adding a second.
const PRIORITY: u16 = 1;
const HANDLE: u16 = 0x5150;

/// Minor numbers of clsact's two sides, and of the qdisc itself (`TC_H_MIN_INGRESS`, `TC_H_MIN_EGRESS`, `TC_H_INGRESS`).
const INGRESS: u16 = 0xfff2;
const EGRESS: u16 = 0xfff3;
const QDISC: u16 = 0xfff1;

/// Every protocol, in network order.
const ETH_P_ALL: u16 = (libc::ETH_P_ALL as u16).to_be();

/// What is at one side of an interface's clsact qdisc.
#[derive(Default)]
struct Found {
    /// The program in our place.
    ours: Option<u32>,
    /// Whether there is any filter, of whomever.
    any: bool,
}

/// The program in our place at a side of an interface, whoever put it there.
pub(crate) fn program(interface: u32, side: Side) -> io::Result<Option<u32>> {
    look(interface, side).map(|found| found.ours)
}

/// Puts a loaded program in our place, whatever is in it, and pins it. The qdisc is added where there is none, and word is
/// left that it is ours.
pub(crate) fn put(
    program: &mut SchedClassifier,
    pins: &Pins,
    interface: &Interface,
    side: Side,
) -> Result<(), ProgramError> {
    match tc::qdisc_add_clsact(&interface.name) {
        Ok(()) => pin(program, &pins.qdisc(&interface.name)).map_err(TcError::IoError)?,
        // There already, by us or by others, is as good.
        Err(error) => tracing::debug!(interface = interface.name, %error, "clsact is there"),
    }
    let attach_type = match side {
        Side::Ingress => TcAttachType::Ingress,
        Side::Egress => TcAttachType::Egress,
    };
    let handle = TcHandle::new(0, HANDLE);
    let options = NlOptions { priority: PRIORITY, handle, classid: None };
    let id = match program.attach_with_options(&interface.name, attach_type, TcAttachOptions::Netlink(options)) {
        Ok(id) => id,
        Err(error) if super::error::errno(&error) == Some(libc::EEXIST) => {
            let there = SchedClassifierLink::attached(&interface.name, attach_type, PRIORITY, handle, None);
            program.attach_to_link(there.map_err(TcError::IoError)?)?
        }
        Err(error) => return Err(error),
    };
    // Dropped, it would take the filter away.
    std::mem::forget(program.take_link(id)?);
    Ok(pin(program, &pins.filter(&interface.name, side)).map_err(TcError::IoError)?)
}

/// Pins in the place of what is pinned there.
fn pin(program: &mut SchedClassifier, path: &Path) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push("-new");
    let new = path.with_file_name(name);
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::remove_file(&new).or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })?;
    program.pin(&new).map_err(io::Error::other)?;
    fs::rename(&new, path)
}

/// Takes a filter away if this program is in it. What is not there is as good as taken.
pub(crate) fn take(interface: u32, side: Side, program: u32) -> io::Result<()> {
    if self::program(interface, side)? != Some(program) {
        return Ok(());
    }
    let mut filter = TcMessage::with_index(interface as i32);
    filter.header.parent = parent(side);
    filter.header.handle = Handle { major: 0, minor: HANDLE };
    filter.header.info = (u32::from(PRIORITY) << 16) | u32::from(ETH_P_ALL);
    Netlink::open(NETLINK_ROUTE)?.request(RouteNetlinkMessage::DelTrafficFilter(filter), Want::Done, |_| {})
}

/// Takes the qdisc away unless somebody has a filter there. What is not there is as good as taken.
pub(crate) fn take_qdisc(interface: u32) -> io::Result<()> {
    if look(interface, Side::Ingress)?.any || look(interface, Side::Egress)?.any {
        return Ok(());
    }
    let mut qdisc = TcMessage::with_index(interface as i32);
    qdisc.header.parent = Handle { major: u16::MAX, minor: QDISC };
    match Netlink::open(NETLINK_ROUTE)?.request(RouteNetlinkMessage::DelQueueDiscipline(qdisc), Want::Done, |_| {}) {
        Err(error) if [Some(libc::ENOENT), Some(libc::EINVAL)].contains(&error.raw_os_error()) => Ok(()),
        result => result,
    }
}

fn parent(side: Side) -> Handle {
    let minor = match side {
        Side::Ingress => INGRESS,
        Side::Egress => EGRESS,
    };
    Handle { major: u16::MAX, minor }
}

fn look(interface: u32, side: Side) -> io::Result<Found> {
    let mut ask = TcMessage::with_index(interface as i32);
    ask.header.parent = parent(side);
    let mut found = Found::default();
    Netlink::open(NETLINK_ROUTE)?.request(RouteNetlinkMessage::GetTrafficFilter(ask), Want::Dump, |answer| {
        if let RouteNetlinkMessage::NewTrafficFilter(filter) = answer {
            found.any = true;
            found.ours = found.ours.or_else(|| ours(&filter));
        }
    })?;
    Ok(found)
}

/// The program of a filter in our place.
#[expect(clippy::wildcard_enum_match_arm, reason = "the kernel adds to these")]
fn ours(filter: &TcMessage) -> Option<u32> {
    let TcMessage { header, attributes, .. } = filter;
    if header.handle != (Handle { major: 0, minor: HANDLE }) || header.info >> 16 != u32::from(PRIORITY) {
        return None;
    }
    let options = attributes.iter().filter_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    });
    options.flatten().find_map(|option| match option {
        TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => Some(*id),
        _ => None,
    })
}
