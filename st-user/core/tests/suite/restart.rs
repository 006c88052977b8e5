//! An engine that goes on from another one's records: what it knows, and what it does not do too late.

use std::time::Duration;

use crate::sim::{Call, Reply, Sim, disk::Disk, manners, sdp};
use st_core::{
    Action, Command,
    EventKind::*,
    Inject, ReadyAck, Side,
    engine::{
        EngineConfig, reason,
        record::{BEFORE, COMMON, RecordError, TEMPLATES, UNPACKED, Unrecorded, VERSION},
    },
    message::MethodName,
};

const UAC_90: &str = "Session-Expires: 90;refresher=uac\r\n";
const UAC_1800: &str = "Session-Expires: 1800;refresher=uac\r\n";
const AT_ONCE: Duration = Duration::from_millis(200);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A call, and what is written of it.
fn written(action: Action, expires: &'static str, update: bool) -> (Sim, Call, Disk) {
    let mut sim = Sim::new(action);
    sim.expires = expires;
    sim.engine.follow_changes();
    let mut call = Call::new("a", Side::Server);
    sim.establish(&mut call, expires, update);
    let mut disk = Disk::default();
    disk.write(&mut sim.engine);
    (sim, call, disk)
}

#[test]
fn a_call_is_refreshed_by_engine_after_engine_and_ended_by_the_server() {
    for update in [true, false] {
        let (mut sim, mut call, mut disk) = written(Action::Refresh, UAC_90, update);
        for interval in 1..=5 {
            let restored = sim.restart(&disk, seconds(3));
            assert_eq!(restored.len(), 1);
            assert_eq!(restored[0].followed, interval > 1);
            sim.secs(43);
            assert_eq!((sim.ours().len(), sim.count(RefreshSucceeded)), (interval, interval));
            disk.write(&mut sim.engine);
        }
        sim.restart(&disk, AT_ONCE);
        sim.hang_up(&mut call);
        sim.secs(700);
        sim.assert_numbers();
        assert_eq!(sim.reasons(SessionEnded), ["bye"]);
        assert_eq!((sim.count(SessionStarted), sim.count(SessionExpiring)), (1, 0));
        assert_eq!(sim.kernel.holds(), (0, 0));
        disk.write(&mut sim.engine);
        assert_eq!(disk.keys(), [COMMON], "nothing is left of the call");
    }
}

#[test]
fn what_was_heard_between_the_end_and_the_beginning_counts_with_its_own_time() {
    let (mut sim, mut call, disk) = written(Action::Refresh, UAC_90, true);
    sim.secs(30);
    // Nobody tells the new engine of the time before it is told of the packets.
    let begun = sim.now;
    let seed = 99;
    sim.go_on_with(disk.restore(EngineConfig { seed, ..sim.config.clone() }).0);
    sim.reinvite(&mut call, Side::Server, "", UAC_90);
    sim.now = begun + seconds(20);
    sim.command(Command::Outage);
    assert_eq!(sim.engine.stats().unsure, 0, "it was heard of");
    sim.secs(24);
    assert_eq!(sim.ours().len(), 0);
    sim.secs(2);
    assert_eq!(sim.ours().len(), 1, "45 s after the re-INVITE");
}

#[test]
fn a_bye_that_was_heard_meanwhile_ends_it() {
    let (mut sim, mut call, disk) = written(Action::Refresh, UAC_90, true);
    sim.go_on_with(disk.restore(sim.config.clone()).0);
    sim.hang_up(&mut call);
    sim.secs(1);
    sim.command(Command::Outage);
    sim.secs(200);
    assert_eq!((sim.reasons(SessionEnded), sim.ours().len()), (vec!["bye".into()], 0));
}

