//! What sipst did for calls and to them, fault by fault: each call is lived through without it and with it. Until sipst
//! first acts in one, the two lives are the same to the packet; the table's rows are by what it met with sipst.

use std::{collections::BTreeMap, fmt};

use super::{
    agent::{S, Us, Why},
    faults::{Fault, Tally},
    verdict::{Fate, end, fate, told},
    world::World,
};

/// Rows with fewer calls that were doomed and could be refreshed show chance, and are not held to [`SAVED`].
const ENOUGH: u64 = 200;

/// Saved at least, in a hundred.
const SAVED: u64 = 95;

/// What chance does to the moment of an end, at most.
const CHANCE: Us = 5 * S;

/// What a world does with sipst only: it lets the server send something beside an injection.
const BESIDE: &[Fault] = &[
    Fault::RaceEntry,
    Fault::RaceRead,
    Fault::RaceDrain,
    Fault::RaceDrained,
    Fault::RaceLeaves,
    Fault::RaceLeft,
    Fault::CrossedUpdate,
    Fault::CrossedInvite,
];

/// No trouble, but what sipst does, and that somebody refreshes.
const NO_TROUBLE: &[Fault] = &[
    Fault::ShiftedOut,
    Fault::ShiftedBack,
    Fault::Lengthened,
    Fault::Quoted,
    Fault::AnswerTaken,
    Fault::ByUpdate,
    Fault::ByInvite,
    Fault::ByServer,
    Fault::ByPeer,
];

/// Why a call was harmed, where that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cause {
    UnseenOdd,
    UnseenInvite,
    UnseenNumber,
    TimerOff,
    GaveUp,
    Beside,
    OtherRefusal,
}

impl Cause {
    /// In so many calls it may be met once.
    const fn once_in(self) -> u64 {
        match self {
            Self::UnseenNumber => 200,
            Self::UnseenOdd | Self::TimerOff => 500,
            Self::UnseenInvite | Self::GaveUp | Self::Beside | Self::OtherRefusal => 2_000,
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::UnseenOdd => "ring full: a request of the server's went by unseen, and got a wrong answer",
            Self::UnseenInvite => "ring full: a re-INVITE of sipst's had the number of one that went by unseen",
            Self::UnseenNumber => "ring full: sipst's own request had a number used unseen (the peer turns it down)",
            Self::TimerOff => {
                "the peer's timer was off, or its own (R12); a refresh set it, and later none got through"
            }
            Self::GaveUp => "a request of the server's own met a refusal, and its stack hung up",
            Self::Beside => "chance: what the server is made to send beside an injection fared badly",
            Self::OtherRefusal => "chance: the peer's refusals fell to other requests",
        }
    }
}

/// The table's own words.
const LEGEND: &str = "\
doomed:  without sipst its session timer ends it, though both ends want to go on: beyond + saved + lost
beyond:  of these, what nobody could have refreshed in the server's name; the second block says why
saved:   of the other ones, lives until a user hangs up; lost: does not
alerted: of the lost ones, an alert told before the peer hung up
harmed:  with sipst it ends sooner than without, or an end gets what it should not; the third block says why";

#[derive(Clone, Copy, Debug, Default)]
struct Row {
    calls: u64,
    doomed: u64,
    beyond: u64,
    saved: u64,
    alerted: u64,
    lost: u64,
    harmed: u64,
}

impl Row {
    fn add(&mut self, other: &Self) {
        let Self { calls, doomed, beyond, saved, alerted, lost, harmed } = self;
        *calls += other.calls;
        *doomed += other.doomed;
        *beyond += other.beyond;
        *saved += other.saved;
        *alerted += other.alerted;
        *lost += other.lost;
        *harmed += other.harmed;
    }

