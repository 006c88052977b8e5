//! YAML text into a tree that knows the position of every key and value.
//!
//! Plain YAML only: no anchors, aliases, tags or second documents. What a configuration gains by them it loses in
//! messages that point to the wrong line.

use std::borrow::Cow;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};

use super::problem::{Position, Problem};

/// How deep lists and mappings may lie in each other.
const MAX_DEPTH: usize = 16;
/// How many keys and values a file may have.
const MAX_NODES: usize = 20_000;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) at: Position,
    pub(super) value: Value,
}

/// What can stand there.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// No value: `key:` with nothing behind it, `~` or `null`.
    Null,
    /// As written; `plain` where it was not in quotes.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) at: Position,
    pub(super) name: String,
}

impl Value {
    /// What it is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Scalar { .. } => "a single value",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// The one document in `text`, `None` where there is nothing but comments.
///
/// # Errors
/// The first place that is no plain YAML: behind it nothing can be trusted.
pub(super) fn parse(text: &str) -> Result<Option<Node>, Problem> {
    let mut builder = Builder { parser: Parser::new_from_str(text), nodes: 0, depth: 0 };
    let mut root = None;
    loop {
        let (event, at) = builder.next()?;
        match event {
            Event::StreamEnd => return Ok(root),
            Event::DocumentStart(_) if root.is_some() => {
                return Err(Problem::new(at, "a second document begins here", "keep one, without `---` after it"));
            }
            Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
            Event::Alias(_)
            | Event::Scalar(..)
            | Event::SequenceStart(..)
            | Event::SequenceEnd
            | Event::MappingStart(..)
            | Event::MappingEnd => root = Some(builder.node(event, at)?),
        }
    }
}

struct Builder<'a> {
    parser: Parser<'a, StrInput<'a>>,
    nodes: usize,
    depth: usize,
}

impl<'a> Builder<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Position), Problem> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, start(&span))),
            Some(Err(error)) => Err(syntax(&error)),
            None => Ok((Event::StreamEnd, Position::START)),
        }
    }

    fn node(&mut self, event: Event<'a>, at: Position) -> Result<Node, Problem> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(Problem::new(at, format!("more than {MAX_NODES} values"), "make the file smaller"));
        }
        let value = match event {
            Event::Scalar(text, style, anchor, tag) => {
                plain_yaml(at, anchor, tag.as_ref())?;
                scalar(text, style)
            }
            Event::SequenceStart(anchor, tag) => {
                plain_yaml(at, anchor, tag.as_ref())?;
                self.descend(at, Self::list)?
            }
            Event::MappingStart(anchor, tag) => {
                plain_yaml(at, anchor, tag.as_ref())?;
                self.descend(at, Self::map)?
            }
            Event::Alias(_) => return Err(Problem::new(at, "an alias", "write the value out")),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::SequenceEnd
            | Event::MappingEnd => return Err(Problem::new(at, "a value is missing here", "give one")),
        };
        Ok(Node { at, value })
    }

    fn descend(
        &mut self,
        at: Position,
        read: impl FnOnce(&mut Self) -> Result<Value, Problem>,
    ) -> Result<Value, Problem> {
        if self.depth == MAX_DEPTH {
            return Err(Problem::new(at, format!("more than {MAX_DEPTH} levels"), "no option lies that deep"));
        }
        self.depth += 1;
        let value = read(self);
        self.depth -= 1;
        value
    }

    fn list(&mut self) -> Result<Value, Problem> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::List(items)),
                (event, at) => items.push(self.node(event, at)?),
            }
        }
    }

    fn map(&mut self) -> Result<Value, Problem> {
        let mut entries = Vec::new();
        loop {
            let (event, at) = self.next()?;
            if event == Event::MappingEnd {
                return Ok(Value::Map(entries));
            }
            let Node { at, value: Value::Scalar { text: name, .. } } = self.node(event, at)? else {
                return Err(Problem::new(at, "a key that is no single word", "write `key: value`"));
            };
            let (event, value_at) = self.next()?;
            let value = self.node(event, value_at)?;
            entries.push((Key { at, name }, value));
        }
    }
}

fn scalar(text: Cow<'_, str>, style: ScalarStyle) -> Value {
    let plain = style == ScalarStyle::Plain;
    match &*text {
        "" | "~" | "null" | "Null" | "NULL" if plain => Value::Null,
        _ => Value::Scalar { text: text.into_owned(), plain },
    }
}

fn plain_yaml(at: Position, anchor: usize, tag: Option<&Cow<'_, Tag>>) -> Result<(), Problem> {
    match (anchor, tag) {
        (0, None) => Ok(()),
        (0, Some(_)) => Err(Problem::new(at, "a tag (`!...`)", "take it away, or put the value in quotes")),
        (_, _) => Err(Problem::new(at, "an anchor (`&...`)", "take it away, or put the value in quotes")),
    }
}

fn start(span: &Span) -> Position {
    Position { line: span.start.line(), column: span.start.col() + 1 }
}

fn syntax(error: &ScanError) -> Problem {
    let at = Position { line: error.marker().line(), column: error.marker().col() + 1 };
    Problem::new(at, format!("not YAML ({})", error.info()), "check indentation, brackets and quotes here and above")
}
