//! What a world is made from: the calls in it and the weather around them. It prints itself so that one can read it.

mod draw;

use std::{fmt, ops::Range};

pub(crate) use draw::plan;

use super::{
    agent::{Act, MS, S, Us},
    proxy::Manner,
    stacks::{PEERS, SERVERS},
    trunk::{Rejects, Trunk},
};

/// The network and the host.
#[derive(Clone, Debug)]
pub(crate) struct Weather {
    /// Chances in a hundred, of every packet in every direction.
    pub(crate) lost: u32,
    pub(crate) doubled: u32,
    pub(crate) late: u32,
    /// One way, in microseconds.
    pub(crate) delay: Us,
    /// Chances in a thousand that the ring has no place for a sample.
    pub(crate) ring: u32,
    /// Chances in a hundred that it has none for a refusal that would be held back.
    pub(crate) crammed: u32,
    /// Chances in a hundred that a firewall drops what the kernel programs have seen coming in.
    pub(crate) firewall: u32,
    /// Chances in a hundred that the daemon sleeps for a while before it reads.
    pub(crate) sleepy: u32,
    /// Chances in a hundred that the server sends a request at a step of an injection.
    pub(crate) races: u32,
    /// Chances in a hundred that the server sends a re-INVITE while a refresh of sipst's is under way.
    pub(crate) crossings: u32,
    /// When no packet passes.
    pub(crate) outages: Vec<Range<Us>>,
    /// When the ring is full.
    pub(crate) overflows: Vec<Range<Us>>,
    /// When the daemon does nothing.
    pub(crate) stalls: Vec<Range<Us>>,
    /// From when on all is well: every packet arrives once and is seen.
    pub(crate) calm: Us,
}

/// One call.
#[derive(Clone)]
pub(crate) struct CallPlan {
    /// What chance has in store for it, whatever else is in the world.
    pub(crate) seed: u64,
    /// Index into [`SERVERS`].
    pub(crate) server: usize,
    /// Index into [`PEERS`].
    pub(crate) peer: usize,
    pub(crate) server_calls: bool,
    /// An enforcing proxy in the path.
    pub(crate) proxy: Option<Manner>,
    /// A second phone that rings and answers; only where the server calls.
    pub(crate) fork: bool,
    /// INVITEs get a reliable provisional response first.
    pub(crate) reliable: bool,
    pub(crate) early_update: bool,
    pub(crate) late_offer: bool,
    /// The caller cancels so long after the first provisional response.
    pub(crate) cancels: Option<Us>,
    pub(crate) interval: u32,
    /// How long it is to last, in hundredths of an interval.
    pub(crate) length: u32,
    pub(crate) begins: Us,
    /// Whether the server ends it.
    pub(crate) server_ends: bool,
    /// What happens on the way, in hundredths of its length; `true`: to the server.
    pub(crate) acts: Vec<(u32, bool, Act)>,
    /// What the peer answers to the first refreshes that it gets.
    pub(crate) refusals: Vec<u16>,
    /// What the operator has asked for.
    pub(crate) trunk: Trunk,
    /// How the server turns down what the peer asks for.
    pub(crate) rejects: Option<Rejects>,
    /// The server sends an INFO after each refresh of sipst's.
    pub(crate) chatty: bool,
}

#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) weather: Weather,
    pub(crate) calls: Vec<CallPlan>,
    /// The first two calls are the legs of a B2BUA on this host; whether with the same Call-ID.
    pub(crate) bridge: Option<bool>,
}

/// Stands for the moments right after a refresh has left ([`Plan::kills`]).
pub(crate) const SUDDEN: usize = 63;

impl Plan {
    /// Whether the daemon is killed where it would stall for that time, and comes back when that is over.
    pub(crate) const fn kills(&self, stall: usize) -> bool {
        self.seed >> (stall % 64) & 1 == 1
    }
}

impl CallPlan {
    /// How long it is to last.
    pub(crate) fn life(&self) -> Us {
        Us::from(self.interval) * S * Us::from(self.length) / 100
    }

    /// The agenda of one side, from when it comes up.
    pub(crate) fn agenda(&self, server: bool) -> Vec<(Us, Act)> {
        let acts = self.acts.iter().filter(|(_, of_server, _)| *of_server == server);
        let mut agenda: Vec<_> = acts.map(|(share, _, act)| (self.life() * Us::from(*share) / 100, *act)).collect();
        // Some stacks never notice that the other side is gone; whoever uses them does.
        agenda.push((if self.server_ends == server { self.life() } else { 2 * self.life() }, Act::HangUp));
        agenda.sort_by_key(|(at, _)| *at);
        agenda
    }

    pub(crate) fn does(&self, what: impl Fn(Act) -> bool) -> bool {
        self.acts.iter().any(|(_, _, act)| what(*act))
    }
}

impl fmt::Debug for CallPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (server, peer) = (SERVERS[self.server].name, PEERS[self.peer].name);
        let (caller, callee) = if self.server_calls { (server, peer) } else { (peer, server) };
        write!(f, "{caller} calls {callee} ({server} is the server), SE {}, ", self.interval)?;
        let ends = if self.server_ends { "server" } else { "peer" };
        write!(f, "from {:.3} s for {}% of SE, the {ends} ends it", self.begins as f64 / 1e6, self.length)?;
        for (is_so, what) in [
            (self.fork, "forked"),
            (self.reliable, "reliable 1xx"),
            (self.early_update, "early UPDATE"),
            (self.late_offer, "late offer"),
            (self.chatty, "chatty server"),
        ] {
            if is_so {
                write!(f, ", {what}")?;
            }
        }
        if let Some(manner) = self.proxy {
            write!(f, ", a proxy that {}", format!("{manner:?}").to_lowercase())?;
        }
        if let Some(after) = self.cancels {
            write!(f, ", cancelled after {} ms", after / MS)?;
        }
        for (share, server, act) in &self.acts {
            write!(f, ", {share}%: {act:?} by the {}", if *server { "server" } else { "peer" })?;
        }
        if !self.refusals.is_empty() {
            write!(f, ", refreshes get {:?}", self.refusals)?;
        }
        if self.trunk != Trunk::Plain {
            write!(f, ", {:?}", self.trunk)?;
        }
        if let Some(rejects) = &self.rejects {
            write!(f, ", the server: {rejects:?}")?;
        }
        write!(f, " (seed {})", self.seed)
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "world {}: {:?}", self.seed, self.weather)?;
        if let Some(same) = self.bridge {
            writeln!(f, "  c0 and c1 are the legs of a B2BUA, with the same Call-ID: {same}")?;
        }
        self.calls.iter().enumerate().try_for_each(|(index, call)| writeln!(f, "  c{index}: {call:?}"))
    }
}
