//! What the programs cost the verifier.

use aya::{
    Ebpf,
    maps::Map,
    programs::{SchedClassifier, Xdp},
};
use st_ebpf::abi::names;

use crate::tester::Tester;

/// A tenth of what a verifier looks at (`BPF_COMPLEXITY_LIMIT_INSNS`, since Linux 5.2, is 1,000,000); other kernels count otherwise, up to
/// half as much again. Each start waits for it, some two milliseconds for a thousand.
const MOST: u32 = 100_000;

#[test]
fn every_program_leaves_the_verifier_of_another_kernel_room() {
    let own = [names::INGRESS_XDP, names::INGRESS_TC, names::EGRESS, names::JOINED_INGRESS, names::JOINED_EGRESS];
    for (what, tester) in [("", Tester::new()), (", any port", Tester::any_port())] {
        looked_at(what, tester.into_ebpf(), &own);
    }
    looked_at("", Tester::acting().into_ebpf(), &[names::STREAM_INGRESS, names::STREAM_EGRESS]);
}

fn looked_at(what: &str, mut ebpf: Ebpf, programs: &[&str]) {
    for name in programs {
        let program = ebpf.program_mut(name).unwrap();
        let info = match <&mut SchedClassifier>::try_from(&mut *program) {
            Ok(program) => program.info(),
            Err(_) => <&mut Xdp>::try_from(program).unwrap().info(),
        };
        let looked_at = info.unwrap().verified_instruction_count().expect("Linux 5.16 or later");
        println!("{name}{what}: {looked_at}");
        assert!(looked_at < MOST, "{name}{what}: {looked_at}");
    }
}

/// What docs/attaching.md says of each CPU.
const MOST_A_CPU: u32 = 36 * 1024;

#[test]
fn a_cpu_takes_no_more_memory_than_the_document_says() {
    let ebpf = Tester::new().into_ebpf();
    let per_cpu =
        ebpf.maps().filter_map(
            |(name, map)| {
                if let Map::PerCpuArray(map) = map { Some((name, map.info().unwrap())) } else { None }
            },
        );
    let sizes: Vec<(&str, u32)> =
        per_cpu.map(|(name, info)| (name, info.value_size().next_multiple_of(8) * info.max_entries())).collect();
    assert_eq!(sizes.len(), 3, "{sizes:?}");
    let sum: u32 = sizes.iter().map(|(_, size)| size).sum();
    println!("{sizes:?}: {sum}");
    assert!(sum <= MOST_A_CPU, "{sizes:?}");
}
