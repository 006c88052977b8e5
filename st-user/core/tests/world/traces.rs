//! The models held against recordings of the stacks that they stand for: every stimulus of a recorded call is played to the
//! model, and it must say what the stack said, when the stack said it.
//!
//! `cargo run -p st-tests --bin record` makes the recordings. [`SOURCES`] tells of every model where it comes from.

use std::collections::{HashSet, VecDeque};

use super::{
    agent::{Agent, MS, S, Us},
    proxy::{Manner, Passed, Proxy},
    sip::{Expires, Msg, Verb},
    stacks::{First, PEERS, SERVERS, Stack},
};

/// How long a model may think before it answers a request, as somebody who picks up the phone.
const THINKING: Us = 4 * S;
/// How far the moment of a model's own request may be from the recorded one, beyond the spread of its stack: stacks count in
/// whole seconds, and the machine that recorded was busy.
const SLACK: Us = 1_500 * MS;
/// Each recording is played with so many seeds.
const SEEDS: u64 = 8;

/// Where the ways of a model come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// A recording in `traces/`, whose head tells the version.
    Recorded(&'static str),
    /// What is known of it, not recorded.
    Known(&'static str),
}

use Source::{Known, Recorded};

/// Every model, and where its ways come from.
const SOURCES: &[(&str, Source)] = &[
    ("sofia", Recorded(include_str!("traces/sofia.txt"))),
    ("baresip", Recorded(include_str!("traces/baresip.txt"))),
    ("pjsip", Recorded(include_str!("traces/pjsip.txt"))),
    ("jssip", Recorded(include_str!("traces/jssip.txt"))),
    ("linphone", Recorded(include_str!("traces/linphone.txt"))),
    ("asterisk", Recorded(include_str!("traces/asterisk.txt"))),
    ("twinkle", Recorded(include_str!("traces/twinkle.txt"))),
    ("livekit", Known("its source and its issues")),
    ("yate", Known("an earlier observation on a wire; its package is not to be had")),
    ("sippy", Recorded(include_str!("traces/sippy.txt"))),
    ("net_sip", Recorded(include_str!("traces/net_sip.txt"))),
    ("sems", Known("an earlier observation on a wire; its package is not to be had")),
    ("asterisk_no", Recorded(include_str!("traces/asterisk_no.txt"))),
    (KAMAILIO, Recorded(include_str!("traces/kamailio.txt"))),
    ("compact", Known("no stack: compact header names")),
    ("narrow", Known("no stack: one digit and no blank in CSeq")),
    ("cramped", Known("no stack: the same in requests as long as a packet")),
    ("transparent_b2bua", Known("field reports: a B2BUA that passes timer headers on")),
    ("dead_timer", Known("field reports: a server whose timer never fires")),
    ("strict_provider", Known("field reports: makes a UAC without timers the refresher")),
    ("invite_provider", Known("field reports: the same without UPDATE")),
    ("late_provider", Known("field reports: the same with sofia's clock")),
    ("compact_provider", Known("field reports: the same with compact header names")),
    ("omits_refresher", Known("field reports: names no refresher")),
    ("swallows_update", Known("field reports: UPDATE is lost on its way")),
    ("moves_media", Known("field reports: each answer has another port")),
];

/// The one that stands between two ends: no agent, but [`Proxy`].
const KAMAILIO: &str = "kamailio";

/// One message of a recording.
struct Line {
    /// Since the recording began.
    at: Us,
    /// By a probe.
    stimulus: bool,
    /// Of the probe that is called by way of the stack.
    far: bool,
    msg: Msg,
}

/// One recorded call.
struct Trace {
    name: &'static str,
    interval: u32,
    min_se: u32,
    updates: bool,
    lines: Vec<Line>,
    end: Us,
}

/// All calls of a recording.
fn read(text: &'static str) -> Vec<Trace> {
    text.split("\n== ").skip(1).map(read_call).collect()
}

fn read_call(text: &'static str) -> Trace {
    let (head, body) = text.split_once('\n').expect("a head");
    let mut words = head.split(' ');
    let name = words.next().expect("a name");
    let settings: Vec<_> = words.filter_map(|word| word.split_once('=')).collect();
    let setting = |name| settings.iter().find(|(own, _)| *own == name).expect("a setting").1;
    let number = |name| setting(name).parse().expect("a number");
    let (interval, min_se, updates) = (number("interval"), number("min_se"), setting("updates") == "true");
    let mut trace = Trace { name, interval, min_se, updates, lines: Vec::new(), end: 0 };
    let mut message: Option<(Us, &str, String)> = None;
    for line in body.lines() {
        let mark = line.split_once(' ').filter(|(mark, _)| matches!(*mark, "->" | "<-" | "=>" | "<=" | "end"));
        let mark = mark.and_then(|(mark, at)| Some((mark, at.parse::<Us>().ok()? * MS)));
        let Some((mark, at)) = mark else {
            if let Some((.., text)) = &mut message {
                text.push_str(line);
                text.push_str("\r\n");
            }
            continue;
        };
        if let Some((at, mark, text)) = message.take() {
            // One line end is the recording's own.
            let text = text.strip_suffix("\r\n").expect("a line between messages");
            let whole = if text.contains("\r\n\r\n") { text.to_owned() } else { format!("{text}\r\n") };
            let (stimulus, far) = (mark.ends_with('>'), mark.contains('='));
            trace.lines.push(Line { at, stimulus, far, msg: Msg::read(whole.as_bytes()) });
        }
        match mark {
            "end" => trace.end = at,
            mark => message = Some((at, mark, String::new())),
        }
    }
    trace
}

/// What a message says, as far as a model has to say it too.
#[derive(Debug, PartialEq, Eq)]
struct Gist {
    verb: Verb,
    status: u16,
    number_grew: bool,
    expires: Option<Expires>,
    min_se: Option<u32>,
    requires_timer: bool,
    lists_timer: bool,
    allows_update: Option<bool>,
    describes: bool,
    cause: Option<u32>,
}

impl Gist {
    fn of(msg: &Msg, last: &mut Option<u32>) -> Self {
        let Msg { verb, status, number, expires, min_se, .. } = *msg;
        let timed = matches!(verb, Verb::Invite | Verb::Update) && status < 300;
        let number_grew = msg.is_request() && verb != Verb::Ack && {
            let before = last.replace(number);
            before.is_none_or(|before| number == before + 1)
        };
        Self {
            verb,
            status,
            number_grew,
            expires,
            min_se,
            requires_timer: msg.requires_timer,
            lists_timer: timed && msg.supports_timer,
            allows_update: msg.allows_update.filter(|_| timed),
            describes: timed && msg.body.contains("m="),
            cause: msg.cause,
        }
    }
}

/// Leaves out provisional responses and copies.
#[derive(Default)]
struct Sieve {
    seen: HashSet<(String, Verb, u16)>,
}

impl Sieve {
    fn is_new(&mut self, msg: &Msg) -> bool {
        !(100..200).contains(&msg.status) && self.seen.insert((msg.branch().into(), msg.verb, msg.status))
    }
}

/// A model on simulated time.
struct Played {
    agent: Agent,
    now: Us,
    sieve: Sieve,
    said: VecDeque<Msg>,
    /// Its requests, in the order in which it made them.
    asked: Vec<Msg>,
}

impl Played {
    fn listen(&mut self) {
        for msg in self.agent.take() {
            if self.sieve.is_new(&msg) {
                if msg.is_request() && msg.verb != Verb::Ack {
                    self.asked.push(msg.clone());
                }
                self.said.push_back(msg);
            }
        }
    }

    /// Lets time pass until it says something, or until a moment.
    fn pass(&mut self, until: Us) -> Option<Msg> {
        loop {
            self.listen();
            if let Some(msg) = self.said.pop_front() {
                return Some(msg);
            }
            let Some(due) = self.agent.due().filter(|due| *due <= until) else {
                self.now = self.now.max(until);
                return None;
            };
            self.now = self.now.max(due);
            self.agent.wake(self.now);
        }
    }
}

fn play(trace: &Trace, stack: &'static Stack, seed: u64) -> Result<(), String> {
    let call_id = trace.lines.first().expect("a message").msg.call_id.clone();
    let mut agent = Agent::new(stack, "192.0.2.1:5060", "stack", "probe", &call_id, seed);
    (agent.interval, agent.min_se) = (trace.interval, trace.min_se);
    let (sieve, said, asked) = (Sieve::default(), VecDeque::new(), Vec::new());
    let mut played = Played { agent, now: 0, sieve, said, asked };
    let mut sieve = Sieve::default();
    let (mut own, mut model) = (None, None);
    let mut requests: Vec<&Msg> = Vec::new();
    let mut tag = None;
    let mut before = trace.lines[0].at;
    let caller = trace.lines[0].stimulus.then_some(trace.lines[0].msg.number);
    if caller.is_none() {
        played.agent.call(0);
    }
    for Line { at, stimulus, msg, .. } in trace.lines.iter().filter(|line| sieve.is_new(&line.msg)) {
        let gap = at - before;
        before = *at;
        let told = |what: String| format!("at {} ms: {what}", at / MS);
        if *stimulus {
            let until = played.now + gap;
            if let Some(msg) = played.pass(until) {
                return Err(told(format!("the stack is silent, the model says {msg:?}")));
            }
            let mut msg = msg.clone();
            if msg.is_request() {
                msg.to.tag = msg.to.tag.and(tag.clone());
            } else if let Some(k) = requests.iter().position(|one| one.branch() == msg.branch() && one.verb == msg.verb)
            {
                let asked = &played.asked[k];
                (msg.vias, msg.number, msg.from) = (asked.vias.clone(), asked.number, asked.from.clone());
            }
            played.agent.hear(played.now, &msg);
            continue;
        }
        let began = played.now;
        let answers = !msg.is_request();
        let spread = if answers { THINKING } else { 2 * Us::from(stack.spread) * S + SLACK };
        let Some(said) = played.pass(began + gap + spread) else {
            return Err(told(format!("the model is silent, the stack says {msg:?}")));
        };
        if !answers && played.now + spread < began + gap {
            return Err(told(format!(
                "{} ms before the stack the model says {said:?}",
                (began + gap - played.now) / MS
            )));
        }
        let is_first = own.is_none() && msg.is_request() && msg.verb != Verb::Ack;
        if is_first && !first_numbers(stack.first, caller).contains(&msg.number) {
            return Err(told(format!("the stack begins with {}, the model with {:?}", msg.number, stack.first)));
        }
        let (wanted, got) = (Gist::of(msg, &mut own), Gist::of(&said, &mut model));
        if wanted != got {
            return Err(told(format!("the stack says {wanted:?}\nthe model {got:?}")));
        }
        if msg.is_request() && msg.verb != Verb::Ack {
            requests.push(msg);
        }
        if tag.is_none() {
            tag = if msg.is_request() { said.from.tag.clone() } else { said.to.tag.clone() };
        }
    }
    let until = played.now + (trace.end - before);
    match played.pass(until) {
        Some(msg) => Err(format!("at the end the stack is silent, the model says {msg:?}")),
        None => Ok(()),
    }
}

/// The number of a stack's first request; `caller`: that of the INVITE that it got, where it got one.
fn first_numbers(first: First, caller: Option<u32>) -> std::ops::RangeInclusive<u32> {
    match (first, caller) {
        (First::One, _) => 1..=1,
        (First::Two, None) => 2..=2,
        (First::Two, Some(number)) => number + 1..=number + 1,
        (First::Ten, _) => 10..=10,
        (First::Twenty, None) => 20..=20,
        (First::Twenty, Some(number)) => number + 11..=number + 11,
        (First::Random15, _) => 0..=65_535,
        (First::Billion, _) => 500_000_000..=u32::MAX,
    }
}

/// The same with a proxy between a caller, who is its server, and a callee.
fn play_between(trace: &Trace) -> Result<(), String> {
    let mut proxy = Proxy::new("192.0.2.1", trace.interval, Manner::Inserts);
    // What the model has said to the caller, and to the callee.
    let mut said = [VecDeque::new(), VecDeque::new()];
    let mut sieve = Sieve::default();
    for Line { at, stimulus, far, msg } in trace.lines.iter().filter(|line| sieve.is_new(&line.msg)) {
        let told = |what: String| format!("at {} ms: {what}", at / MS);
        if let Some(due) = proxy.due().filter(|due| due + SLACK < *at) {
            return Err(told(format!("the model has ended the call at {} ms", due / MS)));
        }
        if *stimulus {
            match proxy.pass(*at, msg.clone(), !far) {
                Passed::On(msg) => said[usize::from(!far)].push_back(msg),
                Passed::Back(msg) => said[usize::from(*far)].push_back(msg),
                Passed::Nothing => {}
            }
            continue;
        }
        if said[usize::from(*far)].is_empty() && proxy.due().is_some_and(|due| due < at + SLACK) {
            let byes = proxy.kill(*at);
            said.iter_mut().zip(byes).for_each(|(said, bye)| said.push_back(bye));
        }
        let Some(said) = said[usize::from(*far)].pop_front() else {
            return Err(told(format!("the model is silent, the stack says {msg:?}")));
        };
        let whole = |msg: &Msg| (Gist::of(msg, &mut None), msg.number, msg.body.clone());
        if whole(msg) != whole(&said) {
            return Err(told(format!("the stack says {:?}\nthe model {:?}", whole(msg), whole(&said))));
        }
    }
    match (said.iter().flatten().next(), proxy.due()) {
        (Some(msg), _) => Err(format!("at the end the stack is silent, the model says {msg:?}")),
        (None, Some(due)) if due + SLACK < trace.end => Err(format!("the model ends the call at {} ms", due / MS)),
        (None, _) => Ok(()),
    }
}

fn models(name: &str) -> impl Iterator<Item = &'static Stack> {
    SERVERS.iter().chain(PEERS).filter(move |stack| stack.name == name)
}

