//! The words that an event's `reason` begins with. Details may follow, after a colon.

macro_rules! reasons {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal,)*) => {
        $($(#[doc = $doc])* pub const $name: &str = $text;)*

        /// All of them, each with what it means.
        pub const ALL: &[(&str, &str)] = &[$(($text, concat!($($doc),*)),)*];
    };
}

reasons! {
    /// `session_ended`: a BYE; its Reason header follows, if it had one.
    BYE = "bye",
    /// `session_ended`: the peer's BYE was repeated, and the server said nothing for 32 s, to nobody.
    BYE_UNANSWERED = "bye_unanswered",
    /// `session_ended`: nobody has spoken in the dialog for two days.
    SILENT = "silent",
    /// `session_ended`: the host was started anew, and the server has forgotten the call.
    HOST_RESTARTED = "host_restarted",
    /// `session_expiring`: the interval ran out while sipst did not run; whether the call is still up is not known.
    OUTAGE = "outage",
    /// `session_ended`, `refresh_failed`: the peer answered 481 to a refresh.
    PEER_LOST_DIALOG = "peer_lost_dialog",
    /// `session_started`: `timer` was added to the server's INVITE, or the demand for it was taken out of the peer's (`assist`).
    /// `timer_negotiated`: the server has said nothing of the timer that the peer had demanded; sipst sees to it.
    ASSISTED = "assisted",
    /// `session_started`, `refresh_due`: this host only passes the call on; it is observed.
    RELAYED = "relayed",
    /// `session_started`: the INVITE was not seen; the dialog is followed from a re-INVITE or UPDATE on. `refresh_due`,
    /// `refresh_overdue`: the server has sent nothing in it since, so nothing can be sent in its name.
    MID_CALL = "mid_call",

    /// `refresh_due`, `session_expiring`: no timer was negotiated; the moments are by the trunk's `assume_interval`, which follows.
    ASSUMED = "assumed",

    /// `negotiation_fault`: a 2xx with Session-Expires does not say who refreshes; its UAC is assumed.
    REFRESHER_MISSING = "refresher_missing",
    /// `negotiation_fault`: Session-Expires cannot be read, or is there twice; what was agreed before is kept.
    MALFORMED = "session_expires_malformed",
    /// `negotiation_fault`: the peer has answered 422 to an INVITE of the server's that `timer` was added to: the trunk's INVITEs are let
    /// be from now on, until sipst is started anew or its rules are changed.
    ASSIST_OFF = "assist_off",
    /// `negotiation_fault`: the interval is below `interval_floor`; it is not acted upon.
    BELOW_FLOOR = "interval_below_floor",
    /// `negotiation_fault`: the peer moved its media or its Contact in the answer to a re-INVITE of sipst's.
    ANSWER_MOVED_MEDIA = "answer_moved_media",
    /// `negotiation_fault`: what `answer_moved_media` tells could not be told to the server (`on_moved: tell-server`); why follows.
    SERVER_NOT_TOLD = "server_not_told",
    /// `negotiation_fault`: the server was told where the peer's media are, and has moved its own in its answer, or this cannot
    /// be read.
    SERVER_MOVED_MEDIA = "server_moved_media",
    /// `server_not_told`: the peer's answer had no session description that can be read.
    NO_SDP = "no_sdp",
    /// `refresh_rejected`, `at_risk`, `session_expiring`: the peer has to refresh, and the server turns that down; its own words
    /// follow, or what it did.
    SERVER_REFUSES_REFRESH = "server_refuses_refresh",
    /// `refresh_ignored`, `at_risk`, `session_expiring`: the peer has to refresh, and the server says nothing to that.
    SERVER_IGNORES_REFRESH = "server_ignores_refresh",
    /// `at_risk`: the peer has to refresh, and no refresh of its was seen when one was last due.
    REFRESHES_NOT_SEEN = "refreshes_not_seen",
    /// `refresh_due`: the peer has to refresh, and sipst does before that, so that the server's side becomes the refresher
    /// (`take_over`).
    TAKE_OVER = "take_over",
    /// `refresh_due`: the peer had taken the refreshing up (`mode: hand-off`), and its refresh came to nothing at this server, or did not
    /// come: sipst refreshes from here on.
    TAKEN_BACK = "taken_back",

    /// `answer_withheld`: the peer's request is no refresh, or not only that; what it is follows. It is the server's alone.
    CHANGES_SESSION = "changes_session",
    /// `answer_withheld`: the request did not come from the peer's address, nor from one of the trunk's `peers`.
    NOT_THE_PEER = "not_the_peer",
    /// `answer_withheld`: the request that the server turned down was not seen, or not whole.
    REQUEST_UNKNOWN = "request_unknown",
    /// `answer_withheld`: the peer was told to wait for what is under way; the status of the answer follows.
    DECLINED = "declined",
    /// `negotiation_fault`: sipst accepted a re-INVITE of the peer's in the server's name, and the peer never ACKed it.
    ANSWER_NOT_ACKED = "answer_not_acked",

    /// `negotiation_fault`: the peer takes no request of the server's that does not list `timer` (421 and `Require: timer`; RFC 3261,
    /// section 21.4.16): no call is set up. What to do follows.
    TIMER_DEMANDED = "timer_demanded",
    /// `negotiation_fault`: the peer's request has `Require: timer`, and the server takes none with that (420; RFC 3261, section
    /// 8.2.2.3): no call is set up. What to do follows.
    TIMER_REFUSED = "timer_refused",

    /// `breaches`: a 2xx makes a UAC the refresher that does not list `timer` (RFC 4028, section 9, table 2).
    REFRESHER_WITHOUT_TIMER = "refresher_without_timer",
    /// `breaches`: a 2xx names another refresher than the request did (table 2).
    REFRESHER_OVERRIDDEN = "refresher_overridden",
    /// `breaches`: a request inside the dialog names its sender as the refresher, who was not (section 7.4).
    ROLE_FLIPPED = "role_flipped",
    /// `breaches`: both sides send refreshes, though one of them is the refresher.
    BOTH_REFRESH = "both_refresh",
    /// `breaches`: a 2xx with `refresher=uac` lacks `Require: timer` (section 9).
    REQUIRE_TIMER_MISSING = "require_timer_missing",
    /// `breaches`: a 2xx sets an interval below the 90 s that are the least (section 4).
    INTERVAL_BELOW_90 = "interval_below_90",
    /// `breaches`: a 2xx sets an interval below the request's Min-SE (section 9).
    INTERVAL_BELOW_MIN_SE = "interval_below_min_se",
    /// `breaches`: a request asks for an interval below its own Min-SE (section 7.1).
    REQUEST_BELOW_MIN_SE = "request_below_min_se",
    /// `breaches`: a 2xx sets a longer interval than the request asked for (section 9).
    INTERVAL_RAISED = "interval_raised",
    /// `breaches`, `negotiation_fault` where the peer has to refresh: a 422 without Min-SE, which nobody can obey (section 6).
    MIN_SE_MISSING = "min_se_missing",
    /// `breaches`, `negotiation_fault` where the peer has to refresh: a 422 whose Min-SE the request had obeyed.
    LOOP_422 = "loop_422",
    /// `breaches`: a 422 to a request that does not list `timer` (section 9).
    UNDUE_422 = "undue_422",

    /// `refresh_failed`: the call is older than `max_session`.
    MAX_SESSION = "max_session",
    /// `refresh_failed`: the rules were changed meanwhile, and say no more that sipst refreshes. In `server_not_told`: nor
    /// that it tells the server.
    POLICY = "policy",
    /// `refresh_due`: an operator has asked for it (`sipst refresh`).
    ASKED_FOR = "asked_for",
    /// `refresh_due`, `refresh_overdue`, `refresh_failed`: an operator has told sipst to keep its hands off the call (`sipst hold`).
    HELD = "held",
    /// `refresh_failed`: the server's CSeq leaves no room for another number.
    CSEQ_ROOM = "cseq_room",
    /// `refresh_due`, `refresh_overdue`: the server answered 481 to a request of the peer's: it has forgotten the dialog, and
    /// nothing is sent in its name any more.
    SERVER_LOST_DIALOG = "server_lost_dialog",
    /// `refresh_due`, `refresh_overdue`, `refresh_failed`, `bye_failed`: the server speaks by TCP in this dialog, and the
    /// trunk's `tcp` is not `refresh`. Such calls are watched, and their alerts raised; nothing is sent in them.
    OVER_TCP = "over_tcp",
    /// `refresh_due`, `refresh_overdue`, `refresh_failed`: the server's socket sends several datagrams as one packet (`UDP_SEGMENT`), or
    /// gets its answers so (`UDP_GRO`): no number in those can be shifted, so nothing is sent in such calls any more.
    JOINED = "joined",
    /// `bye_sent`: the peer refused the server's own BYE with 500, for its number is too low since sipst has sent requests in the call, and
    /// could not be shifted (`tcp: refresh`, `joined`). To which side the BYE went follows.
    BYE_REFUSED = "bye_refused",
    /// `refresh_failed`: the peer sent no Contact, or it and the routes are too long.
    NO_TARGET = "remote_target_unknown",
    /// `refresh_failed`: the server has sent nothing in the dialog yet, and route or Contact lead where no trunk's `peers` are.
    NO_HOP = "next_hop_unknown",
    /// `refresh_failed`: the peer does not take UPDATE, and a re-INVITE could disturb the media.
    NO_METHOD = "no_method",
    /// `refresh_failed`: the peer turned sixteen requests down in one interval.
    TOO_MANY_ATTEMPTS = "too_many_attempts",
    /// `refresh_failed`: the peer asks for credentials and there are none, or they were not accepted.
    CHALLENGED = "challenged",
    /// `refresh_failed`: the peer turned it down; `status` says how.
    REFUSED = "refused",
    /// `refresh_failed`: no final answer until the interval was over.
    NO_ANSWER = "no_answer",
    /// `refresh_failed`: the INVITE that made the dialog was never ACKed, or neither was seen. `session_ended`: it failed.
    NOT_CONFIRMED = "not_confirmed",
    /// `refresh_failed`: an INVITE was in progress until the interval was over.
    INVITE_IN_PROGRESS = "invite_in_progress",
    /// `refresh_failed`: another request was in progress until the interval was over.
    REQUEST_IN_PROGRESS = "request_in_progress",
    /// `refresh_failed`: too many requests of sipst's are still on record in this dialog.
    TOO_MANY_REQUESTS = "too_many_requests",
    /// `refresh_due`, `refresh_overdue`: sipst had sent requests in the dialog, and the kernel has lost their numbers (`sipst
    /// unload --force`), so nothing is sent in it any more.
    NUMBERS_LOST = "numbers_lost",
    /// `refresh_failed`: the driver did not tell the numbers.
    NO_NUMBERS = "no_numbers",
    /// `refresh_overdue`, `session_expiring`, `refresh_failed`: the server's RTP was seen, and none for a whole interval, though
    /// the call is not on hold (`media_evidence`).
    MEDIA_SILENT = "media_silent",
    /// `refresh_failed`, `session_expiring`: so many refreshes were due that `refresh_rate` left no time for this one.
    RATE_LIMITED = "rate_limited",
    /// `refresh_overdue`, `session_expiring`, `refresh_failed`: the trunk's breaker is open (`breaker_opened`), and this call was
    /// never refreshed before.
    BREAKER_OPEN = "breaker_open",
    /// `breaker_opened`: so many calls of the trunk's, one after the other, had no answer to their first refresh, or a 5xx.
    FIRST_REFRESHES_FAILED = "first_refreshes_failed",

    /// `bye_sent`, `session_ended`: nobody refreshed the session before it expired, nobody has said anything for a whole interval and
    /// more since, and no RTP was seen either way for 60 s (`on_expired: bye`). To which side the BYE went follows.
    EXPIRED = "expired",
    /// `bye_failed`: a side holds the call, or media flow one way only, so that silent media tell nothing.
    ON_HOLD = "on_hold",
    /// `bye_failed`: RTP was not seen both ways while it flowed, or may go where it is not seen (a name for an address, ICE, fax), so
    /// that silent media tell nothing.
    MEDIA_UNKNOWN = "media_unknown",

    /// `state_not_kept`: the state directory cannot be used; calls go on, and a restart will not know them.
    STATE_UNUSABLE = "state_unusable",
    /// `state_not_kept`: the file that an earlier run left cannot be read; it was put aside under the name that follows.
    STATE_SET_ASIDE = "state_set_aside",
    /// `capture_loss`: packets were lost before they could be read. `answer_withheld`: since then what the peer last said is not
    /// certain.
    PACKETS_LOST = "packets_lost",
    /// `capture_loss`: a limit of the engine's was reached; calls beyond it are not watched.
    LIMIT = "limit",
    /// `capture_loss`: the capture lacks the answers to sipst's own requests: it was taken on the host itself.
    CAPTURE_ON_HOST = "capture_on_host",
}
