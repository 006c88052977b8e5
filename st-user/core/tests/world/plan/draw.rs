//! How plans are drawn. All of a plan shrinks, but what chance does inside it.

use std::ops::Range;

use proptest::prelude::*;

use super::{CallPlan, Plan, Weather};
use crate::{
    agent::{Act, MS, S, Us},
    proxy::Manner,
    stacks::{Expiry, OnUpdate, PEERS, SERVERS, Stack},
    trunk::{Rejects, Trunk, rejects, trunk},
};

/// Spells of something within the first quarter of an hour; the lengths in milliseconds.
fn spells(length: Range<Us>) -> impl Strategy<Value = Vec<Range<Us>>> {
    let spell = (30_000..900_000_u64, length).prop_map(|(at, length)| at * MS..(at + length) * MS);
    prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(spell, 1..3)]
}

prop_compose! {
    fn weather()(
        lost in 10..20_u32,
        doubled in 0..10_u32,
        late in 0..10_u32,
        delay in 1..120_u64,
        ring in prop_oneof![3 => Just(0_u32), 1 => 1..30_u32],
        crammed in prop_oneof![1 => Just(0_u32), 1 => 1..20_u32],
        firewall in 0..3_u32,
        sleepy in 0..5_u32,
        races in prop_oneof![1 => Just(0_u32), 2 => 0..30_u32],
        crossings in 0..15_u32,
        outages in spells(1_000..40_000),
        overflows in spells(100..20_000),
        stalls in spells(1_000..12_000),
        calm in prop_oneof![1 => Just(Us::MAX), 1 => (60..300_u64).prop_map(|at| at * S)],
    ) -> Weather {
        let delay = delay * MS;
        Weather {
            lost, doubled, late, delay, ring, crammed, firewall, sleepy, races, crossings, outages, overflows, stalls, calm,
        }
    }
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        5 => Just(Act::Info),
        3 => Just(Act::Reinvite),
        2 => Just(Act::Hold),
        2 => Just(Act::Freeze),
        3 => Just(Act::Resume),
        2 => Just(Act::LateOffer),
        2 => Just(Act::Fax),
        1 => Just(Act::Voice),
        2 => Just(Act::Codec),
        2 => Just(Act::Move),
        4 => Just(Act::Flinch),
        4 => Just(Act::Refer),
        1 => Just(Act::Crash),
        4 => Just(Act::Restart),
    ]
}

fn refusals() -> impl Strategy<Value = Vec<u16>> {
    let one = prop::sample::select(vec![500_u16, 503, 491, 504, 408, 422, 401, 407]);
    prop_oneof![
        8 => Just(Vec::new()),
        4 => prop::collection::vec(one, 1..4),
        1 => Just(vec![302]),
    ]
}

prop_compose! {
    fn ways()(
        proxy in prop::option::weighted(
            0.2,
            prop::sample::select(vec![Manner::Inserts, Manner::Lowers, Manner::Refuses]),
        ),
        fork in prop::bool::weighted(0.08),
        reliable in prop::bool::weighted(0.2),
        early_update in any::<bool>(),
        late_offer in prop::bool::weighted(0.05),
        cancels in prop::option::weighted(0.05, (0..3_000_u64).prop_map(|after| after * MS)),
    ) -> (Option<Manner>, bool, bool, bool, bool, Option<Us>) {
        (proxy, fork, reliable, early_update, late_offer, cancels)
    }
}

prop_compose! {
    fn ordinary()(
        seed in any::<u64>().no_shrink(),
        server in 0..SERVERS.len(),
        peer in 0..PEERS.len(),
        server_calls in prop::bool::weighted(0.7),
        (proxy, fork, reliable, early_update, late_offer, cancels) in ways(),
        interval in prop_oneof![4 => Just(90_u32), 2 => 90..400_u32, 1 => Just(1_800)],
        length in 150..700_u32,
        begins in 0..60_000_u64,
        server_ends in any::<bool>(),
        acts in prop::collection::vec((1..99_u32, any::<bool>(), act()), 0..5),
        refusals in refusals(),
        trunk in trunk(),
    ) -> CallPlan {
        // A proxy can only lower what is long enough.
        let interval = if proxy == Some(Manner::Lowers) { interval.max(240) } else { interval };
        // Between the moment to act and the peer's deadline there must be time for an answer at all.
        let most = match (interval, PEERS[peer].on_update) {
            (..200, OnUpdate::Swallows) => 0,
            (..200, _) => 1,
            (200.., _) => 4,
        };
        CallPlan {
            seed,
            server,
            peer,
            server_calls,
            proxy,
            fork: fork && server_calls && proxy.is_none(),
            reliable: reliable && !fork,
            early_update: early_update && reliable && !fork && !late_offer && proxy.is_none(),
            late_offer,
            cancels,
            interval,
            length,
            begins: begins * MS,
            server_ends,
            acts,
            refusals: refusals.into_iter().take(most).collect(),
            trunk,
            rejects: None,
            chatty: false,
        }
    }
}

