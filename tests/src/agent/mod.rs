//! Scripted SIP agents over UDP: a [`Profile::strict_peer`] that enforces session timers and CSeq to the letter, and a
//! [`Profile::plain_server`] that knows nothing of timers and calls every message that it did not ask for a fault.

mod dialog;
mod early;
mod message;
mod run;
mod scatter;
mod together;

use std::{
    fmt,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

pub use early::RSEQ;
pub use message::{CSeq, Message};

use crate::Host;

/// The session timer that an agent asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer {
    /// Session-Expires in seconds.
    pub interval_s: u32,
    /// The refresher parameter, if any: `uac` or `uas`.
    pub refresher: Option<&'static str>,
}

/// When an agent hangs up because nobody refreshed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enforce {
    /// Never.
    No,
    /// When the interval has run out.
    AtExpiry,
    /// At SE - min(32 s, SE/3), as RFC 4028, section 10 recommends.
    Before,
}

/// What an agent does with UPDATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// Lists it in Allow and answers 200.
    Accept,
    /// Lists it in Allow and answers with this status all the same.
    ListAndRefuse(u16),
    /// Lists it in Allow and says nothing.
    ListAndIgnore,
    /// Does not list it, answers 501.
    Unknown,
}

/// An answer that refuses a refresh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its status.
    pub status: u16,
    /// Headers that go with it.
    pub headers: Vec<(&'static str, String)>,
}

impl Refusal {
    /// One without headers of its own.
    pub fn new(status: u16) -> Self {
        Self { status, headers: Vec::new() }
    }

    /// The same with one more header.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// How an agent behaves.
#[derive(Clone, Debug)]
pub struct Profile {
    /// User part of its URIs, and its name in errors.
    pub name: &'static str,
    /// The number of its first request.
    pub first_cseq: u32,
    /// What it writes between the name and the number of CSeq.
    pub cseq_colon: &'static str,
    /// The timer in its INVITE, or in its 2xx to the first INVITE.
    pub timer: Option<Timer>,
    /// The Min-SE of its INVITE, in seconds.
    pub min_se: Option<u32>,
    /// Whether its 2xx to a refresh carry Session-Expires and it lists `timer`.
    pub knows_timers: bool,
    /// When it hangs up.
    pub enforce: Enforce,
    /// How long after the last INVITE or UPDATE that was accepted it hangs up, whatever was negotiated.
    pub drops_after: Option<Duration>,
    /// Whether it takes up a timer that a refresh asks for, though it asks for none itself.
    pub joins: bool,
    /// What it does with UPDATE.
    pub update: Update,
    /// What it answers to the first refreshes before it accepts one.
    pub refuse: Vec<Refusal>,
    /// Whether an equal or lower CSeq gets 500.
    pub strict_cseq: bool,
    /// How long it sends its 2xx to an INVITE again before it ends the call for want of an ACK.
    pub ack_patience: Duration,
    /// How long it thinks about a re-INVITE, behind a 100. It hears nothing else meanwhile.
    pub thinks: Duration,
    /// Whether the first re-INVITE only rings, by a reliable response, until it is cancelled.
    pub rings: bool,
    /// Whether its media go elsewhere when the next re-INVITE comes, by its answer. From then on it takes UPDATE.
    pub moves: bool,
    /// Where its media are, by its SDP.
    pub media_port: u16,
    /// Whether it takes and makes no call without session timers: its own INVITE has `Require: timer`, and to one that does not
    /// list `timer` it answers 421.
    pub demands_timers: bool,
    /// What it answers to the first INVITEs that would begin a call.
    pub declines: Vec<Refusal>,
    /// Whether its SDP has video and ICE candidates: several kilobytes, which no packet takes.
    pub ice: bool,
    /// Whether all that it sends leaves in IP fragments, where it is longer than one, and the last of them first.
    pub backwards: bool,
    /// Whether a keep-alive leaves behind each of its messages, both as one packet (`UDP_SEGMENT`).
    pub together: bool,
}

impl Profile {
    /// A peer that asks for a session timer in its first message and enforces it.
    pub fn strict_peer(interval_s: u32, refresher: &'static str) -> Self {
        Self {
            name: "peer",
            first_cseq: 4_711,
            cseq_colon: ": ",
            timer: Some(Timer { interval_s, refresher: Some(refresher) }),
            min_se: None,
            knows_timers: true,
            enforce: Enforce::AtExpiry,
            drops_after: None,
            joins: false,
            update: Update::Accept,
            refuse: Vec::new(),
            strict_cseq: true,
            ack_patience: Duration::from_secs(6),
            thinks: Duration::ZERO,
            rings: false,
            moves: false,
            media_port: MEDIA_PORT,
            demands_timers: false,
            declines: Vec::new(),
            ice: false,
            backwards: false,
            together: false,
        }
    }

