//! What each key means and how it looks in a file. Whoever adds a key to the configuration adds it to `config/sipst.yaml` and
//! here; type, limits, default and what a reload does are asked of the code.

/// A key of the configuration.
pub(super) struct Key {
    /// From the top of the file; `[]` behind a list whose elements have keys.
    pub(super) path: &'static str,
    /// What it does, as a paragraph of Markdown.
    pub(super) means: &'static str,
    /// A file, but for its `interfaces`, in which the key has another value than its default.
    pub(super) example: &'static str,
}

/// Keys that belong together.
pub(super) struct Section {
    pub(super) title: &'static str,
    /// What holds for all of them.
    pub(super) about: &'static str,
    pub(super) keys: &'static [Key],
}

const fn key(path: &'static str, means: &'static str, example: &'static str) -> Key {
    Key { path, means, example }
}

/// All keys, in the order of the document.
pub(super) const SECTIONS: &[Section] = &[
    Section { title: "What is watched", about: "", keys: WATCHED },
    Section { title: "What is kept, and who commands", about: "", keys: KEPT },
    Section { title: "Limits of all calls", about: "", keys: LIMITS },
    Section {
        title: "Which calls",
        about: "A dialog belongs to the first trunk of the list that matches it, and to `default` where none does. What becomes of \
                it stands under [rules](#rules). [carriers.md](carriers.md) goes from what an operator sees to the key that \
                changes it.",
        keys: TRUNKS,
    },
    Section {
        title: "Rules",
        about: "Each of these may stand in a trunk and in `default`. A trunk takes nothing from `default`: what it does not say is as \
                given here.",
        keys: RULES,
    },
    Section { title: "Where alerts go", about: "", keys: ALERTS },
];

const WATCHED: &[Key] = &[
    key(
        "interfaces",
        "The interfaces that the server's SIP packets cross, in and out: names as `ip -brief link` has them, patterns (`\"eth*\"`), \
         `\"!eth9\"` for all but that, `default` for those of the default routes. What they stand for is followed while sipst runs. No \
         packet is seen at two of them (a VLAN and its parent, a bond and its member): of what patterns cover one is passed over, and two \
         that are named are refused with `action: refresh`, for numbers would be shifted twice. [attaching.md](attaching.md) has it all. \
         With `on_expired: bye` they must be all that the calls' RTP crosses.",
        "interfaces: [eth0, \"ens*\", \"!ens9\"]",
    ),
    key(
        "namespaces",
        "The network namespaces in which `interfaces` is meant, for servers in containers; the daemon's own where there are none. sipst \
         attaches in each from within and refreshes from there, and follows a container that is started again. In the daemon's own \
         nothing is attached then: a container's packets would be seen a second time there. On the way in it is always TC. It needs \
         Linux 6.6, and capabilities that the service has by a drop-in ([attaching.md](attaching.md#containers)).",
        "namespaces: [{ name: sip, container: livekit-sip }]",
    ),
    key(
        "namespaces[].name",
        "What the namespace is called, in `sipst status` and in metrics, before the interface: `sip/eth0`.",
        "namespaces: [{ name: sip, container: livekit-sip }]",
    ),
    key(
        "namespaces[].container",
        "The container, by its name or a pattern of it, as Docker, podman, nerdctl and Kubernetes (containerd, CRI-O) keep it on disk; in \
         Kubernetes `CONTAINER`, `POD/CONTAINER` or `NAMESPACE/POD/CONTAINER`. One that has the host's network belongs to \
         `interfaces` alone. One of `container`, `netns` and `pid` has to be there.",
        "namespaces: [{ name: sip, container: \"livekit/sip-*/livekit-sip\" }]",
    ),
    key(
        "namespaces[].netns",
        "A file that stands for the namespace, as `ip netns add` makes it. When another one is mounted there, that is followed.",
        "namespaces: [{ name: lab, netns: /run/netns/lab }]",
    ),
    key(
        "namespaces[].pid",
        "A process in the namespace. It cannot be followed: rather name the container or the file.",
        "namespaces: [{ name: old, pid: 4711 }]",
    ),
    key(
        "namespaces[].interfaces",
        "The interfaces in this namespace, where they are others than `interfaces` says. Those that are not there are waited for.",
        "namespaces: [{ name: sip, container: livekit-sip, interfaces: [\"eth*\"] }]",
    ),
    key(
        "attach",
        "How packets are seen on the way in. `auto` is TC on a link that is up, on veth and on the loopback, XDP in the driver elsewhere, \
         because attaching XDP resets many network cards. `xdp` wants XDP; where it cannot be attached TC takes its place, and the log \
         and `sipst status` say so. On the way out it is always TC.",
        "attach: tc",
    ),
    key(
        "ports",
        "The ports that SIP is spoken on in the clear, at either end, over UDP and TCP: single ones, and ranges that are written as \
         `5060-5069`. However many they are, packets of other ports pay nothing for them. Of the media of calls no port should be \
         among them: what comes there is read as SIP first. What is seen and acted upon by each transport: \
         [transports.md](transports.md).",
        "ports: [5060, 5080-5089]",
    ),
    key(
        "opaque_ports",
        "Ports of SIP over TLS or WebSocket, at either end: nothing can be read there. New connections are counted, so that \
         `sipst status` and the metrics say how many go by unseen. None of `ports`; a port of `ports` is not among them where \
         this is not given.",
        "opaque_ports: [5061, 443]",
    ),
    key(
        "any_port",
        "Whether UDP between other ports is looked at too, where it begins with `SIP/2.0` or a method and a blank: for servers and peers \
         that choose their ports themselves. Each packet of other ports pays for it ([benchmarks.md](benchmarks.md)); what it leaves \
         out is in [attaching.md](attaching.md).",
        "any_port: true",
    ),
];

