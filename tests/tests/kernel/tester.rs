//! Loads the programs with maps of their own and runs packets through them.

use std::{
    net::{IpAddr, SocketAddr},
    ops::{Deref, DerefMut},
    os::fd::{AsFd as _, BorrowedFd},
    path::Path,
    sync::Mutex,
    thread,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{
        Array, HashMap, MapData, MapError, PerCpuArray, ProgramArray, RingBuf,
        lpm_trie::{Key, LpmTrie},
    },
    programs::{SchedClassifier, TestRun as _, TestRunOptions, Xdp},
};
use st_ebpf::{
    abi::{
        self, Ack, Counter, Early, Flow, Follow, Fragmented, Hold, Latest, Ports, SampleHeader, Seen, Settings, Shift,
        Token, mapped, names,
    },
    cseq::State,
    key::{DialogKey, Whose},
    plan::{Connection, Plan},
};

pub(crate) const HASH_KEY: [u64; 2] = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];

pub(crate) const SERVER: &str = "192.0.2.1:5060";
pub(crate) const PEER: &str = "198.51.100.7:5070";
pub(crate) const SERVER_V6: &str = "[2001:db8::1]:5060";
pub(crate) const PEER_V6: &str = "[2001:db8:1::7]:5070";

/// Size of `__sk_buff` (linux/bpf.h), and where two of its fields stand.
const SK_BUFF: usize = 192;
const GSO_SEGS: usize = 164;
const GSO_SIZE: usize = 176;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    IngressXdp,
    IngressTc,
    Egress,
}

/// Both forms of the ingress program.
pub(crate) const INGRESS: [Program; 2] = [Program::IngressXdp, Program::IngressTc];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Pass,
    Take,
    Back,
}

#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) header: SampleHeader,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) struct Run {
    pub(crate) verdict: Verdict,
    pub(crate) out: Vec<u8>,
    pub(crate) records: Vec<Record>,
}

pub(crate) struct Tester {
    ebpf: Ebpf,
    /// What the counters said at the last [`Tester::reset`].
    before: Vec<u64>,
    /// Ports that [`Tester::mark`] has marked since.
    marked: Vec<u16>,
    /// The programs that write into connections, where they are called.
    acting: Option<ProgramArray<MapData>>,
}

/// A tester for one test, which leaves it to the next: the verifier takes half a second for the programs.
pub(crate) struct Lent {
    tester: Option<Tester>,
    back_to: &'static Mutex<Vec<Tester>>,
}

impl Lent {
    fn from(shelf: &'static Mutex<Vec<Tester>>, set: &[&'static str]) -> Self {
        let left = shelf.lock().unwrap().pop();
        let tester = left.map(Tester::emptied).unwrap_or_else(|| Tester::with(set));
        Self { tester: Some(tester), back_to: shelf }
    }

    /// The programs and maps themselves; they are left to nobody.
    pub(crate) fn into_ebpf(mut self) -> Ebpf {
        self.tester.take().unwrap().ebpf
    }
}

impl Deref for Lent {
    type Target = Tester;

    fn deref(&self) -> &Tester {
        self.tester.as_ref().unwrap()
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Tester {
        self.tester.as_mut().unwrap()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // What a test left that failed is not looked into.
        if let Some(tester) = self.tester.take().filter(|_| !thread::panicking()) {
            self.back_to.lock().unwrap().push(tester);
        }
    }
}

impl Tester {
    /// Programs and maps without a trace of other tests; port 5060 carries SIP, and what port 5061 carries cannot be read.
    #[allow(clippy::new_ret_no_self, reason = "it is lent")]
    pub(crate) fn new() -> Lent {
        static SHELF: Mutex<Vec<Tester>> = Mutex::new(vec![]);
        Lent::from(&SHELF, &[])
    }

    /// The same for a daemon that keeps a flight recorder.
    pub(crate) fn recording() -> Lent {
        static SHELF: Mutex<Vec<Tester>> = Mutex::new(vec![]);
        Lent::from(&SHELF, &[names::RECORDING])
    }

