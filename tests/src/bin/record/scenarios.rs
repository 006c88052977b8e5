//! What is played to each stack.

use crate::{
    probe::{
        Answer,
        Number::{Equal, Gap, Lower, Next},
        Step::{self, Ask, Call, Called, Quiet, Stray},
    },
    stacks::Stack,
};

/// One call, in a laboratory of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// What the stack is told, where it can be told: interval and least interval in seconds, refreshes by UPDATE.
    pub(crate) interval: u32,
    pub(crate) min_se: u32,
    pub(crate) updates: bool,
    pub(crate) script: &'static [Step],
    /// What the second probe does, where the stack stands between the two.
    pub(crate) callee: &'static [Step],
}

impl Scenario {
    /// Whether the stack is the caller.
    pub(crate) fn calls(&self) -> bool {
        self.script.iter().any(|step| matches!(step, Called))
    }
}

/// What may stand in a request or a 2xx.
const TIMER: &str = "Supported: timer";
const REQUIRE: &str = "Require: timer";
const SE_10: &str = "Session-Expires: 10";
const SE_12: &str = "Session-Expires: 12";
const SE_12_UAC: &str = "Session-Expires: 12;refresher=uac";
const SE_12_UAS: &str = "Session-Expires: 12;refresher=uas";
const SE_90: &str = "Session-Expires: 90";
const SE_90_UAC: &str = "Session-Expires: 90;refresher=uac";
const SE_90_UAS: &str = "Session-Expires: 90;refresher=uas";
const SE_120_UAC: &str = "Session-Expires: 120;refresher=uac";
const SE_30: &str = "Session-Expires: 30";
const SE_30_UAC: &str = "Session-Expires: 30;refresher=uac";
const SE_30_UAS: &str = "Session-Expires: 30;refresher=uas";
const SE_8_UAC: &str = "Session-Expires: 8;refresher=uac";
const SE_8_UAS: &str = "Session-Expires: 8;refresher=uas";
const MIN_5: &str = "Min-SE: 5";
const BYE: Step = Ask("BYE", Next, &[], false);

const fn refused(status: u16) -> Step {
    Step::Answer(Answer { status, headers: &[] })
}

const fn answered(headers: &'static [&'static str]) -> Step {
    Step::Answer(Answer { status: 200, headers })
}

/// With an interval as providers have it.
const fn long(name: &'static str, script: &'static [Step]) -> Scenario {
    Scenario { name, interval: 90, min_se: 90, updates: true, script, callee: &[] }
}

/// With an interval of seconds, for stacks that let themselves be told.
const fn short(name: &'static str, script: &'static [Step]) -> Scenario {
    Scenario { name, interval: 12, min_se: 5, updates: true, script, callee: &[] }
}

/// Past a proxy that enforces an interval of seconds.
const fn between(name: &'static str, script: &'static [Step], callee: &'static [Step]) -> Scenario {
    Scenario { name, interval: 8, min_se: 8, updates: true, script, callee }
}

/// For every stack: what it does with requests, and with numbers.
const COMMON: &[Scenario] = &[
    long(
        "caller_without_timers",
        &[
            Call(&[]),
            Ask("UPDATE", Next, &[], false),
            Ask("UPDATE", Next, &[], true),
            Ask("INVITE", Next, &[], true),
            Stray,
            BYE,
        ],
    ),
    long(
        "equal_and_lower_numbers",
        &[
            Call(&[]),
            Ask("INVITE", Gap, &[], true),
            Ask("INVITE", Equal, &[], true),
            Ask("INVITE", Lower, &[], true),
            Ask("INVITE", Next, &[], true),
            Ask("BYE", Lower, &[], false),
            BYE,
        ],
    ),
    long("bye_with_an_equal_number", &[Call(&[]), Ask("INVITE", Next, &[], true), Ask("BYE", Equal, &[], false), BYE]),
    long("caller_lists_timer", &[Call(&[TIMER]), BYE]),
    long("caller_names_no_refresher", &[Call(&[TIMER, SE_90]), BYE]),
    long("calls", &[Called, BYE]),
];

/// For stacks with timers: the roles, and what is too little.
const ROLES: &[Scenario] = &[
    long("caller_asks_for_uac", &[Call(&[TIMER, SE_90_UAC]), BYE]),
    long("caller_asks_for_uas", &[Call(&[TIMER, SE_90_UAS]), BYE]),
    long("caller_asks_and_lists_no_timer", &[Call(&[SE_90_UAC]), BYE]),
    long("caller_asks_for_too_little", &[Call(&[TIMER, SE_30])]),
    long("caller_asks_for_more", &[Call(&[TIMER, SE_120_UAC]), BYE]),
];