const KEPT: &[Key] = &[
    key(
        "pin_dir",
        "Where programs and maps are pinned, on a BPF file system: they outlive the daemon, so that the numbers of refreshed calls \
         go on being shifted while none runs.",
        "pin_dir: /sys/fs/bpf/sipst-test",
    ),
    key(
        "state_dir",
        "Where what is known of the calls is kept on disk, a few KiB for each, so that a daemon that is started again knows them. \
         Where that cannot be, `state_not_kept` says why, and the calls go on.",
        "state_dir: /srv/sipst",
    ),
    key(
        "control",
        "The socket that `sipst sessions`, `sipst reload` and the like talk to ([control.md](control.md)).",
        "control: { socket: off }",
    ),
    key(
        "control.socket",
        "Where it is; `off`: there is none, and nobody can ask or command.",
        "control: { socket: /run/sipst/other.sock }",
    ),
    key(
        "control.group",
        "Who is in this group may see every call and command. Where there is no such group, only the user that sipst runs as may.",
        "control: { group: voip }",
    ),
    key(
        "metrics",
        "Where monitoring asks by HTTP: `/metrics` for Prometheus ([metrics.md](metrics.md)), `/health` and `/ready`. Whoever \
         reaches the address may read; nothing can be changed from there.",
        "metrics: { listen: 9464 }",
    ),
    key(
        "metrics.listen",
        "An address of this host; a port alone is one of 127.0.0.1. `off`: nobody can ask.",
        "metrics: { listen: \"127.0.0.1:9464\" }",
    ),
    key(
        "metrics.page",
        "`true`: a status page at `/` of that address ([page.md](page.md)): the calls with their deadlines, and the ladder of one, \
         live. It shows who talks to whom, to whoever reaches the address.",
        "metrics: { listen: 9464, page: true }",
    ),
];

const LIMITS: &[Key] = &[
    key(
        "interval_floor",
        "A shorter Session-Expires is reported (`interval_below_floor`) and not acted upon, for RFC 4028 knows none below 90 s. \
         Lower it, here or for a trunk, for peers that mean it. It holds for each trunk that has none of its own.",
        "interval_floor: 60s",
    ),
    key(
        "max_session",
        "No call is refreshed past this age. It is the last guard against a call that nobody has hung up.",
        "max_session: 8h",
    ),
    key(
        "refresh_rate",
        "How many refreshes leave in a second at most, to all trunks together; `off`: as many as are due. Those that have to wait \
         go in the order of their peers' deadlines, and one whose turn comes too late is an alert (`rate_limited`). Copies of a \
         request, ACK and CANCEL neither wait nor count.",
        "refresh_rate: 1000",
    ),
];

