//! Trunks and their rules: what is done with which dialogs.

use std::{
    fs::OpenOptions,
    io::Read as _,
    net::IpAddr,
    ops::RangeInclusive,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
    time::Duration,
};

use ipnet::IpNet;
use rustix::process::getegid;
use secrecy::SecretString;
use st_core::{
    Action, Credentials, DomainPattern, Matcher, Method, OnExpired, OnMoved, OverTcp, Rate, Respond, Rules, Trunk,
    policy::NO_TRUNK,
};
use zeroize::Zeroizing;

use super::{
    assume::{self, Assumed, assumed},
    fields::{Fields, Given, Placed, boolean, choice, list, nodes, number, off_or, parsed, rate, seconds, text},
    problem::{Position, Problem},
};

/// How many trunks there may be.
const MAX_TRUNKS: usize = 1024;
/// How many networks or domains a trunk may name.
const MAX_MATCHES: usize = 1024;
/// Translators forget a flow after half a minute and more.
const KEEPALIVES: RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_secs(300);
/// The longest password, in bytes.
const MAX_PASSWORD: u64 = 1024;

/// What the rules take from the rest of the file.
#[derive(Clone, Copy)]
pub(super) struct Around<'a> {
    /// The file's own `interval_floor`; `None` where that is wrong.
    pub(super) interval_floor: Option<Duration>,
    /// `None` where that is wrong.
    pub(super) max_session: Option<Duration>,
    /// That of all trunks together.
    pub(super) refresh_rate: Rate,
    /// Where relative paths start.
    pub(super) dir: &'a Path,
}

/// One trunk as written.
struct Written {
    at: Position,
    name: Option<Placed<String>>,
    reach: Option<Reach>,
    rules: Rules,
    /// Where `assist: true` is written.
    assists: Option<Position>,
}

/// Which dialogs; all, where both are empty.
#[derive(Default)]
struct Reach {
    peers: Vec<Placed<IpNet>>,
    domains: Vec<Placed<Domain>>,
}

/// A pattern and its text.
#[derive(PartialEq)]
struct Domain {
    text: String,
    pattern: DomainPattern,
}

/// The list of trunks.
pub(super) fn trunks(given: Given<'_>, around: Around<'_>, problems: &mut Vec<Problem>) -> Option<Vec<Trunk>> {
    let nodes = nodes(given, MAX_TRUNKS, problems)?;
    let trunks: Vec<Written> =
        nodes.iter().filter_map(|node| trunk(Given { name: "trunks", node }, around, problems)).collect();
    names_once(&trunks, problems);
    all_reachable(&trunks, problems);
    assisted_by_address(&trunks, problems);
    let finished = trunks.into_iter().map(|trunk| {
        let (name, reach) = (trunk.name?.value, trunk.reach?);
        let matcher = Matcher {
            peers: reach.peers.into_iter().map(|net| net.value).collect(),
            domains: reach.domains.into_iter().map(|domain| domain.value.pattern).collect(),
        };
        Some(Trunk { name, matcher, rules: trunk.rules })
    });
    finished.collect()
}

/// The rules under `default:`, and what those of a trunk look like.
pub(super) fn default(given: Given<'_>, around: Around<'_>, problems: &mut Vec<Problem>) -> Option<Rules> {
    let mut fields = Fields::open(given, problems)?;
    let rules = rules(&mut fields, around);
    fields.close();
    Some(rules)
}

/// Where no `default:` is written.
pub(super) fn default_rules(around: Around<'_>) -> Rules {
    let base = Rules::default();
    let interval_floor = around.interval_floor.unwrap_or(base.interval_floor);
    let refresh_rate =
        if exceeds(base.refresh_rate, around.refresh_rate) { around.refresh_rate } else { base.refresh_rate };
    Rules { interval_floor, min_se: base.min_se.max(interval_floor), refresh_rate, ..base }
}