    /// The same that look at UDP of any port.
    pub(crate) fn any_port() -> Lent {
        static SHELF: Mutex<Vec<Tester>> = Mutex::new(vec![]);
        Lent::from(&SHELF, &[names::ANY_PORT])
    }

    /// The same for a daemon that acts over TCP: the programs that write into connections are called.
    pub(crate) fn acting() -> Lent {
        static SHELF: Mutex<Vec<Tester>> = Mutex::new(vec![]);
        let mut tester = Lent::from(&SHELF, &[]);
        if tester.acting.is_none() {
            let mut acting: ProgramArray<MapData> = tester.ebpf.take_map(names::ACTING).unwrap().try_into().unwrap();
            for (index, name) in (0..).zip([names::STREAM_INGRESS, names::STREAM_EGRESS]) {
                let program: &mut SchedClassifier = tester.ebpf.program_mut(name).unwrap().try_into().unwrap();
                program.load().unwrap_or_else(|error| panic!("{name}: {error}"));
                acting.set(index, program.fd().unwrap(), 0).unwrap();
            }
            tester.acting = Some(acting);
        }
        tester
    }

    fn emptied(mut self) -> Self {
        self.reset();
        self
    }

    fn with(set: &[&'static str]) -> Self {
        let object = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/st-ebpf");
        let object = std::fs::read(&object)
            .unwrap_or_else(|error| panic!("{}: {error}: run `cargo xtask build` first", object.display()));
        let mut loader = EbpfLoader::new();
        for name in set {
            loader.override_global(name, &1_u8, true);
        }
        let mut ebpf = loader.load(&object).expect("the object loads");
        for (name, ports) in [(names::PORTS, &[5060, 5061][..]), (names::OPAQUE_PORTS, &[5061])] {
            let mut table: Array<&mut MapData, Ports> = ebpf.map_mut(name).unwrap().try_into().unwrap();
            let mut words = [0; 1024];
            for port in ports {
                words[port / 64] |= 1 << (port % 64);
            }
            table.set(0, Ports { words }, 0).unwrap();
        }
        let mut settings: Array<&mut MapData, Settings> = ebpf.map_mut(names::SETTINGS).unwrap().try_into().unwrap();
        settings.set(0, Settings { hash_key: HASH_KEY, ..Settings::default() }, 0).unwrap();
        for name in [names::INGRESS_TC, names::EGRESS] {
            let program: &mut SchedClassifier = ebpf.program_mut(name).unwrap().try_into().unwrap();
            program.load().unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        let program: &mut Xdp = ebpf.program_mut(names::INGRESS_XDP).unwrap().try_into().unwrap();
        program.load().unwrap();
        for (index, name) in (0..).zip([names::JOINED_INGRESS, names::JOINED_EGRESS]) {
            let program: &mut SchedClassifier = ebpf.program_mut(name).unwrap().try_into().unwrap();
            program.load().unwrap_or_else(|error| panic!("{name}: {error}"));
            let program = program.fd().unwrap().try_clone().unwrap();
            let mut joined: ProgramArray<&mut MapData> = ebpf.map_mut(names::JOINED).unwrap().try_into().unwrap();
            joined.set(index, &program, 0).unwrap();
        }
        Self { ebpf, before: vec![0; Counter::ALL.len()], marked: vec![], acting: None }
    }

    /// The file descriptor of a program.
    #[allow(dead_code, reason = "the bench runs programs by themselves")]
    pub(crate) fn fd(&self, program: Program) -> BorrowedFd<'_> {
        let tc = |name| -> &SchedClassifier { self.ebpf.program(name).unwrap().try_into().unwrap() };
        match program {
            Program::IngressXdp => {
                let program: &Xdp = self.ebpf.program(names::INGRESS_XDP).unwrap().try_into().unwrap();
                program.fd().unwrap().as_fd()
            }
            Program::IngressTc => tc(names::INGRESS_TC).fd().unwrap().as_fd(),
            Program::Egress => tc(names::EGRESS).fd().unwrap().as_fd(),
        }
    }

    /// Runs a packet through a program and takes out what stands in the ring.
    pub(crate) fn run(&mut self, program: Program, frame: &[u8]) -> Run {
        let (verdict, out) = self.run_keeping(program, frame);
        Run { verdict, out, records: self.drain() }
    }

    /// Runs a packet that stands for several, each of which carries `size` bytes, and takes out what stands in the ring.
    pub(crate) fn run_joined(&mut self, program: Program, frame: &[u8], size: usize) -> Run {
        let (verdict, out) = self.run_as(program, frame, size);
        Run { verdict, out, records: self.drain() }
    }

    /// Runs a packet through a program and leaves the ring alone.
    pub(crate) fn run_keeping(&mut self, program: Program, frame: &[u8]) -> (Verdict, Vec<u8>) {
        self.run_as(program, frame, 0)
    }

    fn run_as(&mut self, program: Program, frame: &[u8], size: usize) -> (Verdict, Vec<u8>) {
        let mut out = vec![0; frame.len() + 2048];
        let mut context = [0; SK_BUFF];
        context[GSO_SEGS..][..4].copy_from_slice(&u32::from(size > 0).to_ne_bytes());
        context[GSO_SIZE..][..4].copy_from_slice(&u32::try_from(size).unwrap().to_ne_bytes());
        let ctx_in = (size > 0).then_some(&context[..]);
        let options =
            TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ctx_in, ..TestRunOptions::new() };
        let (result, pass, take, back) = match program {
            Program::IngressXdp => {
                let program: &Xdp = self.ebpf.program(names::INGRESS_XDP).unwrap().try_into().unwrap();
                (program.test_run(options).unwrap(), 2, 1, 3)
            }
            Program::IngressTc => {
                let program: &SchedClassifier = self.ebpf.program(names::INGRESS_TC).unwrap().try_into().unwrap();
                (program.test_run(options).unwrap(), u32::MAX, 2, 7)
            }
            Program::Egress => {
                let program: &SchedClassifier = self.ebpf.program(names::EGRESS).unwrap().try_into().unwrap();
                (program.test_run(options).unwrap(), u32::MAX, 2, 7)
            }
        };
        out.truncate(result.data_size_out as usize);
        let verdict = match result.return_value {
            value if value == pass => Verdict::Pass,
            value if value == take => Verdict::Take,
            value if value == back => Verdict::Back,
            value => panic!("verdict {value}"),
        };
        (verdict, out)
    }

