//! docs/configuration.md, made of the keys' table and of what the configuration's own readers say to wrong values: so neither a
//! key, nor its type, its limits, its default or what a reload does with it can differ from what the program does.

mod keys;

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use keys::{Key, SECTIONS};

use super::{
    Config, SAMPLE,
    problem::{Position, Problem},
    schema,
    tests::whole_sample,
    tree::{self, Node, Value},
};
use crate::{run::RunConfig, written};

/// Where both are the same.
const TABLE: &str = "st-user/src/config/reference/keys.rs";

/// Rules are read alike in trunks and here.
const DEFAULT: &str = "default";

/// What nobody would name a key.
const NOBODYS: &str = "qqqq";

/// What is no name of anything.
const NO_NAME: &str = "q /q";

/// The longest line of the document.
const WIDTH: usize = 130;

/// The directory that relative paths of the examples start at.
struct Beside(PathBuf);

impl Beside {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!(
            "sipst-reference-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        fs::create_dir_all(&dir).unwrap();
        let file = dir.join("carrier.pw");
        fs::write(&file, "secret\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        Self(dir)
    }

    fn read(&self, root: &Node) -> (Option<Config>, Vec<Problem>) {
        let mut problems = Vec::new();
        let config = schema::config(Some(root.clone()), &self.0, &|_| Vec::new(), &mut problems);
        (config, problems)
    }

    fn good(&self, root: &Node) -> Option<Config> {
        let (config, problems) = self.read(root);
        config.filter(|_| problems.is_empty())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn all() -> impl Iterator<Item = &'static Key> {
    SECTIONS.iter().flat_map(|section| section.keys)
}

/// The last word of a path.
fn name(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

fn scalar(text: &str) -> Value {
    Value::Scalar { text: text.to_owned(), plain: true }
}

fn at_start(value: Value) -> Node {
    Node { at: Position::START, value }
}

/// The example as a file.
fn file(key: &Key) -> Node {
    let text = match key.example.starts_with("interfaces:") {
        true => key.example.to_owned(),
        false => format!("interfaces: [eth0]\n{}", key.example),
    };
    tree::parse(&text).unwrap_or_else(|problem| panic!("{}: {}", key.path, problem.what)).unwrap()
}

/// The mapping that a path's last word is a key of, and that word; of a list the first element that has the rest.
fn holder<'n, 'p>(node: &'n mut Node, path: &'p str) -> Option<(&'n mut Vec<(tree::Key, Node)>, &'p str)> {
    let Value::Map(entries) = &mut node.value else { return None };
    let Some((first, rest)) = path.split_once('.') else { return Some((entries, path)) };
    let (_, below) = entries.iter_mut().find(|(key, _)| key.name == first.trim_end_matches("[]"))?;
    if !matches!(below.value, Value::List(_)) {
        return holder(below, rest);
    }
    let Value::List(elements) = &mut below.value else { return None };
    let at = elements.iter_mut().position(|element| find(element, rest).is_some()).unwrap_or(0);
    holder(elements.get_mut(at)?, rest)
}

fn find<'n>(node: &'n mut Node, path: &str) -> Option<&'n mut Node> {
    let (entries, last) = holder(node, path)?;
    entries.iter_mut().find(|(key, _)| key.name == last.trim_end_matches("[]")).map(|(_, node)| node)
}

/// The same file with another value there.
fn with(root: &Node, path: &str, value: Value) -> Node {
    let mut root = root.clone();
    find(&mut root, path).unwrap_or_else(|| panic!("the example of `{path}` lacks it")).value = value;
    root
}

fn without(root: &Node, path: &str) -> Node {
    let mut root = root.clone();
    if let Some((entries, last)) = holder(&mut root, path) {
        entries.retain(|(key, _)| key.name != last);
    }
    root
}

/// What is said about the key with this value.
fn answer(beside: &Beside, root: &Node, path: &str, value: Value) -> Option<String> {
    let (_, problems) = beside.read(&with(root, path, value));
    let about = format!("`{}` ", name(path));
    let problem = problems.into_iter().find(|problem| problem.what.starts_with(&about))?;
    Some(format!("{}: {}", problem.what.strip_prefix(&about)?, problem.cure))
}

/// What kind of value a key has.
#[derive(PartialEq)]
enum Kind {
    Single,
    List,
    Map,
    /// A list whose elements have keys.
    Maps,
}

fn kind(beside: &Beside, root: &Node, path: &str) -> Kind {
    let said = |value| answer(beside, root, path, value).unwrap_or_default();
    let to_single = said(scalar(NOBODYS));
    if to_single.contains("a mapping is expected") {
        return Kind::Map;
    }
    if !to_single.contains("a list is expected") {
        return Kind::Single;
    }
    match said(Value::List(vec![at_start(scalar(NOBODYS))])).contains("a mapping is expected") {
        true => Kind::Maps,
        false => Kind::List,
    }
}

/// What values it takes, in the words of its reader.
fn takes(beside: &Beside, root: &Node, path: &str) -> String {
    let is_list = match kind(beside, root, path) {
        Kind::Map => return "a mapping of the keys below".into(),
        Kind::Maps => return "a list of mappings with the keys below".into(),
        Kind::Single => false,
        Kind::List => true,
    };
    let one = one(|text| match is_list {
        true => answer(beside, root, path, Value::List(vec![at_start(scalar(text))])),
        false => answer(beside, root, path, scalar(text)),
    });
    if !is_list {
        let or = if known(beside, root, path).is_some() { ", or a mapping of the keys below" } else { "" };
        return format!("{one}{or}");
    }
    // The limit is told of a list that is too long.
    let long = Value::List((0..70_000).map(|_| at_start(scalar(NOBODYS))).collect());
    let most = answer(beside, root, path, long).unwrap_or_default();
    let most = most.split_once("keep it to ").map_or(String::new(), |(_, most)| format!(", {most} at most"));
    format!("a list{most}, each {one}")
}

/// What a single value has to be, from what is said to wrong ones.
fn one(said: impl Fn(&str) -> Option<String>) -> String {
    let words = said(NOBODYS).or_else(|| said(NO_NAME)).unwrap_or_default();
    if let Some((_, choices)) = words.split_once("use one of ") {
        return choices.split(", ").map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    }
    if words.contains("no duration") {
        let range = said("9999999d").unwrap_or_default();
        let range = range.split_once("use ").map(|(_, range)| range).unwrap_or_default();
        let whole = said("61500ms").is_some_and(|words| words.contains("whole seconds"));
        return format!("a duration with its unit, {range}{}", if whole { ", whole seconds" } else { "" });
    }
    let told = [NOBODYS, NO_NAME].map(|text| format!("is `{text}`, which is "));
    let Some(words) = told.iter().find_map(|told| words.strip_prefix(told)) else { return "text".into() };
    let (what, how) = words.split_once(": ").unwrap_or((words, ""));
    let what = match (what.strip_prefix("not "), what.strip_prefix("no ")) {
        (Some(what), _) => what.to_owned(),
        (None, Some(what)) if what.starts_with(['a', 'e', 'i', 'o', 'u', 'h']) => format!("an {what}"),
        (None, Some(what)) => format!("a {what}"),
        (None, None) => what.to_owned(),
    };
    format!("{what} ({})", how.strip_prefix("write ").or(how.strip_prefix("use ")).unwrap_or(how))
}

/// As it would be written in a line.
fn shown(node: &Node) -> String {
    match &node.value {
        Value::Null => "none".into(),
        Value::Scalar { text, .. } => text.clone(),
        Value::List(nodes) => format!("[{}]", nodes.iter().map(shown).collect::<Vec<_>>().join(", ")),
        Value::Map(entries) => {
            let entries = entries.iter().map(|(key, node)| format!("{}: {}", key.name, shown(node)));
            format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
        }
    }
}

/// What holds where it is not written.
fn default(beside: &Beside, root: &Node, path: &str) -> String {
    let (_, problems) = beside.read(&without(root, path));
    if problems.iter().any(|problem| problem.what == format!("`{}` is missing", name(path))) {
        return "none: it has to be given".into();
    }
    let mut sample = tree::parse(SAMPLE).unwrap_or_else(|problem| panic!("{}", problem.what)).unwrap();
    let places = [Some(path.to_owned()), path.strip_prefix("trunks[].").map(|rule| format!("{DEFAULT}.{rule}"))];
    for place in places.into_iter().flatten() {
        if let Some(node) = find(&mut sample, &place) {
            return match node.value {
                Value::Map(_) => "as its keys say".into(),
                Value::Null | Value::Scalar { .. } | Value::List(_) => format!("`{}`", shown(node)),
            };
        }
    }
    // In an example of the sample's it may be the default.
    let mut whole = tree::parse(&whole_sample()).unwrap_or_else(|problem| panic!("{}", problem.what)).unwrap();
    let there = find(&mut whole, path).unwrap_or_else(|| {
        panic!(
            "config/sipst.yaml lacks `{path}`: add it there, with a comment, and its default or an example behind `#`"
        )
    });
    let same = beside.good(&with(root, path, there.value.clone())) == beside.good(&without(root, path));
    if same { format!("`{}`", shown(there)) } else { "none".into() }
}

/// What a running daemon does with another value.
fn reload(beside: &Beside, root: &Node, path: &str) -> &'static str {
    let (Some(now), Some(before)) = (beside.good(root), before(beside, root, path)) else {
        // Nothing else can stand there: it comes and goes with what it belongs to.
        return path
            .rsplit_once('.')
            .map_or("at once", |(above, _)| reload(beside, root, above.trim_end_matches("[]")));
    };
    let ran = |config: &Config| RunConfig::new(config, None);
    if !ran(&before).fixed_against(&ran(&now)).is_empty() {
        "refused: it takes a restart"
    } else if before.policy != now.policy {
        "from each call's next moment on"
    } else {
        "at once"
    }
}