fn recording(name: &str) -> Vec<Trace> {
    let source = SOURCES.iter().find(|(own, _)| *own == name).expect("a source");
    let Recorded(text) = source.1 else { panic!("{name} is not recorded") };
    read(text)
}

fn the_model_does_as_recorded(name: &str, scenario: &str) {
    let recording = recording(name);
    let trace = recording.iter().find(|trace| trace.name == scenario).expect("a recorded call");
    if name == KAMAILIO {
        return play_between(trace).unwrap_or_else(|difference| panic!("{name}, {scenario}: {difference}"));
    }
    let model = models(name).next().expect("a model");
    // The setting is one of the call, not of the stack.
    let stack: &'static Stack = Box::leak(Box::new(Stack { updates: model.updates && trace.updates, ..model.clone() }));
    for seed in 1..=SEEDS {
        if let Err(difference) = play(trace, stack, seed) {
            panic!("{name}, {scenario}, seed {seed}: {difference}");
        }
    }
}

/// A test for each recorded call.
macro_rules! recorded {
    ($($stack:ident: $($scenario:ident)*;)*) => {
        $(mod $stack {
            $(#[test]
            fn $scenario() {
                super::the_model_does_as_recorded(stringify!($stack), stringify!($scenario));
            })*
        })*

        const TESTED: &[(&str, &[&str])] = &[$((stringify!($stack), &[$(stringify!($scenario)),*])),*];
    };
}

