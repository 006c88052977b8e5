//! Whatever comes, in whatever order: no panic, bounded outputs, the same again for the same seed.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use crate::sim::{self, Call, Reply, Sim, manners, sdp, text};
use proptest::prelude::*;
use st_core::{
    Action, Command, Credentials, Direction, Engine, Output, Packet, Policy, Refusal, Rules, SessionId, Side, Time,
    engine::{EngineConfig, LOOK_AHEAD, Limits, Mode},
};
use st_ebpf::cseq::State;

/// Outputs of one call, at most: a few for each of the timers that can be due at once.
const MOST: usize = 20_000;

#[derive(Clone, Debug)]
enum Input {
    Packet(Direction, usize, Option<(usize, u8)>, bool),
    Raw(Direction, Vec<u8>),
    Timeout(u64),
    Armed(u64, bool, u32, u32, bool),
    Refused(u64),
    Loss(u64),
    /// An answer to the last request of ours.
    Answer(usize),
}

/// Messages of a few dialogs, in no order.
fn corpus() -> Vec<String> {
    let mut all = Vec::new();
    for (name, caller) in [("a", Side::Server), ("b", Side::Peer)] {
        let call = Call::new(name, caller);
        for side in [Side::Server, Side::Peer] {
            for expires in ["", "Session-Expires: 90;refresher=uac\r\n", "x: 6;refresher=uas\r\nx: 1\r\n"] {
                let extra = manners(side, true) + expires;
                for (method, tagged) in [
                    ("INVITE", false),
                    ("INVITE", true),
                    ("UPDATE", true),
                    ("ACK", true),
                    ("BYE", true),
                    ("INFO", true),
                ] {
                    let branch = format!("z9hG4bK{method}{tagged}");
                    all.push(call.request(side, method, 1, &branch, tagged, &extra, &sdp(side)));
                    let via = format!("SIP/2.0/UDP {};branch={branch}", text::SERVER);
                    for status in [100, 183, 200, 302, 401, 422, 481, 491, 500] {
                        all.push(call.response(side.other(), status, method, 1, &via, &extra, &sdp(side)));
                    }
                }
            }
        }
    }
    all
}

fn inputs() -> impl Strategy<Value = Vec<Input>> {
    let direction = || prop_oneof![Just(Direction::Egress), Just(Direction::Ingress)];
    let change = proptest::option::weighted(0.1, (any::<usize>(), any::<u8>()));
    let one = prop_oneof![
        20 => (direction(), any::<usize>(), change, any::<bool>())
            .prop_map(|(direction, which, change, cut)| Input::Packet(direction, which, change, cut && which % 9 == 0)),
        1 => (direction(), proptest::collection::vec(any::<u8>(), 0..200))
            .prop_map(|(direction, bytes)| Input::Raw(direction, bytes)),
        6 => prop_oneof![0..1_000_u64, 0..60_000_000_u64, any::<u64>()].prop_map(Input::Timeout),
        4 => (1..4_u64, any::<bool>(), any::<u32>(), any::<u32>(), any::<bool>())
            .prop_map(|(session, known, number, delta, ok)| Input::Armed(session, known, number, delta, ok)),
        1 => any::<u64>().prop_map(Input::Refused),
        1 => (0..5_u64).prop_map(Input::Loss),
        3 => any::<usize>().prop_map(Input::Answer),
    ];
    proptest::collection::vec(one, 0..120)
}

fn policy() -> Policy {
    let credentials = Some(Credentials { username: "u".into(), password: "p".into() });
    let floor = Duration::from_secs(4);
    let default =
        Rules { action: Action::Refresh, interval_floor: floor, min_se: floor, credentials, ..Rules::default() };
    Policy { default, ..Policy::default() }
}

/// A call that is up: where the corpus' messages belong.
fn prologue() -> Vec<(Direction, String)> {
    let call = Call::new("a", Side::Server);
    let branch = "z9hG4bKINVITEfalse";
    let via = format!("SIP/2.0/UDP {};branch={branch}", text::SERVER);
    let [server, peer] = [Side::Server, Side::Peer].map(|side| manners(side, true));
    let expires = peer + "Session-Expires: 90;refresher=uac\r\n";
    vec![
        (Direction::Egress, call.request(Side::Server, "INVITE", 1, branch, false, &server, &sdp(Side::Server))),
        (Direction::Ingress, call.response(Side::Peer, 200, "INVITE", 1, &via, &expires, &sdp(Side::Peer))),
        (Direction::Egress, call.request(Side::Server, "ACK", 1, "z9hG4bKACK", true, "", "")),
    ]
}

