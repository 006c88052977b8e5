//! `respond: on-reject` between real SIP software: peers that refresh, by UPDATE or by re-INVITE, keep their calls for three intervals
//! against servers that turn both down, and the server's own BYE is accepted at the end. With `respond: never` the same calls die.

use std::{thread, time::Duration};

use st_tests::{Family, Kamailio, Play, Program, Refresh, Refuses, Sipp, Sofia};

use crate::{
    plan::SOON,
    watched::{Ends, Watched},
};

const NEVER: [&str; 2] = ["action: refresh", "min_se: 2s"];
const ON_REJECT: [&str; 3] = [NEVER[0], NEVER[1], "respond: on-reject"];

/// Seconds: the least that sofia takes is 5.
const INTERVAL_S: u32 = 6;
/// A refresh at half of each of three intervals, give or take a tenth, and one more.
const ROUNDS: usize = 7;
/// Half of it is longer than a daemon takes to be there on a machine that builds something beside.
const LONG_S: u32 = 40;
const PATIENCE: Duration = Duration::from_secs(60);
/// Where the end behind a Kamailio stands.
const BEHIND: u16 = 5070;

/// Which software a server is, and what it says to an UPDATE. A re-INVITE gets 503.
#[derive(Clone, Copy, PartialEq)]
enum Server {
    Sipp(&'static str),
    /// It has no way to refuse a re-INVITE.
    Baresip,
}

/// And a peer.
#[derive(Clone, Copy, PartialEq)]
enum Peer {
    Sofia,
    Sipp,
    /// A sofia behind a Kamailio that enforces timers.
    Kamailio,
}

#[derive(Clone, Copy)]
struct Case {
    server: Server,
    peer: Peer,
    by: Refresh,
    family: Family,
    attach: &'static str,
}

const CASES: [Case; 6] = [
    case(Server::Sipp("501 Not Implemented"), Peer::Sofia, Refresh::Update, Family::V4, "tc"),
    case(Server::Sipp("501 Not Implemented"), Peer::Sofia, Refresh::Reinvite, Family::V6, "xdp"),
    case(Server::Sipp("405 Method Not Allowed"), Peer::Sipp, Refresh::Update, Family::V6, "tc"),
    case(Server::Sipp("405 Method Not Allowed"), Peer::Sipp, Refresh::Reinvite, Family::V4, "xdp"),
    case(Server::Baresip, Peer::Sipp, Refresh::Update, Family::V6, "xdp"),
    case(Server::Sipp("501 Not Implemented"), Peer::Kamailio, Refresh::Update, Family::V6, "tc"),
];

const fn case(server: Server, peer: Peer, by: Refresh, family: Family, attach: &'static str) -> Case {
    Case { server, peer, by, family, attach }
}

impl Case {
    /// Both ends, in the call. `rounds`: of the peer's refreshes, after which the server hangs up.
    fn start(self, rules: &[&str], interval_s: u32, rounds: usize) -> Ends {
        let watched = Watched::new(self.family, self.attach, rules);
        let (own, peer) = (watched.server(), watched.peer());
        let host = &watched.lab.peer;
        let updates = self.by == Refresh::Update;
        let mut peers_sipp = None;
        let peers = match self.peer {
            Peer::Sipp => {
                let play = Play::peer_refreshes(peer, interval_s, self.by, rounds);
                peers_sipp = Some(Sipp::start(host, play).unwrap());
                Vec::new()
            }
            Peer::Sofia => vec![Program::sofia(host, &Sofia::at(peer, interval_s, updates)).unwrap()],
            Peer::Kamailio => {
                let sofia = Sofia { port: BEHIND, ..Sofia::at(peer, interval_s, updates) };
                let (next_hop, interval_s) = ((peer, BEHIND).into(), Some(interval_s));
                let kamailio = Kamailio { own: &[peer], next_hop, detour: None, interval_s };
                vec![Program::sofia(host, &sofia).unwrap(), Program::kamailio(host, &kamailio).unwrap()]
            }
        };
        let host = &watched.lab.server;
        // Where none comes.
        let hold = Duration::from_secs(u64::from(interval_s) * 4);
        let plays = |update, target| {
            let refuses = Refuses { update, reinvite: "503 Service Unavailable", rounds };
            let play = Play::server_calls(own, target, hold).that_refuses(refuses);
            if updates { play.that_lists_update() } else { play }
        };
        let (sipp, server) = match self.server {
            Server::Sipp(update) => (Some(Sipp::start(host, plays(update, (peer, 5060).into())).unwrap()), Vec::new()),
            Server::Baresip => (None, vec![Program::baresip(host, own, Some(&watched.callee())).unwrap()]),
        };
        Ends { sipp, server, peers_sipp, peers, watched }.established()
    }

