//! What the operator wants: trunks, their rules, and which trunk a dialog belongs to.

use std::{net::IpAddr, num::NonZeroU32, time::Duration};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use secrecy::{ExposeSecret as _, SecretString};

/// The name in events for dialogs that no trunk covers.
pub const NO_TRUNK: &str = "default";

/// What sipst does when the server lets a session run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Track and tell, raise no alert.
    Observe,
    /// Track and raise alerts.
    Alert,
    /// Refresh in the server's name, and raise an alert where that fails.
    Refresh,
}

/// How sipst refreshes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// UPDATE where the peer's Allow lists it, else re-INVITE.
    Auto,
    /// UPDATE only.
    Update,
    /// re-INVITE only.
    Reinvite,
}

/// What is done where the peer's answer to a re-INVITE of sipst's moves its media or its Contact, which the server has not heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnMoved {
    /// An alert, and nothing more.
    Alert,
    /// The same, and a re-INVITE to the server in the peer's name.
    TellServer,
}

/// What is done where the server turns a refresh of the peer's down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Respond {
    /// It goes out.
    Never,
    /// sipst answers in the server's name.
    OnReject,
}

/// What is done in calls whose messages the server sends by TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverTcp {
    /// They are watched, and alerts raised.
    Alert,
    /// They are refreshed too, by what is written into the server's own connection.
    Refresh,
}

/// Who is to refresh where an interval is assumed ([`Rules::assume_interval`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AssumeMode {
    /// The server's side, that is sipst.
    Hold,
    /// The peer, where it takes that up, as long as the server answers it.
    HandOff,
}

/// What is done with a session that has expired and in which nobody gives a sign of life any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExpired {
    /// An alert, and nothing more.
    Alert,
    /// The same, and a BYE to each side in the other's name, where the media say that nobody is there: it needs
    /// [`Rules::media_evidence`] and [`Action::Refresh`].
    Bye,
}

/// Digest credentials for a peer that challenges refreshes.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password; never printed, and zeroed when it is dropped.
    pub password: SecretString,
}

impl PartialEq for Credentials {
    fn eq(&self, other: &Self) -> bool {
        self.username == other.username && self.password.expose_secret() == other.password.expose_secret()
    }
}

/// How many refresh requests may leave in a second; of these a tenth at once. Copies of a request, ACK and CANCEL do not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(Option<NonZeroU32>);

impl Rate {
    /// As many as there are.
    pub const OFF: Self = Self(None);

    /// The highest.
    pub const MOST: u32 = 10_000;

    /// So many in a second, 1 to [`Rate::MOST`].
    pub const fn new(per_second: u32) -> Option<Self> {
        match NonZeroU32::new(per_second) {
            Some(rate) if per_second <= Self::MOST => Some(Self(Some(rate))),
            Some(_) | None => None,
        }
    }

    /// How many in a second; `None`: as many as there are.
    pub const fn per_second(self) -> Option<u32> {
        match self.0 {
            Some(rate) => Some(rate.get()),
            None => None,
        }
    }

    /// The time from one to the next if all are spread evenly.
    pub const fn spacing(self) -> Option<Duration> {
        match self.0 {
            Some(rate) => Some(Duration::from_micros(1_000_000_u64.div_ceil(rate.get() as u64))),
            None => None,
        }
    }
}

