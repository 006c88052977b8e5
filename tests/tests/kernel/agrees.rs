//! The programs on random messages against the mapping as pure functions (`st_ebpf::cseq`): the number stands where it has to stand,
//! in its old width or in one that is four bytes more, all other bytes are the same, and the checksum is right.
//!
//! `SHIFT_CASES` is how many messages to send each way, `SHIFT_SEED` where to begin; both are printed.

use std::cell::RefCell;

use proptest::{
    prelude::*,
    test_runner::{RngSeed, TestError, TestRunner},
};
use st_ebpf::{
    abi::{Counter, Shift},
    cseq::{BLANKS, Close, MAX_NUMBER, RANGES, Range, State, close, from_wire, to_wire},
};

use crate::{
    frame::Frame,
    tester::{INGRESS, PEER, PEER_V6, Program, SERVER, SERVER_V6, Tester, Verdict},
};

/// Messages of the run that is part of every test.
const CASES: u32 = 1_500;
/// Blanks before a number that are looked at.
const MAX_SPACES: usize = 10;
/// The longest request that is lengthened.
const LONGEST: usize = 2_048;

/// Runs a test on so many values; `often`: what the programs have to count at least once in a hundred.
pub(crate) fn run<S: Strategy>(
    strategy: &S,
    often: &[Counter],
    test: impl Fn(&mut Tester, S::Value) -> Result<(), TestCaseError>,
) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u32>().expect("a number"));
    let cases = number("SHIFT_CASES").unwrap_or(CASES);
    let seed = number("SHIFT_SEED").unwrap_or(1);
    println!("SHIFT_SEED={seed} SHIFT_CASES={cases}");
    let config = ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(seed.into()),
        failure_persistence: None,
        max_shrink_time: 10_000,
        ..ProptestConfig::default()
    };
    let tester = RefCell::new((Tester::new(), vec![0; often.len()]));
    let result = TestRunner::new(config).run(strategy, |value| {
        let (tester, counted) = &mut *tester.borrow_mut();
        tester.reset();
        test(tester, value)?;
        counted.iter_mut().zip(often).for_each(|(total, counter)| *total += tester.counter(*counter));
        Ok(())
    });
    match result {
        Ok(()) => {}
        Err(TestError::Fail(reason, value)) => panic!("SHIFT_SEED={seed}: {reason}\n{value:#?}"),
        Err(TestError::Abort(reason)) => panic!("SHIFT_SEED={seed}: {reason}"),
    }
    let (_, counted) = tester.into_inner();
    println!("{often:?} {counted:?}");
    assert!(counted.iter().all(|total| *total >= u64::from(cases) / 100), "too seldom: {often:?} {counted:?}");
}

/// A dialog's numbers as requests of the server's and of sipst's have made them.
#[derive(Clone, Copy, Debug)]
struct Numbers {
    state: State,
    ranges: [Range; RANGES],
}

impl Numbers {
    fn shift(&self) -> Shift {
        Shift { word: self.state.to_word(), ranges: self.ranges, ..Shift::default() }
    }

    /// What a request of the server's with this number makes of them.
    fn after(mut self, raises: bool, number: u32) -> Self {
        if raises {
            self.state = self.state.after_server(number);
        }
        self
    }

    fn wire(self, number: u32) -> u32 {
        to_wire(&self.ranges, self.state.delta, number)
    }

    fn own(self, wire: u32) -> Option<u32> {
        from_wire(&self.ranges, self.state.delta, wire)
    }
}