/// The configuration without the key, or with something else where it has to be there.
fn before(beside: &Beside, root: &Node, path: &str) -> Option<Config> {
    beside.good(&without(root, path)).or_else(|| {
        let mut root = root.clone();
        match &mut find(&mut root, path)?.value {
            Value::Scalar { text, .. } => text.push('2'),
            Value::List(nodes) => drop(nodes.pop()),
            Value::Null | Value::Map(_) => return None,
        }
        beside.good(&root)
    })
}

/// Lines of words of `WIDTH` at most.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        if let Some(line) = lines.last_mut().filter(|line| line.len() + 1 + word.len() <= WIDTH || line.is_empty()) {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines.join("\n")
}

fn document(beside: &Beside) -> String {
    let mut text = String::from(
        "<!-- Generated from st-user/src/config by its tests: SIPST_WRITE_DOCS=1 cargo test -p sipst --lib reference -->\n\n\
         # Configuration\n\n\
         One YAML file, `/etc/sipst/config.yaml` for the service. Only `interfaces` has to be there, and what comes of that alone is a \
         daemon\nthat watches and alerts, and sends nothing. `sipst generate-config` prints every key with its default, `sipst \
         check-config FILE` tells all\nmistakes at once, with line and column, and `sipst reload` (or SIGHUP) has a running daemon take \
         the file anew, whole or not at all\n([control.md](control.md#reload)).\n\n\
         Durations are a number and its unit (`90s`, `5m`, `24h`). YAML's anchors, aliases and tags are not taken.\n",
    );
    for section in SECTIONS {
        let _ = write!(text, "\n## {}\n", section.title);
        if !section.about.is_empty() {
            let _ = write!(text, "\n{}\n", wrapped(section.about));
        }
        for key in section.keys {
            let root = file(key);
            let _ = write!(
                text,
                "\n### `{}`\n\n- Takes: {}.\n- Default: {}.\n- Reload: {}.\n\n{}\n\n```yaml\n{}\n```\n",
                key.path,
                takes(beside, &root, key.path),
                default(beside, &root, key.path),
                reload(beside, &root, key.path),
                wrapped(key.means),
                key.example
            );
        }
    }
    text
}

