//! The life of what is attached, in namespaces of the tests' own. They need root.

use std::{collections::HashSet, fs, process::Command};

use st_core::{ReadyAck, Refusal, Side};
use st_ebpf::{
    cseq::State,
    plan::{Connection, Patch, Plan, bits},
};

use super::*;
use crate::{
    inject::{Envelope, ready_ack},
    namespace::{in_a_namespace, ip},
    privilege::{keep_only, running},
};

pub(crate) fn options(attach: Attach) -> Options {
    Options {
        interfaces: vec!["v0".into()],
        namespaces: vec![],
        attach,
        ports: vec![Ports::one(5060)],
        opaque_ports: vec![Ports::one(5061)],
        any_port: false,
        pin_dir: PIN_DIR.into(),
        recording: false,
        acting: false,
    }
}

fn hooks() -> Vec<(String, Hook)> {
    Kernel::status(Path::new(PIN_DIR)).unwrap().into_iter().map(|found| (found.interface, found.hook)).collect()
}

/// Whether the programs have seen all.
fn look(kernel: &mut Kernel) -> bool {
    let view = kernel.lookout().look().unwrap();
    kernel.follow(view)
}

fn programs() -> Vec<u32> {
    Kernel::status(Path::new(PIN_DIR)).unwrap().into_iter().map(|found| found.program).collect()
}

/// The kernel's ids of the links.
fn links() -> Vec<u32> {
    let of_any = |version| Pins::of(Path::new(PIN_DIR), version).links();
    [1, st_ebpf::abi::VERSION].into_iter().flat_map(of_any).map(|link| link.info.id).collect()
}

fn tc() -> [(String, Hook); 2] {
    [("v0".into(), Hook::TcEgress), ("v0".into(), Hook::TcIngress)]
}

fn xdp() -> [(String, Hook); 2] {
    [("v0".into(), Hook::TcEgress), ("v0".into(), Hook::XdpNative)]
}

fn key(kernel: &Kernel) -> st_ebpf::key::DialogKey {
    kernel.maps.key(b"call", b"tag", Side::Server).unwrap()
}

const HOST: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const SHIFTED: State = State { known: true, number: 7, delta: 1 };

#[test]
fn what_is_attached_stays_when_the_process_goes_and_ends_with_unload() {
    in_a_namespace(|| {
        drop(Kernel::attach(&options(Attach::Auto)).unwrap());
        assert_eq!(hooks(), tc());
        assert_eq!(Kernel::unload(Path::new(PIN_DIR), false).unwrap(), Unloaded { links: 2 });
        assert!(hooks().is_empty());
        assert!(!Path::new(PIN_DIR).exists());
        assert_eq!(Kernel::unload(Path::new(PIN_DIR), false).unwrap(), Unloaded { links: 0 });
    });
}

#[test]
fn numbers_from_before_the_entry_count_whoever_saw_them_and_outlive_the_daemon() {
    in_a_namespace(|| {
        let (mut first, _ring) = Kernel::attach(&options(Attach::Auto)).unwrap();
        let (key, fresh) = (key(&first), State { known: true, number: 7, delta: 0 });
        first.maps.note(key, 9);
        assert_eq!(first.maps.state(key), Err(Refusal::MapFull), "it is no entry");
        drop(first);
        let (mut second, _ring) = Kernel::attach(&options(Attach::Auto)).unwrap();
        second.maps.arm(key, HOST, fresh).unwrap();
        assert_eq!(second.maps.state(key), Ok(State { number: 9, ..fresh }));
        second.maps.disarm(key, Some(HOST)).unwrap();
        second.maps.arm(key, HOST, State::default()).unwrap();
        assert_eq!(second.maps.state(key), Ok(State { number: 9, ..fresh }), "its first request went by unseen");
        second.maps.note(st_ebpf::key::DialogKey { check: !key.check, ..key }, 11);
        assert_eq!(second.maps.state(key), Ok(State::default()), "another dialog's says nothing");
    });
}

#[test]
fn the_next_daemon_takes_over_maps_and_links() {
    in_a_namespace(|| {
        let (mut first, _ring) = Kernel::attach(&options(Attach::Auto)).unwrap();
        let key = key(&first);
        first.maps.arm(key, HOST, SHIFTED).unwrap();
        let before = programs();
        drop(first);
        let (second, _ring) = Kernel::attach(&options(Attach::Auto)).unwrap();
        assert_eq!(second.maps.key(b"call", b"tag", Side::Server), Ok(key), "the hash key is the same");
        assert_eq!(second.maps.state(key), Ok(SHIFTED));
        assert_eq!(hooks(), tc());
        assert!(programs().iter().all(|program| !before.contains(program)), "new programs in the same links");
    });
}

