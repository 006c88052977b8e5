use std::{
    os::unix::fs::{PermissionsExt as _, symlink},
    sync::Arc,
    thread,
};

use rustix::{
    mount::{MountFlags, mount, mount_remount},
    thread::UnshareFlags,
};
use st_core::{
    Direction, Packet, Policy,
    engine::{
        EngineConfig, Limits, Mode,
        record::{COMMON, TEMPLATES},
    },
};

use super::*;
use crate::{namespace::unshare, takeover::TakenOver};

const BOOT: &str = "this boot";

fn config() -> EngineConfig {
    EngineConfig { policy: Arc::new(Policy::default()), mode: Mode::Live, seed: 7, limits: Limits::default() }
}

fn about() -> About {
    About { boot: BOOT.into(), offset_ns: 5, unseen: 3 }
}

/// A directory of a test's own, gone when it is over.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("sipst-store-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        Self(dir)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Lets an engine see the start of a call of the server's.
fn call(engine: &mut Engine, name: &str) {
    let headers = format!(
        "Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK{name}\r\nFrom: <sip:s@192.0.2.1>;tag=s\r\n\
         Call-ID: {name}\r\nCSeq: 1 INVITE\r\nContact: <sip:x@192.0.2.1>\r\nContent-Length: 0\r\n"
    );
    let invite = format!("INVITE sip:p@198.51.100.1 SIP/2.0\r\nTo: <sip:p@198.51.100.1>\r\n{headers}\r\n");
    let answer = format!(
        "SIP/2.0 200 OK\r\nTo: <sip:p@198.51.100.1>;tag=p\r\nSession-Expires: 1800;refresher=uac\r\n{headers}\r\n"
    );
    for (direction, text) in [(Direction::Egress, &invite), (Direction::Ingress, &answer)] {
        let packet = Packet {
            direction,
            server: "192.0.2.1:5060".parse().unwrap(),
            peer: "198.51.100.1:5060".parse().unwrap(),
            transport: st_core::Transport::Udp,
            interface: 1,
            tos: 0,
            ttl: 64,
            cookie: 1,
            truncated: false,
            bytes: text.as_bytes(),
        };
        engine.handle_packet(Time::from_micros(1_000_000), &packet);
    }
    drain(engine);
}

fn drain(engine: &mut Engine) {
    while !matches!(engine.poll_output(), st_core::Output::Timeout(_)) {}
}

/// Opens a directory as a daemon does: what it knows, and what it tells.
fn begin(dir: &Path) -> (Engine, Store, Vec<String>) {
    let TakenOver { mut engine, opened, before, .. } = TakenOver::read(Opened::new(dir), &config(), BOOT);
    let mut store = opened.follow(&mut engine, before.is_none()).unwrap();
    let told = told(&mut store);
    (engine, store, told)
}

fn told(store: &mut Store) -> Vec<String> {
    store.events(Time::from_micros(1)).into_iter().map(|event| event.reason.unwrap().into_owned()).collect()
}

fn sessions(engine: &Engine) -> usize {
    engine.stats().sessions
}

/// Keeps `names` in a directory, as a daemon that ends well does.
fn keep(dir: &Path, names: &[&str]) {
    let (mut engine, store, _) = begin(dir);
    names.iter().for_each(|name| call(&mut engine, name));
    assert!(store.finish(&mut engine, &about()));
}

/// Goes on until something is so.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_more_was_written_the_longer_nothing_is_and_never_longer_than_a_second() {
    assert_eq!([0, 1, 2_000].map(pause), [PAUSE; 3]);
    assert_eq!([5_000, 10_000, u32::MAX].map(pause), [500, 1_000, 1_000].map(Duration::from_millis));
}