/// The keys of the mapping that can stand at a path, by itself or in a list, and from where they go on; none where none can. The
/// empty path is the file's.
fn known(beside: &Beside, root: &Node, path: &str) -> Option<(String, Vec<String>)> {
    let odd = || Value::Map(vec![(tree::Key { at: Position::START, name: NOBODYS.into() }, at_start(scalar("1")))]);
    let places = [(path.to_owned(), odd()), (format!("{path}[]"), Value::List(vec![at_start(odd())]))];
    places.into_iter().find_map(|(place, value)| {
        let (_, problems) = beside.read(&if path.is_empty() { at_start(value) } else { with(root, path, value) });
        let unknown = problems.into_iter().find(|problem| problem.what == format!("unknown key `{NOBODYS}`"))?;
        let keys = unknown.cure.strip_prefix("the keys here are ")?.split(", ").map(str::to_owned).collect();
        Some((place, keys))
    })
}

#[test]
fn every_key_is_in_the_document_and_every_key_of_the_document_is_taken() {
    let beside = Beside::new();
    let mut missing = Vec::new();
    let mut look = |root: &Node, path: &str| {
        let (place, keys) = known(&beside, root, path).unwrap_or_default();
        for key in keys {
            let full = if place.is_empty() { key } else { format!("{place}.{key}") };
            if !all().any(|known| known.path == full) {
                missing.push(full);
            }
        }
    };
    look(&at_start(Value::Map(Vec::new())), "");
    for key in all().filter(|key| key.path != DEFAULT) {
        look(&file(key), key.path);
    }
    assert!(
        missing.is_empty(),
        "docs/configuration.md says nothing about: {missing:?}\nadd a line `key(path, meaning, example)` for each to {TABLE}, \
         then SIPST_WRITE_DOCS=1 cargo test -p sipst --lib reference"
    );
}

