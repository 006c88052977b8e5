//! The loopback, where every packet both leaves and comes in: each is looked at once, on the side of the end that speaks SIP on one of
//! the ports that the operator has named.

use super::{
    access::Access,
    packet::{carries_sip, direct},
};

/// Both Ethernet addresses.
const MACS: usize = 12;

/// Whose packet of the loopback it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It is none of the loopback's, or it is of the end on this side.
    This,
    /// Of the end on the other side, where it is looked at.
    Other,
    /// Both ends are on such ports: which of them is the server?
    Unclear,
}

/// Whether it is one of the loopback's: nothing else has frames without addresses, and a card takes none in.
#[inline(always)]
pub fn is_loopback(access: &impl Access) -> bool {
    direct::<MACS>(access.data(), access.data_end(), 0) == Some([0; MACS])
}

/// `here` is the port on this side: the source of what goes out, the destination of what comes in.
#[inline(always)]
pub fn end(access: &impl Access, here: u16, there: u16) -> End {
    if !is_loopback(access) {
        return End::This;
    }
    match (carries_sip(here), carries_sip(there)) {
        (true, true) => End::Unclear,
        (true, false) => End::This,
        (false, _) => End::Other,
    }
}