#[test]
fn a_restored_session_is_refreshed_in_time_though_it_may_be_over_until_it_is_heard_of() {
    let (mut sim, _, disk) = written(Action::Refresh, UAC_1800, true);
    sim.restart(&disk, AT_ONCE);
    assert_eq!(sim.engine.stats().unsure, 1);
    sim.secs(901);
    assert_eq!((sim.count(RefreshSucceeded), sim.engine.stats().unsure), (1, 0));
    assert_eq!(sim.count(SessionExpiring), 0, "a restart is no reason for an alert");
}

#[test]
fn a_dialog_whose_ack_may_have_gone_by_unseen_is_taken_for_confirmed_once_it_is_old_enough() {
    let mut sim = Sim::new(Action::Refresh);
    sim.engine.follow_changes();
    let mut call = Call::new("a", Side::Server);
    sim.invite(&mut call, &manners(Side::Server, true), &sdp(Side::Server));
    sim.answer(&call, 200, &(manners(Side::Peer, true) + UAC_90), &sdp(Side::Peer));
    let mut disk = Disk::default();
    disk.write(&mut sim.engine);
    sim.restart(&disk, AT_ONCE);
    sim.secs(46);
    assert_eq!(sim.count(RefreshSucceeded), 1);
}

#[test]
fn a_session_that_ended_unseen_is_told_so_by_the_peers_481() {
    let (mut sim, _, disk) = written(Action::Refresh, UAC_90, true);
    sim.restart(&disk, AT_ONCE);
    sim.replies.push_back(Reply::Status(481, ""));
    sim.secs(90);
    assert_eq!((sim.reasons(SessionEnded), sim.count(RefreshFailed)), (vec!["peer_lost_dialog".into()], 0));
}

#[test]
fn where_the_moment_to_act_was_missed_it_is_made_up_for_at_once() {
    let (mut sim, _, disk) = written(Action::Refresh, UAC_90, true);
    sim.restart(&disk, seconds(62));
    sim.secs(1);
    assert_eq!((sim.ours().len(), sim.count(RefreshSucceeded), sim.count(SessionExpiring)), (1, 1, 1));
    assert_eq!(sim.reasons(SessionExpiring), [""], "it has not run out");
}

#[test]
fn an_interval_that_ran_out_meanwhile_is_told_once_and_nothing_is_sent() {
    for (action, told) in [(Action::Refresh, 1), (Action::Alert, 1), (Action::Observe, 0)] {
        let (mut sim, mut call, disk) = written(action, UAC_90, true);
        sim.restart(&disk, seconds(3_600));
        sim.secs(3_600);
        let alerts: Vec<_> = sim.events.iter().filter(|event| event.kind.is_alert()).collect();
        assert_eq!(alerts.len(), told, "{alerts:?}");
        assert!(alerts.iter().all(|event| event.kind == SessionExpiring && event.reason.as_deref() == Some("outage")));
        assert_eq!((sim.ours().len(), sim.count(RefreshDue)), (0, 0));
        // It was up all the same.
        sim.hang_up(&mut call);
        assert_eq!(sim.reasons(SessionEnded), ["bye"]);
    }
}

#[test]
fn of_a_call_in_which_nobody_has_spoken_for_days_only_its_end_is_told() {
    let (mut sim, _, disk) = written(Action::Refresh, UAC_90, true);
    sim.restart(&disk, seconds(49 * 3_600));
    sim.secs(1);
    assert_eq!(sim.kinds()[2..], [SessionEnded]);
    assert_eq!(sim.reasons(SessionEnded), ["silent"]);
}

#[test]
fn on_a_host_that_was_started_anew_all_calls_are_over() {
    let (mut sim, _, mut disk) = written(Action::Refresh, UAC_90, false);
    sim.usual = Reply::Silence;
    sim.secs(46);
    disk.write(&mut sim.engine);
    let sent = sim.seen.len();
    sim.go_on_with(disk.restore(sim.config.clone()).0);
    sim.now = sim.now + seconds(5);
    sim.command(Command::HostRestarted);
    assert_eq!(sim.reasons(SessionEnded), ["host_restarted"]);
    sim.secs(700);
    assert_eq!((sim.seen.len(), sim.count(SessionExpiring)), (sent, 0), "nothing is sent in it");
    disk.write(&mut sim.engine);
    assert_eq!(disk.keys(), [COMMON], "nothing is left of it");
}

