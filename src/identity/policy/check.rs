//! A rule as a tree of checks: built once, asked often.

use std::borrow::Cow;
use std::fmt::{self, Display, Formatter, Write as _};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::fact::Unanswerable;
use super::remote::Answers;
use super::rules::Rule;
use super::target::{Credentials, Target};

/// What stands for itself in a URL, whatever part of it that is.
const UNRESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Something that holds for a caller and a target, or does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Check {
    /// `@`
    Always,
    /// `!`
    Never,
    /// `not a`
    Not(Box<Check>),
    /// `a and b and ..`
    All(Vec<Check>),
    /// `a or b or ..`
    Any(Vec<Check>),
    /// `role:name`
    Role(Template),
    /// `rule:name`
    Rule {
        /// Its name.
        name: String,
        /// Where it is among the rules; set when they are put together. `None`: there is no such rule.
        index: Option<usize>,
    },
    /// `left:right`, anything else
    Same {
        /// What is compared.
        left: Left,
        /// What it is compared with.
        right: Template,
    },
    /// `http://host/path`: what a server says
    Remote {
        /// Whom to ask, with attributes of the target behind the host.
        url: Template,
        /// Host, and port if there is one, in lower case.
        server: String,
    },
}

/// The left side of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Left {
    /// `'text'`, `True`, `5`: as it is written, and the text that it means.
    Literal { written: String, text: String },
    /// A credential, or a part of one: `project_id`, `token.domain.id`.
    Credential(Vec<String>),
}

/// The right side of a check: text with attributes of the target in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template(pub(super) Vec<Part>);

/// A part of a [`Template`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// Text as it is.
    Text(String),
    /// `%(name)s`
    Attribute(String),
}

/// What a check is asked about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question<'a> {
    /// The rules that checks refer to.
    pub(super) rules: &'a [Rule],
    /// Who acts.
    pub(super) credentials: Credentials<'a>,
    /// What on.
    pub(super) target: Target<'a>,
    /// What servers have said about it so far.
    pub(super) answers: &'a Answers,
}

/// Why there is no verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Open {
    /// There never will be.
    Unanswerable,
    /// The server of this URL has to be asked first.
    Ask(String),
}

impl From<Unanswerable> for Open {
    fn from(_: Unanswerable) -> Self {
        Self::Unanswerable
    }
}

impl Question<'_> {
    /// Whether the check holds. Checks are asked from left to right, and no more of them than needed. Recursion is
    /// bounded: rules that nest too deep or refer to themselves are refused when they are put together.
    pub(super) fn holds(&self, check: &Check) -> Result<bool, Open> {
        match check {
            Check::Always => Ok(true),
            Check::Never => Ok(false),
            Check::Not(check) => self.holds(check).map(|holds| !holds),
            Check::All(checks) => {
                for check in checks {
                    if !self.holds(check)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Check::Any(checks) => {
                for check in checks {
                    if self.holds(check)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Check::Role(role) => match self.fill(role) {
                None => Ok(false),
                Some(role) => Ok(self.credentials.has_role(&lower(&role))?),
            },
            Check::Rule { index, .. } => match index.and_then(|index| self.rules.get(index)) {
                None => Ok(false),
                Some(rule) => self.holds(&rule.check),
            },
            Check::Same { left, right } => {
                // An attribute that the target has not is the same as nothing.
                let Some(wanted) = self.fill(right) else { return Ok(false) };
                match left {
                    Left::Literal { text, .. } => Ok(*text == wanted),
                    Left::Credential(path) => {
                        let Some((name, rest)) = path.split_first() else { return Ok(false) };
                        Ok(self.credentials.get(name).map_or(Ok(false), |fact| fact.is(rest, &wanted))?)
                    }
                }
            }
            Check::Remote { url, .. } => {
                let url = self.url(url).ok_or(Open::Unanswerable)?;
                match self.answers.get(&url) {
                    Some(answer) => Ok((*answer)?),
                    None => Err(Open::Ask(url)),
                }
            }
        }
    }

    /// The template with the target's attributes in it; `None` if it has not all of them.
    pub(super) fn fill<'t>(&'t self, template: &'t Template) -> Option<Cow<'t, str>> {
        let part = |part: &'t Part| match part {
            Part::Text(text) => Some(Cow::Borrowed(text.as_str())),
            Part::Attribute(name) => self.target.get(name, self.credentials).map(|fact| fact.text()),
        };
        match template.0.as_slice() {
            [] => Some(Cow::Borrowed("")),
            [only] => part(only),
            parts => parts.iter().map(part).collect::<Option<String>>().map(Cow::Owned),
        }
    }

    /// As [`Self::fill`], with attributes that cannot change what else the URL says.
    pub(super) fn url(&self, template: &Template) -> Option<String> {
        let part = |part: &Part| match part {
            Part::Text(text) => Some(text.clone()),
            Part::Attribute(name) => {
                let fact = self.target.get(name, self.credentials)?;
                Some(utf8_percent_encode(&fact.text(), &UNRESERVED).to_string())
            }
        };
        template.0.iter().map(part).collect()
    }
}

fn lower(role: &str) -> Cow<'_, str> {
    if role.chars().any(char::is_uppercase) { role.to_lowercase().into() } else { role.into() }
}

/// In the policy language, with no more parentheses than are needed to get the same tree again.
impl Display for Check {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let list = |f: &mut Formatter<'_>, checks: &[Check], word: &str, in_parentheses: fn(&Check) -> bool| {
            for (n, check) in checks.iter().enumerate() {
                if n > 0 {
                    write!(f, " {word} ")?;
                }
                if in_parentheses(check) { write!(f, "({check})")? } else { write!(f, "{check}")? }
            }
            Ok(())
        };
        match self {
            Self::Always => f.write_char('@'),
            Self::Never => f.write_char('!'),
            Self::Not(check) if matches!(**check, Self::All(_) | Self::Any(_)) => write!(f, "not ({check})"),
            Self::Not(check) => write!(f, "not {check}"),
            Self::All(checks) => list(f, checks, "and", |check| matches!(check, Self::All(_) | Self::Any(_))),
            Self::Any(checks) => list(f, checks, "or", |check| matches!(check, Self::Any(_))),
            Self::Role(role) => write!(f, "role:{role}"),
            Self::Rule { name, .. } => write!(f, "rule:{name}"),
            Self::Remote { url, .. } => write!(f, "{url}"),
            Self::Same { left: Left::Literal { written, .. }, right } => write!(f, "{written}:{right}"),
            Self::Same { left: Left::Credential(path), right } => write!(f, "{}:{right}", path.join(".")),
        }
    }
}

impl Display for Template {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(&text.replace('%', "%%")),
            Part::Attribute(name) => write!(f, "%({name})s"),
        })
    }
}
