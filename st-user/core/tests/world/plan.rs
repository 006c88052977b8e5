//! What a world is made from: the calls in it and the weather around them. All of it shrinks.

use proptest::prelude::*;

use super::{
    agent::{Act, MS, S, Us},
    stacks::{OnUpdate, PEERS, SERVERS},
};

/// The network and the host.
#[derive(Clone, Debug)]
pub(crate) struct Weather {
    /// Chances in a hundred, of every packet in every direction.
    pub(crate) lost: u32,
    pub(crate) doubled: u32,
    pub(crate) late: u32,
    /// One way, in milliseconds.
    pub(crate) delay: Us,
    /// Chances in a thousand that the ring has no place for a sample.
    pub(crate) ring: u32,
    /// Chances in a hundred that a firewall drops what the kernel programs have seen coming in.
    pub(crate) firewall: u32,
    /// Chances in a hundred that the daemon sleeps for a while before it reads.
    pub(crate) sleepy: u32,
    /// Chances in a hundred that the server sends a request at a step of an injection.
    pub(crate) races: u32,
}

/// One call.
#[derive(Clone, Debug)]
pub(crate) struct CallPlan {
    /// What chance has in store for it, whatever else is in the world.
    pub(crate) seed: u64,
    /// Index into [`SERVERS`].
    pub(crate) server: usize,
    /// Index into [`PEERS`].
    pub(crate) peer: usize,
    pub(crate) server_calls: bool,
    /// An enforcing proxy in the path; only where the server calls.
    pub(crate) proxy: bool,
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
}

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) weather: Weather,
    pub(crate) calls: Vec<CallPlan>,
}

prop_compose! {
    fn weather()(
        lost in 10..20_u32,
        doubled in 0..10_u32,
        late in 0..10_u32,
        delay in 1..120_u64,
        ring in prop_oneof![3 => Just(0_u32), 1 => 1..30_u32],
        firewall in 0..3_u32,
        sleepy in 0..5_u32,
        races in prop_oneof![1 => Just(0_u32), 2 => 0..30_u32],
    ) -> Weather {
        Weather { lost, doubled, late, delay: delay * MS, ring, firewall, sleepy, races }
    }
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => Just(Act::Info),
        3 => Just(Act::Reinvite),
        2 => Just(Act::Hold),
        2 => Just(Act::Resume),
        1 => Just(Act::Crash),
    ]
}

fn refusals() -> impl Strategy<Value = Vec<u16>> {
    let one = prop::sample::select(vec![500_u16, 503, 491, 504, 408, 422, 401]);
    prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(one, 1..4)]
}

prop_compose! {
    fn call()(
        seed in any::<u64>().no_shrink(),
        server in 0..SERVERS.len(),
        peer in 0..PEERS.len(),
        server_calls in prop::bool::weighted(0.7),
        proxy in prop::bool::weighted(0.2),
        interval in prop_oneof![4 => Just(90_u32), 2 => 90..400_u32, 1 => Just(1_800)],
        length in 150..700_u32,
        begins in 0..60_000_u64,
        server_ends in any::<bool>(),
        acts in prop::collection::vec((1..99_u32, any::<bool>(), act()), 0..5),
        refusals in refusals(),
    ) -> CallPlan {
        let begins = begins * MS;
        // Between the moment to act and the peer's deadline there must be time for an answer at all.
        let most = match (interval, PEERS[peer].on_update) {
            (..200, OnUpdate::Swallows) => 0,
            (..200, _) => 1,
            (200.., _) => 4,
        };
        let refusals = refusals.into_iter().take(most).collect();
        CallPlan { seed, server, peer, server_calls, proxy, interval, length, begins, server_ends, acts, refusals }
    }
}

pub(crate) fn plan() -> impl Strategy<Value = Plan> {
    (any::<u64>().no_shrink(), weather(), prop::collection::vec(call(), 1..6)).prop_map(|(seed, weather, calls)| Plan {
        seed,
        weather,
        calls,
    })
}

impl CallPlan {
    pub(crate) fn has_proxy(&self) -> bool {
        self.proxy && self.server_calls
    }

    /// How long it is to last.
    pub(crate) fn life(&self) -> Us {
        Us::from(self.interval) * S * Us::from(self.length) / 100
    }

    /// The agenda of one side, from when it comes up.
    pub(crate) fn agenda(&self, server: bool) -> Vec<(Us, Act)> {
        let acts = self.acts.iter().filter(|(_, of_server, _)| *of_server == server);
        let mut agenda: Vec<_> = acts.map(|(share, _, act)| (self.life() * Us::from(*share) / 100, *act)).collect();
        if self.server_ends == server {
            agenda.push((self.life(), Act::HangUp));
        }
        agenda.sort_by_key(|(at, _)| *at);
        agenda
    }
}
