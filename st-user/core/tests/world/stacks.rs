//! Real stacks, by what was observed of them on the wire; those that are recorded are held against it (`traces.rs`).

use super::{
    agent::{MS, Us},
    sip::Spelling,
};

/// What a stack does with a request whose CSeq is not above the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stale {
    Accepts,
    Refuses,
    /// An INVITE has no answer, anything else is refused.
    IgnoresInvites,
    Ignores,
}

/// What a stack does with an UPDATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnUpdate {
    Accepts,
    /// Allow does not list it, and this is the answer.
    Refuses(u16),
    /// Allow does not list it, and it gets no answer.
    Ignores,
    /// Allow lists it; it gets no answer (F7).
    Swallows,
}

/// When a stack that is no refresher hangs up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expiry {
    Never,
    /// `SE - min(32, SE/3)`
    Third,
    /// `SE - min(32, SE/10)`
    Tenth,
    /// At SE.
    Full,
    /// At 1.1 SE.
    Late,
}

/// What a stack says of timers as the UAS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AsUas {
    /// Nothing.
    Silent,
    /// RFC 4028, table 2: to a UAC without `timer` it says uas and refreshes.
    ByTheBook,
    /// `refresher=uac`, also to a UAC without `timer`.
    ForcesUac,
    /// Whom the request names, even without `timer`; else `refresher=uas`.
    Volunteers,
    /// Whom the request names, even without `timer`; else uac where it has Session-Expires, and uas where it has none.
    Follows,
    /// `refresher=uas` where the request names nobody; nothing to a UAC without `timer`.
    VolunteersIfListed,
    /// No refresher parameter, and it waits for the UAC (F6, R13).
    Omits,
    /// What the request asked for comes back with `refresher=uas`, and nothing is done about it.
    Echoes,
}

/// When a 2xx with Session-Expires has `Require: timer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Requires {
    Never,
    /// With `refresher=uac`.
    OfUac,
    /// Where the request lists `timer`.
    IfListed,
    /// Where an INVITE lists `timer`, but not an UPDATE.
    IfInviteLists,
}

/// Where a stack writes Min-SE of its own accord.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SaysMinSe {
    Never,
    /// In its INVITE that makes the dialog.
    AtFirst,
    /// In all requests with Session-Expires.
    Asking,
    /// In these and in all 2xx with Session-Expires.
    Always,
}

/// Which 2xx of a stack have Allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnswersAllow {
    Never,
    /// That to the INVITE that makes the dialog.
    AtFirst,
    /// Those with SDP.
    WithSdp,
    Always,
}

/// What a stack does when its own refresh fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// What the status asks for, and another method where this one is not taken.
    Mends,
    /// The same once more, after so long.
    Again(Us),
    /// The same once more, when half of the interval has passed again.
    NextTime,
    /// The same at once with an offer, as all later ones.
    Offers,
    /// That too; and whatever is answered, BYE five seconds later.
    OffersAndHangsUp,
    /// Nothing more.
    GivesUp,
    /// BYE, with this cause in Reason.
    HangsUp(Option<u32>),
    /// The call is over for it, and it does not say so.
    Leaves,
}

/// What a stack does when its own refresh is answered by no 2xx.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failed {
    /// 405 or 501
    pub(crate) refused: Then,
    /// 481
    pub(crate) unknown: Then,
    /// 491
    pub(crate) glare: Then,
    /// 5xx but 501
    pub(crate) error: Then,
    /// No answer, or 408.
    pub(crate) silence: Then,
}

impl Failed {
    const fn always(then: Then) -> Self {
        Self { refused: then, unknown: then, glare: then, error: then, silence: then }
    }
}

/// How a stack gets a later request without Session-Expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bare {
    /// Its timer is off (R12).
    Off,
    /// It goes on as it was, or with its own value.
    Own,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum First {
    One,
    Ten,
    /// As the callee it counts on from the caller's number.
    Two,
    /// 20 as the caller; as the callee 11 above the caller's number.
    Twenty,
    Random15,
    Billion,
}

