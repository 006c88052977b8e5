//! What the screen shows, and what keys and the daemon's answers do to it. Knows no terminal and no clock: `now` is the time since
//! the program began.

use std::time::Duration;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use serde_json::Value;

use crate::control::protocol::{Call, HELD, Order, Row, finds};

/// The longest filter, in characters.
const MAX_FILTER: usize = 128;

/// How long it is said that the daemon was restarted.
const NEWS: Duration = Duration::from_secs(15);

/// What the daemon said at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    /// As `sipst status --json` has it.
    pub(crate) status: Value,
    /// The calls, in the order that was asked for.
    pub(crate) rows: Vec<Row>,
    /// How many there are; unknown where they were asked for by age.
    pub(crate) found: Option<u64>,
    /// Whether there are more than `rows`.
    pub(crate) more: bool,
    /// The dialogs of the call that was asked for.
    pub(crate) calls: Vec<Call>,
}

/// What is asked of the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) text: String,
    pub(crate) order: Order,
    pub(crate) limit: usize,
    /// The call of which all is to be told.
    pub(crate) call_id: Option<String>,
    /// Nothing is, for now.
    pub(crate) paused: bool,
}

/// The order of the calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    Deadline,
    State,
    Trunk,
    Age,
}

impl Sort {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Deadline => "deadline",
            Self::State => "state",
            Self::Trunk => "trunk",
            Self::Age => "age",
        }
    }

    const fn next(self) -> Self {
        match self {
            Self::Deadline => Self::State,
            Self::State => Self::Trunk,
            Self::Trunk => Self::Age,
            Self::Age => Self::Deadline,
        }
    }
}

/// How much of the screen tells of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pane {
    /// As much as a large screen has room for.
    Auto,
    Closed,
    Open,
    Whole,
}

/// States by danger: what needs eyes first. Those that are not named here come last.
pub(crate) const DANGER: [&str; 7] = ["expired", "expiring", "overdue", "refreshing", "running", "ignored", "untimed"];

/// One dialog.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Identity(String, String, String);

impl Identity {
    fn of(row: &Row) -> Self {
        Self(row.call_id.clone(), row.local_tag.clone(), row.remote_tag.clone())
    }

    fn is(&self, row: &Row) -> bool {
        self.0 == row.call_id && self.1 == row.local_tag && self.2 == row.remote_tag
    }
}

/// All that is shown.
#[derive(Debug)]
pub(crate) struct Screen {
    limit: usize,
    /// The last report, and when it came.
    last: Option<(Report, Duration)>,
    /// Why the daemon has said nothing since, and since when.
    pub(crate) trouble: Option<(String, Duration)>,
    /// When it was seen that another daemon runs.
    restarted: Option<Duration>,
    /// Places in the report's rows, in the order in which they are shown.
    shown: Vec<usize>,
    selected: Option<Identity>,
    /// Where the selected call is in `shown`, or was.
    cursor: usize,
    /// The first one on the screen.
    top: usize,
    /// How many there were room for when it was drawn.
    page: usize,
    pub(crate) sort: Sort,
    pub(crate) filter: String,
    /// Whether keys go into the filter.
    pub(crate) typing: bool,
    paused: Option<Duration>,
    pane: Pane,
    /// Whether the screen has room for a pane that nobody asked for.
    pub(crate) roomy: bool,
    /// Lines of what happened that are below the screen's edge.
    pub(crate) back: usize,
    pub(crate) help: bool,
}

/// Whether it goes on after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    GoOn,
    /// The terminal is to be drawn from nothing.
    Afresh,
    Quit,
}

impl Screen {
    pub(crate) fn new(limit: usize, filter: &str) -> Self {
        Self {
            limit,
            last: None,
            trouble: None,
            restarted: None,
            shown: Vec::new(),
            selected: None,
            cursor: 0,
            top: 0,
            page: 1,
            sort: Sort::Deadline,
            filter: filter.chars().filter(|c| !c.is_control()).take(MAX_FILTER).collect(),
            typing: false,
            paused: None,
            pane: Pane::Auto,
            roomy: false,
            back: 0,
            help: false,
        }
    }