/// The rules of one trunk.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// What to do.
    pub action: Action,
    /// How.
    pub method: Method,
    /// The share of the interval that is given to a server that was seen to refresh by itself.
    pub act_at: f64,
    /// Min-SE in our refreshes.
    pub min_se: Duration,
    /// A shorter Session-Expires is reported and not acted upon.
    pub interval_floor: Duration,
    /// For 401 and 407.
    pub credentials: Option<Credentials>,
    /// Whether a 2xx without Session-Expires turns an agreed timer off, as R12 has it to the letter.
    pub strict_r12: bool,
    /// Whether a call is given up whose server's RTP has stopped for a whole interval.
    pub media_evidence: bool,
    /// How fast refreshes leave to this trunk.
    pub refresh_rate: Rate,
    /// When an answer moves the media.
    pub on_moved: OnMoved,
    /// Whether sipst makes the server's side the refresher where the peer is, before the peer's own attempt.
    pub take_over: bool,
    /// When the server turns a refresh of the peer's down.
    pub respond: Respond,
    /// When a session has expired.
    pub on_expired: OnExpired,
    /// Where no timer is negotiated: how long after the last INVITE or UPDATE that was accepted the peer drops a call.
    pub assume_interval: Option<Duration>,
    /// Session-Expires of a refresh where none is negotiated.
    pub session_expires: Duration,
    /// Who is to refresh then.
    pub mode: AssumeMode,
    /// Whether the kernel programs make the server's INVITEs list `timer`, and take the demand for it out of the peer's. It goes by the
    /// peer's address alone, and needs [`Action::Refresh`].
    pub assist: bool,
    /// How often a packet leaves the server's address for that of a peer with a call that is up, at least. Needs [`Action::Refresh`].
    pub keepalive: Option<Duration>,
    /// What of this holds for calls over TCP. Needs [`Action::Refresh`].
    pub tcp: OverTcp,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            action: Action::Alert,
            method: Method::Auto,
            act_at: 0.6,
            min_se: Duration::from_secs(90),
            interval_floor: Duration::from_secs(90),
            credentials: None,
            strict_r12: false,
            media_evidence: true,
            refresh_rate: const { Rate::new(200).expect("a rate") },
            on_moved: OnMoved::Alert,
            take_over: false,
            respond: Respond::Never,
            on_expired: OnExpired::Alert,
            assume_interval: None,
            session_expires: Duration::from_secs(1800),
            mode: AssumeMode::Hold,
            assist: false,
            keepalive: None,
            tcp: OverTcp::Alert,
        }
    }
}

impl Rules {
    /// Whether INVITEs are changed: only where somebody refreshes then.
    pub fn assists(&self) -> bool {
        self.assist && self.action == Action::Refresh
    }

    /// Whether calls over TCP are refreshed.
    pub fn refreshes_over_tcp(&self) -> bool {
        self.tcp == OverTcp::Refresh && self.action == Action::Refresh
    }

    /// Whether a call that has expired may be hung up.
    pub fn hangs_up(&self) -> bool {
        self.on_expired == OnExpired::Bye && self.media_evidence && self.action == Action::Refresh
    }
}

/// A domain, or `*.` and a domain for all below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainPattern(String);

impl DomainPattern {
    /// A pattern from its text, in any case; `None` where it is no domain.
    pub fn new(text: &str) -> Option<Self> {
        let bare = text.strip_prefix("*.").unwrap_or(text);
        let label = |l: &str| !l.is_empty() && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        (!bare.is_empty() && bare.split('.').all(label)).then(|| Self(text.to_ascii_lowercase()))
    }

    /// Whether `host` falls under the pattern. `*.example.org` does not cover `example.org` itself.
    pub fn matches(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').as_bytes();
        match self.0.strip_prefix('*') {
            Some(suffix) => host
                .len()
                .checked_sub(suffix.len())
                .is_some_and(|at| at > 0 && host[at..].eq_ignore_ascii_case(suffix.as_bytes())),
            None => host.eq_ignore_ascii_case(self.0.as_bytes()),
        }
    }
}

/// Which dialogs a trunk covers: those that any of `peers` or any of `domains` covers; all, where both are empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matcher {
    /// Networks of the peer's address.
    pub peers: Vec<IpNet>,
    /// The host in the peer's URI (From or To).
    pub domains: Vec<DomainPattern>,
}

impl Matcher {
    /// Whether a dialog with this peer falls under it.
    pub fn matches(&self, peer: IpAddr, domain: &str) -> bool {
        (self.peers.is_empty() && self.domains.is_empty())
            || self.peers.iter().any(|net| net.contains(&peer))
            || self.domains.iter().any(|pattern| pattern.matches(domain))
    }
}