#[test]
fn r44_the_200_to_a_reinvite_of_an_earlier_engine_is_acked() {
    let (mut sim, mut call, mut disk) = written(Action::Refresh, UAC_90, false);
    sim.usual = Reply::Silence;
    sim.secs(46);
    disk.write(&mut sim.engine);
    assert_eq!(sim.methods(), [MethodName::Invite]);
    let reinvite = sim.ours()[0].clone();
    let restored = sim.restart(&disk, seconds(2));
    assert_eq!(restored[0].tokens.len(), 2, "the re-INVITE's and its ACK's");
    sim.reply_again(&reinvite, &Reply::Ok);
    let acks: Vec<u32> =
        sim.seen.iter().filter(|seen| seen.ours && seen.method == MethodName::Ack).map(|seen| seen.number).collect();
    assert_eq!(acks, [reinvite.number]);
    sim.reply_again(&reinvite, &Reply::Ok);
    assert_eq!(sim.count(RefreshSucceeded), 1);
    sim.usual = Reply::Ok;
    sim.secs(50);
    assert_eq!(sim.count(RefreshSucceeded), 2);
    sim.hang_up(&mut call);
    sim.assert_numbers();
}

#[test]
fn no_copy_of_a_request_is_sent_once_its_time_is_over() {
    for (outage, copies) in [(2, 1), (33, 0)] {
        let (mut sim, _, mut disk) = written(Action::Refresh, UAC_1800, false);
        sim.usual = Reply::Silence;
        sim.secs(901);
        disk.write(&mut sim.engine);
        let token = sim.injected[0].token;
        let before = sim.injected.len();
        sim.restart(&disk, seconds(outage));
        sim.run(AT_ONCE);
        let again = sim.injected[before..].iter().filter(|inject| inject.token == token).count();
        assert_eq!(again, copies, "after {outage} s");
    }
}

/// What the kernel still has of a request that left after the last writing.
fn unrecorded(sim: &Sim) -> Unrecorded {
    let Inject { token, commit, ack, peer, .. } = sim.injected[0].clone();
    Unrecorded {
        token,
        number: commit.expect("a number").next_injected(),
        at: sim.now,
        reinvite: ack.map(|ack| (peer, ack)),
    }
}

#[test]
fn a_request_that_left_after_the_last_writing_is_taken_over_from_the_kernel() {
    for update in [true, false] {
        let (mut sim, mut call, disk) = written(Action::Refresh, UAC_90, update);
        sim.usual = Reply::Silence;
        sim.secs(46);
        let (request, found) = (sim.ours()[0].clone(), unrecorded(&sim));
        let (engine, restored) = disk.restore(sim.config.clone());
        sim.go_on_with(engine);
        let session = restored[0].session;
        assert_eq!(restored[0].tokens, [0_u64; 0]);
        assert!(sim.engine.adopt(session, found.clone()));
        sim.engine.set_followed(session, true);
        sim.reply_again(&request, &Reply::Ok);
        sim.command(Command::Outage);
        let acks = sim.seen.iter().filter(|seen| seen.ours && seen.method == MethodName::Ack).count();
        assert_eq!((acks, sim.count(RefreshSucceeded)), (usize::from(!update), 1));
        sim.usual = Reply::Ok;
        sim.secs(50);
        assert_eq!((sim.ours().len(), sim.count(RefreshSucceeded)), (2, 2));
        sim.hang_up(&mut call);
        sim.assert_numbers();
        sim.secs(700);
        assert_eq!(sim.kernel.holds(), (0, 0));
    }
}

