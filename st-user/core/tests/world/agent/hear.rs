//! What an agent hears: answers to its own requests, and what it says to them.

use super::{Agent, Client, Life, Purpose, Stage, T2, Us, Why};
use crate::{
    faults::Fault,
    sip::{Msg, Verb},
};

impl Agent {
    pub(crate) fn hear(&mut self, now: Us, msg: &Msg) {
        match self.life {
            Life::Over(_, Why::Crashed) => {}
            Life::Over(_, Why::Restarted) => {
                if msg.is_request() && msg.verb != Verb::Ack {
                    self.diary.tally.add(Fault::Says481, msg.is_ours().into());
                    self.out.push(msg.response(481, &self.tag));
                }
            }
            Life::Idle | Life::Setup | Life::Up | Life::Over(..) if msg.is_request() => self.asked(now, msg),
            Life::Idle | Life::Setup | Life::Up | Life::Over(..) => self.answered(now, msg),
        }
    }

    fn answered(&mut self, now: Us, msg: &Msg) {
        let of = |client: &Client| client.msg.branch() == msg.branch() && client.msg.verb == msg.verb;
        let Some(at) = self.clients.iter().position(of) else {
            if self.stack.acks_strays && msg.verb == Verb::Invite && (200..300).contains(&msg.status) {
                let ack = self.request(Verb::Ack, msg.number, String::new());
                self.out.push(ack);
            }
            let Msg { status, verb, number, .. } = msg;
            return self.diary.oddities.push(format!("a stray {status} to {verb:?} {number}"));
        };
        let client = &mut self.clients[at];
        if client.msg.number != msg.number {
            let told = format!("an answer to {} for {}", msg.number, client.msg.number);
            return self.diary.oddities.push(told);
        }
        if msg.status < 200 {
            return self.progressed(now, at, msg);
        }
        let first = std::mem::replace(&mut client.stage, Stage::Done) != Stage::Done;
        // Whoever has had a 2xx takes no notice of anything else (RFC 3261, section 17.1.1.2).
        if msg.verb == Verb::Invite && msg.status >= 300 && client.ack.is_none() {
            let ack = Msg { verb: Verb::Ack, to: msg.to.clone(), body: String::new(), ..client.msg.clone() };
            self.out.push(Msg { contact: None, expires: None, min_se: None, allows_update: None, ..ack });
        }
        // From another fork, or for a call that was given up.
        let setup = self.clients[at].purpose == Purpose::Setup;
        let other = setup && (msg.to.tag != self.remote_tag || matches!(self.life, Life::Over(_, Why::NoSetup)));
        match (first, msg.status) {
            (true, 200..300) => self.succeeded(now, at, msg),
            (true, _) => self.failed(now, at, msg.status, Some(msg)),
            (false, 200..300) if msg.verb == Verb::Invite && other => self.part(now, at, msg),
            // A copy, or one that comes after its time.
            (false, 200..300) if msg.verb == Verb::Invite => {
                if self.clients[at].ack.is_none() {
                    let offer = self.clients[at].msg.body.clone();
                    self.agreed_on(offer, msg);
                    self.acknowledge(at, msg);
                } else {
                    self.out.extend(self.clients[at].ack.clone());
                }
            }
            (false, _) => {}
        }
    }

    /// A provisional response; a reliable one has its PRACK.
    fn progressed(&mut self, now: Us, at: usize, msg: &Msg) {
        let client = &mut self.clients[at];
        if client.stage == Stage::Calling {
            client.stage = Stage::Proceeding;
            client.copy = client.copy.filter(|_| msg.verb != Verb::Invite);
            client.gap = T2;
            if client.purpose == Purpose::Setup {
                client.cancels = self.cancels.take().map(|after| now + after);
            }
        }
        let wanted = |rseq: &u32| *rseq != client.rseq && client.stage == Stage::Proceeding;
        let Some(rseq) = msg.rseq.filter(wanted).filter(|_| !matches!(self.life, Life::Over(..))) else { return };
        client.rseq = rseq;
        let (number, setup) = (client.msg.number, client.purpose == Purpose::Setup);
        if setup {
            self.join(msg);
            self.early_sdp |= !msg.body.is_empty();
            if !msg.body.is_empty() {
                self.remote_sdp.clone_from(&msg.body);
            }
        } else {
            // RFC 6141, section 4.7.
            self.target = msg.contact.clone().unwrap_or_else(|| self.target.clone());
        }
        self.ask_with(now, Verb::Prack, Purpose::Other, |prack| prack.rack = Some((rseq, number)));
    }

    /// The dialog that a response makes.
    fn join(&mut self, msg: &Msg) {
        self.remote_tag.clone_from(&msg.to.tag);
        self.routes = msg.record_routes.iter().rev().cloned().collect();
        self.target = msg.contact.clone().unwrap_or_else(|| self.target.clone());
    }