    /// What stands in the ring.
    pub(crate) fn drain(&mut self) -> Vec<Record> {
        let mut ring: RingBuf<&mut MapData> = self.ebpf.map_mut(names::RING).unwrap().try_into().unwrap();
        let mut records = vec![];
        while let Some(item) = ring.next() {
            let (header, bytes) = item.split_at(size_of::<SampleHeader>());
            // SAFETY: `repr(C)`, integers only, and as many bytes as it has.
            let header: SampleHeader = unsafe { std::ptr::read_unaligned(header.as_ptr().cast()) };
            assert_eq!(bytes.len(), header.captured_len as usize);
            records.push(Record { header, bytes: bytes.to_vec() });
        }
        records
    }

    /// Empties maps and ring and counts from 0 again: as good as fresh programs, and much quicker. Whatever a test can write
    /// into a map has its line here.
    pub(crate) fn reset(&mut self) -> &mut Self {
        self.drain();
        let mut shifts = self.shifts();
        for key in shifts.keys().collect::<Result<Vec<_>, _>>().unwrap() {
            shifts.remove(&key).unwrap();
        }
        let mut shifted = self.shifted();
        for key in shifted.keys().collect::<Result<Vec<_>, _>>().unwrap() {
            shifted.remove(&key).unwrap();
        }
        let mut latest = self.latests();
        for key in latest.keys().collect::<Result<Vec<_>, _>>().unwrap() {
            latest.remove(&key).unwrap();
        }
        let mut tokens = self.tokens();
        for key in tokens.keys().collect::<Result<Vec<_>, _>>().unwrap() {
            tokens.remove(&key).unwrap();
        }
        let mut acks = self.acks();
        for key in acks.keys().collect::<Result<Vec<_>, _>>().unwrap() {
            acks.remove(&key).unwrap();
        }
        self.beat(0);
        self.acks_until(0);
        let mut marks = self.marks();
        for key in marks.keys().collect::<Result<Vec<_>, _>>().unwrap() {
            marks.remove(&key).unwrap();
        }
        let mut flows = self.flows();
        for flow in flows.keys().collect::<Result<Vec<_>, _>>().unwrap() {
            flows.remove(&flow).unwrap();
        }
        let mut fragments = self.fragments();
        for datagram in fragments.keys().collect::<Result<Vec<_>, _>>().unwrap() {
            fragments.remove(&datagram).unwrap();
        }
        self.early(0, 0);
        let mut plans = self.plans();
        for connection in plans.keys().collect::<Result<Vec<_>, _>>().unwrap() {
            plans.remove(&connection).unwrap();
        }
        let mut assisted = self.assisted();
        for network in assisted.keys().collect::<Result<Vec<_>, _>>().unwrap() {
            assisted.remove(&network).unwrap();
        }
        for port in std::mem::take(&mut self.marked) {
            self.mark(port, false);
        }
        self.before = Counter::ALL.iter().map(|counter| self.raw_counter(*counter)).collect();
        self
    }