pub(crate) fn packet(direction: Direction, bytes: &[u8], truncated: bool) -> Packet<'_> {
    Packet {
        direction,
        server: text::SERVER.parse().expect("an address"),
        peer: text::PEER.parse().expect("an address"),
        transport: st_core::Transport::Udp,
        interface: 1,
        tos: 0,
        ttl: 64,
        cookie: 1,
        truncated,
        bytes,
    }
}

/// The message of an input that is one.
fn said(corpus: &[String], input: &Input) -> Option<(Direction, Vec<u8>, bool)> {
    match input {
        Input::Packet(direction, which, change, cut) => {
            let mut bytes = corpus[which % corpus.len()].clone().into_bytes();
            if let Some((at, byte)) = change {
                let at = at % bytes.len();
                bytes[at] = *byte;
            }
            bytes.truncate(if *cut { bytes.len() * 2 / 3 } else { bytes.len() });
            Some((*direction, bytes, *cut))
        }
        Input::Raw(direction, bytes) => Some((*direction, bytes.clone(), false)),
        Input::Timeout(_) | Input::Armed(..) | Input::Refused(_) | Input::Loss(_) | Input::Answer(_) => None,
    }
}

/// Runs the inputs; all outputs, as text. `ahead`: of how many of the messages that follow is read what they say, and what they belong
/// to looked at, before the first of them is handled.
fn run(mode: Mode, limits: Limits, inputs: &[Input], ahead: usize) -> Vec<String> {
    let corpus = corpus();
    let prologue: Vec<Input> =
        prologue().into_iter().map(|(direction, text)| Input::Raw(direction, text.into_bytes())).collect();
    let mut engine = Engine::new(EngineConfig { policy: Arc::new(policy()), mode, seed: 3, limits });
    let mut now = Time::from_micros(1_000_000);
    let mut out = Vec::new();
    let mut last: Option<Vec<u8>> = None;
    let mut session = None;
    let all: Vec<_> = prologue.iter().chain(inputs).collect();
    let said: Vec<_> = all.iter().filter_map(|input| said(&corpus, input)).collect();
    let mut coming = said.iter().map(|(direction, bytes, truncated)| packet(*direction, bytes, *truncated));
    let mut read = VecDeque::new();
    for input in all {
        match input {
            Input::Packet(..) | Input::Raw(..) if ahead == 0 => {
                engine.handle_packet(now, &coming.next().expect("as many as there are inputs"));
            }
            Input::Packet(..) | Input::Raw(..) => {
                if read.is_empty() {
                    read.extend(coming.by_ref().take(ahead).map(|packet| engine.read(packet)));
                    engine.look_ahead(&read);
                }
                engine.handle_read(now, &read.pop_front().expect("as many as there are inputs"));
            }
            Input::Timeout(after) => {
                now = now + Duration::from_micros(*after);
                engine.handle_timeout(now);
            }
            Input::Armed(id, known, number, delta, ok) => {
                let state = State { known: *known, number: number >> 1, delta: *delta };
                let refusal = Refusal::ALL[*number as usize % Refusal::ALL.len()];
                let session = session.unwrap_or(SessionId(*id));
                engine.handle_command(
                    now,
                    Command::Armed {
                        session,
                        side: if *number % 2 == 0 { Side::Server } else { Side::Peer },
                        result: if *ok { Ok(state) } else { Err(refusal) },
                    },
                );
            }
            Input::Refused(token) => {
                let refusal = Refusal::ALL[*token as usize % Refusal::ALL.len()];
                engine.handle_command(now, Command::Refused { token: *token, refusal });
            }
            Input::Loss(packets) => engine.handle_command(now, Command::Loss { packets: *packets }),
            Input::Answer(which) => {
                if let Some(request) = &last {
                    let reply = [
                        Reply::Ok,
                        Reply::Rings,
                        Reply::Status(401, "WWW-Authenticate: Digest realm=\"r\", nonce=\"n\"\r\n"),
                        Reply::Status(422, "Min-SE: 4294967295\r\n"),
                        Reply::Status(500, ""),
                        Reply::Status(491, ""),
                    ];
                    let mut helper = Sim::new(Action::Observe);
                    helper.reply(request, &reply[which % reply.len()]);
                    engine.handle_packet(now, &packet(Direction::Egress, request, false));
                    let (_, direction, bytes) = helper.tape.pop().expect("an answer");
                    engine.handle_packet(now, &packet(direction, &bytes, false));
                }
            }
        }
        for count in 0.. {
            assert!(count < MOST, "outputs without end");
            let output = engine.poll_output();
            match &output {
                Output::Timeout(at) => {
                    assert!(
                        !matches!((at, input), (Some(at), Input::Timeout(_)) if *at < now && count < 9),
                        "due and not run"
                    );
                    break;
                }
                Output::Inject(inject) => last = Some(inject.bytes.clone()),
                Output::Arm(arm) => session = Some(arm.session),
                Output::Event(_)
                | Output::Watch { .. }
                | Output::Mark(_)
                | Output::Unmark { .. }
                | Output::Weigh { .. }
                | Output::Send(_)
                | Output::KeepAlive(_)
                | Output::Unwatch { .. }
                | Output::StopAssisting { .. }
                | Output::Look { .. }
                | Output::Retire { .. }
                | Output::Disarm { .. } => {}
            }
            assert!(mode == Mode::Live || matches!(output, Output::Event(_)), "replay sends nothing: {output:?}");
            out.push(format!("{output:?}"));
        }
        let _ = engine.stats();
    }
    engine.finish(now);
    out
}