/// Whether a trunk's rate can never be reached because of that of all together.
fn exceeds(trunk: Rate, all: Rate) -> bool {
    all.per_second().zip(trunk.per_second()).is_some_and(|(all, trunk)| trunk > all)
}

fn trunk(given: Given<'_>, around: Around<'_>, problems: &mut Vec<Problem>) -> Option<Written> {
    let mut fields = Fields::open(given, problems)?;
    let named = fields.need("name", "name the trunk: events and metrics carry it", text);
    let name = named.zip(fields.value_at("name")).map(|(value, at)| Placed { at, value });
    if let Some(Placed { at, .. }) = name.as_ref().filter(|name| name.value == NO_TRUNK) {
        fields.note(*at, format!("`{NO_TRUNK}` is the name of what no trunk covers"), "choose another name");
    }
    let reach = match fields.key_at("match") {
        Some(_) => fields.get("match", reach),
        None => {
            fields.get("match", |_, _| None::<Reach>);
            Some(Reach::default())
        }
    };
    let rules = rules(&mut fields, around);
    let at = fields.at();
    let assists = fields.value_at("assist").filter(|_| rules.assist);
    fields.close();
    Some(Written { at, name, reach, rules, assists })
}

fn reach(given: Given<'_>, problems: &mut Vec<Problem>) -> Option<Reach> {
    let mut fields = Fields::open(given, problems)?;
    let peers = fields.get("peers", list(MAX_MATCHES, network));
    let read_domain = parsed("a domain", "`sip.example.org`, or \"*.example.org\" for all below it", |text| {
        DomainPattern::new(text).map(|pattern| Domain { text: text.to_ascii_lowercase(), pattern })
    });
    let domains = fields.get("domains", list(MAX_MATCHES, read_domain));
    let sound = fields.sound("peers") && fields.sound("domains");
    let (peers, domains) = (peers.unwrap_or_default(), domains.unwrap_or_default());
    let empty = peers.is_empty() && domains.is_empty();
    fields.close();
    if empty && sound {
        given.wrong("names no peers and no domains", "name some, or take it away to match every dialog", problems);
    }
    (sound && !empty).then_some(Reach { peers, domains })
}

fn network(given: Given<'_>, problems: &mut Vec<Problem>) -> Option<IpNet> {
    let read = parsed("a network", "an address or a network, such as 203.0.113.0/24 or 2001:db8::/32", |text| {
        text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
    });
    let net = read(given, problems)?;
    if net != net.trunc() {
        given.wrong(format!("is `{net}`, an address within a network"), format!("write {}", net.trunc()), problems);
        return None;
    }
    Some(net)
}

