//! Every kind of trouble that a run has to meet, and how often it was met.

use std::{collections::BTreeMap, fmt};

macro_rules! faults {
    ($($name:ident = $text:literal,)*) => {
        /// One kind of trouble.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Fault { $($name,)* }

        impl Fault {
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)*];

            pub(crate) const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

faults! {
    // The network
    PacketLost = "packet lost",
    PacketDoubled = "packet doubled",
    PacketLate = "packet overtaken by later ones",
    Outage = "link down for 1 to 40 s",
    Firewall = "dropped by a firewall behind the kernel programs",
    // The host
    SampleLost = "sample lost",
    RingOverflow = "ring full for a while",
    DaemonSlept = "daemon slept for up to 500 ms",
    DaemonStalled = "daemon stalled for 1 to 12 s",
    DaemonKilled = "daemon killed, another one went on from what it had written",
    Adopted = "request taken over that the killed daemon had not written down",
    ServerCrashed = "server crashed",
    ServerRestarted = "server restarted, dialogs forgotten",
    PeerRestarted = "peer restarted, dialogs forgotten",
    ServerGone = "refresh refused: the server's socket is gone",
    // Numbers
    ShiftedOut = "number shifted out",
    ShiftedBack = "number shifted back",
    Lengthened = "request lengthened for its number",
    Quoted = "number in RAck or refer;id shifted",
    AnswerTaken = "answer taken off the wire",
    Moved = "number had moved",
    RangesFull = "ranges full",
    NoRoom = "number without room",
    StaleRefused = "number refused by the peer",
    // The server's own requests around an injection
    RaceEntry = "a request before the entry was made",
    RaceRead = "a request before the numbers were read",
    RaceDrain = "a request before the ring was drained",
    RaceDrained = "a request after the ring was drained",
    RaceLeaves = "a request before the injected one left",
    RaceLeft = "a request after the injected one left",
    CrossedUpdate = "re-INVITE of the server's during our UPDATE",
    CrossedInvite = "re-INVITE of the server's around our re-INVITE",
    Glare = "glare",
    // What the peer says to a refresh of sipst's
    Says302 = "refresh refused with 302",
    Says401 = "refresh refused with 401",
    Says407 = "refresh refused with 407",
    Says408 = "refresh refused with 408",
    Says422 = "refresh refused with 422",
    Says481 = "refresh refused with 481",
    Says491 = "refresh refused with 491",
    Says500 = "refresh refused with 500",
    Says503 = "refresh refused with 503 and Retry-After",
    Says504 = "refresh refused with 504",
    Swallowed = "UPDATE swallowed",
    ByUpdate = "refreshed by UPDATE of sipst's",
    ByInvite = "refreshed by re-INVITE of sipst's",
    ByServer = "refreshed by the server itself",
    ByPeer = "refreshed by the peer",
    // What the server says to what the peer asks for, and what becomes of that
    Rejects405 = "peer's refresh refused by the server with 405",
    Rejects420 = "peer's refresh refused by the server with 420",
    Rejects488 = "peer's refresh refused by the server with 488",
    Rejects500 = "peer's refresh refused by the server with 500",
    Rejects501 = "peer's refresh refused by the server with 501",
    Rejects503 = "peer's refresh refused by the server with 503",
    RejectsOtherwise = "peer's refresh refused by the server with 404, 480, 504",
    RejectsInSilence = "peer's refresh passed over by the server",
    ChangeRejected = "peer's hold, codec, Contact refused by the server",
    HeldBack = "refusal held back",
    HoldAsleep = "refusal went out: the daemon did not live",
    HoldNoRoom = "refusal went out: the ring was full",
    HeldAtDeath = "daemon killed while a refusal was held back",
    LetOut = "refusal let out as it was",
    AnsweredUpdate = "UPDATE answered in the server's name",
    AnsweredInvite = "re-INVITE answered in the server's name",
    Declined = "491 or 500 in the server's name",
    AnswerRepeated = "200 in the server's name repeated",
    AckTaken = "peer's ACK taken away from the server",
    AckTurned = "server's refusal ACKed in the peer's name",
    TakenOver = "refreshed by sipst where the peer had to",
    // What calls are made of
    Forked = "fork: two 2xx, one dialog kept",
    Reliable = "reliable 1xx and PRACK",
    EarlyUpdate = "UPDATE in the early dialog",
    Cancelled = "CANCEL, 487",
    CancelCrossed = "CANCEL crossed the 200: ACK and BYE",
    Referred = "REFER, NOTIFY with refer;id",
    Held = "held by sendonly",
    Frozen = "held by inactive",
    CodecChanged = "switched to another codec",
    Fax = "switched to T.38",
    LateOffer = "INVITE without an offer",
    ContactMoved = "another Contact",
    BodyAfterBodyless = "UPDATE without a body refused, then at once with SDP",
    BothLegs = "both legs of a B2BUA",
    SameCallId = "both legs with the same Call-ID",
    // Proxies
    ProxyInserted = "proxy inserted Session-Expires",
    ProxyLowered = "proxy lowered Session-Expires",
    Proxy422 = "proxy answered 422",
    ProxyKilled = "proxy sent BYEs both ways",
}

/// One in so many calls has to meet each kind: 1,000 times in 100,000 calls.
const ONE_IN: u64 = 100;

/// The same of what takes several things at one moment.
const SELDOM_ONE_IN: u64 = 2_000;

/// These.
const SELDOM: &[Fault] = &[Fault::Declined, Fault::HeldAtDeath, Fault::HoldAsleep, Fault::HoldNoRoom];

/// How often each kind was met.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally(BTreeMap<Fault, u64>);

impl Tally {
    pub(crate) fn count(&mut self, fault: Fault) {
        self.add(fault, 1);
    }

    pub(crate) fn add(&mut self, fault: Fault, times: u64) {
        *self.0.entry(fault).or_default() += times;
    }

    pub(crate) fn take_in(&mut self, other: &Self) {
        for (fault, times) in &other.0 {
            self.add(*fault, *times);
        }
    }

    pub(crate) fn met(&self, fault: Fault) -> u64 {
        self.0.get(&fault).copied().unwrap_or(0)
    }

    /// What a run of so many calls has met too seldom.
    pub(crate) fn missing(&self, calls: u64) -> Vec<String> {
        // What the engine sees to that it is not met.
        let wanted = Fault::ALL.iter().filter(|fault| **fault != Fault::NoRoom);
        let least = |fault| calls / if SELDOM.contains(fault) { SELDOM_ONE_IN } else { ONE_IN };
        let seldom = wanted.filter(|fault| self.met(**fault) < least(fault));
        seldom.map(|fault| format!("{}: met {} times", fault.text(), self.met(*fault))).collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Fault::ALL.iter().try_for_each(|fault| writeln!(f, "{:>10} {}", self.met(*fault), fault.text()))
    }
}
