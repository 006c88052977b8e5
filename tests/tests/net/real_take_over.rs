//! `take_over: true` between real SIP software: the peer makes itself the refresher, sipst is there before its first refresh, which the
//! server would turn down, and the call lives for three intervals. Without it the same calls die.

use std::{net::Ipv4Addr, thread, time::Duration};

use st_tests::{Family, Kamailio, Play, Program, Refuses, Sipp, Sofia};

use crate::{
    plan::SOON,
    watched::{Ends, Watched},
};

const WITHOUT: [&str; 2] = ["action: refresh", "min_se: 2s"];
const TAKES_OVER: [&str; 3] = [WITHOUT[0], WITHOUT[1], "take_over: true"];

/// Seconds: half of it is more than a busy machine stands still for. In so short a session the role is taken over at once.
const INTERVAL_S: u32 = 8;
const PATIENCE: Duration = Duration::from_secs(90);
/// Where the end behind a Kamailio stands.
const BEHIND: u16 = 5070;
const REFUSES: Refuses = Refuses { update: "501 Not Implemented", reinvite: "503 Service Unavailable", rounds: 20 };

/// Who is at the two ends, and how the call dies without `take_over`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Case {
    /// A sofia by UPDATE, called by a SIPp: it is turned down, and hangs up.
    SofiaByUpdate,
    /// A sofia by re-INVITE, called by a SIPp: likewise.
    SofiaByReinvite,
    /// A SIPp that does not refresh, called by a baresip: it hangs up in the end.
    Baresip,
    /// A SIPp that does not refresh, called by a baresip by way of Sippy's B2BUA: likewise.
    Sippy,
    /// A SIPp that does not refresh, behind a Kamailio that hangs up on both, called by a Net::SIP.
    Kamailio,
}

impl Case {
    const fn family(self) -> Family {
        match self {
            Self::SofiaByReinvite | Self::Baresip => Family::V6,
            Self::SofiaByUpdate | Self::Sippy | Self::Kamailio => Family::V4,
        }
    }

    /// Both ends, in the call, which the server ends after so many seconds.
    fn start(self, attach: &str, rules: &[&str], interval_s: u32, hold_s: u32) -> Ends {
        let hold = Duration::from_secs(hold_s.into());
        let watched = Watched::new(self.family(), attach, rules);
        let (own, peer) = (watched.server(), watched.peer());
        let host = &watched.lab.peer;
        let idle = Play::peer_is_called(peer, interval_s).that_has_to_refresh();
        let (peers_sipp, peers) = match self {
            Self::SofiaByUpdate | Self::SofiaByReinvite => {
                let sofia = Sofia::at(peer, interval_s, self == Self::SofiaByUpdate);
                (None, vec![Program::sofia(host, &sofia).unwrap()])
            }
            Self::Baresip | Self::Sippy => (Some(Sipp::start(host, idle).unwrap()), Vec::new()),
            Self::Kamailio => {
                let sipp = Sipp::start(host, idle.that_is_patient().at_port(BEHIND)).unwrap();
                let (next_hop, interval_s) = ((peer, BEHIND).into(), Some(interval_s));
                let kamailio = Kamailio { own: &[peer], next_hop, detour: None, interval_s };
                (Some(sipp), vec![Program::kamailio(host, &kamailio).unwrap()])
            }
        };
        let host = &watched.lab.server;
        let refusing = |target| Play::server_calls(own, target, hold).that_refuses(REFUSES);
        let (sipp, server) = match self {
            Self::SofiaByUpdate => {
                (Some(Sipp::start(host, refusing((peer, 5060).into()).that_lists_update()).unwrap()), Vec::new())
            }
            Self::SofiaByReinvite => (Some(Sipp::start(host, refusing((peer, 5060).into())).unwrap()), Vec::new()),
            Self::Sippy => {
                let passes = ["supported", "session-expires", "min-se"];
                let sippy = Program::sippy(host, own, (peer, 5060).into(), &passes).unwrap();
                // Over loopback, where sipst does not look.
                let callee = format!("sip:peer@{own}:5060");
                (None, vec![sippy, Program::baresip(host, Ipv4Addr::LOCALHOST, Some(&callee)).unwrap()])
            }
            Self::Baresip => (None, vec![Program::baresip(host, own, Some(&watched.callee())).unwrap()]),
            Self::Kamailio => (None, vec![Program::net_sip(host, own, &watched.callee(), hold).unwrap()]),
        };
        Ends { sipp, server, peers_sipp, peers, watched }.established()
    }
}

