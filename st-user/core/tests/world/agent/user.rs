//! What a user does with a call.

use rand::RngExt as _;

use super::{Act, Agent, Life, MS, Purpose, S, Stage, T1, Us, Why};
use crate::{
    faults::Fault,
    sip::{Kind, Msg, Verb},
};

impl Agent {
    pub(crate) fn act(&mut self, now: Us, act: Act) {
        match act {
            Act::HangUp => self.hang_up(now, Why::Planned),
            Act::Crash => self.life = Life::Over(now, Why::Crashed),
            Act::Restart => self.life = Life::Over(now, Why::Restarted),
            Act::Info => self.ask(now, Verb::Info, Purpose::Other, String::new()),
            Act::Refer => {
                self.refers.push(self.next);
                self.ask(now, Verb::Refer, Purpose::Other, String::new());
            }
            Act::Notify(id) => self.ask_with(now, Verb::Notify, Purpose::Other, |msg| msg.refer = Some(id)),
            _ if self.is_busy() => self.plans(now + S, act),
            Act::Hold => self.offer(now, Fault::Held, Kind::Voice, "sendonly"),
            Act::Freeze => self.offer(now, Fault::Frozen, Kind::Voice, "inactive"),
            Act::Codec => self.offer(now, Fault::CodecChanged, Kind::Wide, "sendrecv"),
            Act::Fax => self.offer(now, Fault::Fax, Kind::Fax, "sendrecv"),
            Act::Resume | Act::Voice => {
                self.version += 1;
                let body = self.describe(self.version, "sendrecv", Kind::Voice);
                self.ask(now, Verb::Invite, Purpose::Change, body);
            }
            Act::Reinvite => self.ask(now, Verb::Invite, Purpose::Change, self.sdp.clone()),
            Act::LateOffer => {
                self.diary.tally.count(Fault::LateOffer);
                self.ask(now, Verb::Invite, Purpose::Change, String::new());
            }
            Act::Move => {
                self.diary.tally.count(Fault::ContactMoved);
                self.moves += 1;
                self.ask(now, Verb::Invite, Purpose::Change, self.sdp.clone());
            }
            Act::Flinch => {
                self.ask(now, Verb::Invite, Purpose::Change, self.sdp.clone());
                let after = self.rng.random_range(50 * MS..1_500 * MS);
                if let Some(client) = self.clients.last_mut() {
                    client.cancels = Some(now + after);
                }
            }
        }
    }

    fn offer(&mut self, now: Us, what: Fault, kind: Kind, flow: &str) {
        self.diary.tally.count(what);
        self.version += 1;
        let body = self.describe(self.version, flow, kind);
        self.ask(now, Verb::Invite, Purpose::Change, body);
    }

    pub(crate) fn hang_up(&mut self, now: Us, why: Why) {
        self.end(now, why, None);
    }

    /// BYE, with a cause where the stack tells one.
    pub(crate) fn end(&mut self, now: Us, why: Why, cause: Option<u32>) {
        self.life = Life::Over(now, why);
        self.cause = cause;
        self.ask(now, Verb::Bye, Purpose::Other, String::new());
    }

    /// Not before there was a provisional response (RFC 3261, section 9.1).
    pub(super) fn cancel(&mut self, now: Us, at: usize) {
        let client = &mut self.clients[at];
        client.cancels = (client.stage == Stage::Calling).then_some(now + T1);
        if client.stage == Stage::Proceeding {
            client.cancelled = true;
            let Msg { uri, vias, routes, from, to, call_id, number, .. } = client.msg.clone();
            let cancel = Msg { uri, vias, routes, from, to, call_id, number, ..Msg::blank(Verb::Cancel) };
            self.sends(now, Purpose::Other, cancel);
        }
    }
}