fn rules(fields: &mut Fields<'_>, around: Around<'_>) -> Rules {
    let actions = [("observe", Action::Observe), ("alert", Action::Alert), ("refresh", Action::Refresh)];
    let methods = [("auto", Method::Auto), ("update", Method::Update), ("reinvite", Method::Reinvite)];
    let base = default_rules(around);
    let action = fields.get("action", choice(&actions));
    let method = fields.get("method", choice(&methods));
    let act_at = fields.get("act_at", number(0.5..=0.9, "a share from 0.5 to 0.9", "a number such as 0.6"));
    let floor = fields.get("interval_floor", seconds(super::schema::INTERVALS));
    let interval_floor = floor.unwrap_or(base.interval_floor);
    let min_se = fields.get("min_se", seconds(super::schema::INTERVALS));
    let credentials = fields.get("credentials", |given, problems| credentials(given, around.dir, problems));
    let strict_r12 = fields.get("strict_r12", boolean);
    let media_evidence = fields.get("media_evidence", choice(&[("auto", true), ("off", false)]));
    let refresh_rate = fields.get("refresh_rate", rate);
    let on_moved = fields.get("on_moved", choice(&[("alert", OnMoved::Alert), ("tell-server", OnMoved::TellServer)]));
    let take_over = fields.get("take_over", boolean);
    let respond = fields.get("respond", choice(&[("never", Respond::Never), ("on-reject", Respond::OnReject)]));
    let on_expired = fields.get("on_expired", choice(&[("alert", OnExpired::Alert), ("bye", OnExpired::Bye)]));
    let assist = fields.get("assist", boolean);
    let keepalive = fields.get("keepalive", off_or(seconds(KEEPALIVES)));
    let tcp = fields.get("tcp", choice(&[("alert", OverTcp::Alert), ("refresh", OverTcp::Refresh)]));

    let floor_known = fields.sound("interval_floor") && (floor.is_some() || around.interval_floor.is_some());
    if let Some((value, at)) = min_se.zip(fields.value_at("min_se")).filter(|_| floor_known)
        && value < interval_floor
    {
        let what = format!("`min_se` allows {}, less than `interval_floor`", humantime::format_duration(value));
        let cure = format!(
            "raise it to {} at least, or lower `interval_floor`: a shorter interval is not acted upon",
            humantime::format_duration(interval_floor)
        );
        fields.note(at, what, cure);
    }
    for (name, value) in [("min_se", min_se), ("interval_floor", floor)] {
        if let (Some(value), Some(at), Some(most)) = (value, fields.value_at(name), around.max_session)
            && value > most
        {
            fields.note(at, format!("`{name}` is longer than `max_session`"), "no call would be refreshed: lower it");
        }
    }
    if let (Some(at), true) =
        (fields.value_at("refresh_rate"), refresh_rate.is_some_and(|rate| exceeds(rate, around.refresh_rate)))
    {
        let all = around.refresh_rate.per_second().unwrap_or_default();
        let what = format!("`refresh_rate` is higher than the {all} of all trunks together");
        fields.note(at, what, "lower it, or raise `refresh_rate` at the top of the file");
    }
    if let (Some(OnExpired::Bye), Some(at)) = (on_expired, fields.value_at("on_expired")) {
        let needs = |what: &str, cure: &str| (format!("`on_expired: bye` {what}"), cure.to_owned());
        let problem = if media_evidence == Some(false) {
            Some(needs(
                "hangs up only where the media are silent, and `media_evidence: off` looks at none",
                "take `media_evidence: off` away, or write `on_expired: alert`",
            ))
        } else if action.is_some_and(|action| action != Action::Refresh) {
            Some(needs(
                "sends BYEs, and nothing is sent without `action: refresh`",
                "write `action: refresh`, or `on_expired: alert`",
            ))
        } else {
            None
        };
        if let Some((what, cure)) = problem {
            fields.note(at, what, cure);
        }
    }
    let sends = [
        "method",
        "min_se",
        "credentials",
        "media_evidence",
        "refresh_rate",
        "on_moved",
        "take_over",
        "respond",
        "on_expired",
        "assist",
        "keepalive",
        "tcp",
    ];
    let sends = sends.iter().chain(&assume::KEYS);
    if let (None, Some(at)) = (fields.key_at("action"), sends.into_iter().find_map(|name| fields.key_at(name))) {
        fields.note(
            at,
            "says how to refresh, but no `action` is given, and the default only alerts",
            "add `action: refresh`, or `action: alert` if that is meant",
        );
    }
    let sound = |name: &str, value: Duration| fields.sound(name).then_some(value);
    let least = min_se.unwrap_or(Rules::default().min_se.max(interval_floor));
    let (floor, least) = (sound("interval_floor", interval_floor), sound("min_se", least));
    let Assumed { assume_interval, session_expires, mode } =
        assumed(fields, around, floor.filter(|_| floor_known), least, take_over == Some(true));
    if let (Some(Respond::OnReject), Some(Action::Observe | Action::Alert), Some(at)) =
        (respond, action, fields.value_at("respond"))
    {
        let cure = "write `action: refresh`, or `respond: never`: only there is anything sent in the server's name";
        fields.note(at, "`respond` is `on-reject`, but `action` is not `refresh`", cure);
    }
    if let (Some(true), Some(Action::Observe | Action::Alert), Some(at)) = (assist, action, fields.value_at("assist")) {
        let cure = "write `action: refresh`, or take `assist` away: the calls that come of it have to be refreshed";
        fields.note(at, "`assist` is on, but `action` is not `refresh`", cure);
    }
    if let (Some(Some(_)), Some(Action::Observe | Action::Alert), Some(at)) =
        (keepalive, action, fields.value_at("keepalive"))
    {
        let cure = "write `action: refresh`, or `keepalive: off`: only there is anything sent in the server's name";
        fields.note(at, "`keepalive` is on, but `action` is not `refresh`", cure);
    }
    if let (Some(OverTcp::Refresh), Some(Action::Observe | Action::Alert), Some(at)) =
        (tcp, action, fields.value_at("tcp"))
    {
        let cure = "write `action: refresh`, or `tcp: alert`: only there is anything sent in the server's name";
        fields.note(at, "`tcp` is `refresh`, but `action` is not", cure);
    }
    Rules {
        action: action.unwrap_or(base.action),
        method: method.unwrap_or(base.method),
        act_at: act_at.unwrap_or(base.act_at),
        min_se: min_se.unwrap_or(Rules::default().min_se.max(interval_floor)),
        interval_floor,
        credentials,
        strict_r12: strict_r12.unwrap_or(base.strict_r12),
        media_evidence: media_evidence.unwrap_or(base.media_evidence),
        refresh_rate: refresh_rate.unwrap_or(base.refresh_rate),
        on_moved: on_moved.unwrap_or(base.on_moved),
        take_over: take_over.unwrap_or(base.take_over),
        respond: respond.unwrap_or(base.respond),
        on_expired: on_expired.unwrap_or(base.on_expired),
        assume_interval,
        session_expires,
        mode,
        assist: assist.unwrap_or(base.assist),
        keepalive: keepalive.unwrap_or(base.keepalive),
        tcp: tcp.unwrap_or(base.tcp),
    }
}