    /// A peer that negotiates no timer in its first message, and hangs up when it has heard no INVITE or UPDATE for so long.
    pub fn dropping_peer(after: Duration) -> Self {
        Self { timer: None, knows_timers: false, drops_after: Some(after), ..Self::strict_peer(0, "uac") }
    }

    /// A server without session timers.
    pub fn plain_server() -> Self {
        Self {
            name: "server",
            first_cseq: 1,
            cseq_colon: ": ",
            timer: None,
            min_se: None,
            knows_timers: false,
            enforce: Enforce::No,
            drops_after: None,
            joins: false,
            update: Update::Unknown,
            refuse: Vec::new(),
            strict_cseq: true,
            ack_patience: Duration::from_secs(6),
            thinks: Duration::ZERO,
            rings: false,
            moves: false,
            media_port: MEDIA_PORT,
            demands_timers: false,
            declines: Vec::new(),
            ice: false,
            backwards: false,
            together: false,
        }
    }
}

/// Where an agent's media are at first.
pub const MEDIA_PORT: u16 = 40_000;

/// What an agent went through.
#[derive(Clone, Debug)]
pub enum Event {
    /// It sent a message for the first time.
    Sent(Message),
    /// It received a message, copies included.
    Received(Message),
    /// The dialog is confirmed: the ACK was sent or received.
    Established,
    /// The dialog is over.
    Ended {
        /// Whether this agent sent the BYE.
        by_us: bool,
        /// The BYE's Reason header, or what this agent thinks.
        reason: String,
    },
    /// Something that no agent should ever meet.
    Fault(String),
}

/// An [`Event`] and its time.
#[derive(Clone, Debug)]
pub struct Record {
    /// When.
    pub at: Instant,
    /// What.
    pub event: Event,
}

/// What an agent thinks of its call right now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// When it will hang up.
    pub deadline: Option<Instant>,
    /// The session interval.
    pub interval: Option<Duration>,
    /// The last number that it sent.
    pub local_cseq: u32,
    /// The highest number that it received.
    pub remote_cseq: Option<u32>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<(Vec<Record>, Status)>,
    grown: Condvar,
}

impl Shared {
    fn add(&self, event: Event) {
        let record = Record { at: Instant::now(), event };
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0.push(record);
        self.grown.notify_all();
    }
}

/// What an agent is told to do.
#[derive(Clone, Debug)]
enum Order {
    Call(SocketAddr),
    Bye,
    Reinvite,
    Hold,
    Request(&'static str),
    /// With these headers beside the usual ones.
    Dressed(&'static str, Vec<(&'static str, String)>),
    /// Of its own INVITE.
    Cancel,
    /// With this number instead of the next one.
    Numbered(&'static str, u32),
    Stop,
}

/// What wakes an agent.
enum Input {
    Datagram(Vec<u8>, SocketAddr),
    /// And where to say that it is done.
    Order(Order, mpsc::Sender<()>),
}

/// A running agent with one call at a time.
pub struct Agent {
    name: &'static str,
    address: SocketAddr,
    shared: Arc<Shared>,
    inputs: mpsc::Sender<Input>,
    stopped: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Agent {
    /// Starts one at an address of a host.
    pub fn start(host: &Host, address: SocketAddr, profile: Profile) -> Result<Self> {
        let socket = host.enter(move || UdpSocket::bind(address)).with_context(|| format!("cannot bind {address}"))?;
        let shared = Arc::<Shared>::default();
        let (inputs, queue) = mpsc::channel();
        let name = profile.name;
        let scatter =
            profile.backwards.then(|| host.enter(move || scatter::Scatter::open(address.ip()))).transpose()?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let stopped = Arc::<AtomicBool>::default();
        let reader = {
            let (socket, inputs, stopped) = (socket.try_clone()?, inputs.clone(), Arc::clone(&stopped));
            thread::spawn(move || read(&socket, &inputs, &stopped))
        };
        let thread = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || run::Ua::new(profile, socket, scatter, address, shared).run(&queue))
        };
        Ok(Self { name, address, shared, inputs, stopped, threads: vec![thread, reader] })
    }

    /// Calls.
    pub fn call(&self, to: SocketAddr) {
        self.order(Order::Call(to));
    }

    /// Hangs up.
    pub fn bye(&self) {
        self.order(Order::Bye);
    }

    /// Sends a re-INVITE with its own SDP, without any word of timers unless it knows them.
    pub fn reinvite(&self) {
        self.order(Order::Reinvite);
    }

