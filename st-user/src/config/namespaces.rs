//! `namespaces:`: the network namespaces, containers' for the most part, in which the interfaces are meant.

use super::{
    fields::{Fields, Given, nodes, number, parsed},
    problem::Problem,
    schema::{absolute, interfaces},
};
use crate::{container::Target, kernel::Group};

const MAX_NAMESPACES: usize = 16;

/// As long as what pins are named by may be.
const MAX_NAME: usize = 32;

const MAX_CONTAINER: usize = 255;

/// Process ids of Linux (`PID_MAX_LIMIT`).
const PIDS: std::ops::RangeInclusive<u32> = 1..=4_194_304;

/// The groups, each with `base` for its interfaces where it names none of its own.
pub(super) fn namespaces(given: Given<'_>, base: &[String], problems: &mut Vec<Problem>) -> Option<Vec<Group>> {
    let mut groups: Vec<Group> = Vec::new();
    let mut sound = true;
    for node in nodes(given, MAX_NAMESPACES, problems)? {
        let Some(group) = group(Given { name: given.name, node }, base, problems) else {
            sound = false;
            continue;
        };
        if groups.iter().any(|other| other.name == group.name) {
            let what = format!("`namespaces` names `{}` twice", group.name);
            problems.push(Problem::new(node.at, what, "give each a name of its own"));
            sound = false;
        } else if let Some(other) = groups.iter().find(|other| other.target == group.target) {
            let what = format!("`{}` and `{}` are the same namespace: {}", other.name, group.name, group.target);
            problems.push(Problem::new(node.at, what, "keep one, with the interfaces of both"));
            sound = false;
        } else {
            groups.push(group);
        }
    }
    sound.then_some(groups)
}

fn group(given: Given<'_>, base: &[String], problems: &mut Vec<Problem>) -> Option<Group> {
    let mut fields = Fields::open(given, problems)?;
    let name = parsed("a name of letters, digits, `_` and `-`, 32 at most", "a name such as `sip`", |text| {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        (text.len() <= MAX_NAME && text.bytes().all(good)).then(|| text.to_owned())
    });
    let name = fields.need("name", "give it one: `sipst status` and the metrics show it", name);
    let container = parsed(
        "the name of a container",
        "its name, a pattern such as `livekit-sip-*`, or in Kubernetes POD/CONTAINER",
        |text| {
            let bad = |byte: u8| byte.is_ascii_whitespace() || byte.is_ascii_control();
            (text.len() <= MAX_CONTAINER && !text.bytes().any(bad)).then(|| Target::Container(text.to_owned()))
        },
    );
    let container = fields.get("container", container);
    let netns = parsed("an absolute path", "a path such as /run/netns/sip", |text| absolute(text).map(Target::File));
    let netns = fields.get("netns", netns);
    let pid = fields.get("pid", number(PIDS, "the id of a process", "a number from 1 to 4194304"));
    let own = fields.get("interfaces", interfaces);
    let sound = ["container", "netns", "pid", "interfaces"].iter().all(|key| fields.sound(key));
    let targets: Vec<Target> = [container, netns, pid.map(Target::Process)].into_iter().flatten().collect();
    let at = fields.at();
    if sound && targets.len() != 1 {
        let what = "a namespace needs one of `container`, `netns` and `pid`";
        fields.note(at, what, if targets.is_empty() { "say which it is" } else { "keep one of them" });
    }
    fields.close();
    let mut targets = targets.into_iter();
    let (Some(target), None) = (targets.next(), targets.next()) else { return None };
    let interfaces = own.map_or(base.to_vec(), |own| own.into_iter().map(|placed| placed.value).collect());
    Some(Group { name: name?, target, interfaces }).filter(|group| sound && !group.interfaces.is_empty())
}