#[test]
fn a_second_daemon_is_kept_away() {
    in_a_namespace(|| {
        let _first = Kernel::attach(&options(Attach::Auto)).unwrap();
        assert!(matches!(Kernel::attach(&options(Attach::Auto)), Err(KernelError::Busy { .. })));
        assert!(matches!(Kernel::unload(Path::new(PIN_DIR), true), Err(KernelError::Busy { .. })));
        assert_eq!(hooks(), tc());
    });
}

#[test]
fn nothing_is_unloaded_while_dialogs_depend_on_it() {
    in_a_namespace(|| {
        let (mut kernel, _ring) = Kernel::attach(&options(Attach::Auto)).unwrap();
        let key = key(&kernel);
        kernel.maps.arm(key, HOST, SHIFTED).unwrap();
        assert_eq!(kernel.release().unwrap(), Released::Kept { dialogs: 1 });
        let refused = Kernel::unload(Path::new(PIN_DIR), false);
        assert!(matches!(refused, Err(KernelError::Shifting { dialogs: 1 })));
        assert_eq!(hooks(), tc());
        Kernel::unload(Path::new(PIN_DIR), true).unwrap();
        assert!(hooks().is_empty());
    });
}

#[test]
fn a_clean_end_leaves_nothing_where_no_number_is_shifted() {
    in_a_namespace(|| {
        let (mut kernel, _ring) = Kernel::attach(&options(Attach::Auto)).unwrap();
        let key = key(&kernel);
        kernel.maps.arm(key, HOST, State { delta: 0, ..SHIFTED }).unwrap();
        assert_eq!(kernel.release().unwrap(), Released::Unloaded);
        assert!(!Path::new(PIN_DIR).exists());
    });
}

#[test]
fn the_hook_is_the_one_asked_for_and_auto_keeps_what_is_there() {
    in_a_namespace(|| {
        drop(Kernel::attach(&options(Attach::Xdp)).unwrap());
        assert_eq!(hooks(), xdp());
        drop(Kernel::attach(&options(Attach::Auto)).unwrap());
        assert_eq!(hooks(), xdp());
        drop(Kernel::attach(&options(Attach::Tc)).unwrap());
        assert_eq!(hooks(), tc());
    });
}

#[test]
fn an_interface_that_is_no_longer_configured_is_detached() {
    in_a_namespace(|| {
        let both = Options { interfaces: vec!["v0".into(), "v1".into()], ..options(Attach::Auto) };
        drop(Kernel::attach(&both).unwrap());
        assert_eq!(hooks().len(), 4);
        drop(Kernel::attach(&options(Attach::Auto)).unwrap());
        assert_eq!(hooks(), tc());
    });
}

#[test]
fn a_name_with_a_dot_is_pinned() {
    in_a_namespace(|| {
        ip("link set v0 name v0.7");
        let dotted = Options { interfaces: vec!["v0.7".into()], ..options(Attach::Auto) };
        drop(Kernel::attach(&dotted).unwrap());
        drop(Kernel::attach(&dotted).unwrap());
        assert_eq!(hooks(), [("v0.7".into(), Hook::TcEgress), ("v0.7".into(), Hook::TcIngress)]);
    });
}

#[test]
fn an_interface_made_anew_is_attached_again() {
    in_a_namespace(|| {
        let (mut kernel, _ring) = Kernel::attach(&options(Attach::Auto)).unwrap();
        ip("link del v0");
        look(&mut kernel);
        assert!(Kernel::status(Path::new(PIN_DIR)).unwrap().iter().all(|found| found.gone));
        ip("link add v0 type veth peer name v1");
        look(&mut kernel);
        assert!(Kernel::status(Path::new(PIN_DIR)).unwrap().iter().all(|found| !found.gone));
        drop(kernel);
        ip("link del v0");
        ip("link add v0 type veth peer name v1");
        drop(Kernel::attach(&options(Attach::Auto)).unwrap());
        assert!(Kernel::status(Path::new(PIN_DIR)).unwrap().iter().all(|found| !found.gone));
    });
}

/// Another sipst's XDP program at `v1`, and nothing else of it.
fn foreign_xdp() {
    let other = Options { interfaces: vec!["v1".into()], pin_dir: "/sys/fs/bpf/other".into(), ..options(Attach::Xdp) };
    drop(Kernel::attach(&other).unwrap());
    let version = format!("v{}", st_ebpf::abi::VERSION);
    fs::remove_file(other.pin_dir.join(version).join("links/v1-egress")).unwrap();
}