/// A named set of rules for the dialogs that fall under it.
#[derive(Clone, Debug, PartialEq)]
pub struct Trunk {
    /// Name in events and metrics.
    pub name: String,
    /// Which dialogs.
    pub matcher: Matcher,
    /// What to do with them.
    pub rules: Rules,
}

/// All that the engine is told by the operator.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// First match wins.
    pub trunks: Vec<Trunk>,
    /// For dialogs that no trunk covers.
    pub default: Rules,
    /// No call is refreshed past this age.
    pub max_session: Duration,
    /// How fast refreshes leave to all trunks together.
    pub refresh_rate: Rate,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            trunks: Vec::new(),
            default: Rules::default(),
            max_session: Duration::from_secs(24 * 3600),
            refresh_rate: const { Rate::new(500).expect("a rate") },
        }
    }
}

impl Policy {
    /// Name and rules for a dialog.
    pub fn find(&self, peer: IpAddr, domain: &str) -> (&str, &Rules) {
        match self.trunks.iter().find(|trunk| trunk.matcher.matches(peer, domain)) {
            Some(trunk) => (&trunk.name, &trunk.rules),
            None => (NO_TRUNK, &self.default),
        }
    }

    /// Networks of peers, each with the name of the trunk that covers it, where INVITEs are changed ([`Rules::assist`]), and `None` where
    /// not: of those that an address is in the longest counts. Empty where there is nothing to be changed. Trunks that go by domains
    /// are left out.
    pub fn assisted(&self) -> Vec<(IpNet, Option<&str>)> {
        let everyone = || [IpNet::from(Ipv4Net::default()), IpNet::from(Ipv6Net::default())];
        let own = |trunk: &Trunk| match &trunk.matcher {
            Matcher { peers, domains } if peers.is_empty() && domains.is_empty() => everyone().to_vec(),
            Matcher { peers, .. } => peers.clone(),
        };
        let all = self.trunks.iter().map(|trunk| (own(trunk), trunk.name.as_str(), &trunk.rules));
        let mut networks: Vec<(IpNet, Option<&str>)> = Vec::new();
        for (own, name, rules) in all.chain([(everyone().to_vec(), NO_TRUNK, &self.default)]) {
            let before = networks.len();
            for network in own {
                // The first trunk that covers an address counts: what an earlier one covers is none of this one's.
                let taken = networks[..before].iter().any(|(earlier, _)| earlier.contains(&network));
                if !taken && !networks.iter().any(|(known, _)| *known == network) {
                    networks.push((network, rules.assists().then_some(name)));
                }
            }
        }
        if networks.iter().all(|(_, name)| name.is_none()) { Vec::new() } else { networks }
    }

    /// Whether calls with that peer may be refreshed over TCP: trunks that go by domains may be any peer's.
    pub fn may_refresh_over_tcp(&self, peer: IpAddr) -> bool {
        let may = |trunk: &Trunk| {
            trunk.rules.refreshes_over_tcp() && (!trunk.matcher.domains.is_empty() || trunk.matcher.matches(peer, ""))
        };
        self.trunks.iter().any(may) || self.default.refreshes_over_tcp()
    }

    /// Whether any call may be.
    pub fn may_any_over_tcp(&self) -> bool {
        self.trunks.iter().any(|trunk| trunk.rules.refreshes_over_tcp()) || self.default.refreshes_over_tcp()
    }