/// Numbers, and one that the server writes next: one of before, the next, one far off.
fn numbers() -> BoxedStrategy<(Numbers, u32)> {
    let first =
        prop_oneof![Just(0), 1..12_u32, 90..101_u32, 990..1_001_u32, 99_990..100_001_u32, 0x7fff_ff00..MAX_NUMBER];
    // How many requests of each side's follow one another.
    let ours = prop_oneof![5 => 0..3_u32, 1 => 90..1_000_u32, 1 => 99_000..2_000_000_u32];
    let steps = prop::collection::vec((0..3_u32, ours), 0..4);
    let next = prop_oneof![4 => Just(1_i64), 2 => -8..8_i64, 1 => 0..2_000_000_i64];
    (first, any::<bool>(), steps, next)
        .prop_map(|(first, told, steps, next)| {
            let mut numbers = Numbers { state: State::default(), ranges: [Range::default(); RANGES] };
            let mut number = first;
            if told {
                numbers.state = numbers.state.after_server(number);
            }
            for (servers, ours) in steps {
                for _ in 0..servers {
                    number = (number + 1).min(MAX_NUMBER);
                    numbers.state = numbers.state.after_server(number);
                }
                if ours > 0 {
                    match close(&numbers.ranges, numbers.state) {
                        Close::Nothing => {}
                        Close::Write { index, range } => numbers.ranges[index] = range,
                        Close::Shift { .. } => panic!("more ranges than steps"),
                    }
                    numbers.state = numbers.state.after_injection();
                }
                // Those after the first close nothing.
                let more = ours.saturating_sub(1);
                let State { known, number, delta } = numbers.state;
                numbers.state = if known {
                    State { delta: delta + more, ..numbers.state }
                } else {
                    State { number: number + more, ..numbers.state }
                };
            }
            let next = (i64::from(number) + next).clamp(0, MAX_NUMBER.into());
            (numbers, u32::try_from(next).unwrap())
        })
        .boxed()
}

/// A number in a message: what stands before its blanks, and behind it.
#[derive(Clone, Debug)]
struct Field {
    before: String,
    blanks: usize,
    digits: String,
    /// Its blanks stand behind it.
    left: bool,
    after: String,
}

impl Field {
    fn text(&self) -> String {
        format!("{}{}{}{}", self.before, " ".repeat(self.blanks), self.digits, self.after)
    }

    fn number(&self) -> u32 {
        self.digits.parse().unwrap()
    }

    /// With another number; `grow`: the message may become longer.
    fn with(&self, number: u32, grow: bool) -> Self {
        let room = self.digits.len() + if self.left { 0 } else { self.blanks.min(MAX_SPACES) };
        let digits = number.to_string();
        let width = match digits.len() {
            wanted if wanted <= room => room,
            wanted if grow && wanted <= room + BLANKS as usize => room + BLANKS as usize,
            _ => return self.clone(),
        };
        let spare = width - digits.len();
        if self.left {
            Self { digits, after: " ".repeat(spare) + &self.after, ..self.clone() }
        } else {
            Self { digits, blanks: self.blanks.saturating_sub(MAX_SPACES) + spare, ..self.clone() }
        }
    }
}

fn spelled(name: &'static str) -> BoxedStrategy<String> {
    let name = prop_oneof![3 => Just(name.to_owned()), 1 => Just(name.to_uppercase()), 1 => Just(name.to_lowercase())];
    let colon = prop_oneof![4 => Just(":"), 1 => Just(" :"), 1 => Just("\t :")];
    (name, colon).prop_map(|(name, colon)| name + colon).boxed()
}

/// What stands before a number's blanks, and how many they are.
fn blanks() -> BoxedStrategy<(&'static str, usize)> {
    let before = prop_oneof![6 => Just(""), 1 => Just("\t"), 1 => Just("  \t"), 1 => Just("\r\n "), 1 => Just(" \r\n\t"), 1 => Just("\n ")];
    (before, prop_oneof![3 => Just(1_usize), 2 => Just(0), 3 => 2..14_usize]).boxed()
}

/// Digits, now and then with zeroes before them.
fn digits(number: u32) -> BoxedStrategy<String> {
    prop_oneof![9 => Just(0_usize), 1 => 1..4_usize]
        .prop_map(move |zeroes| format!("{number:0width$}", width = (number.to_string().len() + zeroes).min(10)))
        .boxed()
}

fn cseq(number: u32, method: &'static str) -> BoxedStrategy<Field> {
    let after = prop_oneof![4 => Just(" "), 1 => Just("\t"), 1 => Just("\r\n "), 1 => Just("   ")];
    (spelled("CSeq"), blanks(), digits(number), after)
        .prop_map(move |(name, (before, blanks), digits, after)| Field {
            before: name + before,
            blanks,
            digits,
            left: false,
            after: format!("{after}{method}\r\n"),
        })
        .boxed()
}