#[test]
fn where_another_xdp_program_is_tc_takes_the_place_of_xdp_and_that_is_told_until_it_is_otherwise() {
    in_a_namespace(|| {
        foreign_xdp();
        let both = Options { interfaces: vec!["v0".into(), "v1".into()], ..options(Attach::Xdp) };
        let at_v1 = |hook| ("v1".to_owned(), hook);
        let (kernel, ring) = Kernel::attach(&both).unwrap();
        assert_eq!(hooks(), [&xdp()[..], &[at_v1(Hook::TcEgress), at_v1(Hook::TcIngress)]].concat());
        assert_eq!(kernel.remarks(), ["v1: TC in the place of XDP: another XDP program is there"]);
        let ids = links();
        drop((kernel, ring));
        let (kernel, ring) = Kernel::attach(&both).unwrap();
        assert_eq!((links(), kernel.remarks().len()), (ids, 1), "the same links go on");
        drop((kernel, ring));
        Kernel::unload(Path::new("/sys/fs/bpf/other"), true).unwrap();
        let (kernel, _ring) = Kernel::attach(&both).unwrap();
        assert_eq!(hooks(), [&xdp()[..], &[at_v1(Hook::TcEgress), at_v1(Hook::XdpNative)]].concat());
        assert!(kernel.remarks().is_empty());
    });
}

#[test]
fn where_the_driver_refuses_xdp_tc_takes_its_place() {
    in_a_namespace(|| {
        // Fewer queues than the other end sends by (drivers/net/veth.c).
        ip("link delete v0");
        ip("link add v0 numrxqueues 1 numtxqueues 1 type veth peer name v1 numrxqueues 4 numtxqueues 4");
        for end in ["v0", "v1"] {
            ip(&format!("link set {end} up"));
        }
        let (kernel, _ring) = Kernel::attach(&options(Attach::Xdp)).unwrap();
        assert_eq!(hooks(), tc());
        let remarks = kernel.remarks();
        assert!(remarks[0].starts_with("v0: TC in the place of XDP: ") && remarks[0].contains("queues"), "{remarks:?}");
    });
}

#[test]
fn a_failed_attach_leaves_nothing_behind() {
    in_a_namespace(|| {
        let other =
            Options { interfaces: vec!["v1".into()], pin_dir: "/sys/fs/bpf/other".into(), ..options(Attach::Auto) };
        drop(Kernel::attach(&other).unwrap());
        let both = Options { interfaces: vec!["v0".into(), "v1".into()], ..options(Attach::Auto) };
        let refused = Kernel::attach(&both);
        assert!(matches!(&refused, Err(KernelError::Twice { interface, .. }) if interface == "v1"));
        assert!(!Path::new(PIN_DIR).exists());
    });
}

#[test]
fn pins_of_another_version_are_not_touched_without_force() {
    in_a_namespace(|| {
        let other = Path::new(PIN_DIR).join("v999");
        fs::create_dir_all(&other).unwrap();
        assert!(
            matches!(Kernel::attach(&options(Attach::Auto)), Err(KernelError::NewerVersion { path }) if path == other)
        );
        assert!(matches!(Kernel::unload(Path::new(PIN_DIR), false), Err(KernelError::OtherVersion { .. })));
        Kernel::unload(Path::new(PIN_DIR), true).unwrap();
        assert!(!Path::new(PIN_DIR).exists());
    });
}

/// As an older version left it.
fn older(attach: Attach) -> Kernel {
    let pins = Pins::of(Path::new(PIN_DIR), 1);
    Kernel::attach_by(Hooks::new(), pins, &options(attach)).unwrap().0
}

#[test]
fn an_older_versions_links_and_dialogs_are_taken_over() {
    for (attach, expected) in [(Attach::Tc, tc()), (Attach::Xdp, xdp())] {
        in_a_namespace(|| {
            let mut first = older(attach);
            let (known, unknown) = (key(&first), first.maps.key(b"other", b"tag", Side::Server).unwrap());
            let unknown_state = State { known: false, number: 3, delta: 0 };
            first.maps.arm(known, HOST, SHIFTED).unwrap();
            first.maps.arm(unknown, HOST, unknown_state).unwrap();
            first.maps.record(77, known, None).unwrap();
            drop(first);
            let ids = links();
            let (kernel, _ring) = Kernel::attach(&options(Attach::Auto)).unwrap();
            assert_eq!(hooks(), expected);
            // The same links: at no moment was nothing attached.
            assert_eq!(links(), ids);
            assert_eq!(key(&kernel), known);
            assert_eq!(kernel.maps.state(known), Ok(SHIFTED));
            assert_eq!(kernel.maps.state(unknown), Ok(unknown_state));
            assert_eq!(kernel.maps.hosts(), [2]);
            assert_eq!(fs::read_dir(PIN_DIR).unwrap().count(), 1);
            drop(kernel);
            Kernel::unload(Path::new(PIN_DIR), true).unwrap();
            assert!(!Path::new(PIN_DIR).exists());
        });
    }
}

