//! What is said and withheld in the server's name, judged by what the server itself holds to be true: nothing may be answered that
//! the server would have to know of, nothing may be withheld that is the truth, and what is let out is what the server wrote.
//!
//! Does it bite? Each of these was tried in the engine by hand: see [`super`].

use std::collections::BTreeMap;

use super::{Ends, Judge};
use crate::{
    agent::{Agent, Us, unversioned},
    sip::{Expires, Msg, Role, Verb},
    trunk::LISTED,
};

/// One transaction of the peer's, by its branch and method.
#[derive(Clone, Debug, Default)]
struct Answered {
    /// The server's refusal that was held back, and when first.
    withheld: Option<(Us, Vec<u8>)>,
    /// What the server held to be true when it last said that.
    view: Option<View>,
    /// Final responses that have left, in order.
    left: Vec<u16>,
    /// A 2xx in the server's name, and by the how-manieth daemon.
    accepted: Option<(Vec<u8>, u32)>,
    /// The peer's ACK to that was taken.
    acked: bool,
}

/// A server's idea of a dialog.
#[derive(Clone, Debug, PartialEq, Eq)]
struct View {
    sdp: String,
    peers_sdp: String,
    target: String,
}

/// All of a call.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answers {
    /// Daemons before this one.
    daemons: u32,
    all: BTreeMap<(String, Verb), Answered>,
}

/// What a response of sipst's in the server's name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// What was held back, as it was.
    LetOut,
    Accepts,
    /// The same once more.
    Repeats,
    Declines,
    /// The ACK in the peer's name.
    Acks,
}

impl Answers {
    /// Another daemon goes on.
    pub(super) fn begin_anew(&mut self) {
        self.daemons += 1;
    }
}

impl Judge {
    fn answered(&mut self, msg: &Msg) -> &mut Answered {
        self.answers.all.entry((msg.branch().into(), msg.verb)).or_default()
    }

    /// A response of the server's was held back.
    pub(crate) fn withheld(&mut self, now: Us, msg: &Msg, bytes: &[u8], server: &Agent) {
        let listed = LISTED.contains(&msg.status) && !(msg.status == 500 && msg.retry_after.is_some());
        if !listed || !matches!(msg.verb, Verb::Invite | Verb::Update) {
            self.breaches.push(format!("a {} to {:?} was withheld", msg.status, msg.verb));
        }
        let (sdp, peers_sdp) = (server.sdp.clone(), server.heard_sdp().into());
        let one = self.answered(msg);
        one.view = Some(View { sdp, peers_sdp, target: server.target.clone() });
        one.withheld.get_or_insert_with(|| (now, bytes.to_vec()));
    }

    /// A final response to the peer has left, whoever sent it.
    pub(crate) fn answer_leaves(&mut self, msg: &Msg) {
        if msg.status >= 200 && matches!(msg.verb, Verb::Invite | Verb::Update) {
            let status = msg.status;
            self.answered(msg).left.push(status);
        }
    }

    /// The peer's ACK to a 2xx in the server's name was kept from the server.
    pub(crate) fn ack_taken(&mut self, msg: &Msg) {
        let mut invites = self.answers.all.iter_mut().filter(|((_, verb), _)| *verb == Verb::Invite);
        let of = |one: &Answered| one.accepted.as_ref().is_some_and(|(bytes, _)| Msg::read(bytes).number == msg.number);
        match invites.find(|((branch, _), one)| branch != msg.branch() && of(one)) {
            Some((_, one)) => one.acked = true,
            None => self.breaches.push(format!("the ACK for {} was kept from the server", msg.number)),
        }
    }

    /// sipst sends something in the server's name, or an ACK in the peer's.
    pub(crate) fn says(&mut self, now: Us, bytes: &[u8], ends: &Ends<'_>) -> Word {
        let msg = Msg::read(bytes);
        let verb = if msg.verb == Verb::Ack { Verb::Invite } else { msg.verb };
        let known = self.answers.all.entry((msg.branch().into(), verb)).or_default().clone();
        let server = ends.server.has_answered(verb, msg.branch());
        let (word, wrong) = match msg.status {
            0 => (Word::Acks, self.acks_wrong(&msg, &known, server)),
            200..300 if known.accepted.as_ref().is_some_and(|(before, _)| before == bytes) => (Word::Repeats, None),
            200..300 => {
                let by = self.answers.daemons;
                self.answered(&msg).accepted = Some((bytes.to_vec(), by));
                (Word::Accepts, self.accepts_wrong(now, &msg, &known, server, ends))
            }
            _ if known.withheld.as_ref().is_some_and(|(_, withheld)| withheld == bytes) => {
                // Another daemon need not know; the peer takes no notice.
                let late = known.accepted.is_some_and(|(_, by)| by == self.answers.daemons);
                (Word::LetOut, late.then(|| "it was answered already".into()))
            }
            491 => {
                let open = |seen: &&super::Seen| seen.ours && seen.verb == Verb::Invite && seen.status.is_none();
                (Word::Declines, self.shown.iter().find(open).is_none().then(|| "no INVITE of sipst's is open".into()))
            }
            500 if msg.retry_after.is_some_and(|after| after <= 10) => (Word::Declines, None),
            _ => (Word::LetOut, Some("not what the server wrote".to_string())),
        };
        if let Some(why) = wrong {
            self.breaches.push(format!("{} to {:?} {} in the server's name: {why}", msg.status, msg.verb, msg.number));
        }
        word
    }