/// Clocks of seconds.
const SHORT: &[Scenario] = &[
    short("hangs_up_at_expiry", &[Call(&[TIMER, SE_12_UAC, MIN_5]), Quiet(20)]),
    short("refreshes", &[Call(&[TIMER, SE_12_UAS, MIN_5]), Quiet(22), BYE]),
    Scenario { updates: false, ..short("refreshes_by_invite", &[Call(&[TIMER, SE_12_UAS, MIN_5]), Quiet(22), BYE]) },
    short("refreshes_for_a_caller_without_timers", &[Call(&[]), Quiet(22), BYE]),
    long("refreshes_at_90_s", &[Call(&[TIMER, SE_90_UAS]), Quiet(110), BYE]),
    long("hangs_up_at_expiry_of_90_s", &[Call(&[TIMER, SE_90_UAC]), Quiet(110)]),
    short("refresh_meets_silence", &[Call(&[TIMER, SE_12_UAS, MIN_5]), refused(0), refused(0), Quiet(40)]),
    short("refresh_meets_405", &[Call(&[TIMER, SE_12_UAS, MIN_5]), refused(405), Quiet(22)]),
    short("refresh_meets_481", &[Call(&[TIMER, SE_12_UAS, MIN_5]), refused(481), Quiet(22)]),
    short("refresh_meets_491", &[Call(&[TIMER, SE_12_UAS, MIN_5]), refused(491), Quiet(22)]),
    short("refresh_meets_500", &[Call(&[TIMER, SE_12_UAS, MIN_5]), refused(500), Quiet(22)]),
    short(
        "invite_without_session_expires",
        &[Call(&[TIMER, SE_12_UAC, MIN_5]), Quiet(3), Ask("INVITE", Next, &[], true), Quiet(20)],
    ),
    short(
        "update_without_session_expires",
        &[Call(&[TIMER, SE_12_UAC, MIN_5]), Quiet(3), Ask("UPDATE", Next, &[TIMER], false), Quiet(20)],
    ),
    short(
        "refreshed_by_the_caller",
        &[
            Call(&[TIMER, SE_12_UAC, MIN_5]),
            Quiet(5),
            Ask("UPDATE", Next, &[TIMER, SE_12_UAC, MIN_5], false),
            Quiet(5),
            Ask("INVITE", Next, &[TIMER, SE_12_UAC, MIN_5], true),
            Quiet(5),
            Ask("UPDATE", Next, &[SE_10, MIN_5], false),
            Quiet(20),
        ],
    ),
    short("callee_says_uas", &[answered(&[TIMER, SE_12_UAS]), Called, Quiet(20)]),
    short("callee_says_uac", &[answered(&[TIMER, REQUIRE, SE_12_UAC]), Called, Quiet(20), BYE]),
    short("callee_without_timers", &[answered(&[]), Called, Quiet(20), BYE]),
    short("callee_names_no_refresher", &[answered(&[TIMER, SE_12]), Called, Quiet(20), BYE]),
    short(
        "callee_says_422",
        &[
            Step::Answer(Answer { status: 422, headers: &["Min-SE: 30"] }),
            answered(&[TIMER, REQUIRE, "Session-Expires: 30;refresher=uac"]),
            Called,
            BYE,
        ],
    ),
];

/// For a stack that accepts a role and does not play it.
const OFF: Scenario = long("refreshes", &[Call(&[TIMER, SE_90_UAS]), Quiet(130), BYE]);

/// The same where 90 s is the least that can be had.
const LONG: &[Scenario] = &[
    long("hangs_up_at_expiry", &[Call(&[TIMER, SE_90_UAC]), Quiet(130)]),
    long("refreshes", &[Call(&[TIMER, SE_90_UAS]), Quiet(130), BYE]),
    Scenario { updates: false, ..long("refreshes_by_invite", &[Call(&[TIMER, SE_90_UAS]), Quiet(60), BYE]) },
    long("refreshes_for_a_caller_without_timers", &[Call(&[]), Quiet(60), BYE]),
    long("refresh_meets_silence", &[Call(&[TIMER, SE_90_UAS]), refused(0), refused(0), Quiet(130)]),
    long("refresh_meets_405", &[Call(&[TIMER, SE_90_UAS]), refused(405), Quiet(130)]),
    long("refresh_meets_481", &[Call(&[TIMER, SE_90_UAS]), refused(481), Quiet(130)]),
    long("refresh_meets_491", &[Call(&[TIMER, SE_90_UAS]), refused(491), Quiet(130)]),
    long("refresh_meets_500", &[Call(&[TIMER, SE_90_UAS]), refused(500), Quiet(130)]),
    long(
        "invite_without_session_expires",
        &[Call(&[TIMER, SE_90_UAC]), Quiet(10), Ask("INVITE", Next, &[], true), Quiet(130)],
    ),
    long(
        "update_without_session_expires",
        &[Call(&[TIMER, SE_90_UAC]), Quiet(10), Ask("UPDATE", Next, &[TIMER], false), Quiet(130)],
    ),
    long(
        "refreshed_by_the_caller",
        &[
            Call(&[TIMER, SE_90_UAC]),
            Quiet(40),
            Ask("UPDATE", Next, &[TIMER, SE_90_UAC], false),
            Quiet(40),
            Ask("INVITE", Next, &[TIMER, SE_90_UAC], true),
            Quiet(130),
        ],
    ),
    long("callee_says_uas", &[answered(&[TIMER, SE_90_UAS]), Called, Quiet(130)]),
    long("callee_says_uac", &[answered(&[TIMER, REQUIRE, SE_90_UAC]), Called, Quiet(60), BYE]),
    long("callee_without_timers", &[answered(&[]), Called, Quiet(130), BYE]),
    long("callee_names_no_refresher", &[answered(&[TIMER, SE_90]), Called, Quiet(130), BYE]),
    long(
        "callee_says_422",
        &[
            Step::Answer(Answer { status: 422, headers: &["Min-SE: 120"] }),
            answered(&[TIMER, REQUIRE, SE_120_UAC]),
            Called,
            BYE,
        ],
    ),
];