#[test]
fn an_older_version_whose_daemon_runs_is_not_taken_over() {
    in_a_namespace(|| {
        let running = older(Attach::Tc);
        let ids = links();
        assert!(
            matches!(Kernel::attach(&options(Attach::Auto)), Err(KernelError::Busy { path }) if path.ends_with("v1"))
        );
        assert_eq!(links(), ids);
        drop(running);
        drop(Kernel::attach(&options(Attach::Auto)).unwrap());
        assert_eq!(links(), ids);
    });
}

#[test]
fn a_take_over_that_did_not_come_to_its_end_is_brought_to_it() {
    in_a_namespace(|| {
        let mut first = older(Attach::Tc);
        let dialog = key(&first);
        first.maps.arm(dialog, HOST, SHIFTED).unwrap();
        drop(first);
        let ids = links();
        let pins = Pins::new(Path::new(PIN_DIR));
        {
            // Killed when one link of two was taken over.
            let _lock = pins.prepare().unwrap();
            let mut loader = EbpfLoader::new();
            for (name, ..) in SHAPES {
                loader.map_pin_path(name, pins.map(name));
            }
            let mut ebpf = loader.btf(None).load(OBJECT).unwrap();
            let mut older = Older::find(Path::new(PIN_DIR), &pins).unwrap().unwrap();
            let (mut maps, _ring) =
                maps::set_up(&mut ebpf, [&[Ports::one(5060)], &[]], Some(older.hash_key())).unwrap();
            older.hand_over(&mut maps, &pins).unwrap();
            let one = pins.links().remove(0).path;
            let name = one.file_name().unwrap();
            fs::rename(&one, Path::new(PIN_DIR).join("v1/links").join(name)).unwrap();
        }
        let (kernel, _ring) = Kernel::attach(&options(Attach::Auto)).unwrap();
        assert_eq!((hooks(), links()), (tc().into(), ids));
        assert_eq!(kernel.maps.state(dialog), Ok(SHIFTED));
        assert_eq!(fs::read_dir(PIN_DIR).unwrap().count(), 1);
    });
}

#[test]
fn what_the_server_sent_during_a_take_over_is_not_forgotten() {
    in_a_namespace(|| {
        let mut first = older(Attach::Tc);
        let dialog = key(&first);
        first.maps.arm(dialog, HOST, SHIFTED).unwrap();
        drop(first);
        let (mut kernel, _ring) = Kernel::attach_by(
            Hooks::new(),
            Pins::of(Path::new("/sys/fs/bpf/new"), 2),
            &Options { interfaces: vec!["v1".into()], ..options(Attach::Tc) },
        )
        .unwrap();
        let mut older = Older::find(Path::new(PIN_DIR), &Pins::new(Path::new(PIN_DIR))).unwrap().unwrap();
        older.hand_over(&mut kernel.maps, &Pins::of(Path::new("/sys/fs/bpf/new"), 2)).unwrap();
        older.server_sent(dialog.map, State { number: SHIFTED.number + 1, ..SHIFTED });
        older.retire(&mut kernel.maps, &mut kernel.plans).unwrap();
        assert_eq!(kernel.maps.state(dialog), Ok(State { number: SHIFTED.number + 1, ..SHIFTED }));
    });
}

#[test]
fn an_older_versions_plans_are_taken_over_with_what_was_planned_meanwhile() {
    let ends = ((HOST, 5060).into(), (HOST, 5070).into());
    let (connection, acting) = (Connection::between(ends.0, ends.1), Options { acting: true, ..options(Attach::Tc) });
    let patch = |first| Patch { first, len: 3, ..Patch::default() };
    let plan = |patches: &[Patch]| {
        let mut plan = Plan { flags: bits::NUMBERS, ..Plan::default() };
        plan.patches[1][..patches.len()].copy_from_slice(patches);
        plan.next[1] = patches.len() as u32;
        plan
    };
    let earlier = || {
        let mut first = Kernel::attach_by(Hooks::new(), Pins::of(Path::new(PIN_DIR), 1), &acting).unwrap().0;
        assert!(first.plans.follow(ends));
        first.plans.catch_up(connection, &plan(&[patch(5)])).unwrap();
    };
    in_a_namespace(|| {
        earlier();
        // Whether or not anything new is refreshed over TCP: what was begun goes on.
        let (kernel, _ring) = Kernel::attach(&options(Attach::Tc)).unwrap();
        assert_eq!((kernel.plans.connections(), kernel.plans.acts()), (vec![ends], true));
        assert_eq!(kernel.plans.plan(ends), plan(&[patch(5)]));
    });
    in_a_namespace(|| {
        earlier();
        let mut older = Older::find(Path::new(PIN_DIR), &Pins::new(Path::new(PIN_DIR))).unwrap().unwrap();
        let new = Pins::of(Path::new("/sys/fs/bpf/new"), 2);
        let other = Options { interfaces: vec!["v1".into()], ..options(Attach::Tc) };
        let (mut kernel, _ring) = Kernel::attach_by(Hooks::new(), new, &other).unwrap();
        assert!(kernel.plans.follow(ends));
        kernel.plans.catch_up(connection, &plan(&[patch(5), patch(50)])).unwrap();
        older.plans_for(connection, plan(&[patch(5), patch(9)]));
        older.retire(&mut kernel.maps, &mut kernel.plans).unwrap();
        assert_eq!(kernel.plans.plan(ends), plan(&[patch(5), patch(50), patch(9)]));
    });
}