    /// The rules of that name.
    pub fn rules(&self, name: &str) -> Option<&Rules> {
        let trunk = self.trunks.iter().find(|trunk| trunk.name == name);
        trunk.map(|trunk| &trunk.rules).or((name == NO_TRUNK).then_some(&self.default))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_printed() {
        let credentials = Credentials { username: "line1".into(), password: "hunter2".into() };
        let policy = Policy {
            default: Rules { credentials: Some(credentials.clone()), ..Rules::default() },
            ..Policy::default()
        };
        let printed = format!("{policy:?}");
        assert!(printed.contains("line1") && !printed.contains("hunter2"), "{printed}");
        assert_eq!(credentials, credentials.clone());
        assert_ne!(credentials, Credentials { password: "hunter3".into(), ..credentials.clone() });
    }

    #[test]
    fn a_wildcard_covers_what_is_below_and_nothing_else() {
        let pattern = DomainPattern::new("*.Carrier.example").unwrap();
        assert!(pattern.matches("sbc.carrier.example"));
        assert!(pattern.matches("a.b.CARRIER.example."));
        assert!(!pattern.matches("carrier.example"));
        assert!(!pattern.matches("evilcarrier.example"));
        assert!(DomainPattern::new("*").is_none());
        assert!(DomainPattern::new("a..b").is_none());
    }

    #[test]
    fn the_longest_of_the_networks_that_are_assisted_says_what_the_first_trunk_that_matches_says() {
        let trunk = |name: &str, nets: &[&str], assist: bool| Trunk {
            name: name.into(),
            matcher: Matcher { peers: nets.iter().map(|net| net.parse().unwrap()).collect(), domains: vec![] },
            rules: Rules { action: Action::Refresh, assist, ..Rules::default() },
        };
        let on = Rules { action: Action::Refresh, assist: true, ..Rules::default() };
        let trunks = [
            trunk("a", &["10.1.0.0/16", "2001:db8::/64"], true),
            trunk("b", &["10.1.2.0/24", "10.0.0.0/8", "10.1.0.0/16"], false),
            trunk("c", &["10.2.0.0/16", "192.0.2.0/24"], true),
            trunk("d", &["192.0.2.128/25", "192.0.0.0/16", "2001:db8::/32"], false),
            trunk("e", &[], true),
            trunk("f", &["203.0.113.0/24"], false),
        ];
        for count in 0..=trunks.len() {
            for default in [Rules::default(), on.clone()] {
                let policy = Policy { trunks: trunks[..count].to_vec(), default, ..Policy::default() };
                let networks = policy.assisted();
                for address in [
                    "10.1.2.3",
                    "10.1.9.9",
                    "10.2.0.1",
                    "10.9.9.9",
                    "192.0.2.1",
                    "192.0.2.200",
                    "192.0.9.9",
                    "203.0.113.7",
                    "198.51.100.1",
                    "2001:db8::1",
                    "2001:db8:1::1",
                    "2001:db9::1",
                ] {
                    let address: IpAddr = address.parse().unwrap();
                    let (name, rules) = policy.find(address, "");
                    let longest = networks
                        .iter()
                        .filter(|(net, _)| net.contains(&address))
                        .max_by_key(|(net, _)| net.prefix_len());
                    let said = longest.and_then(|(_, name)| *name);
                    assert_eq!(said, rules.assists().then_some(name), "{address} {count} {networks:?}");
                }
            }
        }
        assert!(Policy { trunks: vec![trunk("b", &["10.0.0.0/8"], false)], ..Policy::default() }.assisted().is_empty());
        let observed = Rules { action: Action::Alert, assist: true, ..Rules::default() };
        assert!(Policy { default: observed, ..Policy::default() }.assisted().is_empty());
    }

    #[test]
    fn the_first_trunk_that_matches_wins() {
        let trunk = |name: &str, net: &str| Trunk {
            name: name.into(),
            matcher: Matcher { peers: vec![net.parse().unwrap()], domains: vec![] },
            rules: Rules::default(),
        };
        let policy =
            Policy { trunks: vec![trunk("a", "203.0.113.0/24"), trunk("b", "203.0.0.0/16")], ..Policy::default() };
        assert_eq!(policy.find("203.0.113.9".parse().unwrap(), "").0, "a");
        assert_eq!(policy.find("203.0.1.9".parse().unwrap(), "").0, "b");
        assert_eq!(policy.find("198.51.100.1".parse().unwrap(), "").0, "default");
    }
}