/// The peer turns one refresh after the other down, and the server speaks in between: each number needs a range of its own.
fn hectic() -> impl Strategy<Value = CallPlan> {
    let server = SERVERS.iter().position(|stack| stack.name == "transparent_b2bua").unwrap_or(0);
    (ordinary(), 600..700_u32, 6..10_usize).prop_map(move |(call, interval, times)| CallPlan {
        // It says that it refreshes, and does not; the other one owns the Call-ID, so that it is asked again at once.
        server,
        peer: 0,
        server_calls: false,
        proxy: None,
        cancels: None,
        interval,
        length: 120,
        acts: Vec::new(),
        refusals: vec![491; times],
        chatty: true,
        ..call
    })
}

/// The server writes one digit and no blank, and has more to say than there is room for in place.
fn cramped() -> impl Strategy<Value = CallPlan> {
    let acts = prop::collection::vec((60..99_u32, Just(true), Just(Act::Info)), 8..10);
    (ordinary(), acts, 1..3_usize).prop_map(|(call, acts, which)| CallPlan {
        server: SERVERS.len() - which,
        peer: 0,
        server_calls: true,
        proxy: None,
        fork: false,
        reliable: false,
        early_update: false,
        cancels: None,
        interval: 90,
        length: 500,
        acts,
        refusals: Vec::new(),
        ..call
    })
}

/// The server is pjsip and refreshes by UPDATE without a body; that is turned down.
fn insistent() -> impl Strategy<Value = CallPlan> {
    let server = SERVERS.iter().position(|stack| stack.name == "pjsip").unwrap_or(0);
    (ordinary(), prop::sample::select(vec![491_u16, 500, 503, 504])).prop_map(move |(call, status)| CallPlan {
        server,
        peer: 0,
        server_calls: true,
        proxy: None,
        cancels: None,
        acts: Vec::new(),
        refusals: vec![status],
        ..call
    })
}

/// The peer refreshes, and the server turns it down.
fn rejected() -> impl Strategy<Value = CallPlan> {
    let index = |stacks: &[Stack], which: fn(&Stack) -> bool| {
        let all: Vec<_> = (0..stacks.len()).filter(|at| which(&stacks[*at])).collect();
        prop::sample::select(all)
    };
    // Servers that hang up on nobody; peers that undertake to refresh where the UAC has no timers.
    let server = index(SERVERS, |stack| stack.expiry == Expiry::Never && !stack.refreshes && !stack.spelling.long);
    let peer = index(PEERS, |stack| stack.refreshes && stack.undertakes());
    let trunk = prop_oneof![1 => Just(Trunk::Plain), 3 => Just(Trunk::TakesOver), 6 => Just(Trunk::Answers), 2 => Just(Trunk::Both)];
    let changes = prop::sample::select(vec![Act::Hold, Act::Freeze, Act::Resume, Act::Codec, Act::Move, Act::Reinvite]);
    let changes = prop::collection::vec((1..99_u32, Just(false), changes), 0..4);
    (ordinary(), server, peer, trunk, rejects(), changes).prop_map(|(call, server, peer, trunk, rejects, changes)| {
        CallPlan {
            server,
            peer,
            server_calls: true,
            cancels: None,
            acts: call.acts.iter().copied().filter(|(_, server, _)| *server).chain(changes).collect(),
            refusals: call.refusals.iter().copied().filter(|status| *status != 302).take(1).collect(),
            trunk,
            // Those that never answer an UPDATE do so after the first ones too.
            rejects: Some(match SERVERS[server].on_update {
                OnUpdate::Ignores => Rejects { times: u32::MAX, ..rejects },
                OnUpdate::Accepts | OnUpdate::Refuses(_) | OnUpdate::Swallows => rejects,
            }),
            ..call
        }
    })
}

fn call() -> impl Strategy<Value = CallPlan> {
    prop_oneof![30 => ordinary(), 1 => hectic(), 2 => cramped(), 1 => insistent(), 6 => rejected()]
}

pub(crate) fn plan() -> impl Strategy<Value = Plan> {
    let bridge = prop::option::weighted(0.15, any::<bool>());
    let parts = (any::<u64>().no_shrink(), weather(), prop::collection::vec(call(), 1..6), bridge);
    parts.prop_map(|(seed, weather, mut calls, bridge)| {
        let bridge = bridge.filter(|_| calls.len() > 1);
        if bridge.is_some() {
            let server = calls[0].server;
            let begins = calls[0].begins;
            calls[0] = CallPlan { server_calls: false, fork: false, ..calls[0].clone() };
            calls[1] = CallPlan { server_calls: true, server, begins, ..calls[1].clone() };
        }
        Plan { seed, weather, calls, bridge }
    })
}
