//! The daemon: one loop that carries packets, time and answers into the engine and does what it wants done.

mod measure;
mod operator;
mod reload;
mod streamed;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    io::{self, Write as _},
    net::SocketAddr,
    os::fd::AsFd as _,
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use aya::maps::{MapData, RingBuf};
use rand::RngExt as _;
use rustix::thread::CapabilitySet;
use st_core::{
    Arm, Command, Datagram, Inject, KeepAlive, Mark, MediaSeen, Output, Policy, Refusal, SessionId, Side, Time,
    Transport,
    engine::{Engine, EngineConfig, Limits, Mode},
};
use st_ebpf::{
    abi::{Counter, HOLD_SILENT_NS, RING_BYTES, SampleHeader, Seen},
    key::DialogKey,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{Signal, SignalKind, signal},
    task,
};
use tracing::{debug, error, info, warn};

use crate::{
    acting::Acting,
    alarm::Alarm,
    batch::{Batch, Next},
    clock::{Clock, monotonic_ns},
    config,
    control::{server::Control, timeline::Timeline},
    fragments::{Fragments, Part},
    inject::{Envelope, ready_ack},
    kernel::{self, Kernel, KernelError, Released, Sight, Watch},
    leftover::Leftovers,
    level::Level,
    metrics::Metrics,
    notify::Notify,
    owner::Owners,
    pace::Pace,
    page::{Page, trace::Trace},
    privilege,
    ring::{self, Record},
    route::Routes,
    sighting::Sighting,
    sink::EventSink,
    site::{Site, Sites},
    store::{About, Opened, Store},
    takeover::{self, TakenOver},
};

/// How many records are read before everything else has its turn.
const BATCH: usize = 256;

/// More records than this never stand in the ring: each has a header of its own.
const RING_RECORDS: usize = RING_BYTES as usize / size_of::<SampleHeader>();

/// How many sessions wait to be armed; those past it are told that the map is full.
const MAX_ARMING: usize = 65_536;

/// How often counters and interfaces are looked at.
const TICK: Duration = Duration::from_secs(1);

/// How often the kernel programs are told that the daemon lives, in nanoseconds: twice for each turn of an idle loop.
const BEAT_NS: u64 = 500_000_000;

/// The same while refusals may be held back: five times before they would go out by themselves.
const QUICK_BEAT_NS: u64 = HOLD_SILENT_NS / 5;
const QUICK_BEAT: Duration = Duration::from_nanos(QUICK_BEAT_NS);

/// How long the end waits for the answers to INVITEs of sipst's own.
const LINGER: Duration = Duration::from_secs(10);

/// What the daemon runs with.
#[derive(Clone, Debug)]
pub struct RunConfig {
    /// What to attach where.
    pub options: kernel::Options,
    /// What the engine is told.
    pub policy: Arc<Policy>,
    /// Where what is known of the calls is kept.
    pub state_dir: PathBuf,
    /// Where operators' commands come in.
    pub control: config::Control,
    /// Where monitoring asks.
    pub metrics: config::Metrics,
    /// Where all this was read from, and is read from anew when somebody asks for it.
    pub file: Option<PathBuf>,
}

/// Why the daemon cannot run.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum RunError {
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error("the sockets of this host cannot be listed: the kernel needs sock_diag for UDP, try `modprobe udp_diag`")]
    SockDiag(#[source] io::Error),
    #[error("{what}")]
    System {
        what: &'static str,
        #[source]
        source: io::Error,
    },
}

/// Runs until SIGTERM or SIGINT. Says `ready` on stderr once it is attached and reading.
///
/// # Errors
/// The programs cannot be loaded or attached, or the system lacks something.
pub async fn run(config: RunConfig, sink: &mut dyn EventSink) -> Result<(), RunError> {
    let failed = |source| RunError::System { what: "signals cannot be waited for", source };
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    run_until(config, sink, stop).await
}

/// The same until `stop` is done.
///
/// # Errors
/// As [`run`].
pub async fn run_until(
    config: RunConfig,
    sink: &mut dyn EventSink,
    stop: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let mut driver = Driver::new(config, sink)?;
    // Before the first packet is read.
    privilege::keep_only(driver.kernel.needs())
        .map_err(|source| RunError::System { what: "capabilities cannot be given up", source })?;
    driver.catch_up()?;
    driver.kernel.assists.follow(&driver.config.policy);
    // Who hears that it is ready may count on it.
    driver.beat()?;
    say("ready");
    driver.notify.ready();
    driver.turn(stop).await?;
    driver.linger().await?;
    driver.finish()
}

