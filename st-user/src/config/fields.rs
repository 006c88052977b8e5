//! Reading options out of the tree: every mistake is noted, none stops the reading.

use std::{ops::RangeInclusive, str::FromStr, time::Duration};

use st_core::Rate;

use super::{
    problem::{Position, Problem},
    tree::{Key, Node, Value},
};

/// How alike an unknown key must be to a known one to be taken for a slip of the pen (Jaro-Winkler, 0 to 1).
const ALIKE: f64 = 0.8;

/// The options of one mapping, taken one by one; what is left over at the end is unknown.
pub(super) struct Fields<'a> {
    at: Position,
    entries: Vec<(&'a Key, &'a Node)>,
    known: Vec<&'static str>,
    bad: Vec<&'static str>,
    problems: &'a mut Vec<Problem>,
}

/// A value and the option it belongs to.
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    pub(super) name: &'a str,
    pub(super) node: &'a Node,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Placed<T> {
    pub(super) at: Position,
    pub(super) value: T,
}

impl<'a> Fields<'a> {
    /// The options in `given`. Notes keys that are there twice.
    pub(super) fn open(given: Given<'a>, problems: &'a mut Vec<Problem>) -> Option<Self> {
        let Value::Map(map) = &given.node.value else {
            given.not("a mapping", "write `key: value` lines", problems);
            return None;
        };
        let mut entries: Vec<(&Key, &Node)> = Vec::new();
        for (key, node) in map {
            match entries.iter().find(|(first, _)| first.name == key.name) {
                Some((first, _)) => problems.push(Problem::new(
                    key.at,
                    format!("`{}` is there twice, first in line {}", key.name, first.at.line),
                    "keep one",
                )),
                None => entries.push((key, node)),
            }
        }
        Some(Self { at: given.node.at, entries, known: Vec::new(), bad: Vec::new(), problems })
    }

    /// The option `name`; `None` where it is absent or, which is noted, wrong.
    pub(super) fn get<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(Given<'_>, &mut Vec<Problem>) -> Option<T>,
    ) -> Option<T> {
        self.known.push(name);
        let (key, node) = self.find(name)?;
        let value = match node.value {
            Value::Null => {
                self.note(key.at, format!("`{name}` has no value"), "give it one, or take the line away");
                None
            }
            Value::Scalar { .. } | Value::List(_) | Value::Map(_) => read(Given { name, node }, self.problems),
        };
        if value.is_none() {
            self.bad.push(name);
        }
        value
    }

    /// As [`Self::get`], for an option that has to be there.
    pub(super) fn need<T>(
        &mut self,
        name: &'static str,
        cure: &str,
        read: impl FnOnce(Given<'_>, &mut Vec<Problem>) -> Option<T>,
    ) -> Option<T> {
        if self.find(name).is_none() {
            self.note(self.at, format!("`{name}` is missing"), cure);
        }
        self.get(name, read)
    }

    /// Where the option's key stands, if it is there.
    pub(super) fn key_at(&self, name: &str) -> Option<Position> {
        self.find(name).map(|(key, _)| key.at)
    }

    /// Where the option's value stands, if it is there.
    pub(super) fn value_at(&self, name: &str) -> Option<Position> {
        self.find(name).map(|(_, node)| node.at)
    }

    /// Where the mapping begins.
    pub(super) fn at(&self) -> Position {
        self.at
    }

    /// Whether the option was right or absent.
    pub(super) fn sound(&self, name: &str) -> bool {
        !self.bad.contains(&name)
    }

    /// How many problems there are so far.
    pub(super) fn problems(&self) -> usize {
        self.problems.len()
    }

    /// Notes a problem.
    pub(super) fn note(&mut self, at: Position, what: impl Into<String>, cure: impl Into<String>) {
        self.problems.push(Problem::new(at, what, cure));
    }

    /// Notes the keys that nobody asked for.
    pub(super) fn close(self) {
        for (key, _) in self.entries.iter().filter(|(key, _)| !self.known.contains(&key.name.as_str())) {
            self.problems.push(Problem::new(key.at, format!("unknown key `{}`", key.name), meant(key, &self.known)));
        }
    }

    fn find(&self, name: &str) -> Option<(&'a Key, &'a Node)> {
        self.entries.iter().find(|(key, _)| key.name == name).copied()
    }
}

impl Given<'_> {
    /// Notes that the value is of the wrong kind.
    fn not(self, expected: &str, cure: impl Into<String>, problems: &mut Vec<Problem>) {
        let what = format!("`{}` is {} where {expected} is expected", self.name, self.node.value.kind());
        problems.push(Problem::new(self.node.at, what, cure));
    }