    /// What the daemon is to be asked.
    pub(crate) fn wanted(&self) -> Wanted {
        Wanted {
            text: self.filter.clone(),
            order: if self.sort == Sort::Age { Order::Age } else { Order::Deadline },
            limit: self.limit,
            call_id: self.selected.as_ref().filter(|_| self.pane() != Pane::Closed).map(|call| call.0.clone()),
            paused: self.paused.is_some(),
        }
    }

    /// What the daemon says, or why it says nothing. While nothing is to move, only the latter counts.
    pub(crate) fn take(&mut self, said: Result<Report, String>, now: Duration) {
        match said {
            Ok(_) if self.paused.is_some() => {}
            Ok(report) => {
                let started = |report: &Report| report.status["started"].as_str().map(str::to_owned);
                if self.last.as_ref().is_some_and(|(last, _)| started(last) != started(&report)) {
                    self.restarted = Some(now);
                }
                self.trouble = None;
                self.last = Some((report, now));
                self.arrange();
            }
            Err(why) => {
                let since = self.trouble.take().map_or(now, |(_, since)| since);
                self.trouble = Some((why, since));
            }
        }
    }

    /// Brings the rows into their order, and the cursor to its call.
    fn arrange(&mut self) {
        let rows = self.last.as_ref().map_or(&[][..], |(report, _)| &report.rows);
        let mut shown: Vec<usize> = (0..rows.len()).filter(|&row| self.covers(&rows[row])).collect();
        let left = |row: &Row| row.left_s.unwrap_or(f64::INFINITY);
        let by_left = |a: &usize, b: &usize| left(&rows[*a]).total_cmp(&left(&rows[*b]));
        let danger = |row: &Row| DANGER.iter().position(|state| *state == row.state).unwrap_or(DANGER.len());
        match self.sort {
            Sort::Deadline => shown.sort_by(by_left),
            Sort::State => {
                shown.sort_by(|a, b| danger(&rows[*a]).cmp(&danger(&rows[*b])).then_with(|| by_left(a, b)));
            }
            Sort::Trunk => shown.sort_by(|a, b| rows[*a].trunk.cmp(&rows[*b].trunk).then_with(|| by_left(a, b))),
            Sort::Age => shown.sort_by(|a, b| rows[*a].started.cmp(&rows[*b].started)),
        }
        let found = self.selected.as_ref().and_then(|call| shown.iter().position(|&row| call.is(&rows[row])));
        // One that is gone leaves the cursor where it was.
        self.cursor = found.unwrap_or(self.cursor).min(shown.len().saturating_sub(1));
        self.selected = shown.get(self.cursor).map(|&row| Identity::of(&rows[row]));
        self.shown = shown;
    }

    /// As the daemon filters; so that what is typed shows at once.
    fn covers(&self, row: &Row) -> bool {
        let addresses = [row.server.to_string(), row.peer.to_string()];
        let held = if row.held { HELD } else { "" };
        finds(&self.filter, &[&row.call_id, &row.trunk, &row.state, held, &addresses[0], &addresses[1]])
    }