struct Driver<'a> {
    config: RunConfig,
    engine: Engine,
    clock: Clock,
    /// Where what the engine knows is written.
    store: Store,
    /// Which boot of the host this is.
    boot: String,
    /// What the engine is told once it knows what happened while no daemon was there.
    missed: Option<Command>,
    /// Requests of an earlier run's that have not left.
    unsent: Vec<u64>,
    kernel: Kernel,
    watch: Watch,
    leftovers: Leftovers,
    ring: AsyncFd<RingBuf<MapData>>,
    /// Empty but for the time in which it is gone through.
    batch: Batch,
    fragments: Fragments,
    sites: Sites,
    sink: &'a mut dyn EventSink,
    arming: VecDeque<Arm>,
    /// When the engine wants to be called.
    wake: Option<Time>,
    /// Wakes the loop up at the first moment of all.
    alarm: Alarm,
    /// How long the ring is left alone while there is much in it.
    pace: Pace,
    control: Control,
    measure: measure::Measure,
    /// How much stands in the ring when it is read.
    level: Level,
    timeline: Timeline,
    /// The messages that the status page shows.
    trace: Trace,
    /// What comes by TCP.
    streamed: streamed::Streamed,
    /// Where something may be written by TCP.
    acting: Acting,
    hangup: Signal,
    reload: reload::Reload,
    notify: Notify,
    /// When this run began, as the wall clock was, and as the engine's is.
    started: Time,
    began: Time,
    /// Packets that the kernel could not sample for want of room, as last counted.
    unseen: Unseen,
    /// When the kernel programs were last told that the daemon lives, `CLOCK_MONOTONIC` nanoseconds.
    beaten_ns: u64,
}

impl<'a> Driver<'a> {
    fn new(config: RunConfig, sink: &'a mut dyn EventSink) -> Result<Self, RunError> {
        kernel::check_privilege(CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW)?;
        let owners = Owners::open().map_err(RunError::SockDiag)?;
        let failed = |what| move |source| RunError::System { what, source };
        let routes = Routes::open().map_err(failed("routes cannot be asked for (netlink)"))?;
        let (mut kernel, ring) = Kernel::attach(&config.options)?;
        let (elsewhere, scout) = kernel.take_elsewhere();
        let sites =
            if config.options.namespaces.is_empty() { Sites::here(Site::here(owners, routes)) } else { elsewhere };
        for attached in Kernel::status(&config.options.pin_dir)? {
            info!("attached {attached}");
        }
        let dialogs = kernel.maps.shifting();
        if dialogs > 0 {
            info!(dialogs, "the numbers of an earlier run's dialogs go on being rewritten");
        }
        let lookout = kernel.lookout();
        let watch = privilege::without_any(|| Watch::start(lookout, scout))
            .flatten()
            .map_err(failed("a thread cannot be started"))?;
        let engine = EngineConfig {
            policy: Arc::clone(&config.policy),
            mode: Mode::Live,
            seed: rand::rng().random(),
            limits: Limits::default(),
        };
        let boot = takeover::boot();
        let mut taken = TakenOver::read(Opened::new(&config.state_dir), &engine, &boot);
        let leftovers = taken.match_kernel(&mut kernel.maps);
        let TakenOver { mut engine, clock, opened, before, rebooted, unsent, .. } = taken;
        let mut unseen = Unseen::read(&kernel)?;
        if let Some(before) = before.as_ref().filter(|_| !rebooted) {
            // What went by unseen while nobody was there is told in the first turn.
            unseen.messages = unseen.messages.min(before.unseen);
        }
        // Half of what is there would belong to another boot.
        let fresh = before.is_none() || rebooted;
        let store = privilege::without_any(|| opened.follow(&mut engine, fresh));
        let store = store.flatten().map_err(failed("a thread cannot be started"))?;
        let level = Level::open(ring.as_fd()).map_err(failed("the ring buffer cannot be looked at"))?;
        // SAFETY: the descriptor is the map's; the ring owns it and is never exchanged.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
        let ring = ring.map_err(|error| failed("the ring buffer cannot be waited for")(error.into()))?;
        let alarm = Alarm::open().map_err(failed("a timer cannot be made"))?;
        let control = listen(&config.control).map_err(failed("the control socket cannot be waited for"))?;
        let metrics = privilege::without_any(Metrics::start).flatten().map_err(failed("a thread cannot be started"))?;
        let page = Page::new(control.asker(), config.metrics.page);
        let measure = measure::Measure::start(metrics, page, &config.metrics);
        let mut trace = Trace::default();
        trace.keep(config.metrics.page);
        let mut acting = Acting::default();
        acting.adopt(&kernel.plans);
        let mut clock = clock;
        let began = clock.now();
        let started = clock.wall(began);
        let hangup = signal(SignalKind::hangup()).map_err(failed("signals cannot be waited for"))?;
        Ok(Self {
            config,
            engine,
            clock,
            store,
            boot,
            missed: before.map(|_| if rebooted { Command::HostRestarted } else { Command::Outage }),
            unsent,
            kernel,
            watch,
            leftovers,
            ring,
            batch: Batch::default(),
            fragments: Fragments::default(),
            sites,
            sink,
            arming: VecDeque::new(),
            wake: None,
            alarm,
            pace: Pace::default(),
            control,
            measure,
            level,
            timeline: Timeline::new(started),
            trace,
            streamed: streamed::Streamed::default(),
            acting,
            hangup,
            reload: reload::Reload::default(),
            notify: Notify::from_env(),
            started,
            began,
            unseen,
            beaten_ns: 0,
        })
    }