fn rack(number: u32) -> BoxedStrategy<Field> {
    let between =
        prop_oneof![4 => Just(" "), 1 => Just("\t"), 1 => Just(" \t"), 1 => Just("\r\n "), 1 => Just("\r\n\t")];
    (spelled("RAck"), 0..9_999_u32, between, 0..12_usize, digits(number))
        .prop_map(|(name, response, between, blanks, digits)| Field {
            before: format!("{name} {response}{between}"),
            blanks,
            digits,
            left: false,
            after: " INVITE\r\n".into(),
        })
        .boxed()
}

fn event(number: u32) -> BoxedStrategy<Field> {
    let name = prop_oneof![spelled("Event"), spelled("o")];
    let before = prop_oneof![4 => Just(""), 1 => Just(";x=1"), 1 => Just(" ;idx=7\r\n ")];
    let equals = prop_oneof![4 => Just("id="), 1 => Just("ID = "), 1 => Just(" id\t=\t")];
    let after = prop_oneof![4 => Just("\r\n"), 1 => Just(";y=2\r\n"), 1 => Just(" ;z\r\n")];
    (name, before, equals, digits(number), after)
        .prop_map(|(name, before, equals, digits, after)| Field {
            before: format!("{name} refer{before};{equals}"),
            blanks: 0,
            digits,
            left: true,
            after: after.into(),
        })
        .boxed()
}

/// A message as the parts around its numbers.
#[derive(Clone, Debug)]
struct Text {
    start: String,
    /// Header lines before the numbers, between them, and behind them with the body.
    around: [String; 3],
    cseq: Field,
    quoted: Option<Field>,
    /// CSeq stands before the other one.
    first: bool,
}

impl Text {
    fn bytes(&self) -> Vec<u8> {
        let (cseq, quoted) = (self.cseq.text(), self.quoted.as_ref().map(Field::text).unwrap_or_default());
        let (a, b) = if self.first { (cseq, quoted) } else { (quoted, cseq) };
        let [before, between, behind] = &self.around;
        [&self.start, before, &a, between, &b, behind].map(String::as_str).concat().into_bytes()
    }

    /// With other numbers in CSeq and in the other header; `grow`: it may become longer.
    fn with(&self, cseq: u32, quoted: Option<u32>, grow: bool) -> Self {
        let mut text = self.clone();
        let may = |text: &Self| grow && text.bytes().len() <= LONGEST;
        if cseq != self.cseq.number() {
            text.cseq = self.cseq.with(cseq, may(&text));
        }
        if let (Some(field), Some(number)) = (&self.quoted, quoted)
            && number != field.number()
        {
            text.quoted = Some(field.with(number, may(&text)));
        }
        text
    }
}

/// The headers that name a dialog: the server's tag stands in From of its requests and of the responses to them, else in To.
fn names(servers: bool, branch: &'static str) -> BoxedStrategy<Vec<String>> {
    let fold = || prop_oneof![4 => Just(""), 1 => Just("\r\n "), 1 => Just(" ")];
    let either = |name, short| prop_oneof![3 => spelled(name), 1 => spelled(short)];
    let (via, from, to) = (either("Via", "v"), either("From", "f"), either("To", "t"));
    (via, from, to, either("Call-ID", "i"), fold(), fold(), "[a-z]{0,9}")
        .prop_map(move |(via, from, to, call_id, f, g, name)| {
            let (one, other) = if servers { ("srv", "peer") } else { ("peer", "srv") };
            vec![
                format!("{via} SIP/2.0/UDP 192.0.2.1;rport{f};branch={branch}\r\n"),
                format!("{from} \"{name};tag=no\" <sip:{name}@192.0.2.1;lr>{f};tag={one};x=1\r\n"),
                format!("{to} <sip:peer@198.51.100.7>{g};tag={other}\r\n"),
                format!("{call_id} {g}call-1@host\r\n"),
            ]
        })
        .boxed()
}

