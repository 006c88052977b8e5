//! Peer to server: answers to sipst's requests are taken, dialog messages sampled, numbers in responses shifted back, those of
//! the peer's requests shifted.

use st_ebpf::{
    abi::{Counter, direction, kind},
    key::Whose,
    scan::{Start, has_our_prefix, has_peer_prefix, method, part, peer_token, start},
};

use super::{
    access::Access,
    ack::acknowledge,
    assist::soften,
    fragments::{ends_before_to, foreign, later, lead},
    hold::{Acks, acks, acks_are_held},
    loopback::{End, end},
    maps::{Scratch, TOKENS, count},
    media,
    message::{
        describe, forgetting, is_outside, load, read_back, reserve_reached, scan, scratch, submit, take_answer, take_in,
    },
    packet::{Datagram, Packet, read},
    record::copy,
    shift::{is_shifted, shift, shift_back, shift_back_quoted},
    stream::segment,
};
use crate::Fate;

/// Looks at a packet that comes in.
#[inline(always)]
pub fn ingress<A: Access>(access: &A) -> Fate {
    let datagram = match read(access, |ip, ports| media::came(access, ip, ports.destination)) {
        Packet::Other => return Fate::Pass,
        Packet::Unread(reason) => {
            count(reason);
            return Fate::Pass;
        }
        Packet::Foreign(ip) => return foreign(access, ip, direction::INGRESS),
        Packet::Later(ip) => return later(access, ip, direction::INGRESS),
        Packet::IcmpError(datagram) => return about_ours(access, &datagram, Whose::Server),
        Packet::Segment(ip) => return segment(access, ip, direction::INGRESS),
        Packet::Sip(datagram) | Packet::First(datagram) => datagram,
    };
    if end(access, datagram.destination, datagram.source) != End::This {
        return if datagram.ip.first { foreign(access, datagram.ip, direction::INGRESS) } else { Fate::Pass };
    }
    let fate = match take_in(access, &datagram, direction::INGRESS) {
        Some((scratch, datagram, captured, Start::Request(method))) => {
            request(access, scratch, &datagram, captured, method)
        }
        Some((scratch, datagram, captured, Start::Response)) => response(access, scratch, &datagram, captured),
        None if access.is_joined() => Fate::Joined,
        Some((.., Start::KeepAlive | Start::NotSip)) | None => Fate::Pass,
    };
    lead(access, direction::INGRESS, fate)
}

/// A request of the peer's, or of a stranger's: sampled where it is inside a dialog or wants to begin one; an ACK to a 2xx in the
/// server's name is taken.
#[inline(always)]
fn request<A: Access>(access: &A, scratch: &mut Scratch, datagram: &Datagram, captured: u32, method: u32) -> Fate {
    match method {
        method::REGISTER | method::PUBLISH => {
            count(Counter::OutsideRequest);
            return Fate::Pass;
        }
        method::INVITE => {
            if reserve_reached() {
                scan(scratch, captured, part::TO);
                if scratch.scan.to_tag.len == 0 {
                    count(Counter::RingReserved);
                    return Fate::Pass;
                }
            }
        }
        method::ACK | method::BYE | method::CANCEL | method::UPDATE | method::PRACK | method::INFO => {}
        _ => {
            scan(scratch, captured, part::TO);
            if scratch.scan.to_tag.len == 0 && !ends_before_to(scratch, datagram) {
                count(Counter::OutsideRequest);
                return Fate::Pass;
            }
        }
    }
    if !describe(access, scratch, datagram, direction::INGRESS, captured) {
        return Fate::Pass;
    }
    if method == method::INVITE {
        soften(access, scratch, captured);
    }
    let datagram = &forgetting(scratch);
    let acks = if method == method::ACK && acks_are_held() {
        scan(scratch, captured, part::VIA | part::FROM | part::CALL_ID | part::CSEQ);
        acks(scratch)
    } else {
        Acks::Other
    };
    if acks != Acks::Other || !is_shifted(scratch) {
        submit(scratch, captured);
        if acks == Acks::Success {
            count(Counter::AckTaken);
            copy(scratch, datagram, kind::TAKEN, 0);
            return Fate::Take;
        }
        // One to the refusal has the server's number already.
        return Fate::Pass;
    }
    let quoting = match method {
        method::PRACK => part::RACK,
        method::SUBSCRIBE | method::NOTIFY => part::EVENT,
        _ => 0,
    };
    scan(scratch, captured, part::VIA | part::FROM | part::TO | part::CALL_ID | part::CSEQ | quoting);
    if peer_token(&scratch.window, scratch.scan.branch).is_some_and(|token| TOKENS.get_ptr(token).is_some()) {
        // st_egress has turned it back to here. It has its number, and the daemon has seen it leave.
        return Fate::Pass;
    }
    submit(scratch, captured);
    if scratch.scan.to_tag.len > 0 {
        if method == method::NOTIFY {
            shift_back_quoted(access, scratch, datagram, Whose::Server);
        }
        shift(access, scratch, datagram, method, Whose::Peer);
    }
    Fate::Pass
}

/// A response: taken where sipst asked, else sampled by its method, and its number shifted back.
#[inline(always)]
fn response<A: Access>(access: &A, scratch: &mut Scratch, datagram: &Datagram, captured: u32) -> Fate {
    let described = describe(access, scratch, datagram, direction::INGRESS, captured);
    let shifted = is_shifted(scratch);
    let dialog = if shifted { part::CALL_ID | part::FROM } else { 0 };
    scan(scratch, captured, part::VIA | part::CSEQ | dialog);
    if has_our_prefix(&scratch.window, scratch.scan.branch) {
        // Never for the server, whatever the token says.
        return match take_answer(scratch, captured, described) {
            Some(token) if acknowledge(access, scratch, datagram, captured, token) => Fate::Back,
            Some(_) | None => Fate::Take,
        };
    }
    if !described {
        return Fate::Pass;
    }
    if is_outside(scratch.scan.method) {
        count(Counter::OutsideResponse);
    } else {
        submit(scratch, captured);
    }
    if shifted {
        shift_back(access, scratch, datagram, Whose::Server);
    }
    Fate::Pass
}

/// An ICMP error about a request of sipst's is taken: about one in the server's name it would reach the server's socket as
/// an error of its own, about one in the peer's it would leave for the peer.
#[inline(always)]
pub fn about_ours<A: Access>(access: &A, datagram: &Datagram, whose: Whose) -> Fate {
    let direction = match whose {
        Whose::Server => direction::INGRESS,
        Whose::Peer => direction::EGRESS,
    };
    let Some(scratch) = scratch(direction) else { return Fate::Pass };
    let datagram = read_back(scratch, datagram);
    let Some(captured) = load(access, scratch, datagram.payload, datagram.len) else { return Fate::Pass };
    let Start::Request(_) = start(&scratch.window) else { return Fate::Pass };
    scan(scratch, captured, part::VIA);
    let ours = match whose {
        Whose::Server => has_our_prefix(&scratch.window, scratch.scan.branch),
        Whose::Peer => has_peer_prefix(&scratch.window, scratch.scan.branch),
    };
    if !ours {
        return Fate::Pass;
    }
    count(Counter::IcmpTaken);
    Fate::Take
}