    /// What an earlier run has left is gone through before time goes on: what stands in the ring may have kept a session alive.
    fn catch_up(&mut self) -> Result<(), RunError> {
        let Some(missed) = self.missed.take() else { return Ok(()) };
        self.outputs();
        if matches!(missed, Command::HostRestarted) {
            // What is in the ring is of this boot.
            self.command(missed);
            self.outputs();
        } else {
            self.drain(RING_RECORDS);
            for token in std::mem::take(&mut self.unsent) {
                self.command(Command::Refused { token, refusal: Refusal::Moved });
                self.outputs();
            }
            self.command(missed);
            self.outputs();
            self.unseen()?;
        }
        Ok(())
    }

    async fn turn(&mut self, stop: impl Future<Output = ()>) -> Result<(), RunError> {
        tokio::pin!(stop);
        let mut tick = self.clock.now();
        loop {
            let found = self.level.look() > 0;
            // 1. Packets: facts come before deadlines, or a refresh that stands in the ring would be called overdue.
            let more = self.drain(BATCH);
            self.notify.reader_progressed();
            // 2. Deadlines, after each batch: a flood must not put them off.
            self.timeout();
            self.notify.timers_progressed();
            self.measure.metrics.health.turned();
            // 3. What the engine wants armed, each with a ring drained to its end.
            self.settle();
            // 4. What an operator asks.
            self.answer();
            self.take_up();
            let more = more || self.reload.is_busy();
            // 5. What has changed is written behind.
            self.keep();
            if !more {
                self.beat()?;
            }
            self.notify.feed();
            // 6. Counters and interfaces.
            let pause = self.pace.read(Instant::now(), found);
            let now = self.clock.now();
            let due = now >= tick;
            if due {
                self.tick()?;
                // With each second of the clock: what the engine puts off comes then, too.
                tick = whole_second_after(now);
            }
            let rest = async { if due { Ok(()) } else { self.rest(more, tick.since(now), pause).await } };
            tokio::select! {
                biased;
                () = &mut stop => return Ok(()),
                rested = rest => rested?,
            }
        }
    }

    /// Has what the engine knows written, and tells where that cannot be.
    fn keep(&mut self) {
        let (boot, clock, unseen) = (&self.boot, &self.clock, &self.unseen);
        self.store.turn(&mut self.engine, || about(boot, clock, unseen));
        for event in self.store.events(self.clock.now()) {
            self.tell(event);
        }
    }

    /// Tells the kernel programs that somebody reads what they write.
    fn beat(&mut self) -> Result<(), KernelError> {
        let now = monotonic_ns();
        let every = if self.kernel.holds.is_empty() { BEAT_NS } else { QUICK_BEAT_NS };
        if now.saturating_sub(self.beaten_ns) >= every {
            self.kernel.maps.beat(now)?;
            self.beaten_ns = now;
        }
        Ok(())
    }