    /// Notes what is wrong with the value.
    pub(super) fn wrong(self, what: impl AsRef<str>, cure: impl Into<String>, problems: &mut Vec<Problem>) {
        problems.push(Problem::new(self.node.at, format!("`{}` {}", self.name, what.as_ref()), cure));
    }
}

/// Any single value, as written.
pub(super) fn text(given: Given<'_>, problems: &mut Vec<Problem>) -> Option<String> {
    match &given.node.value {
        Value::Scalar { text, .. } if !text.is_empty() => Some(text.clone()),
        Value::Null | Value::Scalar { .. } => {
            given.wrong("is empty", "give it a value", problems);
            None
        }
        Value::List(_) | Value::Map(_) => {
            given.not("a single value", format!("write `{}: value`", given.name), problems);
            None
        }
    }
}

/// What `parse` makes of a single value; `expected` tells what that is, `example` how it looks.
pub(super) fn parsed<T>(
    expected: &str,
    example: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> impl Fn(Given<'_>, &mut Vec<Problem>) -> Option<T> {
    move |given, problems| {
        let text = text(given, problems)?;
        let value = parse(&text);
        if value.is_none() {
            given.wrong(format!("is `{text}`, which is not {expected}"), format!("write {example}"), problems);
        }
        value
    }
}

/// A number in the range, not in quotes.
pub(super) fn number<T: FromStr + PartialOrd>(
    range: RangeInclusive<T>,
    expected: &str,
    example: &str,
) -> impl Fn(Given<'_>, &mut Vec<Problem>) -> Option<T> {
    let read = parsed(expected, example, move |text| text.parse().ok().filter(|value| range.contains(value)));
    move |given, problems| {
        if let Value::Scalar { text, plain: false } = &given.node.value {
            given.wrong("is text where a number is expected", format!("write {text} without quotes"), problems);
            return None;
        }
        read(given, problems)
    }
}

/// A number of refreshes a second, or `off`.
pub(super) fn rate(given: Given<'_>, problems: &mut Vec<Problem>) -> Option<Rate> {
    let text = text(given, problems)?;
    if text == "off" {
        return Some(Rate::OFF);
    }
    let most = Rate::MOST;
    let (what, cure) = match text.parse::<u32>() {
        Ok(0) => (
            "is 0, with which no refresh would ever leave".to_owned(),
            "use `action: alert` to send none, or `off` for no limit".to_owned(),
        ),
        Ok(number) => match Rate::new(number) {
            Some(rate) => return Some(rate),
            None => (format!("is {number}, more than can be kept"), format!("use 1 to {most}, or `off` for no limit")),
        },
        Err(_) => (
            format!("is `{text}`, which is no number of refreshes a second"),
            format!("use a whole number from 1 to {most}, or `off` for no limit"),
        ),
    };
    given.wrong(what, cure, problems);
    None
}

/// One of a few words.
pub(super) fn choice<T: Copy>(words: &[(&str, T)]) -> impl Fn(Given<'_>, &mut Vec<Problem>) -> Option<T> {
    move |given, problems| {
        let text = text(given, problems)?;
        let value = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if value.is_none() {
            let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            given.wrong(format!("is `{text}`"), format!("use one of {}", all.join(", ")), problems);
        }
        value
    }
}

/// `true` or `false`.
pub(super) fn boolean(given: Given<'_>, problems: &mut Vec<Problem>) -> Option<bool> {
    choice(&[("true", true), ("false", false)])(given, problems)
}

/// A duration with its unit, within the range.
pub(super) fn duration(range: RangeInclusive<Duration>) -> impl Fn(Given<'_>, &mut Vec<Problem>) -> Option<Duration> {
    move |given, problems| {
        let text = text(given, problems)?;
        let (least, most) = (humantime::format_duration(*range.start()), humantime::format_duration(*range.end()));
        let cure = match humantime::parse_duration(&text) {
            Ok(value) if range.contains(&value) => return Some(value),
            Ok(_) => format!("use {least} to {most}"),
            Err(_) if text.parse::<f64>().is_ok() => format!("add the unit, such as `{text}s`"),
            Err(_) => "write a number and its unit, such as 90s, 5m or 24h".to_owned(),
        };
        given.wrong(format!("is `{text}`, which is no duration that can be used"), cure, problems);
        None
    }
}

/// As [`duration`], whole seconds only.
pub(super) fn seconds(range: RangeInclusive<Duration>) -> impl Fn(Given<'_>, &mut Vec<Problem>) -> Option<Duration> {
    let read = duration(range);
    move |given, problems| {
        let value = read(given, problems)?;
        if value.subsec_nanos() != 0 {
            given.wrong("has a fraction of a second", "use whole seconds: SIP has no others", problems);
            return None;
        }
        Some(value)
    }
}

/// What `read` finds, or `None` for `off`.
pub(super) fn off_or<T>(
    read: impl Fn(Given<'_>, &mut Vec<Problem>) -> Option<T>,
) -> impl Fn(Given<'_>, &mut Vec<Problem>) -> Option<Option<T>> {
    move |given, problems| match &given.node.value {
        Value::Scalar { text, .. } if text == "off" => Some(None),
        Value::Null | Value::Scalar { .. } | Value::List(_) | Value::Map(_) => read(given, problems).map(Some),
    }
}

/// The nodes of a list of up to `most`.
pub(super) fn nodes<'a>(given: Given<'a>, most: usize, problems: &mut Vec<Problem>) -> Option<&'a [Node]> {
    let Value::List(nodes) = &given.node.value else {
        let cure = match &given.node.value {
            Value::Scalar { text, .. } => format!("write `{}: [{text}]`", given.name),
            Value::Null | Value::List(_) | Value::Map(_) => format!("write `{}:` and `- ...` lines", given.name),
        };
        given.not("a list", cure, problems);
        return None;
    };
    if nodes.len() > most {
        given.wrong(format!("has {} entries", nodes.len()), format!("keep it to {most}"), problems);
        return None;
    }
    Some(nodes)
}

/// A list of up to `most` values, none of them wrong. Notes values that are there twice.
pub(super) fn list<T: PartialEq>(
    most: usize,
    item: impl Fn(Given<'_>, &mut Vec<Problem>) -> Option<T>,
) -> impl Fn(Given<'_>, &mut Vec<Problem>) -> Option<Vec<Placed<T>>> {
    move |given, problems| {
        let mut values: Vec<Placed<T>> = Vec::new();
        let mut sound = true;
        for node in nodes(given, most, problems)? {
            let given = Given { name: given.name, node };
            let Some(value) = item(given, problems) else {
                sound = false;
                continue;
            };
            match values.iter().find(|earlier| earlier.value == value) {
                Some(first) => {
                    let what = format!("names the same twice, first in line {}", first.at.line);
                    given.wrong(what, "keep one", problems);
                }
                None => values.push(Placed { at: node.at, value }),
            }
        }
        sound.then_some(values)
    }
}

fn meant(key: &Key, known: &[&'static str]) -> String {
    let likeness = |name: &str| strsim::jaro_winkler(&key.name.to_lowercase(), name);
    let best = known.iter().copied().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match best.filter(|name| likeness(name) >= ALIKE) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("the keys here are {}", known.join(", ")),
    }
}
