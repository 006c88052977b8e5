//! The file as a whole: which options there are, what they default to, and what they must not say together.

use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use st_core::{Policy, Rules};

use crate::{
    control::{GROUP, SOCKET},
    kernel::{Overlap, PIN_DIR},
    store::STATE_DIR,
};

use super::{
    Attach, Config, Control, Journald, OPAQUE_PORT, PORT, Ports, alerts,
    fields::{Fields, Given, Placed, boolean, choice, duration, list, off_or, parsed, rate, seconds, text},
    metrics::metrics,
    namespaces::namespaces,
    ports,
    problem::{Position, Problem},
    records,
    tree::Node,
    trunks::{self, Around},
};

/// Session intervals that can be asked for.
pub(super) const INTERVALS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(7 * 86_400);
/// How old a call may be made: up to what `humantime` has as a year.
const SESSIONS: RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(31_557_600);
const MAX_INTERFACES: usize = 64;
/// `sun_path` without the NUL (unix(7)).
const MAX_SOCKET_PATH: usize = 107;
/// IFNAMSIZ without the NUL.
const MAX_INTERFACE_NAME: usize = 15;

/// The configuration that `root` is, as far as it is right.
pub(super) fn config(
    root: Option<Node>,
    dir: &Path,
    overlaps: &dyn Fn(&[String]) -> Vec<Overlap>,
    problems: &mut Vec<Problem>,
) -> Option<Config> {
    let Some(node) = root else {
        let cure = "start from the output of `sipst generate-config`";
        problems.push(Problem::new(Position::START, "the file says nothing", cure));
        return None;
    };
    let mut fields = Fields::open(Given { name: "configuration", node: &node }, problems)?;
    let attaches = [("auto", Attach::Auto), ("tc", Attach::Tc), ("xdp", Attach::Xdp)];
    let interfaces =
        fields.need("interfaces", "add `interfaces: [eth0]` with the interfaces that SIP uses", some(interfaces));
    let names: Vec<String> = interfaces.iter().flatten().map(|placed| placed.value.clone()).collect();
    let namespaces = fields.get("namespaces", |given, problems| namespaces(given, &names, problems));
    let attach = fields.get("attach", choice(&attaches)).unwrap_or(Attach::Auto);
    let ports = fields.get("ports", some(ports::ports));
    let opaque = fields.get("opaque_ports", ports::ports);
    let among = |one: Ports| ports.iter().flatten().find_map(|Placed { value, .. }| value.common(one));
    for Placed { at, value } in opaque.iter().flatten() {
        if let Some(both) = among(*value) {
            fields.note(
                *at,
                format!("port {both} is in `ports` too"),
                "keep it where it belongs: SIP in the clear, or TLS and WebSocket",
            );
        }
    }
    let opaque = opaque.map_or_else(
        || Some(Ports::one(OPAQUE_PORT)).into_iter().filter(|port| among(*port).is_none()).collect(),
        ports::values,
    );
    let any_port = fields.get("any_port", boolean).unwrap_or(false);
    let pin_dir = fields.get("pin_dir", parsed("an absolute path", PIN_DIR, absolute));
    let state_dir = fields.get("state_dir", parsed("an absolute path", STATE_DIR, absolute));
    let control = fields.get("control", control).unwrap_or_else(Control::default);
    let metrics = fields.get("metrics", metrics).unwrap_or_default();
    let floor = fields.get("interval_floor", seconds(INTERVALS));
    let session = fields.get("max_session", duration(SESSIONS));
    let base = Policy::default();
    let refresh_rate = fields.get("refresh_rate", rate).unwrap_or(base.refresh_rate);
    let interval_floor = floor.unwrap_or(base.default.interval_floor);
    let max_session = session.unwrap_or(base.max_session);
    let around = Around {
        interval_floor: fields.sound("interval_floor").then_some(interval_floor),
        max_session: fields.sound("max_session").then_some(max_session),
        refresh_rate,
        dir,
    };
    if let (Some(at), true) =
        (fields.value_at("interval_floor").filter(|_| floor.is_some()), interval_floor > max_session)
    {
        fields.note(at, "`interval_floor` is longer than `max_session`", "no call would be refreshed: lower it");
    }
    let trunks = fields.get("trunks", |given, problems| trunks::trunks(given, around, problems)).unwrap_or_default();
    let default = fields.get("default", |given, problems| trunks::default(given, around, problems));
    let acts = trunks.iter().map(|trunk| &trunk.rules).chain(&default).any(Rules::refreshes_over_tcp);
    if let (true, Attach::Auto | Attach::Xdp, Some(at)) =
        (acts, attach, ["attach", "trunks", "default"].iter().find_map(|name| fields.key_at(name)))
    {
        fields.note(
            at,
            "`tcp: refresh` needs `attach: tc`",
            "add that: what comes in has to be written into, which XDP cannot",
        );
    }
    let by_domain = trunks.iter().find(|trunk| !trunk.matcher.domains.is_empty());
    if let (Some(other), Some(at), true) =
        (by_domain, fields.key_at("default"), default.as_ref().is_some_and(|rules| rules.assist))
    {
        let what = format!(
            "`assist` goes by the peer's address, and trunk `{}` may take the same calls by their domain",
            other.name
        );
        fields.note(at, what, "name its `peers` instead of its domains, or take `assist` away");
    }
    let alerts = alerts::alerting(&mut fields);
    let journald = fields.get("journald", choice(&Journald::WORDS)).unwrap_or(Journald::Auto);
    let recorder = fields.get("recorder", off_or(records::recorder)).flatten();
    let hep = |given: Given<'_>, problems: &mut Vec<Problem>| records::hep(given, dir, problems);
    let hep = fields.get("hep", off_or(hep)).flatten();
    fields.close();

    let config = Config {
        interfaces: names,
        namespaces: namespaces.unwrap_or_default(),
        attach,
        opaque_ports: opaque,
        any_port,
        ports: ports.map_or_else(|| vec![Ports::one(PORT)], ports::values),
        pin_dir: pin_dir.unwrap_or_else(|| PathBuf::from(PIN_DIR)),
        state_dir: state_dir.unwrap_or_else(|| PathBuf::from(STATE_DIR)),
        control,
        metrics,
        policy: Policy {
            trunks,
            default: default.unwrap_or_else(|| trunks::default_rules(around)),
            max_session,
            refresh_rate,
        },
        alerts,
        journald,
        recorder,
        hep,
    };
    // What they are in other namespaces is not known before they are there.
    if config.refreshes() && config.namespaces.is_empty() {
        crossed_once(&interfaces.unwrap_or_default(), overlaps, problems);
    }
    Some(config)
}