    /// Until there is something to do, for at most so long; for a `pause` the ring is left alone.
    async fn rest(&mut self, more: bool, most: Duration, pause: Option<Duration>) -> Result<(), RunError> {
        let now = self.clock.now();
        let due = self.store.due(&self.engine).unwrap_or(most);
        let most = if self.kernel.holds.is_empty() { most } else { most.min(QUICK_BEAT) };
        let rest = self.wake.map_or(most, |at| at.since(now)).min(due).min(most);
        let rest = self.notify.rest().map_or(rest, |feed| rest.min(feed));
        let pause = pause.filter(|_| !more);
        if let Some(pause) = pause {
            // The whole thread: the ring's next record wakes up whoever waits by `epoll`, whatever for.
            thread::sleep(pause.min(rest));
        }
        // What is due at once still lets others have their turn: tasks, and what the system tells.
        let wait = !more && pause.is_none() && !rest.is_zero();
        let until_ns = monotonic_ns().saturating_add(u64::try_from(rest.as_nanos()).unwrap_or(u64::MAX));
        let failed = |what| move |source| RunError::System { what, source };
        let mut hung_up = false;
        tokio::select! {
            biased;
            () = task::yield_now(), if !wait => {}
            readable = self.ring.readable(), if wait => match readable {
                // Cleared before the ring is drained: what comes after that wakes anew.
                Ok(mut guard) => guard.clear_ready(),
                Err(source) => return Err(failed("the ring buffer cannot be waited for")(source)),
            },
            () = self.control.asked(), if !more => {}
            () = self.reload.read(), if !more => {}
            hangup = self.hangup.recv(), if !more => hung_up = hangup.is_some(),
            rung = self.alarm.wait(until_ns), if wait => rung.map_err(failed("the time cannot be waited for"))?,
        }
        if hung_up {
            self.reload("SIGHUP", None);
        }
        Ok(())
    }

    /// A 2xx to an INVITE of sipst's own that gets no ACK would end the call (R44): its answer is waited for. Nothing new
    /// is begun meanwhile, for nothing is armed.
    async fn linger(&mut self) -> Result<(), RunError> {
        // Nobody would refresh the calls that come of it.
        self.kernel.assists.clear();
        self.control.close();
        self.notify.stopping();
        self.measure.metrics.health.publish(vec!["sipst is about to end".into()]);
        let until = Instant::now() + LINGER;
        let mut told = false;
        loop {
            let more = self.drain(BATCH);
            self.timeout();
            self.measure.metrics.health.turned();
            self.arming.clear();
            self.keep();
            self.beat()?;
            if !self.engine.is_inviting() || Instant::now() >= until {
                return Ok(());
            }
            if !std::mem::replace(&mut told, true) {
                info!("waiting for the answers to INVITEs that are under way, {} s at most", LINGER.as_secs());
            }
            self.rest(more, TICK, None).await?;
        }
    }

    /// Hands at most `limit` records to the engine. Returns whether there may be more.
    fn drain(&mut self, limit: usize) -> bool {
        self.level.look();
        let mut batch = std::mem::take(&mut self.batch);
        let (mut left, mut more) = (limit, true);
        while more && left > 0 {
            batch.clear();
            while left > 0 && !batch.is_full() {
                // A daemon that dies in the middle has lost these few, as it has what it has not written yet.
                let Some(record) = self.ring.get_mut().next() else {
                    more = false;
                    break;
                };
                batch.push(&record);
                left -= 1;
            }
            for next in batch.look_ahead(&self.engine).iter().flatten() {
                self.take_in(next);
                self.outputs();
                self.hear_streamed();
            }
        }
        batch.clear();
        self.batch = batch;
        more
    }