    /// Sends a re-INVITE that puts the other end on hold, by a new version of its SDP.
    pub fn hold(&self) {
        self.order(Order::Hold);
    }

    /// Sends another request in the dialog: `INFO`, `OPTIONS`, `UPDATE`.
    pub fn request(&self, method: &'static str) {
        self.order(Order::Request(method));
    }

    /// The same with another header.
    pub fn request_with(&self, method: &'static str, header: &'static str, value: impl Into<String>) {
        self.order(Order::Dressed(method, vec![(header, value.into())]));
    }

    /// Cancels its own INVITE that has no final response.
    pub fn cancel(&self) {
        self.order(Order::Cancel);
    }

    /// The same with this number instead of its next one.
    pub fn request_with_number(&self, method: &'static str, number: u32) {
        self.order(Order::Numbered(method, number));
    }

    /// Returns once it is carried out; an agent that has stopped does nothing.
    fn order(&self, order: Order) {
        let (done, wait) = mpsc::channel();
        if self.inputs.send(Input::Order(order, done)).is_ok() {
            let _ = wait.recv();
        }
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it went through so far.
    pub fn records(&self) -> Vec<Record> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// What it thinks of its call right now.
    pub fn status(&self) -> Status {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    /// Waits until `found` finds something among the records; `what` names it in the error.
    pub fn wait<T>(&self, what: &str, within: Duration, mut found: impl FnMut(&[Record]) -> Option<T>) -> Result<T> {
        let until = Instant::now() + within;
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(value) = found(&state.0) {
                return Ok(value);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(state);
                bail!("{}: no {what} within {within:?}\n{self}", self.name);
            }
            state = self.shared.grown.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until its call is up.
    pub fn established(&self, within: Duration) -> Result<()> {
        self.wait("established call", within, |records| {
            records.iter().find_map(|record| matches!(record.event, Event::Established).then_some(()))
        })
    }

    /// Waits until its call is over: whether it hung up itself, and why.
    pub fn ended(&self, within: Duration) -> Result<(bool, String)> {
        self.wait("end of the call", within, |records| records.iter().find_map(Record::end))
    }

    /// Whether its call is over.
    pub fn is_over(&self) -> bool {
        self.records().iter().any(|record| record.end().is_some())
    }

    /// Waits for the `count`th request of one of these methods, first copies only.
    pub fn received(&self, methods: &[&str], count: usize, within: Duration) -> Result<Message> {
        self.wait(&format!("{count} of {}", methods.join("/")), within, |records| {
            requests(records, methods).into_iter().nth(count.checked_sub(1)?)
        })
    }

    /// Waits for the `count`th re-INVITE or UPDATE, first copies only.
    pub fn refreshed(&self, count: usize, within: Duration) -> Result<Message> {
        self.wait(&format!("{count} refreshes"), within, |records| {
            refreshes(records).into_iter().nth(count.checked_sub(1)?)
        })
    }

    /// The re-INVITEs and UPDATEs that it received, first copies only.
    pub fn refreshes(&self) -> Vec<Message> {
        refreshes(&self.records())
    }

    /// The requests of a method that it received, first copies only.
    pub fn requests(&self, method: &str) -> Vec<Message> {
        requests(&self.records(), &[method])
    }

    /// Waits for the final answer to its own last request of a method that shares its branch with another one, or not.
    pub fn answered_exactly(&self, method: &str, within: Duration) -> Result<u16> {
        self.wait(&format!("answer to {method}"), within, |records| {
            // One before it may have had another answer.
            let asked = records.iter().rev().find_map(|record| match &record.event {
                Event::Sent(message) if message.method() == Some(method) => message.cseq(),
                Event::Sent(_) | Event::Received(_) | Event::Established | Event::Ended { .. } | Event::Fault(_) => {
                    None
                }
            })?;
            records.iter().rev().find_map(|record| match &record.event {
                Event::Received(message) if message.cseq().as_ref() == Some(&asked) => {
                    message.status().filter(|status| *status >= 200)
                }
                Event::Sent(_) | Event::Received(_) | Event::Established | Event::Ended { .. } | Event::Fault(_) => {
                    None
                }
            })
        })
    }

    /// Waits for the final answer to its own last request of a method.
    pub fn answered(&self, method: &str, within: Duration) -> Result<u16> {
        self.wait(&format!("answer to {method}"), within, |records| {
            let branch = records.iter().rev().find_map(|record| match &record.event {
                Event::Sent(message) if message.method() == Some(method) => message.param("Via", "branch"),
                Event::Sent(_) | Event::Received(_) | Event::Established | Event::Ended { .. } | Event::Fault(_) => {
                    None
                }
            })?;
            records.iter().find_map(|record| match &record.event {
                Event::Received(message) if message.param("Via", "branch") == Some(branch) => {
                    message.status().filter(|status| *status >= 200)
                }
                Event::Sent(_) | Event::Received(_) | Event::Established | Event::Ended { .. } | Event::Fault(_) => {
                    None
                }
            })
        })
    }

    /// The statuses that it answered with, in order.
    pub fn answers(&self) -> Vec<u16> {
        let status = |record: Record| match record.event {
            Event::Sent(message) => message.status(),
            Event::Received(_) | Event::Established | Event::Ended { .. } | Event::Fault(_) => None,
        };
        self.records().into_iter().filter_map(status).collect()
    }

    /// The messages that it sent, first copies only.
    pub fn sent(&self) -> Vec<Message> {
        let message = |record: Record| match record.event {
            Event::Sent(message) => Some(message),
            Event::Received(_) | Event::Established | Event::Ended { .. } | Event::Fault(_) => None,
        };
        self.records().into_iter().filter_map(message).collect()
    }

    /// What it met that no agent should ever meet.
    pub fn faults(&self) -> Vec<String> {
        let faults = |record: Record| match record.event {
            Event::Fault(text) => Some(text),
            Event::Sent(_) | Event::Received(_) | Event::Established | Event::Ended { .. } => None,
        };
        self.records().into_iter().filter_map(faults).collect()
    }

    /// An error that tells all unless there was no fault.
    pub fn faultless(&self) -> Result<()> {
        match self.faults() {
            faults if faults.is_empty() => Ok(()),
            faults => bail!("{}: {}\n{self}", self.name, faults.join("; ")),
        }
    }
}

/// All that happened, a line each.
impl fmt::Display for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let records = self.records();
        let Some(first) = records.first() else { return write!(f, "{}: nothing happened", self.name) };
        for record in &records {
            write!(f, "{:>9.3} s  {:<6} ", (record.at - first.at).as_secs_f64(), self.name)?;
            match &record.event {
                Event::Sent(message) => writeln!(f, "sent      {message}")?,
                Event::Received(message) => writeln!(f, "received  {message}")?,
                Event::Established => writeln!(f, "is in the call")?,
                Event::Ended { by_us: true, reason } => writeln!(f, "hung up: {reason}")?,
                Event::Ended { by_us: false, reason } => writeln!(f, "was hung up on: {reason}")?,
                Event::Fault(text) => writeln!(f, "FAULT     {text}")?,
            }
        }
        Ok(())
    }
}

impl Record {
    /// Whether the dialog was over with this.
    pub fn is_end(&self) -> bool {
        self.end().is_some()
    }