/// One packet at two attach points would have its numbers shifted twice.
fn crossed_once(
    interfaces: &[Placed<String>],
    overlaps: &dyn Fn(&[String]) -> Vec<Overlap>,
    problems: &mut Vec<Problem>,
) {
    let names: Vec<String> = interfaces.iter().map(|placed| placed.value.clone()).collect();
    for Overlap { a, b, why } in overlaps(&names) {
        let at = interfaces.iter().filter(|placed| placed.value == a || placed.value == b).map(|placed| placed.at);
        problems.push(Problem::new(
            at.max().unwrap_or(Position::START),
            format!("one packet can cross both `{a}` and `{b}` ({why}) and would be rewritten twice"),
            "keep one of them, or use no `action: refresh`",
        ));
    }
}

/// A list that must not be empty.
pub(super) fn some<T>(
    read: impl Fn(Given<'_>, &mut Vec<Problem>) -> Option<Vec<T>>,
) -> impl Fn(Given<'_>, &mut Vec<Problem>) -> Option<Vec<T>> {
    move |given, problems| {
        let values = read(given, problems)?;
        if values.is_empty() {
            given.wrong("is an empty list", "name one at least", problems);
        }
        (!values.is_empty()).then_some(values)
    }
}

pub(super) fn interfaces(given: Given<'_>, problems: &mut Vec<Problem>) -> Option<Vec<Placed<String>>> {
    let example = "a name that `ip link` shows, `\"eth*\"`, `\"!eth9\"` or `default`";
    let name = parsed("the name of an interface", example, |text| {
        let bad =
            |byte: u8| matches!(byte, b'/' | b':' | b'!') || byte.is_ascii_whitespace() || byte.is_ascii_control();
        let name = text.strip_prefix('!').unwrap_or(text);
        let good = !name.is_empty() && name.len() <= MAX_INTERFACE_NAME && name != "." && name != "..";
        (good && !name.bytes().any(bad)).then(|| text.to_owned())
    });
    let names = list(MAX_INTERFACES, name)(given, problems)?;
    if !names.is_empty() && names.iter().all(|placed| placed.value.starts_with('!')) {
        given.wrong("says only what is left out", "name what is meant first, such as `\"*\"` for all", problems);
        return None;
    }
    Some(names)
}

pub(super) fn absolute(text: &str) -> Option<PathBuf> {
    Some(PathBuf::from(text)).filter(|path| path.is_absolute())
}

impl Default for Control {
    fn default() -> Self {
        Self { socket: Some(PathBuf::from(SOCKET)), group: GROUP.to_owned() }
    }
}

fn control(given: Given<'_>, problems: &mut Vec<Problem>) -> Option<Control> {
    let mut fields = Fields::open(given, problems)?;
    let path = |text: &str| absolute(text).filter(|path| path.as_os_str().len() <= MAX_SOCKET_PATH).map(Some);
    let socket = |text: &str| if text == "off" { Some(None) } else { path(text) };
    let expected = format!("an absolute path of {MAX_SOCKET_PATH} bytes at most");
    let socket = fields.get("socket", parsed(&expected, &format!("{SOCKET}, or `off` for none"), socket));
    let group = fields.get("group", text);
    let sound = fields.sound("socket") && fields.sound("group");
    fields.close();
    let base = Control::default();
    sound.then(|| Control { socket: socket.unwrap_or(base.socket), group: group.unwrap_or(base.group) })
}