/// Room for one of each, and none for one that is not packed.
const SMALL: Limits =
    Limits { sessions: 1, pending: 1, strangers: 1, remembered: 1, waiting: 1, flows: 1, keepalives: 1, unpacked: 0 };

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_anything_is_survived_and_repeats_itself(inputs in inputs()) {
        for mode in [Mode::Live, Mode::Replay] {
            let first = run(mode, Limits::default(), &inputs, 0);
            prop_assert_eq!(first, run(mode, Limits::default(), &inputs, 0));
        }
        run(Mode::Live, SMALL, &inputs, 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whoever_looks_ahead_sees_and_does_the_same(inputs in inputs(), ahead in 1..=LOOK_AHEAD + 4) {
        for (mode, limits) in [(Mode::Live, Limits::default()), (Mode::Live, SMALL), (Mode::Replay, Limits::default())] {
            prop_assert_eq!(run(mode, limits, &inputs, 0), run(mode, limits, &inputs, ahead));
        }
    }
}

/// Whatever the peer answers and whenever the server speaks, no number is used twice.
mod numbers {
    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Wait(u64),
        Server,
        Reply(usize),
        Interject(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..50_u64).prop_map(Step::Wait),
            2 => Just(Step::Server),
            3 => (0..8_usize).prop_map(Step::Reply),
            1 => (0..4_usize).prop_map(Step::Interject),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_peer_never_sees_a_number_twice(
            first in prop_oneof![Just(0_u32), 1..12_u32, 90..110_u32, Just(0x7fff_0000)],
            callee in any::<bool>(),
            update in any::<bool>(),
            steps in proptest::collection::vec(step(), 0..60),
        ) {
            let mut sim = Sim::with(policy().default);
            let caller = if callee { Side::Peer } else { Side::Server };
            // Room for all that can come.
            let mut call = Call { number: first, blank: "     ", ..Call::new("a", caller) };
            let refresher = if callee { "uas" } else { "uac" };
            sim.establish(&mut call, &format!("Session-Expires: 90;refresher={refresher}\r\n"), update);
            for step in steps {
                match step {
                    Step::Wait(seconds) => sim.secs(seconds),
                    Step::Server => {
                        let asked = sim.request(&mut call, Side::Server, "INFO", "", "");
                        sim.respond(&call, Side::Server, &asked, "INFO", 200, "");
                    }
                    Step::Reply(which) => sim.replies.push_back([
                        Reply::Ok,
                        Reply::Silence,
                        Reply::Rings,
                        Reply::Status(500, ""),
                        Reply::Status(491, ""),
                        Reply::Status(401, "WWW-Authenticate: Digest realm=\"r\", nonce=\"n\"\r\n"),
                        Reply::Status(422, "Min-SE: 120\r\n"),
                        Reply::Status(405, ""),
                    ][which].clone()),
                    Step::Interject(which) => {
                        let at = [
                            sim::Step::BeforeRead,
                            sim::Step::AfterRead,
                            sim::Step::BeforeCommit,
                            sim::Step::AfterCommit,
                        ][which];
                        if sim.interject.is_none() {
                            sim.interject = Some((at, call.clone()));
                            // Its number is used whether or not the moment comes.
                            call.number += 1;
                            call.branches += 1_000;
                        }
                    }
                }
                // A number that was set aside and is used late would be the server's own mistake.
                if sim.interject.is_some() {
                    sim.secs(90);
                    sim.interject = None;
                }
            }
            sim.request(&mut call, Side::Server, "BYE", "", "");
            sim.assert_numbers();
            sim.secs(700);
            prop_assert_eq!(sim.kernel.holds(), (0, 0), "nothing is left on record");
        }
    }
}
