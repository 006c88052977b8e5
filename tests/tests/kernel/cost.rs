//! What the programs cost the verifier.

use aya::programs::{SchedClassifier, Xdp};
use st_ebpf::abi::names;

use crate::tester::Tester;

/// Of the 1,000,000 instructions that a verifier looks at (`BPF_COMPLEXITY_LIMIT_INSNS`, since Linux 5.2): other kernels count
/// otherwise, up to half as much again.
const MOST: u32 = 500_000;

#[test]
fn every_program_leaves_the_verifier_of_another_kernel_room() {
    let mut ebpf = Tester::new().into_ebpf();
    for name in [names::INGRESS_XDP, names::INGRESS_TC, names::EGRESS] {
        let program = ebpf.program_mut(name).unwrap();
        let info = match <&mut SchedClassifier>::try_from(&mut *program) {
            Ok(program) => program.info(),
            Err(_) => <&mut Xdp>::try_from(program).unwrap().info(),
        };
        let looked_at = info.unwrap().verified_instruction_count().expect("Linux 5.16 or later");
        println!("{name}: {looked_at}");
        assert!(looked_at < MOST, "{name}: {looked_at}");
    }
}