/// For a proxy: what it puts into messages, and when it ends a call.
const BETWEEN: &[Scenario] = &[
    between("nobody_knows_timers", &[Call(&[]), Quiet(20)], &[answered(&[]), Called, Quiet(20)]),
    between("caller_lists_timer", &[Call(&[TIMER]), Quiet(20)], &[answered(&[]), Called, Quiet(20)]),
    between("caller_asks", &[Call(&[TIMER, SE_30_UAS]), Quiet(20)], &[answered(&[]), Called, Quiet(20)]),
    between("caller_asks_and_lists_no_timer", &[Call(&[SE_30]), Quiet(20)], &[answered(&[]), Called, Quiet(20)]),
    between("callee_knows_timers", &[Call(&[]), Quiet(20)], &[answered(&[SE_8_UAS]), Called, Quiet(20)]),
    between(
        "both_know_timers",
        &[Call(&[TIMER, SE_30_UAC]), Quiet(20)],
        &[answered(&[TIMER, REQUIRE, SE_30_UAC]), Called, Quiet(20)],
    ),
    between(
        "refreshed_by_the_caller",
        &[
            Call(&[TIMER]),
            Quiet(4),
            Ask("UPDATE", Next, &[TIMER, SE_8_UAC], false),
            Quiet(4),
            Ask("UPDATE", Next, &[TIMER, SE_8_UAC], false),
            Quiet(4),
            Ask("INVITE", Next, &[TIMER, SE_30_UAC], true),
            Quiet(20),
        ],
        &[answered(&[]), answered(&[]), refused(405), answered(&[]), Called, Quiet(40)],
    ),
    between(
        "refreshed_by_the_callee",
        &[Call(&[TIMER]), answered(&[]), answered(&[]), Quiet(40)],
        &[
            answered(&[]),
            Called,
            Quiet(4),
            Ask("INVITE", Next, &[], true),
            Quiet(4),
            Ask("UPDATE", Next, &[TIMER, SE_30_UAC], false),
            Quiet(20),
        ],
    ),
    between(
        "requests_that_refresh_nothing",
        &[Call(&[]), Quiet(5), Ask("INFO", Next, &[], false), Quiet(40)],
        &[answered(&[]), Called, Quiet(10), Ask("INFO", Next, &[], false), Quiet(30)],
    ),
    between("caller_hangs_up", &[Call(&[]), BYE, Quiet(10)], &[answered(&[]), Called, Quiet(12)]),
    between("callee_hangs_up", &[Call(&[]), Quiet(12)], &[answered(&[]), Called, BYE, Quiet(10)]),
];

/// All scenarios of a stack.
pub(crate) fn of(stack: Stack) -> Vec<Scenario> {
    let parts: &[&[Scenario]] = match stack {
        Stack::Sofia => &[COMMON, ROLES, SHORT],
        Stack::Pjsip | Stack::Jssip | Stack::Linphone | Stack::Asterisk => &[COMMON, ROLES, LONG],
        Stack::AsteriskNo => &[COMMON, ROLES, &[OFF]],
        Stack::Baresip | Stack::NetSip | Stack::Sippy | Stack::Twinkle => &[COMMON],
        Stack::Kamailio => &[BETWEEN],
    };
    let mut scenarios = parts.concat();
    if !matches!(stack, Stack::Sofia | Stack::Jssip) {
        // They cannot be told how to refresh.
        scenarios.retain(|scenario| scenario.updates);
    }
    scenarios
}