#[derive(Clone, Debug)]
pub(crate) struct Stack {
    pub(crate) name: &'static str,
    /// Whether it lists `timer`.
    pub(crate) lists_timer: bool,
    /// Whether its 2xx to an UPDATE lists `timer` all the same.
    pub(crate) lists_in_updates: bool,
    /// Whether it asks for an interval as the UAC.
    pub(crate) asks: bool,
    pub(crate) as_uas: AsUas,
    /// Whether it lowers what the UAC asks for to its own interval.
    pub(crate) lowers: bool,
    /// Whether it answers 422 to less than it takes; else it raises that by itself.
    pub(crate) refuses_small: bool,
    /// Whether it asks again after a 422.
    pub(crate) obeys_422: bool,
    /// Whether the role of a peer stays where a later request names nobody.
    pub(crate) keeps_role: bool,
    pub(crate) requires: Requires,
    pub(crate) says_min_se: SaysMinSe,
    pub(crate) answers_allow: AnswersAllow,
    /// Whether it refreshes where it has to.
    pub(crate) refreshes: bool,
    /// How far from SE/2 it may do that, in seconds, where SE is 90 s or more.
    pub(crate) spread: u32,
    /// Whether it prefers UPDATE to re-INVITE.
    pub(crate) updates: bool,
    /// Whether its INVITE has Allow.
    pub(crate) invites_allow: bool,
    /// Whether its UPDATE has Allow.
    pub(crate) updates_allow: bool,
    /// Whether its UPDATE has an offer.
    pub(crate) describes_updates: bool,
    pub(crate) failed: Failed,
    /// Whether it hangs up at SE where it is itself the refresher.
    pub(crate) stops_itself: bool,
    pub(crate) expiry: Expiry,
    /// The cause in its BYE at expiry.
    pub(crate) cause: Option<u32>,
    pub(crate) bare: Bare,
    pub(crate) on_update: OnUpdate,
    pub(crate) equal: Stale,
    pub(crate) lower: Stale,
    /// It acknowledges a 2xx to an INVITE that it has not sent.
    pub(crate) acks_strays: bool,
    /// An ACK with a lower number lowers what it remembers.
    pub(crate) ack_lowers: bool,
    /// Each answer to a re-INVITE has a new port (F9).
    pub(crate) moves_media: bool,
    /// It answers a hold with its old SDP (F11).
    pub(crate) ignores_hold: bool,
    pub(crate) first: First,
    pub(crate) spelling: Spelling,
}

impl Stack {
    /// Whether it says that it refreshes itself, where it is called by somebody without timers.
    pub(crate) const fn undertakes(&self) -> bool {
        matches!(self.as_uas, AsUas::ByTheBook | AsUas::Volunteers | AsUas::Follows)
    }
}

const PLAIN: Spelling = Spelling { compact: false, cseq: "CSeq: ", long: false };

/// What most have in common: no timers.
const NONE: Stack = Stack {
    name: "",
    lists_timer: false,
    lists_in_updates: false,
    asks: false,
    as_uas: AsUas::Silent,
    lowers: true,
    refuses_small: false,
    obeys_422: true,
    keeps_role: false,
    requires: Requires::Never,
    says_min_se: SaysMinSe::Never,
    answers_allow: AnswersAllow::Always,
    refreshes: false,
    spread: 0,
    updates: false,
    invites_allow: true,
    updates_allow: true,
    describes_updates: false,
    failed: Failed::always(Then::Mends),
    stops_itself: false,
    expiry: Expiry::Never,
    cause: None,
    bare: Bare::Off,
    on_update: OnUpdate::Refuses(501),
    equal: Stale::Accepts,
    lower: Stale::Refuses,
    acks_strays: false,
    ack_lowers: false,
    moves_media: false,
    ignores_hold: false,
    first: First::Random15,
    spelling: PLAIN,
};

/// What most with timers have in common.
const TIMED: Stack = Stack {
    lists_timer: true,
    asks: true,
    as_uas: AsUas::ByTheBook,
    refuses_small: true,
    requires: Requires::IfListed,
    refreshes: true,
    updates: true,
    stops_itself: true,
    expiry: Expiry::Third,
    on_update: OnUpdate::Accepts,
    ..NONE
};

const BARESIP: Stack = Stack { name: "baresip", answers_allow: AnswersAllow::AtFirst, ..NONE };

/// pjsua, told to use session timers always.
const PJSIP: Stack = Stack {
    name: "pjsip",
    as_uas: AsUas::Follows,
    lowers: false,
    keeps_role: true,
    requires: Requires::OfUac,
    says_min_se: SaysMinSe::Asking,
    updates_allow: false,
    failed: Failed { unknown: Then::OffersAndHangsUp, silence: Then::HangsUp(None), ..Failed::always(Then::Offers) },
    bare: Bare::Own,
    equal: Stale::Refuses,
    acks_strays: true,
    ack_lowers: true,
    ..TIMED
};

/// chan_pjsip of Asterisk, told to use session timers always.
const ASTERISK: Stack = Stack {
    name: "asterisk",
    failed: Failed {
        unknown: Then::HangsUp(Some(481)),
        silence: Then::HangsUp(Some(408)),
        ..Failed::always(Then::Offers)
    },
    cause: Some(408),
    ..PJSIP
};

/// sofia-sip's nua, told to refresh by UPDATE.
const SOFIA: Stack = Stack {
    name: "sofia",
    keeps_role: true,
    requires: Requires::OfUac,
    says_min_se: SaysMinSe::Always,
    spread: 5,
    describes_updates: true,
    failed: Failed {
        refused: Then::Again(1_000 * MS),
        unknown: Then::Leaves,
        glare: Then::Again(1_000 * MS),
        error: Then::HangsUp(None),
        silence: Then::GivesUp,
    },
    stops_itself: false,
    expiry: Expiry::Tenth,
    cause: Some(408),
    bare: Bare::Own,
    first: First::Billion,
    ..TIMED
};

