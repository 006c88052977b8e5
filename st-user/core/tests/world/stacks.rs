//! Real stacks, by what was observed of them on the wire.

use super::sip::Spelling;

/// What a stack does with a request whose CSeq is not above the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stale {
    Accepts,
    Refuses,
    Ignores,
}

/// What a stack does with an UPDATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnUpdate {
    Accepts,
    /// Allow does not list it, and this is the answer.
    Refuses(u16),
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
    /// No refresher parameter, and it waits for the UAC (F6, R13).
    Omits,
    /// What the request asked for comes back with `refresher=uas`, and nothing is done about it.
    Echoes,
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
    Two,
    Random15,
    Billion,
}

#[derive(Debug)]
pub(crate) struct Stack {
    pub(crate) name: &'static str,
    /// Whether it lists `timer`.
    pub(crate) lists_timer: bool,
    /// Whether it asks for an interval as the UAC.
    pub(crate) asks: bool,
    pub(crate) as_uas: AsUas,
    /// Whether it refreshes where it has to.
    pub(crate) refreshes: bool,
    /// How far from SE/2 it may do that, in seconds.
    pub(crate) spread: u32,
    /// Whether it prefers UPDATE to re-INVITE.
    pub(crate) updates: bool,
    pub(crate) expiry: Expiry,
    pub(crate) bare: Bare,
    pub(crate) on_update: OnUpdate,
    pub(crate) equal: Stale,
    pub(crate) lower: Stale,
    /// An ACK with a lower number lowers what it remembers.
    pub(crate) ack_lowers: bool,
    /// Each answer to a re-INVITE has a new port (F9).
    pub(crate) moves_media: bool,
    /// It answers a hold with its old SDP (F11).
    pub(crate) ignores_hold: bool,
    pub(crate) first: First,
    pub(crate) spelling: Spelling,
}

const PLAIN: Spelling = Spelling { compact: false, cseq: "CSeq: " };

/// What most have in common: no timers.
const NONE: Stack = Stack {
    name: "",
    lists_timer: false,
    asks: false,
    as_uas: AsUas::Silent,
    refreshes: false,
    spread: 0,
    updates: false,
    expiry: Expiry::Never,
    bare: Bare::Off,
    on_update: OnUpdate::Refuses(501),
    equal: Stale::Accepts,
    lower: Stale::Refuses,
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
    refreshes: true,
    updates: true,
    expiry: Expiry::Third,
    on_update: OnUpdate::Accepts,
    ..NONE
};

/// Servers: those that know nothing of timers first.
pub(crate) static SERVERS: &[Stack] = &[
    Stack { name: "livekit", on_update: OnUpdate::Refuses(405), ignores_hold: true, first: First::Two, ..NONE },
    Stack { name: "baresip", ..NONE },
    Stack { name: "yate", lower: Stale::Accepts, first: First::One, ..NONE },
    Stack { name: "sippy", equal: Stale::Refuses, on_update: OnUpdate::Refuses(500), first: First::Billion, ..NONE },
    Stack {
        name: "net_sip",
        spelling: Spelling { compact: false, cseq: "Cseq: " },
        equal: Stale::Ignores,
        lower: Stale::Ignores,
        first: First::One,
        ..NONE
    },
    Stack { name: "compact", spelling: Spelling { compact: true, cseq: "CSeq:" }, ..NONE },
    Stack {
        name: "asterisk_no",
        lists_timer: true,
        equal: Stale::Refuses,
        lower: Stale::Refuses,
        on_update: OnUpdate::Accepts,
        ..NONE
    },
    Stack { name: "transparent_b2bua", as_uas: AsUas::Echoes, equal: Stale::Refuses, ..NONE },
    Stack { name: "dead_timer", refreshes: false, expiry: Expiry::Never, ..TIMED },
    Stack { name: "pjsip", equal: Stale::Refuses, ack_lowers: true, ..TIMED },
    Stack { name: "sofia", spread: 5, expiry: Expiry::Tenth, first: First::Billion, ..TIMED },
];

/// Peers: the first one is the provider that the product was made for.
pub(crate) static PEERS: &[Stack] = &[
    Stack { name: "strict_provider", as_uas: AsUas::ForcesUac, equal: Stale::Refuses, ..TIMED },
    Stack { name: "invite_provider", as_uas: AsUas::ForcesUac, on_update: OnUpdate::Refuses(405), ..TIMED },
    Stack { name: "omits_refresher", as_uas: AsUas::Omits, equal: Stale::Refuses, ..TIMED },
    Stack { name: "swallows_update", as_uas: AsUas::ForcesUac, on_update: OnUpdate::Swallows, ..TIMED },
    Stack { name: "moves_media", as_uas: AsUas::ForcesUac, moves_media: true, ..TIMED },
    Stack { name: "pjsip", equal: Stale::Refuses, ack_lowers: true, ..TIMED },
    Stack {
        name: "sofia",
        spread: 5,
        expiry: Expiry::Tenth,
        bare: Bare::Own,
        as_uas: AsUas::ForcesUac,
        first: First::Billion,
        ..TIMED
    },
    Stack { name: "sems", expiry: Expiry::Full, equal: Stale::Refuses, first: First::Ten, bare: Bare::Own, ..TIMED },
    Stack { name: "jssip", expiry: Expiry::Late, as_uas: AsUas::ForcesUac, bare: Bare::Own, ..TIMED },
    Stack {
        name: "linphone",
        expiry: Expiry::Never,
        lower: Stale::Accepts,
        updates: false,
        as_uas: AsUas::ForcesUac,
        ..TIMED
    },
    Stack {
        name: "compact_provider",
        as_uas: AsUas::ForcesUac,
        spelling: Spelling { compact: true, cseq: "CSeq:" },
        ..TIMED
    },
    Stack { name: "baresip", ..NONE },
];