#[test]
fn what_was_written_is_there_again_and_nobody_else_may_read_it() {
    let dir = Dir::new("again");
    keep(&dir.0, &["a", "b"]);
    assert_eq!(fs::metadata(dir.0.join(NAME)).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&dir.0).unwrap().permissions().mode() & 0o777, 0o700);
    let taken = TakenOver::read(Opened::new(&dir.0), &config(), BOOT);
    assert_eq!((taken.before, taken.rebooted, sessions(&taken.engine)), (Some(about()), false, 2));
    drop(taken.opened);
    keep(&dir.0, &["c"]);
    let taken = TakenOver::read(Opened::new(&dir.0), &config(), "another");
    assert_eq!((taken.rebooted, sessions(&taken.engine)), (true, 3));
}

#[test]
fn what_changes_is_written_behind_without_an_end() {
    let dir = Dir::new("behind");
    let (mut engine, mut store, told) = begin(&dir.0);
    assert_eq!(told, [""; 0]);
    call(&mut engine, "a");
    assert!(store.due(&engine).is_some());
    until("nothing is written", || {
        store.turn(&mut engine, about);
        !engine.has_changes() && store.writer.as_ref().is_some_and(|writer| writer.pending() == 0)
    });
    // As after a kill: nobody finishes anything.
    fs::copy(dir.0.join(NAME), dir.0.join("copy")).unwrap();
    let other = Dir::new("behind-other");
    fs::create_dir_all(&other.0).unwrap();
    fs::rename(dir.0.join("copy"), other.0.join(NAME)).unwrap();
    let (engine, _, told) = begin(&other.0);
    assert_eq!((sessions(&engine), told), (1, vec![]));
}

#[test]
fn what_takes_long_to_write_out_is_one_batch_over_several_turns() {
    let dir = Dir::new("turns");
    let (mut engine, mut store, _) = begin(&dir.0);
    for number in 0..2 * TURN {
        call(&mut engine, &format!("call-{number}"));
    }
    let handed = |store: &Store| store.writer.as_ref().map(|writer| writer.pending() + writer.written());
    store.turn(&mut engine, about);
    assert!(engine.has_changes() && store.due(&engine) == Some(Duration::ZERO), "it goes on at once");
    assert_eq!(
        (store.gathered.changes.len(), handed(&store)),
        (TURN, Some(0)),
        "half of it would be worse than nothing"
    );
    // What changes meanwhile goes with it.
    call(&mut engine, "meanwhile");
    until("nothing is handed over", || {
        store.turn(&mut engine, about);
        store.gathered.changes.is_empty()
    });
    assert_eq!(handed(&store), Some(1));
    assert!(store.finish(&mut engine, &about()));
    let (engine, _, told) = begin(&dir.0);
    assert_eq!((sessions(&engine), told), (2 * TURN + 1, vec![]));
}

#[test]
fn what_was_gathered_is_written_at_the_end_too() {
    let dir = Dir::new("half");
    let (mut engine, mut store, _) = begin(&dir.0);
    for number in 0..2 * TURN {
        call(&mut engine, &format!("call-{number}"));
    }
    store.turn(&mut engine, about);
    assert_eq!(store.gathered.changes.len(), TURN);
    assert!(store.finish(&mut engine, &about()));
    let (engine, _, told) = begin(&dir.0);
    assert_eq!((sessions(&engine), told), (2 * TURN, vec![]));
}

#[test]
fn two_daemons_do_not_share_a_directory() {
    let dir = Dir::new("two");
    let (_engine, _store, told) = begin(&dir.0);
    assert_eq!(told, [""; 0]);
    assert!(Kept::look(&dir.0).in_use);
    let (_, mut second, told) = begin(&dir.0);
    assert!(told[0].starts_with("state_unusable: "), "{told:?}");
    assert!(told[0].contains("another sipst keeps its state there"), "{told:?}");
    assert!(self::told(&mut second).is_empty(), "once");
}