#[test]
fn one_that_is_never_answered_is_followed_by_another() {
    let (mut sim, _, disk) = written(Action::Refresh, UAC_1800, false);
    sim.usual = Reply::Silence;
    sim.secs(901);
    let found = unrecorded(&sim);
    let (engine, restored) = disk.restore(sim.config.clone());
    sim.go_on_with(engine);
    assert!(sim.engine.adopt(restored[0].session, found));
    sim.usual = Reply::Ok;
    sim.command(Command::Outage);
    sim.secs(31);
    assert_eq!(sim.count(RefreshSucceeded), 0);
    assert!(sim.seen.iter().filter(|seen| seen.copy).count() > 3, "it is sent again as any other");
    sim.secs(100);
    assert_eq!(sim.count(RefreshSucceeded), 1);
    sim.assert_numbers();
}

#[test]
fn an_update_that_is_never_answered_is_followed_by_a_reinvite_before_its_own_time_is_over() {
    let (mut sim, _, disk) = written(Action::Refresh, UAC_90, true);
    sim.usual = Reply::Silence;
    sim.secs(46);
    let found = unrecorded(&sim);
    let (engine, restored) = disk.restore(sim.config.clone());
    sim.go_on_with(engine);
    assert!(sim.engine.adopt(restored[0].session, found));
    sim.command(Command::Outage);
    sim.secs(16);
    let methods: Vec<_> = sim.ours().iter().map(|seen| seen.method).collect();
    assert_eq!(methods, [MethodName::Update, MethodName::Invite]);
    sim.assert_numbers();
}

#[test]
fn a_refusal_of_one_is_acked_in_its_own_transaction() {
    let (mut sim, _, disk) = written(Action::Refresh, UAC_90, false);
    sim.usual = Reply::Silence;
    sim.secs(46);
    let (request, found) = (sim.ours()[0].clone(), unrecorded(&sim));
    let (engine, restored) = disk.restore(sim.config.clone());
    sim.go_on_with(engine);
    assert!(sim.engine.adopt(restored[0].session, found));
    sim.reply_again(&request, &Reply::Status(491, ""));
    let ack = sim.seen.iter().find(|seen| seen.ours && seen.method == MethodName::Ack).expect("an ACK");
    assert_eq!((&ack.branch, ack.number), (&request.branch, request.number));
    assert!(ack.text.contains("Content-Length: 0\r\n"), "{}", ack.text);
}

#[test]
fn what_cannot_be_taken_over_is_refused() {
    let (mut sim, _, disk) = written(Action::Refresh, "", false);
    let (mut engine, restored) = disk.restore(sim.config.clone());
    let ack = ReadyAck { token: 8, bytes: b"ACK".to_vec() };
    let found =
        Unrecorded { token: 7, number: 3, at: sim.now, reinvite: Some(("198.51.100.1:5060".parse().unwrap(), ack)) };
    assert!(!engine.adopt(restored[0].session, found.clone()), "no interval, nothing of ours");
    assert!(!engine.adopt(st_core::SessionId(77), found), "no such session");
    sim.go_on_with(engine);
    sim.secs(100);
    assert_eq!(sim.ours().len(), 0);
}

#[test]
fn where_the_kernel_has_lost_the_numbers_nothing_is_sent_any_more() {
    let (mut sim, _, mut disk) = written(Action::Refresh, UAC_90, true);
    sim.secs(50);
    disk.write(&mut sim.engine);
    let (engine, restored) = disk.restore(sim.config.clone());
    assert!(restored[0].followed);
    sim.go_on_with(engine);
    sim.engine.set_followed(restored[0].session, false);
    sim.settle();
    sim.command(Command::Outage);
    sim.secs(200);
    assert_eq!(sim.ours().len(), 1);
    assert_eq!(sim.reasons(RefreshOverdue), [reason::NUMBERS_LOST]);
}