    /// Hands one record to the engine.
    fn take_in(&mut self, next: &Next<'_>) {
        let whole;
        let (bytes, record, read) = match self.fragments.take(|| self.clock.now(), next.bytes) {
            Part::None => (next.bytes, next.record, next.read.as_ref()),
            Part::Kept => return,
            Part::Whole(message) => {
                whole = message;
                (&whole[..], ring::decode(&whole), None)
            }
        };
        if self.sink.wants_packets() {
            for seen in Sighting::of_record(bytes, |at| self.clock.wall(self.clock.past(at))) {
                self.sink.packet(&Arc::new(seen));
            }
        }
        match record {
            Some(Record::Copy { .. }) => {}
            Some(seen @ (Record::Seen { time_ns, packet } | Record::Joined { time_ns, packet })) => {
                let now = self.clock.at(time_ns);
                self.sites.spoke(packet.cookie, time_ns);
                self.leftovers.saw(now, &packet, |call_id, tag, side| self.kernel.maps.key(call_id, tag, side).ok());
                self.trace.saw(now, &packet, false);
                match (seen, read) {
                    (Record::Joined { .. }, _) => self.engine.handle_joined(now, &packet),
                    (_, Some(read)) => self.engine.handle_read(now, read),
                    (_, None) => self.engine.handle_packet(now, &packet),
                }
            }
            Some(Record::Assisted { time_ns, packet, assist }) => {
                let now = self.clock.at(time_ns);
                self.sites.spoke(packet.cookie, time_ns);
                self.trace.saw(now, &packet, false);
                self.engine.handle_assisted(now, &packet, assist);
            }
            Some(Record::Held { time_ns, packet }) => {
                self.sites.spoke(packet.cookie, time_ns);
                let now = self.clock.at(time_ns);
                self.trace.saw(now, &packet, true);
                if monotonic_ns().saturating_sub(time_ns) <= HOLD_SILENT_NS {
                    self.engine.handle_held(now, &packet);
                } else {
                    // Too late to say anything else: the next copy has gone out by itself.
                    self.engine.handle_passed(now, &packet);
                    let datagram = Datagram::of(&packet);
                    if let Err(refusal) = let_out(&mut self.sites, &mut *self.sink, &self.clock, &datagram) {
                        warn!(%refusal, "a response of the server's that was held back is lost: its next copy goes out");
                    }
                }
            }
            Some(Record::Segment { time_ns, packet, tcp }) => {
                if self.kernel.plans.acts() {
                    let policy = &self.config.policy;
                    self.acting.segment(policy, &mut self.kernel.plans, &mut self.sites, &packet, tcp);
                }
                self.streamed.segment(self.clock.at(time_ns), &packet, tcp);
            }
            Some(Record::Refused { token, refusal }) => {
                self.kernel.maps.retire(token);
                self.engine.handle_command(self.clock.now(), Command::Refused { token, refusal });
            }
            None => {
                warn!(bytes = bytes.len(), "a ring record that cannot be read: kernel programs of another version?")
            }
        }
    }

    fn timeout(&mut self) {
        let now = self.clock.now();
        self.streamed.timeout(now);
        self.hear_streamed();
        if self.wake.is_some_and(|at| at <= now) {
            self.engine.handle_timeout(now);
            self.outputs();
        }
    }

    /// Does what the engine wants done; what has to be armed is put off until the engine is at rest.
    fn outputs(&mut self) {
        loop {
            match self.engine.poll_output() {
                Output::Event(event) => self.tell(event),
                Output::Arm(arm) if self.arming.len() < MAX_ARMING => self.arming.push_back(arm),
                Output::Arm(Arm { session, side, .. }) => {
                    self.command(Command::Armed { session, side, result: Err(Refusal::MapFull) });
                }
                Output::Inject(inject) => {
                    if let Err(refusal) = self.inject(&inject) {
                        self.command(Command::Refused { token: inject.token, refusal });
                    }
                }
                Output::Mark(mark) => self.mark(&mark),
                Output::Unmark { call_id, tag } => {
                    if let Ok(key) = self.kernel.maps.key(&call_id, &tag, Side::Peer) {
                        self.kernel.holds.unmark(key);
                    }
                }
                Output::Weigh { session, media } => {
                    self.media(session, &media);
                    self.command(Command::Weighed { session });
                }
                Output::Send(datagram) => {
                    if let Err(refusal) = let_out(&mut self.sites, &mut *self.sink, &self.clock, &datagram)
                        && let Some(session) = datagram.session
                    {
                        self.command(Command::Unsent { session, refusal });
                    }
                }
                Output::KeepAlive(keep_alive) => {
                    if let Err(refusal) = self.keep_alive(&keep_alive) {
                        debug!(%refusal, server = %keep_alive.server, peer = %keep_alive.peer, "no keep-alive is sent");
                    }
                }
                Output::Watch { flow } => self.kernel.flows.watch(flow),
                Output::Unwatch { flow } => self.kernel.flows.unwatch(flow),
                Output::Look { session, media } => {
                    let seen = self.media_seen(&media);
                    self.command(Command::Media { session, seen });
                }
                Output::StopAssisting { trunk } => self.kernel.assists.switch_off(&self.config.policy, trunk),
                Output::Retire { token } => self.kernel.maps.retire(token),
                Output::Disarm { side, call_id, tag, left: true, .. } => {
                    let now = self.clock.now();
                    if let Ok(key) = self.kernel.maps.key(&call_id, &tag, side) {
                        self.leftovers.keep(now, key);
                    }
                }
                Output::Disarm { side, call_id, tag, server, .. } => {
                    let maps = &mut self.kernel.maps;
                    // An entry that cannot be found or taken away goes on as it is; the maps have told of it.
                    let _ = maps.key(&call_id, &tag, side).and_then(|key| maps.disarm(key, Some(server.ip())));
                }
                Output::Timeout(at) => {
                    self.wake = at;
                    return;
                }
            }
        }
    }