const TRUNKS: &[Key] = &[
    key(
        "trunks",
        "The trunks, in the order in which they are tried. One that those before it leave nothing to is refused.",
        "trunks:\n  - name: carrier\n    match: { peers: [203.0.113.0/24] }\n    action: refresh",
    ),
    key(
        "trunks[].name",
        "The trunk's name in events, alerts and metrics. `default` is taken.",
        "trunks:\n  - name: carrier\n    action: alert",
    ),
    key(
        "trunks[].match",
        "Which dialogs the trunk covers: one of the peers or one of the domains is enough. Without it, all.",
        "trunks:\n  - name: carrier\n    match: { peers: [203.0.113.0/24], domains: [\"*.carrier.example\"] }",
    ),
    key(
        "trunks[].match.peers",
        "Networks of the peer's address, as it stands in the IP header. A server that has sent nothing in a call yet is refreshed \
         only towards where its INVITE came from or into one of these networks (`next_hop_unknown`): name all that the carrier \
         uses.",
        "trunks:\n  - name: carrier\n    match: { peers: [203.0.113.0/24, \"2001:db8::/32\"] }",
    ),
    key(
        "trunks[].match.domains",
        "The host in the peer's URI (From of a call that comes in, To of one that goes out). `*.` stands for all below, and not for \
         the domain itself.",
        "trunks:\n  - name: carrier\n    match: { domains: [carrier.example, \"*.carrier.example\"] }",
    ),
    key("default", "The [rules](#rules) for dialogs that no trunk covers.", "default:\n  action: observe"),
];

