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

/// In so many calls one at most may be of those that [`Lives::by_the_rule`] tells.
const ONCE_IN: u64 = 4_000;

/// One in so many calls whose refreshing was taken over at most may end for that.
const TAKEN_ONE_IN: u64 = 10;

/// The table's own words.
const LEGEND: &str = "\
doomed:  without sipst its session timer ends it, or the peer whose refresh the server turns down, though both ends want to go
         on: beyond + saved + lost
beyond:  of these, what nobody could have refreshed in the server's name; the second block says why
saved:   of the other ones, lives until a user hangs up; lost: does not
alerted: of the lost ones, an alert told before the peer hung up
harmed:  with sipst it ends sooner than without, or an end gets what it should not
R12:     not harmed but by the rule. The peer's own timer was off, or it went on alone, by a 2xx that said nothing of it; border
         controllers that say nothing and go on are why sipst goes on too (strict_r12 ends that). A refresh set the timer again, and
         in some later interval none got through: the link was down, or whoever had to refresh was not
taken over: not harmed but by what the operator has asked for. sipst had made itself the refresher in place of a peer that would have
         gone on, and later could not refresh; the reasons are those of the second block";

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
        let doomed = |why| why == Why::Expired || why == Why::GaveUp && call.promised;
        call.came_up() && end(call).is_some_and(|(_, why)| doomed(why))
    }

    /// How it ended with sipst, if that was sooner than without it and nobody wanted it.
    fn sooner(&self) -> Option<String> {
        let (call, control) = (&self.world.calls[self.index], &self.control.calls[self.index]);
        let (at, why) = end(call).filter(|(_, why)| !matches!(why, Why::Planned | Why::Crashed | Why::Restarted))?;
        let otherwise = end(control);
        // Where the timer ends it in both lives, chance says in which interval: what the world has the server send beside an
        // injection (`World::race`, `World::disturb`) it sends with sipst only, and of that too the peer refuses its share.
        let interval = call.judge.agreed.map_or(0, |(seconds, _)| Us::from(seconds) * S);
        let chance = match (why, otherwise) {
            (Why::Expired, Some((_, Why::Expired))) => CHANCE.max(interval),
            _ => CHANCE,
        };
        let sooner = otherwise.is_none_or(|(other, _)| at + chance < other);
        sooner.then(|| format!("it ended at {at} by {why:?}, and without sipst {otherwise:?}"))
    }

    /// What an end got that it should not have got.
    fn odd(&self) -> Option<String> {
        let call = &self.world.calls[self.index];
        let agents = [(&call.server, "server"), (&call.peer, "peer")];
        let mut agents = agents.into_iter().chain(call.fork.as_ref().map(|fork| (fork, "fork")));
        let odd = agents.find_map(|(agent, side)| Some(format!("the {side} got {}", agent.diary.oddities.first()?)));
        let refused = || (call.server.diary.bye == Some(500)).then(|| "the server's BYE was refused with 500".into());
        odd.or_else(refused)
    }

    /// What sipst did to it.
    fn harm(&self) -> Option<String> {
        let stale = || self.world.calls[self.index].judge.stale.first().cloned();
        self.odd().or_else(|| self.sooner()).or_else(stale)
    }

    /// Whether it ended because a timer ran out that was not running before a refresh of sipst's: R12, as it is read by default.
    fn by_the_rule(&self) -> bool {
        let (call, control) = (&self.world.calls[self.index], &self.control.calls[self.index]);
        let by_itself = control.peer.diary.refreshes > call.peer.diary.refreshes;
        let off = control.peer.timer.is_none() || control.peer.alone || by_itself;
        let expired = matches!(end(call), Some((_, Why::Expired)));
        expired && off && self.odd().is_none() && call.judge.stale.is_empty()
    }
}

/// Over many worlds.
#[derive(Debug, Default)]
pub(crate) struct Table {
    faults: BTreeMap<Fault, Row>,
    none: Row,
    all: Row,
    /// Why calls could not be refreshed.
    beyond: BTreeMap<&'static str, Row>,
    /// What ended by R12.
    by_the_rule: u64,
    /// What ended because sipst had taken the refreshing over from a peer that would have gone on, by why it could not.
    taken: BTreeMap<&'static str, u64>,
}

impl Table {
    /// Takes in a call that has met `faults`; `possible`: whether it could be refreshed. The error is the harm done to it.
    pub(crate) fn take(
        &mut self,
        faults: &Tally,
        lives: &Lives<'_>,
        possible: Result<(), &'static str>,
    ) -> Result<(), String> {
        let call = &lives.world.calls[lives.index];
        let doomed = lives.was_doomed();
        let lived = fate(call) == Fate::Lived;
        let in_time = || end(call).is_some_and(|(at, _)| told(lives.world, lives.index, at));
        let by_the_rule = lives.by_the_rule() && lives.sooner().is_some();
        let harm = lives.harm().filter(|_| !by_the_rule);
        let mut row = Row {
            calls: 1,
            doomed: doomed.into(),
            beyond: 0,
            saved: (doomed && lived).into(),
            alerted: (doomed && !lived && in_time()).into(),
            lost: (doomed && !lived).into(),
            harmed: harm.is_some().into(),
        };
        if by_the_rule && faults.met(Fault::TakenOver) > 0 {
            *self.taken.entry(possible.err().unwrap_or("none of these")).or_default() += 1;
        } else {
            self.by_the_rule += u64::from(by_the_rule);
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
        harm.map_or(Ok(()), |what| Err(format!("c{} was harmed: {what}", lives.index)))
    }

    fn rows(&self) -> impl Iterator<Item = (&'static str, Row)> {
        let faults = Fault::ALL.iter().map(|fault| (fault.text(), self.faults.get(fault).copied().unwrap_or_default()));
        faults.chain([("no trouble", self.none), ("all calls", self.all)])
    }

    /// What holds over a whole run.
    pub(crate) fn assert_good(&self) {
        // Some for chance, which counts in short runs only.
        let most = self.all.calls / ONCE_IN + 5;
        assert!(self.by_the_rule <= most, "{} of {} calls ended by R12", self.by_the_rule, self.all.calls);
        let taken: u64 = self.taken.values().sum();
        let all = self.faults.get(&Fault::TakenOver).map_or(0, |row| row.calls);
        assert!(
            taken * TAKEN_ONE_IN <= all + 100,
            "{taken} of {all} calls ended after their refreshing was taken over"
        );
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
        writeln!(f, "\n{:<62}{:>8}", "R12", self.by_the_rule)?;
        writeln!(f, "{:<62}{:>8}", "taken over, because", self.taken.values().sum::<u64>())?;
        self.taken.iter().try_for_each(|(why, calls)| writeln!(f, "{why:<62}{calls:>8}"))?;
        write!(f, "\nat least {SAVED} % saved is asked of rows in which saved and lost are {ENOUGH} or more")
    }
}