    /// Its own offer, if it made one, was answered.
    fn agreed_on(&mut self, offer: String, msg: &Msg) {
        if !offer.is_empty() {
            self.holding = offer.contains("a=sendonly");
            self.sdp = offer;
            self.remote_sdp.clone_from(&msg.body);
        }
    }

    fn acknowledge(&mut self, at: usize, msg: &Msg) {
        let number = self.clients[at].msg.number;
        // The 2xx makes the offer where the INVITE made none.
        let late = self.clients[at].msg.body.is_empty() && !msg.body.is_empty();
        let body = if late { self.sdp.clone() } else { String::new() };
        if late {
            self.remote_sdp.clone_from(&msg.body);
        }
        let ack = self.request(Verb::Ack, number, body);
        self.out.push(ack.clone());
        self.clients[at].ack = Some(ack);
    }

    /// A 2xx that is not wanted: its dialog ends at once (RFC 3261, section 13.2.2.4).
    fn part(&mut self, now: Us, at: usize, msg: &Msg) {
        let (number, next) = (self.clients[at].msg.number, self.next);
        let mut dress = |verb, number| {
            let to = msg.to.clone();
            let uri = msg.contact.clone().unwrap_or_default();
            Msg { to, uri, routes: Vec::new(), contact: None, ..self.request(verb, number, String::new()) }
        };
        let (ack, bye) = (dress(Verb::Ack, number), dress(Verb::Bye, next));
        self.out.push(ack);
        let tag = msg.to.tag.clone().unwrap_or_default();
        if !self.parted.contains(&tag) {
            self.parted.push(tag);
            self.next += 1;
            self.diary.tally.count(Fault::Forked);
            self.sends(now, Purpose::Leave, bye);
        }
    }

    fn succeeded(&mut self, now: Us, at: usize, msg: &Msg) {
        let Client { purpose, cancelled, msg: asked, .. } = &self.clients[at];
        let (purpose, cancelled, asked) = (*purpose, *cancelled, asked.clone());
        if purpose == Purpose::Setup {
            self.join(msg);
            self.life = Life::Up;
        }
        match msg.verb {
            Verb::Invite | Verb::Update => {
                self.target = msg.contact.clone().unwrap_or_else(|| self.target.clone());
                self.remote_updates = msg.allows_update.unwrap_or(self.remote_updates);
                let settled = purpose == Purpose::Setup && self.early_sdp;
                if !settled {
                    self.agreed_on(asked.body, msg);
                }
                if msg.verb == Verb::Invite {
                    self.acknowledge(at, msg);
                }
                if purpose == Purpose::Early {
                    return self.diary.tally.count(Fault::EarlyUpdate);
                }
                self.agreed_as_uac(now, asked.expires, msg.expires);
                if cancelled {
                    self.diary.tally.count(Fault::CancelCrossed);
                    if purpose == Purpose::Setup {
                        self.hang_up(now, Why::Planned);
                    }
                }
            }
            Verb::Bye if purpose != Purpose::Leave => self.diary.bye = Some(msg.status),
            Verb::Prack if self.early_update && self.early_sdp && self.life == Life::Setup => {
                self.early_update = false;
                self.version += 1;
                let body = self.describe(self.version, "sendrecv", crate::sip::Kind::Voice);
                self.ask(now, Verb::Update, Purpose::Early, body);
            }
            Verb::Ack
            | Verb::Cancel
            | Verb::Bye
            | Verb::Info
            | Verb::Options
            | Verb::Prack
            | Verb::Refer
            | Verb::Notify => {}
        }
    }

    pub(super) fn failed(&mut self, now: Us, at: usize, status: u16, msg: Option<&Msg>) {
        let Client { purpose, cancelled, msg: asked, .. } = &self.clients[at];
        let (purpose, verb, seconds) = (*purpose, asked.verb, asked.expires.map_or(0, |expires| expires.seconds));
        if *cancelled && status == 487 {
            self.diary.tally.count(Fault::Cancelled);
        }
        match purpose {
            Purpose::Setup => {
                let obeys = status == 422 && self.stack.obeys_422;
                let least = msg.and_then(|msg| msg.min_se).filter(|least| obeys && *least > seconds);
                if let Some(least) = least {
                    self.told_min = least;
                    self.ask(now, Verb::Invite, Purpose::Setup, self.first_offer());
                } else {
                    self.life = Life::Over(now, Why::NoSetup);
                }
            }
            Purpose::Refresh | Purpose::Change => {
                if status == 491 {
                    self.diary.tally.count(Fault::Glare);
                }
                self.refresh_failed(now, purpose, verb, status, msg);
            }
            Purpose::Other if verb == Verb::Bye => self.diary.bye = Some(status),
            Purpose::Other | Purpose::Early | Purpose::Leave => {}
        }
    }
}