fn credentials(given: Given<'_>, dir: &Path, problems: &mut Vec<Problem>) -> Option<Credentials> {
    let mut fields = Fields::open(given, problems)?;
    let username = fields.need("username", "add the user name that the peer knows", text);
    let password = fields.need("password_file", "name a file with the password as its one line", |given, problems| {
        let path = dir.join(text(given, problems)?);
        password(&path).map_err(|(what, cure)| given.wrong(what, cure, problems)).ok()
    });
    fields.close();
    Some(Credentials { username: username?, password: password? })
}

/// The one line of the file, or what is wrong with it and what to do.
pub(super) fn password(path: &Path) -> Result<SecretString, (String, String)> {
    let shown = path.display();
    let unreadable = |error| (format!("cannot be read: {shown}: {error}"), "check the path and its owner".to_owned());
    // A pipe that nobody writes to must not hold the start up.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(unreadable)?;
    let meta = file.metadata().map_err(unreadable)?;
    if !meta.is_file() {
        return Err((format!("is no file: {shown}"), "name a file with the password as its one line".to_owned()));
    }
    if meta.mode() & 0o007 != 0 {
        return Err((format!("is open to every user: {shown}"), format!("run `chmod o= {shown}`")));
    }
    let own_group = meta.gid() == 0 || meta.gid() == getegid().as_raw();
    if meta.mode() & 0o070 != 0 && !own_group {
        let what = format!("is open to a group, {}, that is neither root's nor sipst's own: {shown}", meta.gid());
        return Err((what, format!("run `chmod g= {shown}`")));
    }
    // With room for all from the start: to grow would leave a copy behind.
    let mut text = Zeroizing::new(String::with_capacity(MAX_PASSWORD as usize + 1));
    file.take(MAX_PASSWORD + 1).read_to_string(&mut text).map_err(unreadable)?;
    let password = text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    if password.is_empty() || password.contains('\n') || password.len() as u64 > MAX_PASSWORD {
        let what = format!("holds no single line of 1 to {MAX_PASSWORD} bytes: {shown}");
        return Err((what, "leave only the password in it".to_owned()));
    }
    Ok(password.into())
}

