//! An agent's loop: its transactions, its clock, and what it makes of each message.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{Arc, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use super::{
    Event, Input, Message, Order, Profile, Refusal, Shared, Status, Update,
    dialog::{Dialog, allow, contact, fresh, sdp},
    scatter::Scatter,
    together,
};

const T1: Duration = Duration::from_millis(500);
const T2: Duration = Duration::from_secs(4);

/// Something that is sent again and again until it is answered.
pub(super) struct Repeated {
    pub(super) message: Message,
    pub(super) to: SocketAddr,
    wait: Duration,
    next: Instant,
    until: Instant,
}

impl Repeated {
    fn new(message: Message, to: SocketAddr, patience: Duration) -> Self {
        let now = Instant::now();
        Self { message, to, wait: T1, next: now + T1, until: now + patience }
    }
}

/// An agent at work.
pub(super) struct Ua {
    profile: Profile,
    socket: UdpSocket,
    scatter: Option<Scatter>,
    own: SocketAddr,
    shared: Arc<Shared>,
    dialog: Option<Dialog>,
    /// Our requests that lack a final response.
    pub(super) open: Vec<Repeated>,
    /// Our requests that have one, with the ACK where they are INVITEs.
    done: Vec<(Message, Option<Message>)>,
    /// Requests that we have answered, and the answers.
    answered: Vec<(Message, Message)>,
    /// A re-INVITE that rings, and where it came from.
    pub(super) rings: Option<(Message, SocketAddr)>,
    /// Our 2xx to an INVITE that lacks its ACK.
    unacknowledged: Option<Repeated>,
}