#[test]
fn a_session_that_was_never_refreshed_needs_no_numbers_of_the_kernels() {
    let (mut sim, _, disk) = written(Action::Refresh, UAC_90, true);
    let (engine, restored) = disk.restore(sim.config.clone());
    sim.go_on_with(engine);
    sim.engine.set_followed(restored[0].session, false);
    sim.settle();
    sim.command(Command::Outage);
    sim.secs(80);
    assert_eq!(sim.count(RefreshSucceeded), 1);
}

#[test]
fn what_was_learnt_of_a_peer_is_known_again() {
    let (mut sim, _, mut disk) = written(Action::Refresh, UAC_90, true);
    sim.replies.push_back(Reply::Status(501, ""));
    sim.secs(60);
    disk.write(&mut sim.engine);
    assert_eq!(sim.methods(), [MethodName::Update, MethodName::Invite]);
    sim.restart(&disk, AT_ONCE);
    sim.secs(60);
    assert_eq!(sim.methods(), [MethodName::Update, MethodName::Invite, MethodName::Invite]);
}

#[test]
fn only_what_has_changed_is_written_and_all_of_that() {
    let (mut sim, mut call, mut disk) = written(Action::Refresh, UAC_90, true);
    assert_eq!(sim.engine.poll_change(), None);
    let other = sim.call("b", Side::Peer, UAC_90);
    for step in 0..6 {
        disk.write(&mut sim.engine);
        assert_eq!(disk, Disk::whole(&mut sim.engine), "before step {step}");
        match step {
            0 => sim.secs(50),
            1 => sim.reinvite(&mut call, Side::Peer, "", UAC_90),
            2 => sim.command(Command::Loss { packets: 1 }),
            3 => sim.hang_up(&mut call),
            4 => sim.secs(40),
            _ => sim.secs(1_000),
        }
    }
    drop(other);
    sim.engine.ignore_changes();
    sim.call("c", Side::Peer, UAC_90);
    assert_eq!(sim.engine.poll_change(), None, "nobody asks");
}

#[test]
fn of_a_call_of_which_nothing_was_written_nothing_is_taken_away() {
    let (mut sim, mut call, _) = written(Action::Refresh, UAC_1800, true);
    let mut short = sim.call("short", Side::Server, UAC_1800);
    for call in [&mut call, &mut short] {
        sim.hang_up(call);
    }
    sim.secs(700);
    assert_eq!(sim.engine.stats().sessions, 0);
    let changes: Vec<_> = std::iter::from_fn(|| sim.engine.poll_change()).collect();
    let gone: Vec<u64> = changes.iter().filter(|change| change.record.is_none()).map(|change| change.key).collect();
    assert_eq!(gone, [1]);
}

#[test]
fn a_record_says_the_same_when_it_is_written_anew() {
    let (mut sim, mut call, _) = written(Action::Refresh, UAC_90, true);
    sim.replies.push_back(Reply::Status(401, "WWW-Authenticate: Digest realm=\"r\", nonce=\"n\"\r\n"));
    sim.secs(46);
    let _open = sim.request(&mut call, Side::Peer, "INVITE", &manners(Side::Peer, true), &sdp(Side::Peer));
    let _open = sim.request(&mut call, Side::Server, "INFO", "", "");
    let disk = Disk::whole(&mut sim.engine);
    let (mut engine, _) = disk.restore(sim.config.clone());
    let again = Disk::whole(&mut engine);
    assert_eq!(disk, again);
}