    const fn method(self) -> &'static str {
        match self.by {
            Refresh::Update => "UPDATE",
            Refresh::Reinvite => "INVITE",
        }
    }

    fn status(self) -> u64 {
        match (self.by, self.server) {
            (Refresh::Update, Server::Sipp(update)) => update[..3].parse().unwrap(),
            (Refresh::Update, Server::Baresip) => 501,
            (Refresh::Reinvite, _) => 503,
        }
    }
}

/// The call lives until the server hangs up; the peer had so many refreshes accepted, which the server turned down.
fn lives(call: &mut Ends, case: Case, rounds: usize) {
    call.hang_up_after("refresh_answered", rounds, PATIENCE);
    let log = call.end_well(PATIENCE, &["refresh_rejected", "answer_withheld", "negotiation_fault"]);
    let ledger = call.watched.ledger();
    let requests = ledger.requests(call.watched.peer());
    let refreshes = requests.iter().filter(|request| request.method() == Some(case.method())).count();
    assert!(refreshes >= rounds && refreshes == requests.len(), "{}", call.report());
    let refusal = format!("SIP/2.0 {}", case.status());
    assert!(log.matches(&refusal).count() >= rounds, "the server has turned them down\n{log}");
    for program in &call.peers {
        assert!(!program.log().contains(&refusal), "{}", call.report());
    }
}

/// The refusal reaches the peer, sipst tells of it, and the peer hangs up.
fn dies(call: &mut Ends, case: Case) {
    let rejected = call.watched.sipst().event("refresh_rejected", SOON);
    let rejected = rejected.unwrap_or_else(|error| panic!("{error:#}\n{}", call.report()));
    assert_eq!((&rejected["by"], &rejected["method"]), (&"peer".into(), &case.method().into()), "{rejected}");
    assert_eq!(rejected["status"], case.status(), "{rejected}");
    call.end_by_peer(SOON);
    if let Some(sipp) = &mut call.peers_sipp {
        assert!(!sipp.ended_well(SOON).unwrap());
    }
    assert_eq!(call.watched.sipst().count("refresh_answered"), 0, "{}", call.report());
}

#[test]
fn f07_f16_peers_that_refresh_keep_their_calls_against_servers_that_refuse_for_three_intervals() {
    thread::scope(|scope| {
        for case in CASES {
            scope.spawn(move || lives(&mut case.start(&ON_REJECT, INTERVAL_S, ROUNDS), case, ROUNDS));
        }
    });
}

#[test]
fn f07_f16_with_never_the_refusals_reach_the_peers_and_the_same_calls_die() {
    thread::scope(|scope| {
        for case in CASES {
            scope.spawn(move || dies(&mut case.start(&NEVER, INTERVAL_S, ROUNDS), case));
        }
        scope.spawn(|| {
            // A server that says nothing at all refuses nothing.
            let watched = Watched::new(Family::V4, "tc", &ON_REJECT);
            let (own, peer, host) = (watched.server(), watched.peer(), &watched.lab.peer);
            let play = Play::peer_refreshes(peer, INTERVAL_S, Refresh::Update, ROUNDS);
            let strict = Sipp::start(host, play).unwrap();
            let server = &watched.lab.server;
            let server = Program::net_sip(server, own, &watched.callee(), PATIENCE).unwrap();
            let ignored = watched.sipst().event("refresh_ignored", SOON).unwrap();
            assert_eq!((&ignored["by"], &ignored["method"]), (&"peer".into(), &"UPDATE".into()), "{ignored}");
            assert_eq!(watched.sipst().count("refresh_answered"), 0, "{}", watched.report());
            drop((strict, server));
        });
    });
}

/// The daemon dies after the first refresh, and the next one is there before the second; or no other one comes.
#[test]
fn a_daemon_that_is_killed_in_such_a_call_is_missed_and_the_next_one_goes_on() {
    const AFTER: usize = 2;
    thread::scope(|scope| {
        for case in [CASES[0], CASES[1], CASES[3]] {
            scope.spawn(move || {
                let mut call = case.start(&ON_REJECT, LONG_S, AFTER);
                call.watched.told("refresh_answered", 1, PATIENCE);
                call.watched.kill();
                call.watched.start_again();
                lives(&mut call, case, AFTER);
                assert_eq!(call.watched.sipst().count("refresh_answered"), AFTER - 1, "{}", call.report());
            });
        }
        for case in [CASES[0], CASES[1]] {
            scope.spawn(move || {
                let mut call = case.start(&ON_REJECT, INTERVAL_S, AFTER);
                call.watched.told("refresh_answered", 1, PATIENCE);
                call.watched.kill();
                if let Some(sipp) = &mut call.sipp {
                    assert!(!sipp.ended_well(PATIENCE).unwrap(), "{}", call.report());
                }
                call.peer_said_bye();
            });
        }
    });
}