    fn acks_wrong(&self, msg: &Msg, known: &Answered, server: Option<(&Msg, &Msg)>) -> Option<String> {
        // RFC 3261, section 17.1.1.3
        let checks = [
            (known.accepted.is_none(), "nothing was answered"),
            (!known.acked, "the peer has not ACKed"),
            (server.is_none_or(|(_, answer)| answer.status < 300), "the server has not refused"),
            (server.is_some_and(|(request, _)| request.number != msg.number), "its number"),
            (server.is_some_and(|(request, _)| request.uri != msg.uri), "its Request-URI"),
            (server.is_some_and(|(_, answer)| answer.to.tag != msg.to.tag), "its tag"),
        ];
        checks.into_iter().find(|(wrong, _)| *wrong).map(|(_, what)| what.into())
    }

    /// RFC 3261, section 14.2; RFC 4028, section 9.
    fn accepts_wrong(
        &self,
        now: Us,
        msg: &Msg,
        known: &Answered,
        server: Option<(&Msg, &Msg)>,
        Ends { server: agent, blind, .. }: &Ends<'_>,
    ) -> Option<String> {
        let Some((request, answer)) = server else { return Some("the server has not answered".into()) };
        let Some(view) = &known.view else { return Some("nothing was withheld".into()) };
        let (invites, offers) = (msg.verb == Verb::Invite, !request.body.is_empty());
        let alike = |one: &str, other: &str| unversioned(one).eq(unversioned(other));
        let held = ["a=sendonly", "a=inactive"].iter().any(|held| request.body.contains(held));
        let sends = ["a=sendrecv", "a=sendonly"].iter().any(|sends| view.sdp.contains(sends));
        let role = request.expires.and_then(|expires| expires.refresher);
        let told = msg.expires;
        let says = |role| told.is_some_and(|told: Expires| told.refresher == Some(role));
        let asked = request.expires.map(|expires| expires.seconds);
        let checks = [
            (!LISTED.contains(&answer.status), "what the server says is the truth"),
            (answer.status == 500 && answer.retry_after.is_some(), "the server wants it again later"),
            (!blind && known.left.iter().any(|status| *status >= 300), "it was refused"),
            (self.over, "the call is over"),
            (self.server_asks(now, agent), "a request of the server's own is open"),
            (invites && !offers, "it has no offer"),
            (offers && !alike(&request.body, &view.peers_sdp), "the server does not know that offer"),
            (offers && msg.body != view.sdp, "its body is not the server's SDP"),
            (!offers && !msg.body.is_empty(), "it has a body"),
            (offers && held && sends, "it lifts a hold"),
            (request.contact.as_ref().is_some_and(|contact| *contact != view.target), "another Contact"),
            (msg.to.tag.as_ref() != Some(&agent.tag) || msg.from != request.from, "its tags"),
            (msg.vias != request.vias || msg.number != request.number, "its transaction"),
            (told.is_none(), "no Session-Expires"),
            // R8, R9
            (asked.is_some() && told.map(|told| told.seconds) > asked, "a longer interval"),
            (role.is_some_and(|role| !says(role)), "another refresher"),
            (says(Role::Uac) && request.supports_timer && !msg.requires_timer, "no Require: timer"),
        ];
        checks.into_iter().find(|(wrong, _)| *wrong).map(|(_, what)| what.into())
    }

    /// Whether a request of the server's own was shown that has no answer.
    fn server_asks(&self, now: Us, server: &Agent) -> bool {
        let open = |seen: &super::Seen| seen.status.is_none() && server.is_asking(now, seen.verb, &seen.branch);
        self.shown.iter().any(|seen| seen.by_server && !seen.ours && seen.verb != Verb::Bye && open(seen))
    }

    /// What was withheld and never came to anything; `died`: whether no daemon was there soon after.
    pub(crate) fn withheld_for_good(&self, died: impl Fn(Us) -> bool) -> Option<String> {
        let mut all = self.answers.all.iter();
        let never = |one: &Answered| one.left.is_empty() && one.withheld.as_ref().is_some_and(|(at, _)| !died(*at));
        all.find(|(_, one)| never(one)).map(|((branch, verb), _)| format!("the answer to {verb:?} {branch} was kept"))
    }

    /// Whether something is held back of which nothing has come yet.
    pub(crate) fn is_holding(&self) -> bool {
        self.answers.all.values().any(|one| one.withheld.is_some() && one.left.is_empty())
    }
}