    fn raw_counter(&self, counter: Counter) -> u64 {
        let counters: PerCpuArray<&MapData, u64> = self.ebpf.map(names::COUNTERS).unwrap().try_into().unwrap();
        counters.get(&(counter as u32), 0).unwrap().iter().sum()
    }

    /// How often since the last reset.
    pub(crate) fn counter(&self, counter: Counter) -> u64 {
        self.raw_counter(counter) - self.before[counter as usize]
    }

    /// All counters that are not 0.
    pub(crate) fn counters(&self) -> Vec<(Counter, u64)> {
        Counter::ALL.iter().map(|counter| (*counter, self.counter(*counter))).filter(|(_, value)| *value > 0).collect()
    }

    fn shifts(&mut self) -> HashMap<&mut MapData, u64, Shift> {
        self.ebpf.map_mut(names::SHIFTS).unwrap().try_into().unwrap()
    }

    fn shifted(&mut self) -> HashMap<&mut MapData, [u8; 16], u64> {
        self.ebpf.map_mut(names::SHIFTED).unwrap().try_into().unwrap()
    }

    fn latests(&mut self) -> HashMap<&mut MapData, u64, Latest> {
        self.ebpf.map_mut(names::LATEST).unwrap().try_into().unwrap()
    }

    /// The last number of the server's in a dialog, where it is kept.
    pub(crate) fn latest(&mut self, key: DialogKey) -> Option<u64> {
        self.latests().get(&key.map, 0).ok().filter(|latest| latest.check == key.check).map(|latest| latest.number)
    }

    /// Writes what is kept at that place of the map.
    pub(crate) fn note(&mut self, key: u64, latest: Latest) {
        self.latests().insert(key, latest, 0).unwrap();
    }

    fn tokens(&mut self) -> HashMap<&mut MapData, u64, Token> {
        self.ebpf.map_mut(names::TOKENS).unwrap().try_into().unwrap()
    }

    fn acks(&mut self) -> HashMap<&mut MapData, u64, Ack> {
        self.ebpf.map_mut(names::ACKS).unwrap().try_into().unwrap()
    }

    fn flows(&mut self) -> HashMap<&mut MapData, Flow, Seen> {
        self.ebpf.map_mut(names::FLOWS).unwrap().try_into().unwrap()
    }

    fn marks(&mut self) -> HashMap<&mut MapData, u64, Hold> {
        self.ebpf.map_mut(names::HOLDS).unwrap().try_into().unwrap()
    }

    fn fragments(&mut self) -> HashMap<&mut MapData, Fragmented, Follow> {
        self.ebpf.map_mut(names::FRAGMENTS).unwrap().try_into().unwrap()
    }

    fn plans(&mut self) -> HashMap<&mut MapData, Connection, Plan> {
        self.ebpf.map_mut(names::PLANS).unwrap().try_into().unwrap()
    }

    /// Makes a connection's entry, as the daemon does.
    pub(crate) fn follow(&mut self, server: &str, peer: &str, flags: u32) {
        let plan = Plan { flags, ..Plan::default() };
        self.plans().insert(connection(server, peer), plan, 0).unwrap();
    }