recorded! {
    sofia:
        caller_without_timers
        equal_and_lower_numbers
        bye_with_an_equal_number
        caller_lists_timer
        caller_names_no_refresher
        calls
        caller_asks_for_uac
        caller_asks_for_uas
        caller_asks_and_lists_no_timer
        caller_asks_for_too_little
        caller_asks_for_more
        hangs_up_at_expiry
        refreshes
        refreshes_by_invite
        refreshes_for_a_caller_without_timers
        refreshes_at_90_s
        hangs_up_at_expiry_of_90_s
        refresh_meets_silence
        refresh_meets_405
        refresh_meets_481
        refresh_meets_491
        refresh_meets_500
        invite_without_session_expires
        update_without_session_expires
        refreshed_by_the_caller
        callee_says_uas
        callee_says_uac
        callee_without_timers
        callee_names_no_refresher
        callee_says_422;
    baresip:
        caller_without_timers
        equal_and_lower_numbers
        bye_with_an_equal_number
        caller_lists_timer
        caller_names_no_refresher
        calls;
    jssip:
        caller_without_timers
        equal_and_lower_numbers
        bye_with_an_equal_number
        caller_lists_timer
        caller_names_no_refresher
        calls
        caller_asks_for_uac
        caller_asks_for_uas
        caller_asks_and_lists_no_timer
        caller_asks_for_too_little
        caller_asks_for_more
        hangs_up_at_expiry
        refreshes
        refreshes_by_invite
        refreshes_for_a_caller_without_timers
        refresh_meets_silence
        refresh_meets_405
        refresh_meets_481
        refresh_meets_491
        refresh_meets_500
        invite_without_session_expires
        update_without_session_expires
        refreshed_by_the_caller
        callee_says_uas
        callee_says_uac
        callee_without_timers
        callee_names_no_refresher
        callee_says_422;
    pjsip:
        caller_without_timers
        equal_and_lower_numbers
        bye_with_an_equal_number
        caller_lists_timer
        caller_names_no_refresher
        calls
        caller_asks_for_uac
        caller_asks_for_uas
        caller_asks_and_lists_no_timer
        caller_asks_for_too_little
        caller_asks_for_more
        hangs_up_at_expiry
        refreshes
        refreshes_for_a_caller_without_timers
        refresh_meets_silence
        refresh_meets_405
        refresh_meets_481
        refresh_meets_491
        refresh_meets_500
        invite_without_session_expires
        update_without_session_expires
        refreshed_by_the_caller
        callee_says_uas
        callee_says_uac
        callee_without_timers
        callee_names_no_refresher
        callee_says_422;
    linphone:
        caller_without_timers
        equal_and_lower_numbers
        bye_with_an_equal_number
        caller_lists_timer
        caller_names_no_refresher
        calls
        caller_asks_for_uac
        caller_asks_for_uas
        caller_asks_and_lists_no_timer
        caller_asks_for_too_little
        caller_asks_for_more
        hangs_up_at_expiry
        refreshes
        refreshes_for_a_caller_without_timers
        refresh_meets_silence
        refresh_meets_405
        refresh_meets_481
        refresh_meets_491
        refresh_meets_500
        invite_without_session_expires
        update_without_session_expires
        refreshed_by_the_caller
        callee_says_uas
        callee_says_uac
        callee_without_timers
        callee_names_no_refresher
        callee_says_422;
    net_sip:
        caller_without_timers
        equal_and_lower_numbers
        bye_with_an_equal_number
        caller_lists_timer
        caller_names_no_refresher
        calls;
    kamailio:
        nobody_knows_timers
        caller_lists_timer
        caller_asks
        caller_asks_and_lists_no_timer
        callee_knows_timers
        both_know_timers
        refreshed_by_the_caller
        refreshed_by_the_callee
        requests_that_refresh_nothing
        caller_hangs_up
        callee_hangs_up;
    sippy:
        caller_without_timers
        equal_and_lower_numbers
        bye_with_an_equal_number
        caller_lists_timer
        caller_names_no_refresher
        calls;
    twinkle:
        caller_without_timers
        equal_and_lower_numbers
        bye_with_an_equal_number
        caller_lists_timer
        caller_names_no_refresher
        calls;
    asterisk_no:
        caller_without_timers
        equal_and_lower_numbers
        bye_with_an_equal_number
        caller_lists_timer
        caller_names_no_refresher
        calls
        caller_asks_for_uac
        caller_asks_for_uas
        caller_asks_and_lists_no_timer
        caller_asks_for_too_little
        caller_asks_for_more
        refreshes;
    asterisk:
        caller_without_timers
        equal_and_lower_numbers
        bye_with_an_equal_number
        caller_lists_timer
        caller_names_no_refresher
        calls
        caller_asks_for_uac
        caller_asks_for_uas
        caller_asks_and_lists_no_timer
        caller_asks_for_too_little
        caller_asks_for_more
        hangs_up_at_expiry
        refreshes
        refreshes_for_a_caller_without_timers
        refresh_meets_silence
        refresh_meets_405
        refresh_meets_481
        refresh_meets_491
        refresh_meets_500
        invite_without_session_expires
        update_without_session_expires
        refreshed_by_the_caller
        callee_says_uas
        callee_says_uac
        callee_without_timers
        callee_names_no_refresher
        callee_says_422;
}

#[test]
fn every_recorded_call_is_played_to_its_model() {
    let recorded = SOURCES.iter().filter(|(_, source)| matches!(source, Recorded(_))).map(|(name, _)| *name);
    for name in recorded {
        let names: Vec<_> = recording(name).iter().map(|trace| trace.name).collect();
        let tested = TESTED.iter().find(|(own, _)| *own == name).expect("tests").1;
        assert_eq!(names, tested, "{name}");
    }
}

#[test]
fn every_model_says_where_its_ways_come_from() {
    let known: HashSet<_> = SOURCES.iter().map(|(name, _)| *name).collect();
    let models: HashSet<_> = SERVERS.iter().chain(PEERS).map(|stack| stack.name).chain([KAMAILIO]).collect();
    assert_eq!(known, models);
}

#[test]
fn a_stack_is_the_same_as_server_and_as_peer() {
    for (name, _) in SOURCES {
        let mut all = models(name).map(|stack| format!("{stack:?}"));
        let first = all.next();
        assert!(all.all(|other| Some(other) == first), "{name}");
    }
}