const RULES: &[Key] = &[
    key(
        "trunks[].action",
        "What is done where the server lets a session run out: `observe` tells it as events, `alert` raises alerts too, `refresh` \
         sends the refresh in the server's name and alerts where that fails. Nothing is ever sent without `refresh`.",
        "trunks:\n  - name: carrier\n    action: refresh",
    ),
    key(
        "trunks[].method",
        "How sipst refreshes. `auto` sends UPDATE, which moves no media, where the peer's Allow lists it, and else a re-INVITE with \
         the last SDP that the server itself sent; where UPDATE is refused or has no answer, it goes over to re-INVITE. `update` \
         and `reinvite` allow only that one.",
        "trunks:\n  - name: carrier\n    action: refresh\n    method: reinvite",
    ),
    key(
        "trunks[].act_at",
        "The share of the interval that is left to a server that was seen to refresh by itself. One that never was is refreshed at \
         half of it. Never later than 32 s before the peer's deadline.",
        "trunks:\n  - name: carrier\n    action: refresh\n    act_at: 0.7",
    ),
    key(
        "trunks[].min_se",
        "What sipst says as Min-SE in its refreshes: the shortest interval that the peer may answer with. Not below \
         `interval_floor`.",
        "trunks:\n  - name: carrier\n    action: refresh\n    min_se: 10m",
    ),
    key(
        "trunks[].interval_floor",
        "As [`interval_floor`](#interval_floor) at the top of the file, which is its default, for this trunk.",
        "trunks:\n  - name: carrier\n    action: alert\n    interval_floor: 30s",
    ),
    key(
        "trunks[].strict_r12",
        "What a 2xx without Session-Expires does in a call that had a session timer. `false`: the interval that was agreed stays, \
         for many a border controller goes on counting. `true`: the timer is off at once, as RFC 4028 has it to the letter.",
        "trunks:\n  - name: carrier\n    action: alert\n    strict_r12: true",
    ),
    key(
        "trunks[].media_evidence",
        "`auto`: a call is refreshed no more whose server's RTP was seen to leave this host and has stopped for a whole interval, \
         though the call is not on hold (`media_silent`). `off`: it is refreshed all the same; for servers whose RTP crosses no \
         watched interface now and then, or that fall silent for long.",
        "trunks:\n  - name: carrier\n    action: refresh\n    media_evidence: off",
    ),
    key(
        "trunks[].refresh_rate",
        "How many refreshes leave in a second at most to this trunk; `off`: as many as are due. Not above \
         [`refresh_rate`](#refresh_rate) at the top of the file.",
        "trunks:\n  - name: carrier\n    action: refresh\n    refresh_rate: 20",
    ),
    key(
        "trunks[].take_over",
        "Where the peer has to refresh, `true` has sipst do so before it, at two fifths of the interval, and say that the server's \
         side is the refresher from then on: for servers that refuse or ignore what the peer sends, and for peers whose refreshes \
         do not arrive.",
        "trunks:\n  - name: carrier\n    action: refresh\n    take_over: true",
    ),
    key(
        "trunks[].on_moved",
        "What is done where the peer's answer to a re-INVITE of sipst's moves its media or its Contact, which the server has not \
         heard. `alert` tells it and sends that peer no re-INVITE again. `tell-server` also sends the server a re-INVITE in the \
         peer's name, with the peer's own session description.",
        "trunks:\n  - name: carrier\n    action: refresh\n    on_moved: tell-server",
    ),
    key(
        "trunks[].respond",
        "What is done where the server turns the peer's refresh down. `never`: it goes out. `on-reject`: the refusal is held back \
         and sipst answers 200 in the server's name, where the request changes nothing in the call. Needs `action: refresh`.",
        "trunks:\n  - name: carrier\n    action: refresh\n    respond: on-reject",
    ),
    key(
        "trunks[].tcp",
        "What is done in calls whose messages the server sends by TCP. `alert`: they are watched. `refresh`: sipst writes its requests \
         into the server's own connection, where the server is seen to write each message at once; elsewhere `refresh_failed` says \
         why not. Needs `action: refresh` and CAP_SYS_PTRACE: [tcp.md](tcp.md).",
        "attach: tc\ntrunks:\n  - name: carrier\n    action: refresh\n    tcp: refresh",
    ),
    key(
        "trunks[].assume_interval",
        "For a peer that drops calls of a certain age though no session timer was negotiated: that age. sipst refreshes by half of it. \
         Not below `interval_floor`, not above `max_session`.",
        "trunks:\n  - name: carrier\n    action: refresh\n    assume_interval: 300s",
    ),
    key(
        "trunks[].session_expires",
        "The Session-Expires that a refresh asks for where an interval is assumed, so that no shorter timer is made than there was. Not \
         below `assume_interval` and `min_se`.",
        "trunks:\n  - name: carrier\n    action: refresh\n    assume_interval: 300s\n    session_expires: 1h",
    ),
    key(
        "trunks[].mode",
        "Who is to refresh where an interval is assumed. `hold`: sipst. `hand-off`: the peer, for servers that answer re-INVITEs; the \
         first refresh lists no `timer`, so that a peer that knows timers names itself, and asks for `assume_interval` at most. sipst \
         takes that back where the peer's refresh comes to nothing, and leaves nothing to it where this server is known for that. Not \
         beside `take_over: true`.",
        "trunks:\n  - name: carrier\n    action: refresh\n    assume_interval: 300s\n    mode: hand-off",
    ),
    key(
        "trunks[].assist",
        "For a peer that takes and makes no call without session timers (421, or `Require: timer`). While sipst runs, the server's INVITEs \
         list `timer`, and those of the peer's do so instead of demanding it. Goes by the peer's address: no `domains`, in this trunk or \
         above it. Over UDP. Needs `action: refresh`.",
        "trunks:\n  - name: carrier\n    match: { peers: [203.0.113.0/24] }\n    action: refresh\n    assist: true",
    ),
    key(
        "trunks[].keepalive",
        "How often at least something leaves the server's address and port for the peer's while a call is up, so that translators and \
         firewalls between them do not forget the flow: where the server has sent nothing for so long, sipst sends an empty line \
         (CRLFCRLF). 5s to 5m. Over UDP. Needs `action: refresh`.",
        "trunks:\n  - name: carrier\n    action: refresh\n    keepalive: 30s",
    ),
    key(
        "trunks[].on_expired",
        "What is done with a session that has expired. `alert` tells it. `bye` also hangs up on both sides, where nobody has said \
         anything for a whole interval and more and no RTP was seen for 60 s either way, after both sides had sent it. Needs \
         `action: refresh` and `media_evidence: auto`, and every interface that RTP crosses in `interfaces`.",
        "trunks:\n  - name: carrier\n    action: refresh\n    on_expired: bye",
    ),
    key(
        "trunks[].credentials",
        "For peers that answer a refresh with 401 or 407 (`challenged`).",
        "trunks:\n  - name: carrier\n    action: refresh\n    credentials: { username: line1, password_file: carrier.pw }",
    ),
    key(
        "trunks[].credentials.username",
        "The user name that the peer knows.",
        "trunks:\n  - name: carrier\n    action: refresh\n    credentials: { username: line1, password_file: carrier.pw }",
    ),
    key(
        "trunks[].credentials.password_file",
        "A file whose one line is the password; a relative path starts at the configuration's directory. Others may not read it \
         (`chmod 600`, or `640` with root's group or sipst's own). It is read at the start and at each reload.",
        "trunks:\n  - name: carrier\n    action: refresh\n    credentials: { username: line1, password_file: carrier.pw }",
    ),
];