    fn command(&mut self, command: Command) {
        let now = self.clock.now();
        self.engine.handle_command(now, command);
    }

    fn settle(&mut self) {
        while let Some(arm) = self.arming.pop_front() {
            // From the entry on the kernel follows the numbers; what it saw before stands in the ring. The state is read
            // first and the ring drained then: so the engine has seen every request that is in the state, and one that
            // comes later moves the kernel's on and makes it refuse the number.
            let prepared = self.prepare(&arm);
            let result = prepared.and_then(|key| self.kernel.maps.state(key));
            self.drain(RING_RECORDS);
            if let Err(error) = self.unseen() {
                warn!(%error, "what went by unseen cannot be read");
            }
            self.media(arm.session, &arm.media);
            self.command(Command::Armed { session: arm.session, side: arm.side, result });
            self.outputs();
            if let Ok(key) = prepared
                && !self.engine.follows(arm.side, &arm.call_id, &arm.tag)
            {
                // Where it cannot be taken away, the maps have told of it.
                let _ = self.kernel.maps.disarm(key, Some(arm.server.ip()));
            }
        }
    }

    /// Tells when media were last seen, each way; nothing where none are watched.
    fn media(&mut self, session: SessionId, media: &[SocketAddr]) {
        if !media.is_empty() {
            let seen = self.media_seen(media);
            self.command(Command::Media { session, seen });
        }
    }

    /// Has refusals held back in a dialog, where what takes their place can be sent from here.
    fn mark(&mut self, mark: &Mark) {
        let Mark { call_id, tag, server, peer, cookie, methods, answered } = mark;
        let marked = self.kernel.maps.key(call_id, tag, Side::Peer).and_then(|key| {
            self.reach(*server, *peer)?;
            self.kernel.holds.mark(key, *cookie, *methods, answered.as_ref(), monotonic_ns())
        });
        if let Err(refusal) = marked {
            warn!(%refusal, %server, %peer, "the server's refusals of this peer's refreshes go out: nothing can be answered in its name");
        }
    }

    /// When any of these flows was last seen, each way.
    fn media_seen(&self, media: &[SocketAddr]) -> MediaSeen {
        let at = |time_ns| Some(time_ns).filter(|at| *at > 0).map(|at| self.clock.past(at));
        let of = |flow: &SocketAddr| {
            let Seen { left_ns, came_ns } = self.kernel.flows.seen(*flow);
            MediaSeen { left: at(left_ns), came: at(came_ns) }
        };
        media.iter().map(of).fold(MediaSeen::default(), MediaSeen::or_later)
    }

    /// Sees to it that the dialog can be refreshed from here, and that it has its entry.
    fn prepare(&mut self, arm: &Arm) -> Result<DialogKey, Refusal> {
        let key = self.kernel.maps.key(&arm.call_id, &arm.tag, arm.side)?;
        if arm.transport != Transport::Udp {
            if !self.kernel.plans.acts() {
                return Err(Refusal::TcpUnattached);
            }
            self.acting.check(&mut self.sites, (arm.server, arm.peer), arm.cookie, arm.ends)?;
        } else {
            self.owned(arm)?;
        }
        self.reach(arm.server, arm.peer)?;
        self.kernel.maps.arm(key, arm.server.ip(), arm.state)?;
        self.leftovers.adopted(key);
        Ok(key)
    }