#[test]
fn no_damaged_record_is_taken_back() {
    let (sim, _, disk) = written(Action::Refresh, UAC_90, true);
    let config = || sim.config.clone();
    let record = &disk.0[&1];
    let mut engine = disk.restore(config()).0;
    assert_eq!(engine.restore(1, record).unwrap_err(), RecordError::Twice);
    let mut engine = st_core::Engine::restored(config(), &disk.0[&COMMON]).unwrap();
    for at in 0..record.len() {
        let mut damaged = record.clone();
        damaged[at] ^= 1 << (at % 8);
        assert_eq!(engine.restore(1, &damaged).unwrap_err(), RecordError::Damaged, "byte {at}");
        assert_eq!(engine.restore(1, &record[..at]).unwrap_err(), RecordError::Damaged, "cut at {at}");
    }
    assert_eq!(engine.restore(1, &[record, &b"x"[..]].concat()).unwrap_err(), RecordError::Damaged);
    assert_eq!(engine.restore(1, &disk.0[&COMMON]).unwrap_err(), RecordError::Damaged, "something else");
    assert!(st_core::Engine::restored(config(), record).is_err());
    assert_eq!(engine.stats().sessions, 0);
    assert_eq!(record[0], VERSION);
    assert_eq!(engine.restore(1, record).unwrap_err(), RecordError::Damaged, "what it is packed by is not there");
    engine.restore(TEMPLATES, &disk.0[&TEMPLATES]).unwrap();
    assert_eq!(engine.restore(TEMPLATES, &disk.0[&TEMPLATES]).unwrap_err(), RecordError::Damaged, "a second time");
    assert_eq!(engine.restore(2, record).unwrap_err(), RecordError::Damaged, "another's");
    engine.restore(1, record).unwrap();
    let limits = st_core::engine::Limits { sessions: 0, ..config().limits };
    let mut full = st_core::Engine::restored(EngineConfig { limits, ..config() }, &disk.0[&COMMON]).unwrap();
    assert_eq!(full.restore(1, record).unwrap_err(), RecordError::Full);
}

/// What this version wrote. Where a change of the engine's makes this fail, [`VERSION`] has to be raised, and the records of
/// the version before must still be read or be refused as such. `GOLDEN=write` writes it anew.
#[test]
fn a_record_of_this_version_is_read_as_it_was_written_whenever_that_was() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/records");
    let place = |version: u8, key: u64| match key.checked_sub(TEMPLATES) {
        Some(number) => dir.join(format!("v{version}-template-{number}")),
        None => dir.join(format!("v{version}-{key}")),
    };
    let (mut sim, mut call, _) = written(Action::Refresh, UAC_90, false);
    sim.replies.extend([Reply::Status(491, ""), Reply::Silence]);
    sim.secs(50);
    let _open = sim.request(&mut call, Side::Peer, "INVITE", &manners(Side::Peer, true), &sdp(Side::Peer));
    let _open = sim.request(&mut call, Side::Server, "INFO", "", "");
    if std::env::var_os("GOLDEN").is_some_and(|golden| golden == "write") {
        std::fs::create_dir_all(&dir).unwrap();
        let whole = Disk::whole(&mut sim.engine);
        whole.0.iter().for_each(|(key, record)| std::fs::write(place(VERSION, *key), record).unwrap());
    }
    let read = |version, keys: &[u64]| {
        Disk(keys.iter().map(|key| (*key, std::fs::read(place(version, *key)).unwrap())).collect())
    };
    let golden = read(VERSION, &[COMMON, 1, TEMPLATES]);
    let (mut engine, restored) = golden.restore(sim.config.clone());
    assert_eq!((restored.len(), restored[0].tokens.len()), (1, 4));
    let again = Disk::whole(&mut engine);
    assert_eq!(again.0[&1], golden.0[&1]);
    for before in [read(BEFORE, &[COMMON, 1, TEMPLATES]), read(UNPACKED, &[COMMON, 1])] {
        let (mut engine, restored) = before.restore(sim.config.clone());
        assert_eq!((restored.len(), restored[0].tokens.len()), (1, 4));
        let whole = Disk::whole(&mut engine).0;
        assert!(whole.contains_key(&TEMPLATES) && whole.values().all(|record| record[0] == VERSION), "as of this one");
    }
    for version in 1..UNPACKED {
        let before = std::fs::read(place(version, COMMON)).unwrap();
        let refused = st_core::Engine::restored(sim.config.clone(), &before).err();
        assert_eq!(refused, Some(RecordError::Version(version)));
    }
}