fn names_once(trunks: &[Written], problems: &mut Vec<Problem>) {
    let mut seen: Vec<&Placed<String>> = Vec::new();
    for name in trunks.iter().filter_map(|trunk| trunk.name.as_ref()) {
        match seen.iter().find(|first| first.value == name.value) {
            Some(first) => {
                let what = format!("trunk `{}` is there twice, first in line {}", name.value, first.at.line);
                problems.push(Problem::new(name.at, what, "give it a name of its own"));
            }
            None => seen.push(name),
        }
    }
}

/// The kernel programs know an INVITE's addresses and no domains: notes trunks that are assisted and go by domains, or have one that
/// does before them.
fn assisted_by_address(trunks: &[Written], problems: &mut Vec<Problem>) {
    let by_domain = |trunk: &&Written| trunk.reach.as_ref().is_some_and(|reach| !reach.domains.is_empty());
    for (index, trunk) in trunks.iter().enumerate() {
        let (Some(at), Some(other)) = (trunk.assists, trunks[..=index].iter().find(by_domain)) else { continue };
        let name = other.name.as_ref().map_or("without a name", |name| &name.value);
        let (what, cure) = if std::ptr::eq(other, trunk) {
            (
                "`assist` goes by the peer's address, and this trunk by domains".to_owned(),
                "name its `peers` instead".to_owned(),
            )
        } else {
            let what = format!(
                "`assist` goes by the peer's address, and trunk `{name}` above may take the same calls by their domain"
            );
            (what, format!("name the `peers` of `{name}` instead of its domains, or move it below"))
        };
        problems.push(Problem::new(at, what, cure));
    }
}

/// Notes trunks that those before them leave nothing to.
fn all_reachable(trunks: &[Written], problems: &mut Vec<Problem>) {
    for (index, trunk) in trunks.iter().enumerate() {
        let Some(reach) = &trunk.reach else { continue };
        let before: Vec<(&str, &Reach)> = trunks[..index]
            .iter()
            .filter_map(|earlier| {
                Some((earlier.name.as_ref().map_or("without a name", |name| &name.value), earlier.reach.as_ref()?))
            })
            .collect();
        let Some(by) = taken_by(reach, &before) else { continue };
        let name = trunk.name.as_ref().map_or("without a name", |name| &name.value);
        let what = format!("trunk `{name}` can never match, `{by}` before it takes all of it");
        problems.push(Problem::new(trunk.at, what, format!("move it above `{by}`, or take it away")));
    }
}

/// The first of the trunks before that matter, if they leave nothing of `reach`.
fn taken_by<'a>(reach: &Reach, before: &[(&'a str, &Reach)]) -> Option<&'a str> {
    if let Some((name, _)) = before.iter().find(|(_, earlier)| earlier.is_all()) {
        return Some(name);
    }
    if reach.is_all() {
        return None;
    }
    let net = |net: &Placed<IpNet>| before.iter().find(|(_, e)| e.peers.iter().any(|p| p.value.contains(&net.value)));
    let domain = |domain: &Placed<Domain>| {
        before.iter().find(|(_, e)| e.domains.iter().any(|d| d.value.pattern.matches(&domain.value.text)))
    };
    let takers: Option<Vec<_>> = reach.peers.iter().map(net).chain(reach.domains.iter().map(domain)).collect();
    takers?.first().map(|(name, _)| *name)
}

impl Reach {
    fn is_all(&self) -> bool {
        let whole = |v4| self.peers.iter().any(|n| n.value.prefix_len() == 0 && n.value.addr().is_ipv4() == v4);
        (self.peers.is_empty() && self.domains.is_empty()) || (whole(true) && whole(false))
    }
}