const ALERTS: &[Key] = &[
    key(
        "alerts",
        "Where alerts go beside the log: to each of these. One that does not answer holds no call up. The same alert of one call is told \
         once in five minutes.",
        "alerts:\n  - webhook: { url: \"http://127.0.0.1:9000/sipst\" }",
    ),
    key(
        "alerts[].webhook",
        "Each alert is posted as JSON, as `sipst run --json` prints it, up to three times.",
        "alerts:\n  - webhook: { url: \"http://127.0.0.1:9000/sipst\" }",
    ),
    key(
        "alerts[].webhook.url",
        "The address that alerts are posted to.",
        "alerts:\n  - webhook: { url: \"https://alerts.example/sipst\" }",
    ),
    key(
        "alerts[].webhook.timeout",
        "For one attempt, from connecting to the last byte of the answer.",
        "alerts:\n  - webhook: { url: \"https://alerts.example/sipst\", timeout: 5s }",
    ),
    key(
        "alerts[].alertmanager",
        "A Prometheus Alertmanager, by its API v2: an alert fires there until the session is refreshed or over.",
        "alerts:\n  - alertmanager: { url: \"http://127.0.0.1:9093\" }",
    ),
    key(
        "alerts[].alertmanager.url",
        "Its address, with its route prefix and without the path of its API.",
        "alerts:\n  - alertmanager: { url: \"http://127.0.0.1:9093\" }",
    ),
    key(
        "alerts[].alertmanager.timeout",
        "For one attempt, from connecting to the last byte of the answer.",
        "alerts:\n  - alertmanager: { url: \"http://127.0.0.1:9093\", timeout: 5s }",
    ),
    key(
        "alerts[].alertmanager.runbook",
        "Your own page on what to do, for the annotation `runbook_url`: `#` and the kind of the alert follow. Without it that points to the \
         documentation of sipst.",
        "alerts:\n  - alertmanager: { url: \"http://127.0.0.1:9093\", runbook: \"https://wiki.example/sipst\" }",
    ),
    key(
        "alerts[].exec",
        "A program that is run for each alert, with the alert as JSON on its stdin and its fields in SIPST_... of its environment.",
        "alerts:\n  - exec: { command: [/usr/local/bin/page, --voip] }",
    ),
    key(
        "alerts[].exec.command",
        "The program's absolute path, and its arguments. No shell sees them.",
        "alerts:\n  - exec: { command: [/usr/local/bin/page, --voip] }",
    ),
    key(
        "alerts[].exec.timeout",
        "How long it may run. Then it is ended, with all that it has started.",
        "alerts:\n  - exec: { command: [/usr/local/bin/page], timeout: 30s }",
    ),
    key(
        "alerts[].exec.at_once",
        "How many of it may run at the same time.",
        "alerts:\n  - exec: { command: [/usr/local/bin/page], at_once: 4 }",
    ),
    key(
        "alert_rate",
        "How many alerts of one trunk are told in a minute. Of those above it one line tells the number.",
        "alert_rate: 100",
    ),
    key(
        "journald",
        "Whether events go to systemd's journal with fields. `auto`: where systemd has connected sipst with it.",
        "journald: true",
    ),
    key(
        "recorder",
        "The flight recorder: every packet that sipst sent, took, held back or rewrote (before and after), with the reason as its \
         comment, in pcapng files in `recorder` below `state_dir`. They keep who calls whom and what was negotiated. \
         What the kernel programs do while no daemon lives waits in the ring (three quarters of 4 MiB; what finds no room is counted as \
         `unrecorded`), and the next daemon that has a recorder writes it before anything else.",
        "recorder: { size: 64MiB, files: 4 }",
    ),
    key("recorder.size", "How large one of the files gets.", "recorder: { size: 256MiB }"),
    key("recorder.files", "How many are kept: the oldest goes.", "recorder: { files: 10 }"),
    key(
        "hep",
        "Reports to Homer by HEP version 3, over UDP: the SIP that sipst itself has sent (type 1), and all events as JSON (type 100), both \
         with the Call-ID as correlation id.",
        "hep: { to: \"udp://homer.example:9060\" }",
    ),
    key(
        "hep.to",
        "Where it listens. An IPv6 address stands in brackets. A name is looked up once a minute.",
        "hep: { to: \"udp://[2001:db8::9]:9060\" }",
    ),
    key(
        "hep.capture_id",
        "What this host is called there.",
        "hep: { to: \"udp://homer.example:9060\", capture_id: 17 }",
    ),
    key(
        "hep.password_file",
        "A file whose one line is the password that Homer asks for, as in `credentials`. Without it none is sent.",
        "hep: { to: \"udp://homer.example:9060\", password_file: carrier.pw }",
    ),
];