    /// Whether the server's socket is there, and read.
    fn owned(&mut self, arm: &Arm) -> Result<(), Refusal> {
        match self.sites.check(arm.cookie, arm.server) {
            // A call that is to be ended need not be alive.
            Err(Refusal::ServerHangs) if arm.ends => Ok(()),
            Err(Refusal::ServerGone) if arm.ends && arm.side == Side::Server => Ok(()),
            owned => owned,
        }
    }

    /// Whether what is sent from here to the peer leaves under the server's address by an interface that is attached.
    fn reach(&mut self, server: SocketAddr, peer: SocketAddr) -> Result<(), Refusal> {
        let kernel = &self.kernel;
        self.sites.reach(server, peer, |number, index| kernel.covers_at(number, index))
    }

    /// Holds a flow open, where the server is there. One that does not read what it gets does no harm by that: nothing is said of its
    /// calls.
    fn keep_alive(&mut self, keep_alive: &KeepAlive) -> Result<(), Refusal> {
        let &KeepAlive { server, peer, cookie, tos, ttl } = keep_alive;
        match self.sites.check(cookie, server) {
            Ok(()) | Err(Refusal::ServerHangs) => {}
            Err(refusal) => return Err(refusal),
        }
        self.reach(server, peer)?;
        self.sites.send(&Envelope { server, peer, tos, ttl }, KeepAlive::BYTES)
    }

    fn inject(&mut self, inject: &Inject) -> Result<(), Refusal> {
        let Inject { side, token, commit, ack, call_id, tag, server, peer, transport, tos, ttl, bytes, .. } = inject;
        let key = self.kernel.maps.key(call_id, tag, *side)?;
        let envelope = Envelope { server: *server, peer: *peer, tos: *tos, ttl: *ttl };
        let maps = &mut self.kernel.maps;
        // On record before it leaves: st_egress drops what it does not know. Its ACK with it: nobody may live to send that.
        let new = maps.record(*token, key, *commit)?;
        if *transport != Transport::Udp {
            // Nobody but this daemon can send its ACK.
            return self.acting.send(&mut self.sites, (*server, *peer), bytes).inspect_err(|_| {
                if new {
                    self.kernel.maps.retire(*token);
                }
            });
        }
        let kept = match ack {
            Some(ack) => {
                ready_ack(&envelope, *side, ack.token, &ack.bytes).and_then(|ready| maps.keep(*token, key, &ready))
            }
            None => Ok(()),
        };
        kept.and_then(|()| self.sites.send(&envelope, bytes)).inspect_err(|_| {
            if new {
                maps.retire(*token);
            }
            if let Some(ack) = ack {
                maps.retire(ack.token);
            }
        })
    }

    fn tick(&mut self) -> Result<(), RunError> {
        self.clock.look();
        self.unseen()?;
        if let Some(Sight { here, groups }) = self.watch.latest() {
            let saw_here = self.kernel.follow(here);
            if !(self.kernel.follow_elsewhere(groups, &mut self.sites) && saw_here) {
                self.command(Command::Blind);
            }
        }
        self.kernel.let_go();
        self.acting.sweep(&mut self.kernel.plans, &mut self.sites, self.clock.now());
        for (key, server) in self.leftovers.due(self.clock.now()) {
            info!("a dialog of an earlier run's is over: its numbers are no longer rewritten");
            // An entry that cannot be taken away goes on as it is; the maps have told of it.
            let _ = self.kernel.maps.disarm(key, server);
        }
        for token in self.leftovers.answered(self.clock.now()) {
            self.kernel.maps.retire(token);
        }
        self.publish()
    }