    pub(crate) fn plan(&mut self, server: &str, peer: &str) -> Plan {
        self.plans().get(&connection(server, peer), 0).unwrap()
    }

    /// Has so many fragments come before their first in a period, on each CPU.
    pub(crate) fn early(&mut self, period: u64, count: u64) {
        let mut early: PerCpuArray<&mut MapData, Early> = self.ebpf.map_mut(names::EARLY).unwrap().try_into().unwrap();
        let all = vec![Early { period, count }; early.get(&0, 0).unwrap().len()];
        early.set(0, all.try_into().unwrap(), 0).unwrap();
    }

    /// Has all first fragments been so much longer ago.
    pub(crate) fn age_fragments(&mut self, by_ns: u64) {
        let mut fragments = self.fragments();
        for datagram in fragments.keys().collect::<Result<Vec<_>, _>>().unwrap() {
            let follow = fragments.get(&datagram, 0).unwrap();
            fragments.insert(datagram, Follow { time_ns: follow.time_ns.saturating_sub(by_ns), ..follow }, 0).unwrap();
        }
    }

    fn assisted(&mut self) -> LpmTrie<&mut MapData, [u8; 16], u32> {
        self.ebpf.map_mut(names::ASSISTED).unwrap().try_into().unwrap()
    }

    /// Says whether INVITEs from and to the peers of a network are changed.
    pub(crate) fn assist(&mut self, network: &str, on: bool) {
        let (address, bits) = network.split_once('/').unwrap();
        let (address, bits): (IpAddr, u32) = (address.parse().unwrap(), bits.parse().unwrap());
        let bits = if address.is_ipv4() { bits + 96 } else { bits };
        self.assisted().insert(&Key::new(bits, mapped(address)), u32::from(on), 0).unwrap();
    }

    /// Marks a dialog.
    pub(crate) fn hold(&mut self, key: u64, mark: Hold) {
        self.marks().insert(key, mark, 0).unwrap();
    }

    /// Says until when ACKs are told apart, in nanoseconds of `CLOCK_MONOTONIC`.
    pub(crate) fn acks_until(&mut self, time_ns: u64) {
        let mut until: Array<&mut MapData, u64> = self.ebpf.map_mut(names::HELD_ACKS).unwrap().try_into().unwrap();
        until.set(0, time_ns, 0).unwrap();
    }

    /// Watches a media flow, as the daemon does.
    pub(crate) fn watch(&mut self, flow: &str) {
        self.try_watch(flow).unwrap();
        self.mark(flow.parse::<SocketAddr>().unwrap().port(), true);
    }

    /// The same, if there is room in the map; its port is not marked.
    pub(crate) fn try_watch(&mut self, flow: &str) -> Result<(), MapError> {
        self.flows().insert(key(flow), Seen::default(), 0)
    }

    /// Says that there are flows on a port, or none.
    pub(crate) fn mark(&mut self, port: u16, on: bool) {
        if on {
            self.marked.push(port);
        }
        let mut ports: Array<&mut MapData, Ports> = self.ebpf.map_mut(names::FLOW_PORTS).unwrap().try_into().unwrap();
        let mut marked = ports.get(&0, 0).unwrap();
        let (word, bit) = (&mut marked.words[usize::from(port / 64)], 1 << (port % 64));
        *word = if on { *word | bit } else { *word & !bit };
        ports.set(0, marked, 0).unwrap();
    }

    /// Fills the map of flows to its limit.
    pub(crate) fn fill_flows(&mut self) {
        let mut flows = self.flows();
        let address = |number: u32| {
            let mut address = [9; 16];
            address[..4].copy_from_slice(&number.to_be_bytes());
            Flow { address, ..Flow::default() }
        };
        let mut number: u32 = 0;
        while flows.insert(address(number), Seen::default(), 0).is_ok() {
            number += 1;
        }
        assert_eq!(number + 1, abi::FLOWS, "one was there before");
    }

    /// When a flow was last seen leaving; 0 for never, `None` where it is not watched.
    pub(crate) fn left(&mut self, flow: &str) -> Option<u64> {
        self.flows().get(&key(flow), 0).ok().map(|seen| seen.left_ns)
    }

