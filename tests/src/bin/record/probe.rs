//! The probe: one SIP dialog after a script, and everything that goes over the wire in it.

use std::{
    collections::{HashMap, VecDeque},
    fmt::Write as _,
    io,
    net::{SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use st_tests::{Host, agent::Message};

/// How long a final response is waited for.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long the stack's own call is waited for.
const CALL: Duration = Duration::from_secs(15);
/// Tags of the probe, and of the one that is called by way of the stack.
pub(crate) const PROBE: &str = "probe";
pub(crate) const CALLEE: &str = "callee";
/// A pause after each exchange, so that what the stack says of its own accord stands apart.
const PAUSE: Duration = Duration::from_millis(300);

/// The number of a request, seen from the last one.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Number {
    Next,
    Equal,
    Lower,
    Gap,
}

/// How a request of the stack's is answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    /// 0: not at all.
    pub(crate) status: u16,
    /// Header lines beyond those that every answer has.
    pub(crate) headers: &'static [&'static str],
}

/// What the probe does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// Calls the stack, with these header lines more; acknowledges the 2xx.
    Call(&'static [&'static str]),
    /// Waits for the stack's own call to be up.
    Called,
    /// How the next request of the stack's is answered. Without it: 200, and Session-Expires as it was asked for.
    Answer(Answer),
    /// A request in the dialog: method, number, header lines, whether with SDP.
    Ask(&'static str, Number, &'static [&'static str], bool),
    /// A 200 to an INVITE that the stack has not sent.
    Stray,
    /// So many seconds without a word of the probe's own; over with the stack's BYE.
    Quiet(u64),
}

/// A message that went over the wire.
struct Line {
    at: Duration,
    sent: bool,
    /// Of the probe.
    tag: &'static str,
    text: String,
}

/// A scripted user agent in the laboratory.
pub(crate) struct Probe {
    socket: UdpSocket,
    own: SocketAddr,
    stack: SocketAddr,
    began: Instant,
    lines: Vec<Line>,
    answers: VecDeque<Answer>,
    given: HashMap<String, Option<Vec<u8>>>,
    call_id: String,
    tag: &'static str,
    /// From and To as the probe's own requests have them.
    local: String,
    remote: String,
    target: String,
    /// Route as they have it.
    routes: Vec<String>,
    number: u32,
    branches: u32,
    acked: bool,
    over: bool,
}

impl Probe {
    /// Opens its socket in a host. `call_id` tells its calls from others, `tag` its end from the other one.
    pub(crate) fn open(
        host: &Host,
        own: SocketAddr,
        stack: SocketAddr,
        call_id: &str,
        tag: &'static str,
    ) -> Result<Self> {
        let socket = host.enter(move || UdpSocket::bind(own)).with_context(|| format!("cannot bind {own}"))?;
        Ok(Self {
            socket,
            own,
            stack,
            began: Instant::now(),
            lines: Vec::new(),
            answers: VecDeque::new(),
            given: HashMap::new(),
            call_id: format!("{call_id}@{}", own.ip()),
            tag,
            local: format!("<sip:probe@{}>;tag={tag}", own.ip()),
            remote: format!("<sip:stack@{}>", stack.ip()),
            target: format!("sip:stack@{stack}"),
            routes: Vec::new(),
            number: 100,
            branches: 0,
            acked: false,
            over: false,
        })
    }

    /// Plays a script and returns what went over the wire.
    pub(crate) fn play(mut self, script: &[Step]) -> Result<String> {
        self.began = Instant::now();
        self.go_on(script)?;
        Ok(self.text())
    }

    /// Plays a script of its own at either end of what stands between the two.
    pub(crate) fn play_to(mut self, script: &[Step], mut callee: Self, theirs: &'static [Step]) -> Result<String> {
        let now = Instant::now();
        (self.began, callee.began) = (now, now);
        let thread = thread::spawn(move || callee.go_on(theirs).map(|()| callee));
        let played = self.go_on(script);
        let Ok(callee) = thread.join() else { bail!("the callee panicked") };
        played?;
        self.lines.extend(callee?.lines);
        self.lines.sort_by_key(|line| line.at);
        Ok(self.text())
    }

    fn go_on(&mut self, script: &[Step]) -> Result<()> {
        script
            .iter()
            .try_for_each(|step| self.step(step).with_context(|| format!("at {step:?}, after\n{}", self.text())))
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for Line { at, sent, tag, text: message } in &self.lines {
            let mark = match (sent, *tag == CALLEE) {
                (true, false) => "->",
                (false, false) => "<-",
                (true, true) => "=>",
                (false, true) => "<=",
            };
            let _ = write!(text, "{mark} {}\n{message}", at.as_millis());
        }
        let _ = writeln!(text, "end {}", self.began.elapsed().as_millis());
        text
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        match *step {
            Step::Call(headers) => {
                let invite = self.request("INVITE", headers, true);
                let answer = self.ask(&invite)?.context("no answer to the INVITE")?;
                if answer.status().is_some_and(|status| status < 300) {
                    self.remote = answer.header("To").unwrap_or_default().into();
                    self.target = answer.uri("Contact").context("no Contact")?.into();
                    self.routes = answer.all("Record-Route").map(Into::into).collect();
                    self.routes.reverse();
                }
                self.acknowledge(&invite, &answer)?;
                self.listen(Instant::now() + PAUSE)
            }
            Step::Called => {
                let until = Instant::now() + CALL;
                while !self.acked {
                    ensure!(Instant::now() < until, "the stack does not call");
                    self.hear(until)?;
                }
                self.listen(Instant::now() + PAUSE)
            }
            Step::Answer(answer) => {
                self.answers.push_back(answer);
                Ok(())
            }
            Step::Ask(method, number, headers, body) => {
                let last = self.number;
                self.number = match number {
                    Number::Next => last,
                    Number::Equal => last - 1,
                    Number::Lower => last - 2,
                    Number::Gap => last + 10,
                };
                let request = self.request(method, headers, body);
                self.number = self.number.max(last);
                let answer = self.ask(&request)?;
                if let Some(answer) = answer.filter(|_| method == "INVITE") {
                    self.acknowledge(&request, &answer)?;
                }
                self.over |= method == "BYE";
                self.listen(Instant::now() + PAUSE)
            }
            Step::Stray => {
                let stray = Message { start: "SIP/2.0 200 OK".into(), headers: Vec::new(), body: String::new() }
                    .with("Via", format_args!("SIP/2.0/UDP {};branch=z9hG4bKstray", self.stack))
                    .with("From", &self.remote)
                    .with("To", &self.local)
                    .with("Call-ID", &self.call_id)
                    .with("CSeq", "7777 INVITE")
                    .with("Contact", self.contact());
                self.send(&self.described(stray))?;
                self.listen(Instant::now() + Duration::from_secs(2))
            }
            Step::Quiet(seconds) => self.listen(Instant::now() + Duration::from_secs(seconds)),
        }
    }

    fn contact(&self) -> String {
        format!("<sip:probe@{}>", self.own)
    }

    fn described(&self, message: Message) -> Message {
        let ip = self.own.ip();
        // One codec: of two, pjsip picks one by an UPDATE of its own.
        let sdp = format!(
            "v=0\r\no=probe 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0\r\n\
             a=rtpmap:0 PCMU/8000\r\na=sendrecv\r\n"
        );
        message.with_body("application/sdp", sdp)
    }

    /// The next request of the probe's own.
    fn request(&mut self, method: &str, headers: &[&str], body: bool) -> Message {
        let number = self.number;
        self.number += 1;
        let mut request = self.bare(method, number);
        if matches!(method, "INVITE" | "UPDATE") {
            let allow = "INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE";
            request = request.with("Contact", self.contact()).with("Allow", allow);
        }
        request = dressed(request, headers);
        if body { self.described(request) } else { request }
    }

    fn bare(&mut self, method: &str, number: u32) -> Message {
        self.branches += 1;
        let routes = self.routes.iter();
        let request = Message::request(method, &self.target)
            .with("Via", format_args!("SIP/2.0/UDP {};rport;branch=z9hG4bK{}{}", self.own, self.tag, self.branches));
        routes
            .fold(request, |request, route| request.with("Route", route))
            .with("Max-Forwards", 70)
            .with("From", &self.local)
            .with("To", &self.remote)
            .with("Call-ID", &self.call_id)
            .with("CSeq", format_args!("{number} {method}"))
    }

    fn ask(&mut self, request: &Message) -> Result<Option<Message>> {
        self.send(request)?;
        let until = Instant::now() + PATIENCE;
        while let Some(message) = self.hear(until)? {
            let is_answer = message.param("Via", "branch") == request.param("Via", "branch");
            if is_answer && message.status().is_some_and(|status| status >= 200) {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    fn acknowledge(&mut self, invite: &Message, answer: &Message) -> Result<()> {
        let number = invite.cseq().context("no CSeq")?.number;
        let mut ack = self.bare("ACK", number);
        if answer.status().is_some_and(|status| status >= 300) {
            let own = |name: &str| invite.header(name).unwrap_or_default().to_owned();
            ack = Message::request("ACK", invite.start.split(' ').nth(1).unwrap_or_default())
                .with("Via", own("Via"))
                .with("Max-Forwards", 70)
                .with("From", own("From"))
                .with("To", answer.header("To").unwrap_or_default())
                .with("Call-ID", &self.call_id)
                .with("CSeq", format_args!("{number} ACK"));
        }
        self.send(&ack)
    }

    fn listen(&mut self, until: Instant) -> Result<()> {
        let mut until = until;
        let mut was_over = self.over;
        while self.hear(until)?.is_some() {
            if self.over && !was_over {
                until = until.min(Instant::now() + PAUSE);
            }
            was_over = self.over;
        }
        Ok(())
    }

    /// The next message, if one comes in time; requests are answered at once.
    fn hear(&mut self, until: Instant) -> Result<Option<Message>> {
        let mut buffer = vec![0; 65_536];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.socket.set_read_timeout(Some(left))?;
            let len = match self.socket.recv_from(&mut buffer) {
                Ok((len, _)) => len,
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
                    ) =>
                {
                    continue;
                }
                // An ICMP error for what was sent before: a stack that is not there yet.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(error) => return Err(error.into()),
            };
            // Keep-alives.
            if buffer[..len].iter().all(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
                continue;
            }
            self.note(false, &buffer[..len]);
            let message = read(&buffer[..len])?;
            if message.method().is_some() {
                self.asked(&message)?;
            }
            return Ok(Some(message));
        }
    }

    fn asked(&mut self, request: &Message) -> Result<()> {
        let method = request.method().unwrap_or_default().to_owned();
        if method == "ACK" {
            self.acked = true;
            return Ok(());
        }
        let branch = request.param("Via", "branch").context("no branch")?.to_owned();
        if let Some(given) = self.given.get(&branch) {
            let given = given.clone();
            return given.map_or(Ok(()), |bytes| self.send_bytes(&bytes));
        }
        if request.param("To", "tag").is_none() {
            if method != "INVITE" {
                // Registration and the like are none of the probe's business.
                return Ok(());
            }
            self.call_id = request.header("Call-ID").unwrap_or_default().into();
            self.remote = request.header("From").unwrap_or_default().into();
            self.local = format!("{};tag={}", request.header("To").unwrap_or_default(), self.tag);
            self.routes = request.all("Record-Route").map(Into::into).collect();
        }
        if let (true, Some(target)) = (matches!(&*method, "INVITE" | "UPDATE"), request.uri("Contact")) {
            self.target = target.into();
        }
        let timed = matches!(&*method, "INVITE" | "UPDATE");
        let answer = if timed { self.answers.pop_front() } else { None };
        let status = answer.map_or(200, |answer| answer.status);
        let mut response = Message::response(request, status, "Said");
        if let Some((_, to)) = response.headers.iter_mut().find(|(name, _)| name == "To") {
            to.clone_from(&self.local);
        }
        if timed && status == 200 {
            response =
                response.with("Contact", self.contact()).with("Allow", "INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE");
            if let (None, Some((seconds, refresher))) = (answer, request.session_expires()) {
                let refresher = refresher.unwrap_or("uac");
                response = response
                    .with("Supported", "timer")
                    .with("Require", "timer")
                    .with("Session-Expires", format_args!("{seconds};refresher={refresher}"));
            }
            if !request.body.is_empty() {
                response = self.described(response);
            }
        }
        response = dressed(response, answer.map_or(&[], |answer| answer.headers));
        let bytes = (status > 0).then(|| response.to_bytes(": "));
        self.given.insert(branch, bytes.clone());
        self.over |= method == "BYE";
        bytes.map_or(Ok(()), |bytes| self.send_bytes(&bytes))
    }

    fn send(&mut self, message: &Message) -> Result<()> {
        self.send_bytes(&message.to_bytes(": "))
    }

    fn send_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.note(true, bytes);
        match self.socket.send_to(bytes, self.stack) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => bail!("the stack is gone"),
            Err(error) => Err(error.into()),
        }
    }

    /// Line ends become LF, for the sake of whoever reads; all else is kept.
    fn note(&mut self, sent: bool, bytes: &[u8]) {
        let mut text = String::from_utf8_lossy(bytes).replace("\r\n", "\n");
        if !text.ends_with("\n\n") {
            text.push('\n');
        }
        self.lines.push(Line { at: self.began.elapsed(), sent, tag: self.tag, text });
    }
}

/// Over UDP, Content-Length may be missing (RFC 3261, section 20.14), and with linphone it is.
fn read(bytes: &[u8]) -> Result<Message> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n").context("headers without an end")?;
    let has_length = head.lines().filter_map(|line| line.split_once(':')).any(|(name, _)| {
        let name = name.trim();
        name.eq_ignore_ascii_case("Content-Length") || name.eq_ignore_ascii_case("l")
    });
    if has_length {
        return Message::parse(bytes);
    }
    Message::parse(format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes())
}

fn dressed(message: Message, headers: &[&str]) -> Message {
    headers
        .iter()
        .filter_map(|line| line.split_once(": "))
        .fold(message, |message, (name, value)| message.with(name, value))
}