fn others() -> BoxedStrategy<Vec<String>> {
    let other = prop_oneof![
        Just("Max-Forwards: 70\r\n".to_owned()),
        "X-[a-z]{1,9}: [ -~]{0,60}\r\n",
        Just("Subject: a\r\n CSeq: 7 BYE\r\n".to_owned()),
        Just("X-CSeq: 7 BYE\r\n".to_owned()),
    ];
    // Now and then about as long as a request may be that is lengthened.
    let long = prop_oneof![5 => Just(0), 1 => LONGEST - 500..LONGEST + 200];
    (prop::collection::vec(other, 0..4), long)
        .prop_map(|(mut others, long)| {
            others.extend((long > 0).then(|| format!("X-Long: {}\r\n", "y".repeat(long))));
            others
        })
        .boxed()
}

fn message(
    start: String,
    servers: bool,
    branch: &'static str,
    cseq: BoxedStrategy<Field>,
    quoted: BoxedStrategy<Option<Field>>,
) -> BoxedStrategy<Text> {
    let lines = (names(servers, branch), others()).prop_map(|(names, others)| [names, others].concat()).prop_shuffle();
    let body = prop_oneof![Just(String::new()), "[ -~\r\n]{0,400}"];
    (lines, (any::<prop::sample::Index>(), any::<prop::sample::Index>()), cseq, quoted, any::<bool>(), body)
        .prop_map(move |(lines, (a, b), cseq, quoted, first, body)| {
            let (a, b) = (a.index(lines.len() + 1), b.index(lines.len() + 1));
            let (a, b) = (a.min(b), a.max(b));
            let behind = format!("{}\r\n{body}", lines[b..].concat());
            let around = [lines[..a].concat(), lines[a..b].concat(), behind];
            Text { start: start.clone(), around, cseq, quoted, first }
        })
        .boxed()
}

const METHODS: &[&str] = &[
    "INVITE",
    "ACK",
    "CANCEL",
    "BYE",
    "UPDATE",
    "INFO",
    "PRACK",
    "SUBSCRIBE",
    "REFER",
    "NOTIFY",
    "OPTIONS",
    "MESSAGE",
    "X-OWN",
];

/// A request of the server's inside the dialog.
fn request() -> BoxedStrategy<(Numbers, &'static str, Text)> {
    let weighted = prop_oneof![2 => prop::sample::select(METHODS), 1 => Just("PRACK"), 1 => Just("SUBSCRIBE")];
    (numbers(), weighted, 0..5_u32)
        .prop_flat_map(|((numbers, number), method, below)| {
            let quoted = number.saturating_sub(below);
            let other = match method {
                "PRACK" => rack(quoted).prop_map(Some).boxed(),
                "SUBSCRIBE" => prop_oneof![3 => event(quoted).prop_map(Some), 1 => Just(None)].boxed(),
                _ => Just(None).boxed(),
            };
            let start = format!("{method} sip:peer@198.51.100.7 SIP/2.0\r\n");
            (Just(numbers), Just(method), message(start, true, "z9hG4bK77", cseq(number, method), other))
        })
        .boxed()
}

/// A response of the peer's to a request of the server's, or its NOTIFY with the number of one.
fn from_peer() -> BoxedStrategy<(Numbers, Text)> {
    (numbers(), any::<bool>(), 0..3_u32, prop::sample::select(METHODS))
        .prop_flat_map(|((numbers, number), response, off, method)| {
            let numbers = numbers.after(true, number);
            // Now and then one of sipst's own.
            let wire = numbers.wire(number).saturating_sub(off);
            if response {
                let start = "SIP/2.0 200 OK\r\n".to_owned();
                (Just(numbers), message(start, true, "z9hG4bK77", cseq(wire, method), Just(None).boxed()))
            } else {
                let start = "NOTIFY sip:server@192.0.2.1 SIP/2.0\r\n".to_owned();
                let notify =
                    message(start, false, "z9hG4bK78", cseq(4_711, "NOTIFY"), event(wire).prop_map(Some).boxed());
                (Just(numbers), notify)
            }
        })
        .boxed()
}