#[test]
fn a_pinned_map_of_another_shape_is_not_taken_over() {
    in_a_namespace(|| {
        drop(Kernel::attach(&options(Attach::Auto)).unwrap());
        let maps = Path::new(PIN_DIR).join(format!("v{}/maps", st_ebpf::abi::VERSION));
        fs::remove_file(maps.join("TOKENS")).unwrap();
        aya::maps::MapData::from_pin(maps.join("SHIFTS")).unwrap().pin(maps.join("TOKENS")).unwrap();
        let refused = Kernel::attach(&options(Attach::Auto));
        assert!(matches!(refused, Err(KernelError::OtherVersion { path }) if path.ends_with("TOKENS")));
    });
}

#[test]
fn the_bpf_file_system_is_mounted_where_it_is_not() {
    in_a_namespace(|| {
        rustix::mount::unmount("/sys/fs/bpf", rustix::mount::UnmountFlags::DETACH).unwrap();
        while rustix::mount::unmount("/sys/fs/bpf", rustix::mount::UnmountFlags::DETACH).is_ok() {}
        drop(Kernel::attach(&options(Attach::Auto)).unwrap());
        assert_eq!(hooks(), tc());
        let dotted = Options { pin_dir: "/sys/fs/bpf/a.b".into(), ..options(Attach::Auto) };
        assert!(matches!(Kernel::attach(&dotted), Err(KernelError::PinDir { .. })));
        let elsewhere = Options { pin_dir: std::env::temp_dir().join("sipst"), ..options(Attach::Auto) };
        assert!(matches!(Kernel::attach(&elsewhere), Err(KernelError::NoBpffs { .. })));
    });
}

#[test]
fn an_interface_whose_link_somebody_took_away_is_attached_to_again() {
    in_a_namespace(|| {
        let (mut kernel, _ring) = Kernel::attach(&options(Attach::Auto)).unwrap();
        let index = list().unwrap().into_iter().find(|one| one.name == "v0").unwrap().index;
        assert!(kernel.covers(index));
        let links = Path::new(PIN_DIR).join(format!("v{}/links", st_ebpf::abi::VERSION));
        fs::remove_file(links.join("v0-egress")).unwrap();
        let stale = kernel.lookout().look().unwrap();
        assert_eq!(stale.linked, [0_u32; 0], "nothing may be sent there");
        // The kernel takes the program away in its own time.
        assert!(!look(&mut kernel), "what passed there was not seen");
        while !kernel.covers(index) {
            look(&mut kernel);
        }
        assert!(look(&mut kernel));
        let before = programs();
        assert!(kernel.follow(stale), "it tells of what was before");
        assert!(kernel.covers(index));
        assert_eq!((hooks(), programs()), (tc().into(), before));
    });
}

#[test]
fn two_pin_directories_do_not_share_an_interface() {
    in_a_namespace(|| {
        let other = Options { pin_dir: "/sys/fs/bpf/more/other".into(), ..options(Attach::Auto) };
        let (kernel, _ring) = Kernel::attach(&other).unwrap();
        let refused = Kernel::attach(&options(Attach::Auto));
        assert!(matches!(refused, Err(KernelError::Twice { pin_dir, .. }) if pin_dir == other.pin_dir));
        assert!(!Path::new(PIN_DIR).exists(), "nothing half done stays");
        kernel.release().unwrap();
        assert!(Kernel::attach(&options(Attach::Auto)).is_ok());
    });
}