#[test]
fn a_file_that_is_damaged_anywhere_is_put_aside_and_its_good_records_are_kept() {
    let dir = Dir::new("damaged");
    let spoils: [fn(&mut Vec<u8>); 2] = [|bytes| bytes.fill(b'x'), |bytes| bytes.truncate(5_000)];
    for (index, spoil) in spoils.into_iter().enumerate() {
        keep(&dir.0, &["a"]);
        let path = dir.0.join(NAME);
        let mut bytes = fs::read(&path).unwrap();
        spoil(&mut bytes);
        fs::write(&path, &bytes).unwrap();
        let (mut engine, store, told) = begin(&dir.0);
        assert!(told.len() == 1 && told[0].starts_with("state_set_aside: "), "{told:?}");
        let aside = file::set_aside(&dir.0);
        assert_eq!(aside.len(), index + 1);
        assert!(aside.iter().any(|path| fs::read(path).unwrap() == bytes), "nothing is lost");
        call(&mut engine, "b");
        assert!(store.finish(&mut engine, &about()), "and what comes is kept");
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn one_damaged_record_costs_no_other() {
    let dir = Dir::new("record");
    keep(&dir.0, &["a", "b"]);
    let (file, _) = StateFile::open(&dir.0).unwrap();
    let mut keys = Vec::new();
    file.read(&mut |key, _| {
        keys.push(key);
        true
    })
    .unwrap();
    assert_eq!(keys, [COMMON, TEMPLATES, 1, 2], "what the others need comes first");
    file.insert(1, b"nonsense").unwrap();
    drop(file);
    let (mut engine, store, told) = begin(&dir.0);
    assert!(told[0].starts_with("state_set_aside: ") && told[0].contains("1 records are damaged"), "{told:?}");
    assert_eq!(sessions(&engine), 1);
    assert!(store.finish(&mut engine, &about()));
    let (engine, _, told) = begin(&dir.0);
    assert_eq!((sessions(&engine), told), (1, vec![]), "what was taken was written anew");
}

#[test]
fn a_newer_file_is_put_aside_and_not_overwritten() {
    let dir = Dir::new("newer");
    keep(&dir.0, &["one-call"]);
    let (file, _) = StateFile::open(&dir.0).unwrap();
    file.set_format(99).unwrap();
    drop(file);
    let (engine, _store, told) = begin(&dir.0);
    assert!(told[0].starts_with("state_set_aside: ") && told[0].contains("version 99."), "{told:?}");
    assert_eq!(sessions(&engine), 0);
    let aside = file::set_aside(&dir.0);
    assert!(aside[0].to_string_lossy().contains(".newer-"), "{aside:?}");
    assert!(fs::read(&aside[0]).unwrap().windows(8).any(|bytes| bytes == b"one-call"), "nothing is lost");
}

#[test]
fn a_file_of_the_formats_before_is_read_and_written_anew() {
    let unpacked: [(u64, &[u8]); 2] = [
        (COMMON, include_bytes!("../../core/tests/records/v3-0")),
        (1, include_bytes!("../../core/tests/records/v3-1")),
    ];
    let packed: [(u64, &[u8]); 3] = [
        (COMMON, include_bytes!("../../core/tests/records/v4-0")),
        (TEMPLATES, include_bytes!("../../core/tests/records/v4-template-0")),
        (1, include_bytes!("../../core/tests/records/v4-1")),
    ];
    for (format, records) in [(1, &unpacked[..]), (2, &unpacked), (3, &packed)] {
        let dir = Dir::new(&format!("before-{format}"));
        keep(&dir.0, &["a", "b"]);
        let (file, _) = StateFile::open(&dir.0).unwrap();
        file.make_before(format, records).unwrap();
        drop(file);
        let (engine, store, told) = begin(&dir.0);
        assert_eq!((sessions(&engine), told), (1, vec![]));
        drop((engine, store));
        // As after a kill before anything was written: it is still there.
        until("the directory is free", || !Kept::look(&dir.0).in_use);
        let (mut engine, store, told) = begin(&dir.0);
        assert_eq!((sessions(&engine), told), (1, vec![]));
        assert!(store.finish(&mut engine, &about()));
        let (file, _) = StateFile::open(&dir.0).unwrap();
        assert!(!file.is_outdated());
        drop(file);
        let (engine, _, told) = begin(&dir.0);
        assert_eq!((sessions(&engine), told), (1, vec![]));
    }
}

#[test]
fn of_several_changes_of_one_record_the_last_one_counts() {
    let dir = Dir::new("several");
    let (mut engine, store, _) = begin(&dir.0);
    ["a", "b", "c"].iter().for_each(|name| call(&mut engine, name));
    assert!(store.finish(&mut engine, &about()));
    engine.follow_changes();
    let changes: Vec<Change> = std::iter::from_fn(|| engine.poll_change()).collect();
    let of = |key: u64| changes.iter().find(|change| change.key == key).unwrap().clone();
    let gone = |key: u64| Change { key, record: None };
    let batch = [gone(3), of(2), gone(1), gone(2), of(1), of(TEMPLATES), of(3), gone(3)];
    let (mut file, _) = StateFile::open(&dir.0).unwrap();
    file.write(&about(), false, &batch).unwrap();
    let mut keys = Vec::new();
    file.read(&mut |key, _| {
        keys.push(key);
        true
    })
    .unwrap();
    assert_eq!((keys, file.records()), (vec![COMMON, TEMPLATES, 1], 2));
}

#[test]
fn what_the_records_are_written_with_is_written_where_it_is_another() {
    let dir = Dir::new("about");
    keep(&dir.0, &["a"]);
    let lost = About { unseen: 4, ..about() };
    for (says, format) in [(about(), 99), (lost.clone(), 3)] {
        let (mut file, found) = StateFile::open(&dir.0).unwrap();
        assert_eq!(found, Some(about()));
        file.set_format(99).unwrap();
        file.write(&says, false, &[]).unwrap();
        assert_eq!(file.format().unwrap(), format);
        file.set_format(3).unwrap();
    }
    assert_eq!(StateFile::open(&dir.0).unwrap().1, Some(lost));
}

#[test]
fn what_stands_there_as_it_is_known_is_not_written_again() {
    let dir = Dir::new("once");
    keep(&dir.0, &["a", "b"]);
    let taken = TakenOver::read(Opened::new(&dir.0), &config(), BOOT);
    let (mut engine, opened) = (taken.engine, taken.opened);
    let store = opened.follow(&mut engine, false).unwrap();
    let keys = |engine: &mut Engine| -> Vec<u64> {
        std::iter::from_fn(|| engine.poll_change()).map(|change| change.key).collect()
    };
    assert_eq!(keys(&mut engine), [COMMON]);
    drop(store);
    engine.follow_changes();
    assert_eq!(keys(&mut engine), [COMMON, TEMPLATES, 1, 2], "unless all of it is wanted");
}

#[test]
fn a_directory_full_of_files_put_aside_is_left_alone() {
    let dir = Dir::new("crowded");
    fs::create_dir_all(&dir.0).unwrap();
    for number in 0..MAX_SET_ASIDE {
        fs::write(dir.0.join(format!("{NAME}.damaged-{number}")), "x").unwrap();
    }
    fs::write(dir.0.join(NAME), "no state at all").unwrap();
    let names = dir.names();
    let (_engine, store, told) = begin(&dir.0);
    assert!(told[0].starts_with("state_unusable: ") && told[0].contains("take them away"), "{told:?}");
    assert_eq!(dir.names(), names);
    assert_eq!(fs::read(dir.0.join(NAME)).unwrap(), b"no state at all");
    drop(store);
}

#[test]
fn where_the_directory_cannot_be_that_is_told_once_and_nothing_waits() {
    let dir = Dir::new("nowhere");
    fs::create_dir_all(&dir.0).unwrap();
    let file = dir.0.join("file");
    fs::write(&file, "").unwrap();
    symlink("loop", dir.0.join("loop")).unwrap();
    for place in [file.join("state"), dir.0.join("loop/state")] {
        let (mut engine, mut store, told) = begin(&place);
        assert!(told.len() == 1 && told[0].starts_with("state_unusable: "), "{told:?}");
        call(&mut engine, "a");
        store.turn(&mut engine, about);
        assert_eq!((store.due(&engine), self::told(&mut store)), (None, vec![]));
        assert!(!engine.has_changes(), "nothing piles up");
        assert!(store.finish(&mut engine, &about()), "there was nothing to be written");
    }
}

/// A file system of its own, so large, on a thread that has its mounts to itself.
fn on_a_disk(megabytes: u32, test: impl FnOnce(&Path) + Send) {
    let dir = Dir::new(&format!("disk-{megabytes}-{:?}", thread::current().id()));
    fs::create_dir_all(&dir.0).unwrap();
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(UnshareFlags::NEWNS);
            let private = rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
            rustix::mount::mount_change("/", private).unwrap();
            let size = std::ffi::CString::new(format!("size={megabytes}m")).unwrap();
            mount("tmpfs", &dir.0, "tmpfs", MountFlags::empty(), size.as_c_str()).unwrap();
            test(&dir.0);
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

#[test]
fn a_full_disk_is_told_once_and_all_is_written_when_there_is_room() {
    on_a_disk(4, |dir| {
        let (mut engine, mut store, told) = begin(dir);
        assert_eq!(told, [""; 0]);
        fs::write(dir.join("ballast"), vec![0; 4 << 20]).unwrap_err();
        let mut reports = Vec::new();
        for number in 0..2_000 {
            call(&mut engine, &format!("call-{number}"));
        }
        until("nothing is told", || {
            store.turn(&mut engine, about);
            reports.extend(self::told(&mut store));
            !reports.is_empty()
        });
        assert!(reports[0].starts_with("state_unusable: "), "{reports:?}");
        assert!(reports[0].contains("No space left"), "{reports:?}");
        call(&mut engine, "meanwhile");
        store.turn(&mut engine, about);
        assert_eq!(store.due(&engine), None);
        fs::remove_file(dir.join("ballast")).unwrap();
        mount_remount(dir, MountFlags::empty(), c"size=64m").unwrap();
        until("it is not tried again", || {
            store.turn(&mut engine, about);
            store.keeps && !engine.has_changes()
        });
        assert_eq!(self::told(&mut store), [""; 0]);
        assert!(store.finish(&mut engine, &about()));
        let (engine, ..) = begin(dir);
        assert_eq!(sessions(&engine), 2_001);
    });
}

#[test]
fn on_a_read_only_disk_nothing_is_changed() {
    on_a_disk(16, |dir| {
        keep(dir, &["a"]);
        let before = fs::read(dir.join(NAME)).unwrap();
        mount_remount(dir, MountFlags::RDONLY, c"").unwrap();
        let (_engine, _store, told) = begin(dir);
        assert!(told.len() == 1 && told[0].starts_with("state_unusable: "), "{told:?}");
        assert!(told[0].contains("Read-only file system"), "{told:?}");
        assert_eq!(fs::read(dir.join(NAME)).unwrap(), before);
    });
}

#[test]
fn what_stands_there_can_be_looked_at() {
    let dir = Dir::new("look");
    assert_eq!(Kept::look(&dir.0).line(false), format!("in {}: no file", dir.0.display()));
    let (_engine, _store, _) = begin(&dir.0);
    let kept = Kept::look(&dir.0);
    assert!(kept.line(true).starts_with("kept in "), "{}", kept.line(true));
    drop((_engine, _store));
    until("the lock stays", || !Kept::look(&dir.0).in_use);
    assert!(Kept::look(&dir.0).line(true).starts_with("NOT KEPT in "));
}