    /// Tells of what went by unseen since the last time.
    fn unseen(&mut self) -> Result<(), KernelError> {
        let before = std::mem::replace(&mut self.unseen, Unseen::read(&self.kernel)?);
        let unread = self.kernel.maps.counter(Counter::FragmentUnread)?;
        let lost = self.fragments.lost(self.clock.now(), unread);
        let full = self.unseen.messages.saturating_sub(before.messages);
        let packets = full + lost.unseen;
        let invites = self.unseen.strangers.saturating_sub(before.strangers);
        if invites > 0 {
            warn!(invites, "a flood of INVITEs: some went by unseen, and their calls are not followed");
        }
        if lost.incomplete > 0 {
            info!(messages = lost.incomplete, "messages came in without all their IP fragments");
        }
        if lost.unseen > 0 {
            warn!(messages = lost.unseen, "not all IP fragments were seen: messages went by that could not be read");
        }
        if full > 0 {
            warn!(packets = full, "the ring buffer was full: messages went by unseen");
        }
        if packets > 0 {
            self.command(Command::Loss { packets });
            self.outputs();
        }
        self.unheard(self.unseen.segments.saturating_sub(before.segments));
        Ok(())
    }

    fn finish(mut self) -> Result<(), RunError> {
        // From here on the server's refusals go out by themselves; those that were held back are still answered.
        self.kernel.holds.clear();
        // What happened before the end is told, and a 2xx to a request of ours still gets its ACK.
        self.drain(RING_RECORDS);
        self.engine.close(self.clock.now());
        self.outputs();
        let about = about(&self.boot, &self.clock, &self.unseen);
        if !self.store.finish(&mut self.engine, &about) {
            warn!("not all that is known of the calls could be written: the next run will not know some of it");
        }
        for counter in Counter::ALL {
            let value = self.kernel.maps.counter(*counter)?;
            if value > 0 {
                info!(counter = counter.name(), value, "counted");
            }
        }
        match self.kernel.release() {
            Ok(Released::Unloaded) => {}
            Ok(Released::Kept { dialogs }) => warn!(
                dialogs,
                "the kernel programs stay attached: these dialogs were refreshed, may go on, and depend on the rewriting of \
                 their CSeq numbers. The next `sipst run` takes over; `sipst unload --force` ends it"
            ),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                error!(error, "the kernel programs stay attached: `sipst unload` takes them away");
            }
        }
        Ok(())
    }
}

/// When the next second of the clock begins.
fn whole_second_after(now: Time) -> Time {
    Time::from_micros((now.as_micros() / 1_000_000 + 1) * 1_000_000)
}

/// What a later run needs to understand what is written.
fn about(boot: &str, clock: &Clock, unseen: &Unseen) -> About {
    About { boot: boot.to_owned(), offset_ns: clock.offset_ns(), unseen: unseen.messages }
}

/// Sends a message as it is.
fn let_out(sites: &mut Sites, sink: &mut dyn EventSink, clock: &Clock, datagram: &Datagram) -> Result<(), Refusal> {
    let &Datagram { server, peer, tos, ttl, ref bytes, .. } = datagram;
    sites.send(&Envelope { server, peer, tos, ttl }, bytes)?;
    if sink.wants_packets() {
        let time = clock.wall(clock.past(monotonic_ns()));
        sink.packet(&Arc::new(Sighting::of_datagram(time, datagram)));
    }
    Ok(())
}

/// Listens to operators. Where that cannot be, calls matter more.
fn listen(control: &config::Control) -> io::Result<Control> {
    let socket = control.bind().unwrap_or_else(|error| {
        let error: &dyn std::error::Error = &error;
        error!(error, "nobody can command sipst in this run; calls are kept alive all the same");
        None
    });
    Control::start(socket)
}

/// One line on stderr, whatever the log's level; a closed stderr is no reason to end.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// What went by unseen since the maps were made.
#[derive(Clone, Copy, Debug, Default)]
struct Unseen {
    /// Messages of any kind, because the ring was full, or because too many came as one packet.
    messages: u64,
    /// INVITEs of strangers, for which the ring's last quarter is not there. No known dialog has lost anything by them.
    strangers: u64,
    /// TCP segments that came in, for which it is not there either.
    segments: u64,
}

impl Unseen {
    fn read(kernel: &Kernel) -> Result<Self, KernelError> {
        Ok(Self {
            messages: kernel.maps.counter(Counter::RingFull)? + kernel.maps.counter(Counter::JoinedUnread)?,
            strangers: kernel.maps.counter(Counter::RingReserved)?,
            segments: kernel.maps.counter(Counter::SegmentReserved)?,
        })
    }
}