    /// The same of what came in for it.
    pub(crate) fn came(&mut self, flow: &str) -> Option<u64> {
        self.flows().get(&key(flow), 0).ok().map(|seen| seen.came_ns)
    }

    /// Keeps an ACK ready.
    pub(crate) fn keep(&mut self, token: u64, ack: Ack) {
        self.acks().insert(token, ack, 0).unwrap();
    }

    /// A sign of life of the daemon's, at this time of `CLOCK_MONOTONIC`.
    pub(crate) fn beat(&mut self, time_ns: u64) {
        let mut heartbeat: Array<&mut MapData, u64> = self.ebpf.map_mut(names::HEARTBEAT).unwrap().try_into().unwrap();
        heartbeat.set(0, time_ns, 0).unwrap();
    }

    /// Makes the entry of the server's numbers in a dialog, as the daemon does.
    pub(crate) fn arm(&mut self, server: &str, call_id: &str, tag: &str, shift: Shift) -> DialogKey {
        self.arm_of(Whose::Server, server, call_id, tag, shift)
    }

    /// The same of one side's numbers.
    pub(crate) fn arm_of(&mut self, whose: Whose, server: &str, call_id: &str, tag: &str, shift: Shift) -> DialogKey {
        let key = DialogKey::of(HASH_KEY, call_id.as_bytes(), tag.as_bytes(), whose).unwrap();
        self.shifted().insert(mapped(server.parse::<SocketAddr>().unwrap().ip()), 1, 0).unwrap();
        self.shifts().insert(key.map, Shift { check: key.check, ..shift }, 0).unwrap();
        key
    }

    /// Makes the entry of another dialog whose key meets that one's in the map.
    pub(crate) fn collide(&mut self, server: &str, call_id: &str, tag: &str, shift: Shift) -> DialogKey {
        let key = self.arm(server, call_id, tag, shift);
        self.shifts().insert(key.map, Shift { check: !key.check, ..shift }, 0).unwrap();
        key
    }

    pub(crate) fn shift(&mut self, key: DialogKey) -> Shift {
        self.shifts().get(&key.map, 0).unwrap()
    }

    pub(crate) fn state(&mut self, key: DialogKey) -> State {
        State::from_word(self.shift(key).word)
    }

    /// Puts a request of sipst's on record.
    pub(crate) fn record(&mut self, token: u64, key: DialogKey, expected: State, committed: bool) {
        let entry =
            Token { dialog: key.map, check: key.check, expected: expected.to_word(), committed: committed.into() };
        self.tokens().insert(token, entry, 0).unwrap();
    }
}

fn connection(server: &str, peer: &str) -> Connection {
    Connection::between(server.parse().unwrap(), peer.parse().unwrap())
}

fn key(flow: &str) -> Flow {
    let flow: SocketAddr = flow.parse().unwrap();
    Flow { address: mapped(flow.ip()), port: flow.port().to_be_bytes(), reserved: [0; 6] }
}

/// A request of the server's inside a dialog; `cseq` is all between the colon and the line's end.
pub(crate) fn request(method: &str, cseq: &str) -> String {
    format!(
        "{method} sip:peer@198.51.100.7 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK77\r\nMax-Forwards: 70\r\n\
         From: <sip:server@192.0.2.1>;tag=srv\r\nTo: <sip:peer@198.51.100.7>;tag=peer\r\nCall-ID: call-1@host\r\n\
         CSeq:{cseq}\r\nContent-Length: 0\r\n\r\n"
    )
}

/// A response of the peer's to it.
pub(crate) fn response(status: &str, branch: &str, cseq: &str) -> String {
    format!(
        "SIP/2.0 {status}\r\nVia: SIP/2.0/UDP 192.0.2.1;branch={branch};received=192.0.2.1\r\n\
         From: <sip:server@192.0.2.1>;tag=srv\r\nTo: <sip:peer@198.51.100.7>;tag=peer\r\nCall-ID: call-1@host\r\n\
         CSeq:{cseq}\r\nContent-Length: 0\r\n\r\n"
    )
}