    /// A key was pressed.
    #[expect(clippy::wildcard_enum_match_arm, reason = "keys without a meaning are many, and more may come")]
    pub(crate) fn key(&mut self, key: KeyEvent, now: Duration) -> After {
        if key.kind == KeyEventKind::Release {
            return After::GoOn;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if control => return After::Quit,
            KeyCode::Char('l') if control => return After::Afresh,
            code if self.typing => self.type_in(code, control),
            KeyCode::Char(_) if control => {}
            KeyCode::Char('q') => return After::Quit,
            _ if self.help => self.help = false,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.help = true,
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char('p' | ' ') => self.paused = if self.paused.is_some() { None } else { Some(now) },
            KeyCode::Char('s') => {
                self.sort = self.sort.next();
                self.arrange();
            }
            KeyCode::Enter => {
                self.pane = match self.pane() {
                    Pane::Auto | Pane::Closed => Pane::Open,
                    Pane::Open => Pane::Whole,
                    Pane::Whole => Pane::Closed,
                };
                self.back = 0;
            }
            KeyCode::Esc => self.leave(),
            KeyCode::PageUp if self.pane == Pane::Whole => self.back = self.back.saturating_add(self.page),
            KeyCode::PageDown if self.pane == Pane::Whole => self.back = self.back.saturating_sub(self.page),
            KeyCode::Up | KeyCode::Char('k') => self.go(self.cursor.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.go(self.cursor + 1),
            KeyCode::PageUp => self.go(self.cursor.saturating_sub(self.page)),
            KeyCode::PageDown => self.go(self.cursor + self.page),
            KeyCode::Home | KeyCode::Char('g') => self.go(0),
            KeyCode::End | KeyCode::Char('G') => self.go(usize::MAX),
            _ => {}
        }
        After::GoOn
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "likewise")]
    fn type_in(&mut self, code: KeyCode, control: bool) {
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Char('u') if control => self.filter.clear(),
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(c) if !control && !c.is_control() && self.filter.chars().count() < MAX_FILTER => {
                self.filter.push(c);
            }
            _ => {}
        }
        self.arrange();
    }

    /// One step back: from the whole call to the list, then to all calls.
    fn leave(&mut self) {
        self.back = 0;
        match self.pane() {
            Pane::Whole => self.pane = Pane::Open,
            Pane::Open => self.pane = Pane::Closed,
            Pane::Auto | Pane::Closed => {
                self.filter.clear();
                self.arrange();
            }
        }
    }

    /// How much tells of the selected call on this screen.
    pub(crate) const fn pane(&self) -> Pane {
        match self.pane {
            Pane::Auto if self.roomy => Pane::Open,
            Pane::Auto => Pane::Closed,
            pane @ (Pane::Closed | Pane::Open | Pane::Whole) => pane,
        }
    }

    fn go(&mut self, to: usize) {
        self.cursor = to.min(self.shown.len().saturating_sub(1));
        self.back = 0;
        let row = self.shown.get(self.cursor).and_then(|&row| self.last.as_ref()?.0.rows.get(row));
        self.selected = row.map(Identity::of);
    }

    /// The calls that fit into `lines`, and which of them is selected; the selected one is among them.
    pub(crate) fn window(&mut self, lines: usize) -> (Vec<&Row>, Option<usize>) {
        let lines = lines.max(1);
        self.page = lines;
        let last_top = self.shown.len().saturating_sub(lines);
        self.top = self.top.min(self.cursor).max((self.cursor + 1).saturating_sub(lines)).min(last_top);
        let rows = self.last.as_ref().map_or(&[][..], |(report, _)| &report.rows);
        let shown = self.shown.iter().skip(self.top).take(lines).filter_map(|&row| rows.get(row)).collect();
        (shown, self.selected.is_some().then(|| self.cursor - self.top))
    }

    /// Where lines of what happened are shown: how many more there are above than fit.
    pub(crate) fn scroll(&mut self, all: usize, lines: usize) -> usize {
        self.page = lines.max(1);
        self.back = self.back.min(all.saturating_sub(lines));
        all.saturating_sub(lines + self.back)
    }

    /// The selected call: as it is listed, and with all that is known of it once the daemon has said it.
    pub(crate) fn call(&self) -> Option<(&Row, Option<&Call>)> {
        let (report, _) = self.last.as_ref()?;
        let identity = self.selected.as_ref()?;
        let row = report.rows.iter().find(|row| identity.is(row))?;
        Some((row, report.calls.iter().find(|call| identity.is(&call.row))))
    }

    pub(crate) fn report(&self) -> Option<&Report> {
        self.last.as_ref().map(|(report, _)| report)
    }

    /// How many calls there are after the filter, as far as they were sent.
    pub(crate) fn listed(&self) -> usize {
        self.shown.len()
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused.is_some()
    }

    /// How much later than the report it is on the screen: so much less is left of everything.
    pub(crate) fn late(&self, now: Duration) -> Duration {
        let at = self.last.as_ref().map_or(now, |(_, at)| *at);
        self.paused.unwrap_or(now).saturating_sub(at)
    }

    /// Whether another daemon has taken over lately.
    pub(crate) fn is_restarted(&self, now: Duration) -> bool {
        self.restarted.is_some_and(|at| now.saturating_sub(at) < NEWS)
    }
}
