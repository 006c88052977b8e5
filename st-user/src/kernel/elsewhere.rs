//! Groups' namespaces, entered and followed, in namespaces of the tests' own. They need root.

use std::{fs, sync::mpsc, thread};

use rustix::{
    mount::{UnmountFlags, mount_bind, unmount},
    thread::{CapabilitySet, UnshareFlags},
};

use super::{
    tests::{options, with_only},
    *,
};
use crate::{
    container::Target,
    namespace::{in_a_namespace, ip, unshare},
    privilege::{ELSEWHERE, running},
};

/// What stands for the container.
const FILE: &str = "/run/container";

/// A thread in a network namespace of its own, for as long as this lives; `v1` is in it, as the end of a veth pair.
struct Inside {
    tid: u32,
    end: Option<mpsc::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Inside {
    fn new(here: &str) -> Self {
        let (say, said) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            unshare(UnshareFlags::NEWNET);
            say.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
            let _ = ended.recv();
        });
        let tid = said.recv().unwrap().unsigned_abs();
        ip(&format!("link add {here} type veth peer name v1 netns {tid}"));
        Self { tid, end: Some(end), thread: Some(thread) }
    }

    /// Has the file stand for it.
    fn stands_for_it(&self) {
        fs::write(FILE, "").unwrap();
        mount_bind(format!("/proc/{}/ns/net", self.tid), FILE).unwrap();
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        drop(self.end.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

fn group(target: Target) -> Options {
    let group = Group { name: "sip".into(), target, interfaces: vec!["v1".into()] };
    Options { namespaces: vec![group], ..options(Attach::Auto) }
}

fn by_file() -> Options {
    group(Target::File(FILE.into()))
}

/// What is attached and whose interface is there, in which namespace.
fn hooks() -> Vec<(Option<String>, String, Hook)> {
    let all = Kernel::status(Path::new(PIN_DIR)).unwrap().into_iter().filter(|found| !found.gone);
    all.map(|found| (found.namespace, found.interface, found.hook)).collect()
}

fn both() -> [(Option<String>, String, Hook); 2] {
    [Hook::TcEgress, Hook::TcIngress].map(|hook| (Some("sip".into()), "v1".into(), hook))
}

#[test]
fn a_container_that_is_started_again_is_entered_with_what_is_kept() {
    in_a_namespace(|| {
        ip("link del v0");
        let first = Inside::new("h1");
        first.stands_for_it();
        let (mut kernel, ring) = Kernel::attach(&by_file()).unwrap();
        let (mut sites, mut scout) = kernel.take_elsewhere();
        assert_eq!(kernel.needs(), running(false) | ELSEWHERE);
        let mut follow = |keep: CapabilitySet| {
            let looks = with_only(CapabilitySet::empty(), || scout.look());
            with_only(keep, || kernel.follow_elsewhere(looks, &mut sites));
            (kernel.attached().collect::<Vec<_>>(), kernel.remarks())
        };
        let held = (vec![("sip/v1".to_owned(), true)], Vec::<String>::new());
        assert_eq!(follow(running(false)), held, "nothing has to be entered for that");
        assert_eq!(hooks(), both());

        let second = Inside::new("h2");
        unmount(FILE, UnmountFlags::DETACH).unwrap();
        second.stands_for_it();
        drop(first);
        let (attached, remarks) = follow(running(false));
        assert_eq!(attached, [("sip".to_owned(), false)]);
        assert!(remarks[0].contains("namespace sip: CAP_SYS_ADMIN is missing"), "{remarks:?}");
        assert_eq!(follow(running(false) | ELSEWHERE), held);
        assert_eq!(follow(running(false)), held);
        assert_eq!(hooks(), both());

        unmount(FILE, UnmountFlags::DETACH).unwrap();
        assert_eq!(follow(running(false)).0, held.0, "what is missing once may be there again");
        let (attached, remarks) = follow(running(false));
        assert_eq!(attached, [("sip".to_owned(), false)]);
        assert!(remarks[0].starts_with("sip (/run/container): "), "{remarks:?}");
        drop((second, ring));
        kernel.release().unwrap();
        assert!(!Path::new(PIN_DIR).exists());
    });
}

#[test]
fn the_next_daemon_goes_on_in_the_same_namespace_and_attaches_anew_in_another() {
    in_a_namespace(|| {
        ip("link del v0");
        let first = Inside::new("h1");
        let ids = || {
            let pins = Pins::new(Path::new(PIN_DIR)).place("sip");
            pins.links().into_iter().map(|link| link.info.id).collect::<Vec<_>>()
        };
        drop(Kernel::attach(&group(Target::Process(first.tid))).unwrap());
        let before = ids();
        drop(Kernel::attach(&group(Target::Process(first.tid))).unwrap());
        assert_eq!((ids(), hooks()), (before.clone(), both().into()));
        // Its interface has the same number there.
        let second = Inside::new("h2");
        drop(Kernel::attach(&group(Target::Process(second.tid))).unwrap());
        assert!(ids().iter().all(|id| !before.contains(id)));
        assert_eq!(hooks(), both());
        // And back in the daemon's own.
        drop(Kernel::attach(&Options { interfaces: vec!["h1".into()], ..options(Attach::Auto) }).unwrap());
        assert!(
            hooks().iter().all(|(namespace, interface, _)| namespace.is_none() && interface == "h1"),
            "{:?}",
            hooks()
        );
        Kernel::unload(Path::new(PIN_DIR), false).unwrap();
        assert!(!Path::new(PIN_DIR).exists());
    });
}

#[test]
fn what_cannot_be_entered_is_one_error_and_what_is_not_there_is_waited_for() {
    in_a_namespace(|| {
        let four = CapabilitySet::BPF | CapabilitySet::PERFMON | running(true);
        let refused = with_only(four, || Kernel::attach(&by_file()).err());
        assert!(matches!(refused, Some(KernelError::NoNamespaces)));
        let own = rustix::process::getpid().as_raw_nonzero().get().unsigned_abs();
        let tid = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        assert_ne!(own, tid);
        assert!(matches!(
            Kernel::attach(&group(Target::Process(tid))),
            Err(KernelError::OwnNamespace { name }) if name == "sip"
        ));
        assert!(!Path::new(PIN_DIR).exists(), "nothing half done stays");
        let (kernel, _ring) = Kernel::attach(&by_file()).unwrap();
        assert_eq!(kernel.attached().collect::<Vec<_>>(), [("sip".to_owned(), false)]);
        assert!(kernel.remarks()[0].contains("No such file"), "{:?}", kernel.remarks());
        assert!(hooks().is_empty());
        let without_links = Kernel::attach_by(Hooks::filters(), Pins::new(Path::new("/sys/fs/bpf/other")), &by_file());
        assert!(matches!(without_links, Err(KernelError::NamespacesNeedLinks)));
    });
}