/// The call lives until the server hangs up, after so many refreshes of sipst's and none of the peer's.
fn lives(call: &mut Ends, case: Case, refreshes: usize) {
    if case != Case::Kamailio {
        call.hang_up_after("refresh_succeeded", refreshes + 1, PATIENCE);
    }
    call.end_well(PATIENCE, &["refresh_rejected", "refresh_overdue", "refresh_ignored", "at_risk", "session_expiring"]);
    let ledger = call.watched.ledger();
    assert!(ledger.requests(call.watched.peer()).is_empty(), "nothing is left to the peer\n{}", call.report());
    assert!(ledger.refreshes(call.watched.server()) >= refreshes, "{}", call.report());
}

/// The peer's side hangs up, and sipst has told why it had to; it has sent nothing.
fn dies(call: &Ends, case: Case) {
    let (kind, status) = match case {
        Case::SofiaByUpdate => ("refresh_rejected", Some(501)),
        Case::SofiaByReinvite => ("refresh_rejected", Some(503)),
        Case::Baresip | Case::Sippy | Case::Kamailio => ("refresh_overdue", None),
    };
    let told = call.watched.sipst().event(kind, PATIENCE);
    let told = told.unwrap_or_else(|error| panic!("{error:#}\n{}", call.report()));
    assert_eq!((&told["by"], told["status"].as_u64()), (&"peer".into(), status), "{told}");
    call.end_by_peer(PATIENCE);
    if case == Case::Kamailio {
        call.peers[0].logs(&["own request BYE", "server@"], SOON).unwrap();
    }
    assert!(!call.watched.ledger().has_own(), "{}", call.report());
}

#[test]
fn f01_with_take_over_calls_of_real_peers_outlive_three_intervals() {
    thread::scope(|scope| {
        for (case, attach) in [
            (Case::SofiaByUpdate, "tc"),
            (Case::SofiaByReinvite, "xdp"),
            (Case::Baresip, "tc"),
            (Case::Sippy, "tc"),
            (Case::Kamailio, "xdp"),
        ] {
            scope.spawn(move || {
                let mut call = case.start(attach, &TAKES_OVER, INTERVAL_S, 3 * INTERVAL_S + 2);
                lives(&mut call, case, 6);
            });
        }
    });
}

#[test]
fn f01_without_take_over_the_same_calls_die() {
    thread::scope(|scope| {
        // Not Sippy's: what it writes in Contact, SIPp cannot send its BYE to.
        for case in [Case::SofiaByUpdate, Case::SofiaByReinvite, Case::Baresip, Case::Kamailio] {
            scope.spawn(move || dies(&case.start("tc", &WITHOUT, INTERVAL_S, 60), case));
        }
    });
}

/// The daemon dies once it has taken the role over; the next one keeps it, and without one the peer hangs up.
#[test]
fn a_role_taken_over_from_a_real_peer_is_kept_by_the_next_daemon_and_lost_without_one() {
    const LONG_S: u32 = 24;
    thread::scope(|scope| {
        for (case, attach) in [(Case::SofiaByUpdate, "xdp"), (Case::SofiaByReinvite, "tc")] {
            scope.spawn(move || {
                let mut call = case.start(attach, &TAKES_OVER, LONG_S, LONG_S + 5);
                call.watched.told("refresh_succeeded", 1, PATIENCE);
                call.watched.kill();
                call.watched.start_again();
                lives(&mut call, case, 3);
            });
        }
        scope.spawn(|| {
            let case = Case::SofiaByUpdate;
            let mut call = case.start("tc", &TAKES_OVER, INTERVAL_S, 60);
            call.watched.told("refresh_succeeded", 1, PATIENCE);
            call.watched.kill();
            call.peers[0].logs(&["almost expired"], PATIENCE).unwrap();
            assert!(!call.sipp.as_mut().unwrap().ended_well(SOON).unwrap(), "{}", call.report());
        });
    });
}
