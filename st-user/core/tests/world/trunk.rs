//! What the operator has asked for on the trunk of a call, and how a server deals with what the peer asks for in it. Whoever
//! stands at the other end is named in a domain of the trunk's own.

use proptest::prelude::*;
use st_core::{
    Action, Credentials, Policy, Respond, Rules, Trunk as Named,
    policy::{DomainPattern, Matcher},
};
use std::time::Duration;

use super::{
    agent::{Agent, Us},
    faults::Fault,
    sip::{Msg, Verb},
};

/// The rules that a call falls under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trunk {
    /// sipst refreshes where the server's side has to.
    Plain,
    /// `take_over`
    TakesOver,
    /// `respond: on-reject`
    Answers,
    /// Both.
    Both,
}

impl Trunk {
    const ALL: [Self; 4] = [Self::Plain, Self::TakesOver, Self::Answers, Self::Both];

    pub(crate) const fn domain(self) -> &'static str {
        match self {
            Self::Plain => "carrier.example",
            Self::TakesOver => "taken.example",
            Self::Answers => "answered.example",
            Self::Both => "both.example",
        }
    }

    /// Whether sipst refreshes where the peer has to.
    pub(crate) const fn takes_over(self) -> bool {
        matches!(self, Self::TakesOver | Self::Both)
    }

    /// Whether sipst answers where the server turns a refresh of the peer's down.
    pub(crate) const fn answers(self) -> bool {
        matches!(self, Self::Answers | Self::Both)
    }

    fn rules(self) -> Rules {
        Rules {
            action: Action::Refresh,
            credentials: Some(Credentials { username: "u".into(), password: "p".into() }),
            interval_floor: Duration::from_secs(60),
            take_over: self.takes_over(),
            respond: if self.answers() { Respond::OnReject } else { Respond::Never },
            ..Rules::default()
        }
    }

    /// That of all calls.
    pub(crate) fn policy() -> Policy {
        let named = |trunk: &Self| {
            let domains = vec![DomainPattern::new(trunk.domain()).expect("a domain")];
            Named { name: trunk.domain().into(), matcher: Matcher { peers: Vec::new(), domains }, rules: trunk.rules() }
        };
        let trunks = Self::ALL.iter().filter(|trunk| **trunk != Self::Plain).map(named).collect();
        Policy { trunks, default: Self::Plain.rules(), ..Policy::default() }
    }
}

pub(crate) fn trunk() -> impl Strategy<Value = Trunk> {
    prop_oneof![6 => Just(Trunk::Plain), 2 => Just(Trunk::TakesOver), 2 => Just(Trunk::Answers), 1 => Just(Trunk::Both)]
}

/// What a server says to a request: a status, or nothing.
pub(crate) type Word = Option<u16>;

/// How a server turns down what the peer asks for in the dialog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rejects {
    pub(crate) update: Word,
    pub(crate) invite: Word,
    /// Whether its Allow lists UPDATE all the same.
    pub(crate) lists_update: bool,
    /// Whether also what is more than a refresh: hold, codecs, Contact.
    pub(crate) changes: bool,
    /// Its 500 and 503 have a Retry-After.
    pub(crate) retry_after: bool,
    /// The first so many; what comes then is taken.
    pub(crate) times: u32,
}

/// What `respond: on-reject` is for.
pub(crate) const LISTED: [u16; 6] = [405, 420, 488, 500, 501, 503];

impl Rejects {
    /// What it says to a request of the peer's; `None`: it takes that.
    fn word(&self, msg: &Msg, is_change: bool) -> Option<Word> {
        let word = if msg.verb == Verb::Update { self.update } else { self.invite };
        (self.times > 0 && (self.changes || !is_change)).then_some(word)
    }

    /// Whether sipst may speak in the server's place, whatever the method.
    pub(crate) fn may_be_answered(&self) -> bool {
        let listed = |word: Word| {
            word.is_some_and(|status| LISTED.contains(&status)) && !(word == Some(500) && self.retry_after)
        };
        listed(self.update) && listed(self.invite)
    }
}

fn word() -> impl Strategy<Value = Word> {
    prop_oneof![
        12 => prop::sample::select(LISTED.to_vec()).prop_map(Some),
        2 => prop::sample::select(vec![404_u16, 480, 504]).prop_map(Some),
        2 => Just(None),
    ]
}

prop_compose! {
    pub(crate) fn rejects()(
        update in word(),
        invite in word(),
        lists_update in any::<bool>(),
        changes in any::<bool>(),
        retry_after in prop::bool::weighted(0.2),
        times in prop_oneof![4 => Just(u32::MAX), 1 => 1..4_u32],
    ) -> Rejects {
        Rejects { update, invite, lists_update, changes, retry_after, times }
    }
}

impl Agent {
    /// Whether it turns this request down; it has said so then.
    pub(crate) fn rejects(&mut self, now: Us, msg: &Msg) -> bool {
        let is_change = self.would_change(msg);
        let Some(rejects) = self.rejects.as_mut() else { return false };
        let Some(word) = rejects.word(msg, is_change) else { return false };
        rejects.times -= 1;
        let retry_after = rejects.retry_after;
        let fault = match word {
            _ if is_change => Fault::ChangeRejected,
            Some(405) => Fault::Rejects405,
            Some(420) => Fault::Rejects420,
            Some(488) => Fault::Rejects488,
            Some(500) => Fault::Rejects500,
            Some(501) => Fault::Rejects501,
            Some(503) => Fault::Rejects503,
            Some(_) => Fault::RejectsOtherwise,
            None => Fault::RejectsInSilence,
        };
        self.diary.tally.count(fault);
        if let Some(status) = word {
            self.reply(now, msg, status, |answer| {
                answer.retry_after = (retry_after && matches!(status, 500 | 503)).then_some(3);
            });
        }
        true
    }
}