    /// Whether enough were saved, or too few were there to tell.
    fn is_good(&self) -> bool {
        let all = self.saved + self.lost;
        all < ENOUGH || self.saved * 100 >= all * SAVED
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
        let Self { calls, doomed, beyond, saved, alerted, lost, harmed } = self;
        let share = match saved + lost {
            0 => "-".into(),
            all => format!("{:.1}", *saved as f64 * 100.0 / all as f64),
        };
        let line = format!("{calls:>8}{doomed:>8}{beyond:>8}{saved:>8}{alerted:>8}{lost:>8}{harmed:>8}{share:>8}");
        writeln!(f, "{name:<62}{line}")
    }
}

/// One call, with sipst and without.
pub(crate) struct Lives<'a> {
    pub(crate) world: &'a World,
    pub(crate) control: &'a World,
    pub(crate) index: usize,
}

impl Lives<'_> {
    fn was_doomed(&self) -> bool {
        let call = &self.control.calls[self.index];
        call.came_up() && matches!(end(call), Some((_, Why::Expired)))
    }

    /// How it ended with sipst, if that was sooner than without it and nobody wanted it.
    fn sooner(&self) -> Option<String> {
        let (call, control) = (&self.world.calls[self.index], &self.control.calls[self.index]);
        let (at, why) = end(call).filter(|(_, why)| !matches!(why, Why::Planned | Why::Crashed | Why::Restarted))?;
        let otherwise = end(control);
        let sooner = otherwise.is_none_or(|(other, _)| at + CHANCE < other);
        sooner.then(|| format!("it ended at {at} by {why:?}, and without sipst {otherwise:?}"))
    }

    /// What an end got that it should not have got.
    fn odd(&self) -> Option<String> {
        let call = &self.world.calls[self.index];
        let agents = [(&call.server, "server"), (&call.peer, "peer")];
        let mut agents = agents.into_iter().chain(call.fork.as_ref().map(|fork| (fork, "fork")));
        let odd = agents.find_map(|(agent, side)| Some(format!("the {side} got {}", agent.diary.oddities.first()?)));
        let refused = || (call.server.diary.bye == Some(500)).then(|| "the server's BYE was refused with 500".into());
        odd.or_else(refused).or_else(|| call.judge.stale.iter().find(|stale| !is_ours(stale)).cloned())
    }

    /// What sipst did to it, and the known cause of that.
    fn harm(&self, faults: &Tally) -> Option<(String, Option<Cause>)> {
        let call = &self.world.calls[self.index];
        let unseen = self.world.lost_samples(self.index);
        if let Some(odd) = self.odd() {
            return Some((odd, unseen.then_some(Cause::UnseenOdd)));
        }
        if let Some(sooner) = self.sooner() {
            return Some((sooner, self.cause_of_end(faults)));
        }
        let stale = call.judge.stale.first()?.clone();
        Some((stale, unseen.then_some(Cause::UnseenNumber)))
    }

    /// Why it ended sooner.
    fn cause_of_end(&self, faults: &Tally) -> Option<Cause> {
        let (call, control) = (&self.world.calls[self.index], &self.control.calls[self.index]);
        let by_itself = control.peer.diary.refreshes > call.peer.diary.refreshes;
        let off = control.peer.timer.is_none() || control.peer.alone || by_itself;
        let gave_up = matches!(end(call), Some((_, Why::GaveUp)));
        let causes = [
            (off, Cause::TimerOff),
            (self.world.lost_samples(self.index), Cause::UnseenInvite),
            (gave_up, Cause::GaveUp),
            (BESIDE.iter().any(|fault| faults.met(*fault) > 0), Cause::Beside),
            (!self.world.plan.calls[self.index].refusals.is_empty(), Cause::OtherRefusal),
        ];
        causes.into_iter().find_map(|(is_so, cause)| is_so.then_some(cause))
    }
}

/// Whether it is a request of sipst's own that came with a number used before.
fn is_ours(stale: &str) -> bool {
    stale.ends_with("sipst's: true")
}

/// Over many worlds.
#[derive(Debug, Default)]
pub(crate) struct Table {
    faults: BTreeMap<Fault, Row>,
    none: Row,
    all: Row,
    /// Why calls could not be refreshed.
    beyond: BTreeMap<&'static str, Row>,
    /// Known causes of harm.
    known: BTreeMap<Cause, u64>,
    /// Harm of no known cause.
    unknown: Vec<String>,
}