/// As on a kernel without TCX.
fn attach_filters(attach: Attach, pin_dir: &str) -> Result<Kernel, KernelError> {
    let options = Options { pin_dir: pin_dir.into(), ..options(attach) };
    Kernel::attach_by(Hooks::filters(), Pins::new(Path::new(pin_dir)), &options).map(|(kernel, _ring)| kernel)
}

fn tool(args: &[&str]) -> String {
    let output = Command::new("tc").args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn filters(side: &str) -> usize {
    tool(&["filter", "show", "dev", "v0", side]).matches("handle 0x5150").count()
}

fn has_clsact() -> bool {
    tool(&["qdisc", "show", "dev", "v0"]).contains("clsact")
}

#[test]
fn without_tcx_filters_are_used_and_told_of_and_taken_over() {
    in_a_namespace(|| {
        drop(attach_filters(Attach::Tc, PIN_DIR).unwrap());
        assert_eq!((filters("ingress"), filters("egress"), hooks()), (1, 1, tc().into()));
        let before = programs();
        let kernel = attach_filters(Attach::Auto, PIN_DIR).unwrap();
        assert_eq!((filters("ingress"), filters("egress"), hooks()), (1, 1, tc().into()));
        assert!(programs().iter().all(|program| !before.contains(program)), "new programs in the same places");
        assert_eq!(kernel.release().unwrap(), Released::Unloaded);
        assert_eq!((filters("ingress"), filters("egress"), has_clsact()), (0, 0, false));
        assert!(!Path::new(PIN_DIR).exists());
    });
}

#[test]
fn a_filter_goes_when_xdp_takes_its_place_and_comes_back() {
    in_a_namespace(|| {
        drop(attach_filters(Attach::Tc, PIN_DIR).unwrap());
        drop(attach_filters(Attach::Xdp, PIN_DIR).unwrap());
        assert_eq!((filters("ingress"), filters("egress"), hooks()), (0, 1, xdp().into()));
        drop(attach_filters(Attach::Tc, PIN_DIR).unwrap());
        assert_eq!((filters("ingress"), filters("egress"), hooks()), (1, 1, tc().into()));
        Kernel::unload(Path::new(PIN_DIR), false).unwrap();
        assert!(!has_clsact());
    });
}

#[test]
fn a_qdisc_that_others_have_made_or_use_stays() {
    in_a_namespace(|| {
        tool(&["qdisc", "add", "dev", "v0", "clsact"]);
        attach_filters(Attach::Tc, PIN_DIR).unwrap().release().unwrap();
        assert!(has_clsact(), "made by others");
        tool(&["qdisc", "del", "dev", "v0", "clsact"]);
        let kernel = attach_filters(Attach::Tc, PIN_DIR).unwrap();
        tool(&["filter", "add", "dev", "v0", "egress", "pref", "9", "bpf", "bytecode", "1,6 0 0 4294967295,"]);
        kernel.release().unwrap();
        assert!(has_clsact() && tool(&["filter", "show", "dev", "v0", "egress"]).contains("pref 9"), "used by others");
    });
}

#[test]
fn filters_that_somebody_took_away_are_put_back_and_nothing_may_be_sent_until_then() {
    in_a_namespace(|| {
        let mut kernel = attach_filters(Attach::Tc, PIN_DIR).unwrap();
        let index = list().unwrap().into_iter().find(|one| one.name == "v0").unwrap().index;
        assert!(kernel.covers(index));
        tool(&["qdisc", "del", "dev", "v0", "clsact"]);
        let view = kernel.lookout().look().unwrap();
        assert_eq!(view.linked, [0_u32; 0]);
        assert!(!kernel.follow(view));
        assert_eq!((filters("ingress"), filters("egress"), hooks()), (1, 1, tc().into()));
        look(&mut kernel);
        assert!(kernel.covers(index));
        kernel.release().unwrap();
        assert!(!has_clsact());
    });
}

#[test]
fn two_pin_directories_do_not_share_a_filters_place() {
    in_a_namespace(|| {
        let kernel = attach_filters(Attach::Tc, "/sys/fs/bpf/more/other").unwrap();
        let refused = attach_filters(Attach::Tc, PIN_DIR);
        assert!(
            matches!(refused, Err(KernelError::Twice { pin_dir, .. }) if pin_dir == Path::new("/sys/fs/bpf/more/other"))
        );
        assert_eq!((filters("ingress"), filters("egress")), (1, 1));
        kernel.release().unwrap();
        assert!(attach_filters(Attach::Tc, PIN_DIR).is_ok());
    });
}

#[test]
fn entries_of_one_host_are_counted() {
    in_a_namespace(|| {
        let (mut kernel, _ring) = Kernel::attach(&options(Attach::Auto)).unwrap();
        let maps = &mut kernel.maps;
        let (a, b) = (maps.key(b"a", b"t", Side::Server).unwrap(), maps.key(b"b", b"t", Side::Server).unwrap());
        assert_eq!(maps.state(a), Err(Refusal::MapFull));
        maps.arm(a, HOST, SHIFTED).unwrap();
        maps.arm(b, HOST, SHIFTED).unwrap();
        maps.arm(b, HOST, State::default()).unwrap();
        assert_eq!(maps.state(b), Ok(SHIFTED), "an entry that is there stays as it is");
        assert_eq!((maps.hosts(), maps.shifting()), (vec![2], 2));
        maps.disarm(a, Some(HOST)).unwrap();
        maps.disarm(a, Some(HOST)).unwrap();
        assert_eq!((maps.hosts(), maps.shifting()), (vec![1], 1));
        maps.disarm(b, Some(HOST)).unwrap();
        assert_eq!((maps.hosts(), maps.shifting()), (vec![], 0));
    });
}

#[test]
fn a_number_is_asked_for_once_and_what_needs_none_may_come_again() {
    in_a_namespace(|| {
        let (mut kernel, _ring) = Kernel::attach(&options(Attach::Auto)).unwrap();
        let maps = &mut kernel.maps;
        let key = maps.key(b"a", b"t", Side::Server).unwrap();
        assert_eq!(maps.record(1, key, Some(SHIFTED)), Ok(true));
        assert_eq!(maps.record(1, key, Some(SHIFTED)), Err(Refusal::Send));
        assert_eq!(maps.record(1, key, None), Ok(false));
        assert_eq!(maps.record(2, key, None), Ok(true));
        assert!(maps.orphan_others(&HashSet::new()).is_empty());
        assert_eq!(maps.record(1, key, Some(SHIFTED)), Ok(true));
        maps.retire(1);
        maps.retire(1);
        assert_eq!(maps.record(1, key, Some(SHIFTED)), Ok(true));
    });
}

#[test]
fn a_reinvite_whose_2xx_must_be_acked_stays_on_record_with_its_ack() {
    in_a_namespace(|| {
        let (mut kernel, _ring) = Kernel::attach(&options(Attach::Auto)).unwrap();
        let maps = &mut kernel.maps;
        let key = maps.key(b"a", b"t", Side::Server).unwrap();
        let addresses = ["192.0.2.1:5060", "192.0.2.2:5060"].map(|address| address.parse().unwrap());
        let envelope = Envelope { server: addresses[0], peer: addresses[1], tos: 0, ttl: 64 };
        maps.keep(1, key, &ready_ack(&envelope, Side::Server, 2, b"ACK").unwrap()).unwrap();
        assert_eq!(maps.keep(1, key, &ready_ack(&envelope, Side::Server, 3, b"ACK").unwrap()), Err(Refusal::Send));
        assert_eq!(maps.record(3, key, None), Ok(true), "the ACK that was refused is off the record");
        assert_eq!(maps.record(1, key, Some(SHIFTED)), Ok(true));
        assert_eq!(maps.record(4, key, Some(SHIFTED)), Ok(true));
        assert_eq!(maps.orphan_others(&HashSet::new()), [1, 2]);
        let known = [1, 2, 3, 4].map(|token| maps.record(token, key, None).unwrap());
        assert_eq!(known, [false, false, true, true], "what needs no ACK is off the record");
        maps.retire(1);
        assert_eq!(maps.orphan_others(&HashSet::new()), [0_u64; 0]);
    });
}

#[test]
fn what_has_left_is_told_with_its_number_and_its_ack_and_what_a_daemon_knows_stays_its_own() {
    in_a_namespace(|| {
        let (mut kernel, _ring) = Kernel::attach(&options(Attach::Auto)).unwrap();
        let maps = &mut kernel.maps;
        let (key, first) = (maps.key(b"a", b"t", Side::Server).unwrap(), maps.key(b"b", b"t", Side::Server).unwrap());
        let addresses = ["[2001:db8::1]:5060", "[2001:db8::2]:5070"].map(|address| address.parse().unwrap());
        let envelope = Envelope { server: addresses[0], peer: addresses[1], tos: 0, ttl: 64 };
        maps.keep(1, key, &ready_ack(&envelope, Side::Server, 2, b"ACK it").unwrap()).unwrap();
        maps.record(1, key, Some(SHIFTED)).unwrap();
        maps.record(3, first, Some(State::default())).unwrap();
        maps.record(4, key, None).unwrap();
        assert_eq!(maps.requests(), [], "none has left");
        maps.commit(1);
        maps.commit(3);
        let reinvite = Some((addresses[1], ReadyAck { token: 2, bytes: b"ACK it".to_vec() }));
        let left = OnRecord { token: 1, dialog: key, number: SHIFTED.next_injected(), reinvite };
        assert_eq!(
            maps.requests(),
            std::slice::from_ref(&left),
            "of one in a dialog without an entry that cannot be told"
        );
        maps.arm(first, addresses[0].ip(), State { known: false, number: 1, delta: 0 }).unwrap();
        assert_eq!(maps.requests(), [left, OnRecord { token: 3, dialog: first, number: 1, reinvite: None }]);

        assert_eq!(maps.orphan_others(&HashSet::from([3])), [1, 2]);
        assert!(maps.is_orphan(1));
        assert_eq!(maps.orphan_others(&HashSet::from([1, 2])), [0_u64; 0]);
        assert!(!maps.is_orphan(1), "whoever knows it sends its ACK");
        assert_eq!(maps.requests().len(), 1);
    });
}

#[test]
fn what_is_pinned_can_be_looked_at() {
    in_a_namespace(|| {
        assert!(matches!(Kernel::open_pinned(Path::new(PIN_DIR)), Err(KernelError::NotLoaded { .. })));
        let (kernel, _ring) = Kernel::attach(&options(Attach::Auto)).unwrap();
        let maps = Kernel::open_pinned(Path::new(PIN_DIR)).unwrap();
        assert_eq!(maps.key(b"call", b"tag", Side::Server), Ok(key(&kernel)));
        assert_eq!(maps.counter(st_ebpf::abi::Counter::Sampled).unwrap(), 0);
    });
}

#[test]
fn the_missing_capabilities_are_named() {
    let net = CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW;
    assert_eq!(missing(CapabilitySet::empty(), net), ["CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN", "CAP_NET_RAW"]);
    assert_eq!(missing(CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN, net), ["CAP_NET_RAW"]);
    assert!(missing(net | CapabilitySet::BPF | CapabilitySet::PERFMON, net).is_empty());
}

#[test]
fn an_unknown_interface_is_told_with_those_that_there_are() {
    let all = list().unwrap();
    let error = choose(&all, Some(&["no-such-one".into()])).unwrap_err().to_string();
    assert!(error.contains("no-such-one does not exist: there are") && error.contains("lo"), "{error}");
    assert_eq!(choose(&all, Some(&["lo".into()])).unwrap().interfaces.len(), 1);
    assert!(matches!(choose(&all, Some(&[])), Err(KernelError::NoInterfaces)));
}

/// Does it on a thread that has only these capabilities left.
pub(super) fn with_only<T: Send>(keep: CapabilitySet, act: impl FnOnce() -> T + Send) -> T {
    let run = || {
        keep_only(keep).unwrap();
        act()
    };
    std::thread::scope(|scope| scope.spawn(run).join().unwrap())
}

/// An interface is deleted and made anew under the daemon's eyes, which has only these capabilities left; then it ends.
/// Whether it was attached to again, and whether nothing was left.
fn comes_back_with(keep: CapabilitySet, hooks: fn() -> Hooks, attach: Attach) -> (bool, bool) {
    let mut outcome = None;
    in_a_namespace(|| {
        let (mut kernel, ring) = Kernel::attach_by(hooks(), Pins::new(Path::new(PIN_DIR)), &options(attach)).unwrap();
        let mut follow = || {
            let lookout = kernel.lookout();
            let view = with_only(CapabilitySet::empty(), || lookout.look().unwrap());
            with_only(keep, || kernel.follow(view));
        };
        ip("link del v0");
        follow();
        ip("link add v0 type veth peer name v1");
        ip("link set v0 up");
        follow();
        let index = list().unwrap().into_iter().find(|one| one.name == "v0").unwrap().index;
        let attached = kernel.covers(index);
        drop(ring);
        let released = with_only(keep, || kernel.release()).is_ok();
        let filters = Command::new("tc").args(["filter", "show", "dev", "v0", "egress"]).output().unwrap();
        let clean = released && !Path::new(PIN_DIR).exists() && filters.stdout.is_empty();
        outcome = Some((attached, clean));
    });
    outcome.unwrap()
}

#[test]
fn with_what_a_running_daemon_keeps_an_interface_that_comes_back_is_attached_to_and_nothing_stays_in_the_end() {
    for attach in [Attach::Auto, Attach::Tc, Attach::Xdp] {
        assert_eq!(comes_back_with(running(false), Hooks::new, attach), (true, true), "{attach:?}");
    }
    assert_eq!(comes_back_with(running(true), Hooks::filters, Attach::Tc), (true, true));
    assert!(!comes_back_with(running(false), Hooks::filters, Attach::Tc).0, "what is kept for filters is needed");
}