#[test]
fn rules_are_the_same_in_a_trunk_and_in_the_default() {
    let beside = Beside::new();
    let keys = |text: &str, path: &str| {
        let root = tree::parse(&format!("interfaces: [eth0]\n{text}")).ok().flatten().unwrap();
        known(&beside, &root, path).unwrap().1
    };
    let mut of_trunks = keys("trunks: [{name: a}]", "trunks");
    of_trunks.retain(|key| key != "name" && key != "match");
    assert_eq!(of_trunks, keys("default: {action: alert}", DEFAULT));
}

#[test]
fn every_example_is_right_and_changes_something() {
    let beside = Beside::new();
    for key in all() {
        let root = file(key);
        let (_, problems) = beside.read(&root);
        let problems: Vec<_> = problems.iter().map(|problem| format!("{}: {}", problem.what, problem.cure)).collect();
        assert!(problems.is_empty(), "the example of `{}` in {TABLE} is wrong: {problems:?}", key.path);
        let differs = before(&beside, &root, key.path) != beside.good(&root);
        assert!(differs, "the example of `{}` in {TABLE} says its default: give another value", key.path);
    }
}

#[test]
fn the_document_says_what_the_code_does() {
    written::holds("docs/configuration.md", &document(&Beside::new()));
}

/// docs/carriers.md.
fn carriers() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/carriers.md")).unwrap()
}

#[test]
fn every_key_of_a_trunk_is_for_some_trouble_with_a_carrier() {
    let text = carriers();
    let missing: Vec<_> = all()
        .filter_map(|key| key.path.strip_prefix("trunks[]."))
        .filter(|key| !key.contains('.') && !text.contains(&format!("`{key}`")) && !text.contains(&format!("`{key}:")))
        .collect();
    assert!(
        missing.is_empty(),
        "docs/carriers.md says nothing about the trunk's {missing:?}: which trouble is each for?"
    );
}

#[test]
fn every_failure_of_the_field_has_its_place_under_carriers() {
    let text = carriers();
    let named: Vec<&str> = text.split(|letter: char| !letter.is_alphanumeric()).collect();
    let missing: Vec<_> =
        (1..=26).map(|number| format!("F{number}")).filter(|name| !named.contains(&&**name)).collect();
    assert!(missing.is_empty(), "docs/carriers.md says nothing about {missing:?} of docs/rules.md");
}