impl Table {
    /// Takes in a call that has met `faults`; `possible`: whether it could be refreshed.
    pub(crate) fn take(&mut self, faults: &Tally, lives: &Lives<'_>, possible: Result<(), &'static str>) {
        let call = &lives.world.calls[lives.index];
        let doomed = lives.was_doomed();
        let lived = fate(call) == Fate::Lived;
        let in_time = || end(call).is_some_and(|(at, _)| told(lives.world, lives.index, at));
        let harm = lives.harm(faults);
        let mut row = Row {
            calls: 1,
            doomed: doomed.into(),
            beyond: 0,
            saved: (doomed && lived).into(),
            alerted: (doomed && !lived && in_time()).into(),
            lost: (doomed && !lived).into(),
            harmed: harm.is_some().into(),
        };
        match harm {
            Some((_, Some(cause))) => *self.known.entry(cause).or_default() += 1,
            Some((what, None)) => {
                self.unknown.push(format!("c{} {what}\n{:?}", lives.index, lives.world.plan));
            }
            None => {}
        }
        // One refusal after the other, and the server speaks in between: the kernel keeps so many numbers apart, no more.
        let full = faults.met(Fault::RangesFull) > 0;
        if let Err(why) = possible.and(if full { Err("no range for numbers") } else { Ok(()) }) {
            self.beyond.entry(why).or_default().add(&row);
            row = Row { beyond: row.doomed, saved: 0, alerted: 0, lost: 0, ..row };
        }
        self.all.add(&row);
        let mut troubled = false;
        for fault in Fault::ALL.iter().filter(|fault| faults.met(**fault) > 0) {
            self.faults.entry(*fault).or_default().add(&row);
            troubled |= !NO_TROUBLE.contains(fault);
        }
        if !troubled {
            self.none.add(&row);
        }
    }

    fn rows(&self) -> impl Iterator<Item = (&'static str, Row)> {
        let faults = Fault::ALL.iter().map(|fault| (fault.text(), self.faults.get(fault).copied().unwrap_or_default()));
        faults.chain([("no trouble", self.none), ("all calls", self.all)])
    }

    /// What holds over a whole run.
    pub(crate) fn assert_good(&self) {
        assert!(self.unknown.is_empty(), "harmed, and not by a known cause:\n{}", self.unknown.join("\n"));
        // Some for chance, which counts in short runs only.
        let often = self.known.iter().find(|(cause, met)| **met > self.all.calls / cause.once_in() + 5);
        assert!(often.is_none(), "harmed too often: {often:?}");
        let bad: Vec<_> = self.rows().filter(|(_, row)| !row.is_good()).collect();
        assert!(bad.is_empty(), "fewer than {SAVED} % saved: {bad:?}");
        assert!(self.all.doomed * 4 > self.all.calls, "{} of {} calls were doomed", self.all.doomed, self.all.calls);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heads = ["calls", "doomed", "beyond", "saved", "alerted", "lost", "harmed", "saved %"];
        let heads: String = heads.iter().map(|head| format!("{head:>8}")).collect();
        writeln!(f, "{LEGEND}\n\n{:<62}{heads}", "calls that met")?;
        self.rows().try_for_each(|(name, row)| row.write(f, name))?;
        writeln!(f, "\n{:<62}{heads}", "beyond, because")?;
        self.beyond.iter().filter(|(_, row)| row.doomed > 0).try_for_each(|(why, row)| row.write(f, why))?;
        writeln!(f, "\nharmed, because")?;
        self.known.iter().try_for_each(|(cause, calls)| writeln!(f, "{:<110}{calls:>8}", cause.text()))?;
        writeln!(f, "{:<110}{:>8}", "of no known cause", self.unknown.len())?;
        write!(f, "\nat least {SAVED} % saved is asked of rows in which saved and lost are {ENOUGH} or more")
    }
}