const JSSIP: Stack = Stack {
    name: "jssip",
    as_uas: AsUas::Volunteers,
    lowers: false,
    refuses_small: false,
    obeys_422: false,
    requires: Requires::Never,
    answers_allow: AnswersAllow::Never,
    failed: Failed {
        unknown: Then::HangsUp(Some(500)),
        silence: Then::HangsUp(Some(408)),
        ..Failed::always(Then::GivesUp)
    },
    stops_itself: false,
    expiry: Expiry::Late,
    cause: Some(408),
    bare: Bare::Own,
    ..TIMED
};

const LINPHONE: Stack = Stack {
    name: "linphone",
    as_uas: AsUas::VolunteersIfListed,
    requires: Requires::IfInviteLists,
    says_min_se: SaysMinSe::AtFirst,
    answers_allow: AnswersAllow::WithSdp,
    updates_allow: false,
    failed: Failed::always(Then::NextTime),
    stops_itself: false,
    expiry: Expiry::Never,
    lower: Stale::Accepts,
    first: First::Twenty,
    ..TIMED
};

/// Servers: those that know nothing of timers first.
pub(crate) static SERVERS: &[Stack] = &[
    Stack { name: "livekit", on_update: OnUpdate::Refuses(405), ignores_hold: true, first: First::Two, ..NONE },
    BARESIP,
    Stack { name: "yate", lower: Stale::Accepts, first: First::One, ..NONE },
    Stack {
        name: "sippy",
        invites_allow: false,
        answers_allow: AnswersAllow::Never,
        equal: Stale::Refuses,
        on_update: OnUpdate::Ignores,
        first: First::Billion,
        ..NONE
    },
    Stack {
        name: "net_sip",
        spelling: Spelling { cseq: "Cseq: ", ..PLAIN },
        equal: Stale::Ignores,
        lower: Stale::Ignores,
        on_update: OnUpdate::Ignores,
        first: First::One,
        ..NONE
    },
    Stack { name: "compact", spelling: Spelling { compact: true, cseq: "CSeq:", ..PLAIN }, ..NONE },
    Stack {
        name: "asterisk_no",
        lists_in_updates: true,
        equal: Stale::Refuses,
        lower: Stale::Refuses,
        on_update: OnUpdate::Accepts,
        acks_strays: true,
        ack_lowers: true,
        ..NONE
    },
    Stack { name: "twinkle", equal: Stale::IgnoresInvites, lower: Stale::IgnoresInvites, ..NONE },
    Stack { name: "transparent_b2bua", as_uas: AsUas::Echoes, equal: Stale::Refuses, ..NONE },
    Stack { name: "dead_timer", refreshes: false, expiry: Expiry::Never, ..TIMED },
    PJSIP,
    SOFIA,
    // The last two: a number of one digit and no blank; and requests that cannot become longer, the least room there can be.
    Stack { name: "narrow", first: First::One, spelling: Spelling { cseq: "CSeq:", ..PLAIN }, ..NONE },
    Stack { name: "cramped", first: First::One, spelling: Spelling { cseq: "CSeq:", long: true, ..PLAIN }, ..NONE },
];

/// Peers: the first one is the provider that the product was made for.
pub(crate) static PEERS: &[Stack] = &[
    Stack { name: "strict_provider", as_uas: AsUas::ForcesUac, equal: Stale::Refuses, ..TIMED },
    Stack { name: "invite_provider", as_uas: AsUas::ForcesUac, on_update: OnUpdate::Refuses(405), ..TIMED },
    Stack { name: "omits_refresher", as_uas: AsUas::Omits, equal: Stale::Refuses, ..TIMED },
    Stack { name: "swallows_update", as_uas: AsUas::ForcesUac, on_update: OnUpdate::Swallows, ..TIMED },
    Stack { name: "moves_media", as_uas: AsUas::ForcesUac, moves_media: true, ..TIMED },
    PJSIP,
    SOFIA,
    // A provider with sofia's clock in front of a UAC that it takes for the refresher.
    Stack {
        name: "late_provider",
        as_uas: AsUas::ForcesUac,
        expiry: Expiry::Tenth,
        bare: Bare::Own,
        first: First::Billion,
        ..TIMED
    },
    Stack { name: "sems", expiry: Expiry::Full, equal: Stale::Refuses, first: First::Ten, bare: Bare::Own, ..TIMED },
    JSSIP,
    ASTERISK,
    LINPHONE,
    Stack {
        name: "compact_provider",
        as_uas: AsUas::ForcesUac,
        spelling: Spelling { compact: true, cseq: "CSeq:", ..PLAIN },
        ..TIMED
    },
    BARESIP,
];