impl Ua {
    pub(super) fn new(
        profile: Profile,
        socket: UdpSocket,
        scatter: Option<Scatter>,
        own: SocketAddr,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            profile,
            socket,
            scatter,
            own,
            shared,
            dialog: None,
            open: Vec::new(),
            done: Vec::new(),
            answered: Vec::new(),
            rings: None,
            unacknowledged: None,
        }
    }

    pub(super) fn run(mut self, inputs: &mpsc::Receiver<Input>) {
        loop {
            self.publish();
            let due = self.next_timer().map(|at| at.saturating_duration_since(Instant::now()));
            match inputs.recv_timeout(due.unwrap_or(Duration::from_secs(3600))) {
                Ok(Input::Datagram(bytes, from)) => self.datagram(&bytes, from),
                Ok(Input::Order(Order::Stop, _)) | Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Ok(Input::Order(order, done)) => {
                    self.order(order);
                    // Nobody waits any more where the agent's handle is being dropped.
                    let _ = done.send(());
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
            self.timers();
        }
    }

    fn publish(&self) {
        let status = self.dialog.as_ref().map_or_else(Status::default, |dialog| Status {
            deadline: dialog.deadline.filter(|_| !dialog.over),
            interval: dialog.interval,
            local_cseq: dialog.local_cseq,
            remote_cseq: dialog.remote_cseq,
        });
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).1 = status;
    }

    pub(super) fn fault(&self, text: impl Into<String>) {
        self.shared.add(Event::Fault(text.into()));
    }

    fn transmit(&self, message: &Message, to: SocketAddr) {
        let bytes = message.to_bytes(self.profile.cseq_colon);
        let sent = match &self.scatter {
            Some(scatter) => scatter.send(self.own, to, &bytes),
            None if self.profile.together => together::send(&self.socket, &bytes, to),
            None => self.socket.send_to(&bytes, to).map(drop),
        };
        if let Err(error) = sent {
            self.fault(format!("cannot send {message}: {error}"));
        }
    }

    pub(super) fn send(&self, message: &Message, to: SocketAddr) {
        self.shared.add(Event::Sent(message.clone()));
        self.transmit(message, to);
    }

    pub(super) fn send_request(&mut self, request: Message, to: SocketAddr) {
        self.send(&request, to);
        self.open.push(Repeated::new(request, to, 64 * T1));
    }

    // Orders.

    fn order(&mut self, order: Order) {
        match order {
            Order::Call(to) => self.call(to),
            Order::Bye => self.hang_up("told to"),
            Order::Reinvite => self.request("INVITE", None, &[]),
            Order::Hold => self.reinvite_with(|sdp| sdp.replace(" 77 1 ", " 77 2 ").replace("sendrecv", "sendonly")),
            Order::Request(method) => self.request(method, None, &[]),
            Order::Dressed(method, headers) => self.request(method, None, &headers),
            Order::Numbered(method, number) => self.request(method, Some(number), &[]),
            Order::Cancel => self.cancel(),
            Order::Stop => {}
        }
    }

    fn call(&mut self, to: SocketAddr) {
        let mut dialog = Dialog::calling(&self.profile, self.own, to);
        let invite = dialog.next_request("INVITE", self.own);
        let invite = self.describe(invite, true).with_body("application/sdp", sdp(&self.profile, self.own));
        self.dialog = Some(dialog);
        self.send_request(invite, to);
    }

    fn request(&mut self, method: &str, number: Option<u32>, headers: &[(&str, String)]) {
        self.request_with(method, number, headers, |sdp| sdp);
    }

    fn reinvite_with(&mut self, change: impl FnOnce(String) -> String) {
        self.request_with("INVITE", None, &[], change);
    }

    fn request_with(
        &mut self,
        method: &str,
        number: Option<u32>,
        headers: &[(&str, String)],
        change: impl FnOnce(String) -> String,
    ) {
        let own = self.own;
        let Some(dialog) = self.dialog.as_mut().filter(|dialog| dialog.confirmed && !dialog.over) else {
            return self.fault(format!("{method} without a call"));
        };
        let to = dialog.next_hop;
        let mut request = match number {
            Some(number) => dialog.request(method, number, own),
            None => dialog.next_request(method, own),
        };
        request = headers.iter().fold(request, |all, (name, value)| all.with(name, value));
        if ["INVITE", "UPDATE"].contains(&method) {
            request = self.describe(request, true);
        }
        if method == "INVITE" {
            request = request.with_body("application/sdp", change(sdp(&self.profile, own)));
        }
        self.send_request(request, to);
    }

    fn hang_up(&mut self, reason: &str) {
        let own = self.own;
        let Some(dialog) = self.dialog.as_mut().filter(|dialog| dialog.confirmed && !dialog.over) else {
            return self.fault("BYE without a call");
        };
        dialog.over = true;
        let (bye, to) = (dialog.next_request("BYE", own).with("Reason", reason), dialog.next_hop);
        self.shared.add(Event::Ended { by_us: true, reason: reason.into() });
        self.send_request(bye, to);
    }

    /// Adds what this agent is and can, and its timer where a request asks for one.
    fn describe(&self, message: Message, asks: bool) -> Message {
        let mut message = message.with("Contact", contact(&self.profile, self.own)).with("Allow", allow(&self.profile));
        if self.profile.knows_timers {
            message = message.with("Supported", "timer");
        }
        if asks && self.profile.demands_timers {
            message = message.with("Require", "timer");
        }
        if let Some(least) = self.profile.min_se.filter(|_| asks) {
            message = message.with("Min-SE", least);
        }
        match self.profile.timer.filter(|_| asks && self.profile.knows_timers) {
            Some(timer) => message.with("Session-Expires", expires(timer.interval_s, timer.refresher)),
            None => message,
        }
    }

    // Time.

    fn next_timer(&self) -> Option<Instant> {
        let repeats = self.open.iter().chain(&self.unacknowledged).map(|one| one.next.min(one.until));
        let dialog = self.dialog.iter().filter(|dialog| !dialog.over).filter_map(|dialog| dialog.deadline);
        repeats.chain(dialog).min()
    }

    fn timers(&mut self) {
        let now = Instant::now();
        let mut open = std::mem::take(&mut self.open);
        open.retain_mut(|one| self.repeat(one, now));
        self.open.extend(open);
        if let Some(mut one) = self.unacknowledged.take() {
            if self.repeat(&mut one, now) {
                self.unacknowledged = Some(one);
            } else {
                // R44
                self.hang_up("no ACK for a 2xx");
            }
        }
        if self.dialog.as_ref().is_some_and(|dialog| !dialog.over && dialog.deadline.is_some_and(|at| at <= now)) {
            self.hang_up("SIP;cause=408;text=\"Session timeout\"");
        }
    }

    /// Sends it again if that is due; `false` once it has gone unanswered for too long.
    fn repeat(&self, one: &mut Repeated, now: Instant) -> bool {
        if now >= one.until {
            self.fault(format!("no answer to {}", one.message));
            return false;
        }
        if now >= one.next {
            self.transmit(&one.message, one.to);
            one.wait = (one.wait * 2).min(T2);
            one.next = now + one.wait;
        }
        true
    }

    // Messages.

    fn datagram(&mut self, bytes: &[u8], from: SocketAddr) {
        if bytes == together::KEEP_ALIVE {
            return;
        }
        match Message::parse(bytes) {
            Ok(message) => {
                self.shared.add(Event::Received(message.clone()));
                if message.method().is_some() { self.on_request(&message, from) } else { self.on_response(&message) }
            }
            Err(error) => self.fault(format!("not SIP ({error:#}): {}", String::from_utf8_lossy(bytes))),
        }
    }

    fn on_response(&mut self, response: &Message) {
        let branch = response.param("Via", "branch");
        let ours = |request: &Message| {
            branch.is_some()
                && request.param("Via", "branch") == branch
                && request.header("CSeq") == response.header("CSeq")
        };
        if let Some((_, ack)) = self.done.iter().find(|(request, _)| ours(request)) {
            if let (Some(ack), Some(dialog)) = (ack, &self.dialog) {
                self.transmit(ack, dialog.next_hop);
            }
            return;
        }
        let Some(place) = self.open.iter().position(|one| ours(&one.message)) else {
            return self.fault(format!("a response to nothing that it sent: {response}"));
        };
        let status = response.status().unwrap_or_default();
        if status < 200 {
            self.open[place].next = self.open[place].until;
            return;
        }
        let request = self.open.remove(place).message;
        let ack = self.finish(&request, response, status);
        self.done.push((request, ack));
    }

    /// What a final response changes; returns the ACK for an INVITE's.
    fn finish(&mut self, request: &Message, response: &Message, status: u16) -> Option<Message> {
        let (method, own) = (request.method().unwrap_or_default(), self.own);
        let dialog = self.dialog.as_mut()?;
        let good = (200..300).contains(&status);
        if good && ["INVITE", "UPDATE"].contains(&method) {
            if dialog.remote_tag.is_none() {
                dialog.remote_tag = response.param("To", "tag").map(Into::into);
                dialog.remote = response.header("To").unwrap_or_default().into();
            }
            dialog.remote_target = response.uri("Contact").unwrap_or(&dialog.remote_target).into();
            if self.profile.knows_timers || self.profile.drops_after.is_some() {
                // A timer once agreed stays, as SBCs have it.
                let agreed = dialog.interval.and_then(|interval| interval.as_secs().try_into().ok());
                // One that insists on timers goes by its own where it is told of none.
                let own = self.profile.timer.filter(|_| self.profile.demands_timers).map(|timer| timer.interval_s);
                let said = response.session_expires().map(|(seconds, _)| seconds);
                dialog.restart(said.or(agreed).or(own), &self.profile);
            }
        }
        if method != "INVITE" {
            return None;
        }
        let number = request.cseq()?.number;
        let ack = if good {
            dialog.request("ACK", number, own)
        } else {
            // R33
            let mut ack = dialog.request("ACK", number, own);
            ack.start = request.start.replacen("INVITE", "ACK", 1);
            for (name, value) in &mut ack.headers {
                match name.as_str() {
                    "Via" => *value = request.header("Via")?.into(),
                    "To" => *value = response.header("To")?.into(),
                    _ => {}
                }
            }
            ack
        };
        let (to, first) = (dialog.next_hop, good && !dialog.confirmed);
        dialog.confirmed |= good;
        self.send(&ack, to);
        if first {
            self.shared.add(Event::Established);
        }
        Some(ack)
    }

    fn on_request(&mut self, request: &Message, from: SocketAddr) {
        let (method, Some(cseq)) = (request.method().unwrap_or_default().to_owned(), request.cseq()) else { return };
        if method == "ACK" {
            return self.on_ack(cseq.number);
        }
        let copy = |old: &Message| old.header("Via") == request.header("Via") && old.start == request.start;
        if let Some((_, response)) = self.answered.iter().find(|(old, _)| copy(old)) {
            return self.transmit(response, from);
        }
        if self.rings.as_ref().is_some_and(|(invite, _)| copy(invite)) {
            return;
        }
        for fault in unfit(request) {
            self.fault(format!("{fault}: {request}"));
        }
        if method == "CANCEL" {
            return self.on_cancel(request, from);
        }
        if !self.profile.knows_timers && request.lists("Require", "timer") {
            let refusal = Message::response(request, 420, "Bad Extension").with("Unsupported", "timer");
            return self.answer(request, from, turning_down(refusal));
        }
        if method == "INVITE" && request.param("To", "tag").is_none() {
            if self.profile.demands_timers && !request.lists("Supported", "timer") {
                let refusal = Message::response(request, 421, "Extension Required").with("Require", "timer");
                return self.answer(request, from, turning_down(refusal));
            }
            if !self.profile.declines.is_empty() {
                let Refusal { status, headers } = self.profile.declines.remove(0);
                let refusal = Message::response(request, status, "Refused");
                let refusal = headers.iter().fold(refusal, |all, (name, value)| all.with(name, value));
                return self.answer(request, from, turning_down(refusal));
            }
            return self.on_call(request, from);
        }
        let Some(dialog) = self.dialog.as_mut().filter(|dialog| dialog.owns(request) && !dialog.over) else {
            return self.answer(request, from, Message::response(request, 481, "Call/Transaction Does Not Exist"));
        };
        if self.profile.strict_cseq && dialog.remote_cseq.is_some_and(|highest| cseq.number <= highest) {
            return self.answer(request, from, Message::response(request, 500, "CSeq Out Of Order"));
        }
        dialog.remote_cseq = dialog.remote_cseq.max(Some(cseq.number));
        match method.as_str() {
            "INVITE" | "UPDATE" => self.on_refresh(request, from, &method),
            "BYE" => {
                dialog.over = true;
                self.answer(request, from, Message::response(request, 200, "OK"));
                let reason = request.header("Reason").unwrap_or("BYE").into();
                self.shared.add(Event::Ended { by_us: false, reason });
            }
            _ => self.answer(request, from, Message::response(request, 200, "OK")),
        }
    }

    fn on_ack(&mut self, number: u32) {
        let right = |one: &Repeated| one.message.cseq().is_some_and(|cseq| cseq.number == number);
        if self.unacknowledged.as_ref().is_some_and(right) {
            self.unacknowledged = None;
            if let Some(dialog) = self.dialog.as_mut().filter(|dialog| !dialog.confirmed) {
                dialog.confirmed = true;
                self.shared.add(Event::Established);
            }
        } else if !self
            .answered
            .iter()
            .any(|(request, _)| request.cseq().is_some_and(|cseq| cseq.number == number && cseq.method == "INVITE"))
        {
            self.fault(format!("ACK {number} for no INVITE"));
        }
    }

    fn on_call(&mut self, invite: &Message, from: SocketAddr) {
        let Some(dialog) = Dialog::called(&self.profile, invite, from) else {
            return self.fault(format!("an INVITE that makes no dialog: {invite}"));
        };
        self.dialog = Some(dialog);
        let ringing = self.tagged(Message::response(invite, 180, "Ringing"));
        self.send(&ringing, from);
        let timer = self.profile.timer;
        let answer = self.accept(invite, timer.map(|timer| expires(timer.interval_s, timer.refresher)));
        if let Some(dialog) = &mut self.dialog {
            dialog.restart(timer.map(|timer| timer.interval_s), &self.profile);
        }
        self.answer(invite, from, answer);
    }

    /// A re-INVITE or an UPDATE.
    fn on_refresh(&mut self, request: &Message, from: SocketAddr, method: &str) {
        let refusal = |status: u16| Message::response(request, status, "Refused");
        if method == "INVITE" && self.unacknowledged.is_some() {
            return self.answer(request, from, refusal(500).with("Retry-After", 1));
        }
        if method == "INVITE" && self.open.iter().any(|one| one.message.method() == Some("INVITE")) {
            return self.answer(request, from, refusal(491));
        }
        // The server's own: sipst's say how long the interval is to be.
        let own = request.session_expires().is_none();
        if method == "INVITE" && own && std::mem::take(&mut self.profile.rings) {
            return self.ring(request, from);
        }
        if method == "UPDATE" {
            match self.profile.update {
                Update::Accept => {}
                Update::ListAndRefuse(status) => return self.answer(request, from, refusal(status)),
                Update::ListAndIgnore => return,
                Update::Unknown => return self.answer(request, from, refusal(501)),
            }
        }
        if !self.profile.refuse.is_empty() {
            let refuse = self.profile.refuse.remove(0);
            let response =
                refuse.headers.iter().fold(refusal(refuse.status), |all, (name, value)| all.with(name, value));
            return self.answer(request, from, response);
        }
        if method == "INVITE" && !self.profile.thinks.is_zero() {
            self.send(&Message::response(request, 100, "Trying"), from);
            thread::sleep(self.profile.thinks);
        }
        self.check_offer(request, method);
        if method == "INVITE" && std::mem::take(&mut self.profile.moves) {
            self.profile.media_port += 2;
            self.profile.update = Update::Accept;
        }
        let timer = self.profile.timer.filter(|_| self.profile.knows_timers).map(|timer| {
            let asked = request.session_expires();
            let least: u32 = request.header("Min-SE").and_then(|value| value.parse().ok()).unwrap_or(0);
            let wanted = timer.interval_s.max(least);
            let seconds = asked.map_or(wanted, |(seconds, _)| seconds.min(wanted));
            (seconds, asked.and_then(|(_, refresher)| refresher).or(timer.refresher))
        });
        let joined = request.session_expires().filter(|_| self.profile.joins).map(|(seconds, refresher)| {
            // RFC 4028, table 2: whoever does not list `timer` is no refresher.
            let lists = request.header("Supported").is_some_and(|all| all.contains("timer"));
            (seconds, if lists { refresher.or(Some("uac")) } else { Some("uas") })
        });
        let timer = timer.or(joined);
        let answer = self.accept(request, timer.map(|(seconds, refresher)| expires(seconds, refresher)));
        if let Some(dialog) = &mut self.dialog {
            dialog.remote_target = request.uri("Contact").unwrap_or(&dialog.remote_target).into();
            if timer.is_some() || self.profile.drops_after.is_some() {
                dialog.restart(timer.map(|(seconds, _)| seconds), &self.profile);
            }
        }
        self.answer(request, from, answer);
    }

    /// F8, F10: an offer under the same version is the same offer, and there is one.
    fn check_offer(&mut self, request: &Message, method: &str) {
        let origin = |sdp: &str| sdp.lines().find(|line| line.starts_with("o=")).map(str::to_owned);
        let Some(dialog) = &mut self.dialog else { return };
        let known = dialog.remote_sdp.as_deref().filter(|sdp| !sdp.is_empty());
        let fault = match (method, request.body.as_str(), known) {
            ("INVITE", "", _) => Some("a re-INVITE without an offer"),
            (_, "", _) => None,
            (_, body, Some(known)) if body != known && origin(body) == origin(known) => {
                Some("a new offer, the old version")
            }
            _ => None,
        };
        if !request.body.is_empty() {
            dialog.remote_sdp = Some(request.body.clone());
        }
        if let Some(fault) = fault {
            self.fault(format!("{fault}: {request}"));
        }
    }

    /// A 2xx to an INVITE or an UPDATE.
    fn accept(&self, request: &Message, session_expires: Option<String>) -> Message {
        let mut response = self.tagged(self.describe(Message::response(request, 200, "OK"), false));
        if let Some(value) = session_expires {
            if value.ends_with("refresher=uac") {
                response = response.with("Require", "timer");
            }
            response = response.with("Session-Expires", value);
        }
        if request.body.is_empty() {
            return response;
        }
        response.with_body("application/sdp", sdp(&self.profile, self.own))
    }

    /// With our tag in To, unless there is one.
    fn tagged(&self, mut response: Message) -> Message {
        let Some(dialog) = &self.dialog else { return response };
        if response.param("To", "tag").is_none() {
            for (_, value) in response.headers.iter_mut().filter(|(name, _)| name == "To") {
                value.push_str(&format!(";tag={}", dialog.local_tag));
            }
        }
        response
    }

    pub(super) fn answer(&mut self, request: &Message, to: SocketAddr, response: Message) {
        self.send(&response, to);
        if request.method() == Some("INVITE") && response.status().is_some_and(|status| status < 300) {
            self.unacknowledged = Some(Repeated::new(response.clone(), to, self.profile.ack_patience));
        }
        self.answered.push((request.clone(), response));
    }
}

/// A response of whoever makes no dialog of it (RFC 3261, section 8.2.6.2), unless there is one.
fn turning_down(mut response: Message) -> Message {
    if response.param("To", "tag").is_none() {
        for (_, value) in response.headers.iter_mut().filter(|(name, _)| name == "To") {
            value.push_str(&format!(";tag={}", fresh("t")));
        }
    }
    response
}

fn expires(seconds: u32, refresher: Option<&str>) -> String {
    refresher.map_or_else(|| seconds.to_string(), |role| format!("{seconds};refresher={role}"))
}

/// What no request should lack.
fn unfit(request: &Message) -> Vec<&'static str> {
    let method = request.method().unwrap_or_default();
    let mut faults = Vec::new();
    if !request.param("Via", "branch").is_some_and(|branch| branch.starts_with("z9hG4bK")) {
        faults.push("no RFC 3261 branch");
    }
    if request.header("Max-Forwards").is_none() {
        faults.push("no Max-Forwards");
    }
    if ["INVITE", "UPDATE"].contains(&method) && request.uri("Contact").is_none() {
        faults.push("no Contact");
    }
    if request.cseq().is_none_or(|cseq| cseq.method != method) {
        faults.push("the methods differ");
    }
    faults
}