    /// Whether a request of this method was received, copies included.
    pub fn is_request(&self, method: &str) -> bool {
        matches!(&self.event, Event::Received(message) if message.method() == Some(method))
    }

    fn end(&self) -> Option<(bool, String)> {
        match &self.event {
            Event::Ended { by_us, reason } => Some((*by_us, reason.clone())),
            Event::Sent(_) | Event::Received(_) | Event::Established | Event::Fault(_) => None,
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.order(Order::Stop);
        self.stopped.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Requests of these methods by their first copies (RFC 3261: one top branch and CSeq each).
fn requests(records: &[Record], methods: &[&str]) -> Vec<Message> {
    let mut seen: Vec<Message> = Vec::new();
    for record in records {
        let Event::Received(message) = &record.event else { continue };
        let wanted = message.method().is_some_and(|method| methods.contains(&method));
        if wanted && !seen.iter().any(|old| old.header("Via") == message.header("Via") && old.start == message.start) {
            seen.push(message.clone());
        }
    }
    seen
}

/// The re-INVITEs and UPDATEs among what was received, first copies only: the INVITE that begins a call has no To tag.
pub fn refreshes(records: &[Record]) -> Vec<Message> {
    let mut requests = requests(records, &["INVITE", "UPDATE"]);
    requests.retain(|request| request.param("To", "tag").is_some());
    requests
}

/// Passes datagrams on until the agent has gone.
fn read(socket: &UdpSocket, inputs: &mpsc::Sender<Input>, stopped: &AtomicBool) {
    let mut buffer = vec![0; 65_536];
    while !stopped.load(Ordering::Relaxed) {
        // An error is a timeout, or ICMP's answer to what was sent: that goes unanswered then, and that is what counts.
        if let Ok((len, from)) = socket.recv_from(&mut buffer)
            && inputs.send(Input::Datagram(buffer[..len].to_vec(), from)).is_err()
        {
            break;
        }
    }
}