/// How it is packed: family, tags, further headers, whether there is a checksum.
#[derive(Clone, Copy, Debug)]
struct Packing {
    v6: bool,
    tags: &'static [u16],
    extras: bool,
    checksum: bool,
}

fn packing() -> BoxedStrategy<Packing> {
    let tags = prop_oneof![Just(&[][..]), Just(&[9][..]), Just(&[9, 10][..])];
    (any::<bool>(), tags, any::<bool>(), any::<bool>())
        .prop_map(|(v6, tags, extras, checksum)| Packing { v6, tags, extras, checksum })
        .boxed()
}

impl Packing {
    fn server(&self) -> &'static str {
        if self.v6 { SERVER_V6 } else { SERVER }
    }

    fn frame(&self, egress: bool, message: &[u8]) -> Vec<u8> {
        let peer = if self.v6 { PEER_V6 } else { PEER };
        let (from, to) = if egress { (self.server(), peer) } else { (peer, self.server()) };
        let mut frame = Frame::new(from, to).tags(self.tags);
        frame.extras = self.extras;
        frame.checksum = self.checksum;
        frame.with(message)
    }
}

/// Runs a message through a program: what comes out must be `expected`, packed alike, whole.
fn comes_out(
    tester: &mut Tester,
    program: Program,
    packing: Packing,
    message: &[u8],
    expected: &[u8],
) -> Result<(), TestCaseError> {
    let egress = program == Program::Egress;
    let run = tester.run(program, &packing.frame(egress, message));
    prop_assert_eq!(run.verdict, Verdict::Pass);
    let wanted = packing.frame(egress, expected);
    prop_assert_eq!(String::from_utf8_lossy(&run.out), String::from_utf8_lossy(&wanted), "{:?}", program);
    prop_assert_eq!(run.out, wanted, "{:?}", program);
    Ok(())
}

fn raises(method: &str) -> bool {
    method != "ACK" && method != "CANCEL"
}

#[test]
fn a_request_leaves_with_the_number_of_the_pure_function_and_its_response_comes_back() {
    use Counter::{Lengthened, ShiftNoRoom, ShiftedIn, ShiftedOut};
    let often = [ShiftedOut, Lengthened, ShiftNoRoom, ShiftedIn];
    run(&(request(), packing()), &often, |tester, ((numbers, method, text), packing)| {
        let key = tester.arm(packing.server(), "call-1@host", "srv", numbers.shift());
        let number = text.cseq.number();
        let then = numbers.after(raises(method), number);
        let quoted = text.quoted.as_ref().map(|field| then.wire(field.number()));
        let wire = text.with(then.wire(number), quoted, true);
        comes_out(tester, Program::Egress, packing, &text.bytes(), &wire.bytes())?;
        prop_assert_eq!(tester.state(key), then.state);
        prop_assert_eq!(tester.counter(Counter::ShiftFailed), 0);

        let own = then.own(wire.cseq.number());
        let response = Text { start: "SIP/2.0 200 OK\r\n".into(), quoted: None, ..wire };
        let back = own.map_or_else(|| response.clone(), |own| response.with(own, None, false));
        for program in INGRESS {
            comes_out(tester, program, packing, &response.bytes(), &back.bytes())?;
        }
        Ok(())
    });
}

#[test]
fn what_the_peer_sends_comes_in_with_the_servers_own_number() {
    let often = [Counter::ShiftedIn, Counter::ShiftNoNumber];
    run(&(from_peer(), packing()), &often, |tester, ((numbers, text), packing)| {
        tester.arm(packing.server(), "call-1@host", "srv", numbers.shift());
        let own = |field: &Field| numbers.own(field.number()).unwrap_or(field.number());
        let expected = match &text.quoted {
            Some(field) => text.with(text.cseq.number(), Some(own(field)), false),
            None => text.with(own(&text.cseq), None, false),
        };
        for program in INGRESS {
            comes_out(tester, program, packing, &text.bytes(), &expected.bytes())?;
        }
        Ok(())
    });
}
