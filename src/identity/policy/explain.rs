//! Why a rule holds or not, check by check.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use super::check::{Check, Left, Part, Question, Template};
use super::file::Written;
use super::target::{Credentials, Target};
use super::{Action, Policy};
use crate::identity::Caller;

/// Why an action is allowed or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The rule that was asked.
    pub rule: String,
    /// As it is written.
    pub written: Written,
    /// File and line; none for a default.
    pub origin: Option<String>,
    /// Whether it allows the action.
    pub allowed: bool,
    /// Every check that was looked at, in order.
    pub steps: Vec<Step>,
}

/// A check that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// How deep it is nested.
    pub depth: usize,
    /// The check.
    pub check: String,
    /// Whether it holds; `None`: the question has no answer, and nothing is allowed.
    pub holds: Option<bool>,
    /// Whether the verdict is what it is because of it.
    pub decides: bool,
    /// What was compared.
    pub because: String,
}

impl Policy {
    /// Why `caller` may do `action` to `target`, or may not.
    pub async fn explain(&self, action: Action, caller: &Caller, target: Target<'_>) -> Option<Explanation> {
        let rules = self.rules();
        let rule = rules.of(action)?;
        let credentials = Credentials::Caller(caller);
        let (allowed, answers) = self.decide(&rules, rule, credentials, target).await;
        let question = Question { rules: &rules.list, credentials, target, answers: &answers };
        let mut steps = Vec::new();
        question.explain(&rule.check, 0, true, &mut steps);
        Some(Explanation {
            rule: rule.name.clone(),
            written: rule.written.clone(),
            origin: rule.origin.clone(),
            allowed,
            steps,
        })
    }
}

impl Question<'_> {
    fn explain(&self, check: &Check, depth: usize, decides: bool, steps: &mut Vec<Step>) {
        steps.push(Step {
            depth,
            check: check.to_string(),
            holds: self.holds(check).ok(),
            decides,
            because: self.because(check),
        });
        let inner = match check {
            Check::Not(check) => std::slice::from_ref(&**check),
            Check::All(checks) | Check::Any(checks) => checks,
            Check::Rule { index: Some(index), .. } => {
                self.rules.get(*index).map_or(&[][..], |rule| std::slice::from_ref(&rule.check))
            }
            Check::Rule { index: None, .. }
            | Check::Always
            | Check::Never
            | Check::Role(_)
            | Check::Same { .. }
            | Check::Remote { .. } => &[],
        };
        // The check that ends a list early decides it alone; otherwise all of them do.
        let goes_on = |inner: &Check| match check {
            Check::All(_) => self.holds(inner) == Ok(true),
            Check::Any(_) => self.holds(inner) == Ok(false),
            _ => true,
        };
        let ends_at = inner.iter().position(|check| !goes_on(check));
        let asked = &inner[..ends_at.map_or(inner.len(), |end| end + 1)];
        for (n, check) in asked.iter().enumerate() {
            self.explain(check, depth + 1, decides && ends_at.is_none_or(|end| end == n), steps);
        }
    }

    /// What was compared.
    fn because(&self, check: &Check) -> String {
        match check {
            Check::Always => "holds for everybody".into(),
            Check::Never => "holds for nobody".into(),
            Check::Not(_) | Check::All(_) | Check::Any(_) => String::new(),
            Check::Rule { name, index } => match index.and_then(|index| self.rules.get(index)) {
                None => format!("{name} is not defined"),
                Some(rule) if rule.name != *name => format!("{name} is not defined, {} stands in", rule.name),
                Some(rule) => rule.origin.clone().unwrap_or_else(|| "a default".into()),
            },
            Check::Remote { url, .. } => {
                self.missing(url).unwrap_or_else(|| match self.url(url).and_then(|url| self.answers.get(&url)) {
                    Some(Ok(true)) => "the server says True".into(),
                    Some(Ok(false)) => "the server does not say True".into(),
                    Some(Err(_)) => "the server gives no answer".into(),
                    None => "the server was not asked".into(),
                })
            }
            Check::Role(role) => self.missing(role).unwrap_or_else(|| {
                let roles = self.credentials.get("roles").map(|roles| roles.text()).unwrap_or_default();
                format!("the caller's roles are {roles}")
            }),
            Check::Same { left, right } => self.missing(right).unwrap_or_else(|| {
                let wanted = self.fill(right).unwrap_or_default();
                match left {
                    Left::Literal { .. } => format!("the target has \"{wanted}\""),
                    Left::Credential(path) => {
                        let name = path.first().map_or("", String::as_str);
                        match self.credentials.get(name) {
                            None => format!("the caller has no {name}"),
                            Some(fact) => {
                                format!("the caller's {name} is \"{}\", the target has \"{wanted}\"", fact.text())
                            }
                        }
                    }
                }
            }),
        }
    }

    /// Which attribute of the template the target has not.
    fn missing(&self, template: &Template) -> Option<String> {
        template.0.iter().find_map(|part| match part {
            Part::Attribute(name) if self.target.get(name, self.credentials).is_none() => {
                Some(format!("the target has no {name}"))
            }
            Part::Attribute(_) | Part::Text(_) => None,
        })
    }
}

/// For people: the verdict, and the checks as a tree, with an arrow at those that decided.
impl Display for Explanation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let verdict = if self.allowed { "allowed" } else { "denied" };
        writeln!(f, "{verdict} by the rule {} ({}):", self.rule, self.origin.as_deref().unwrap_or("default"))?;
        writeln!(f, "    {}\n", self.written)?;
        for step in &self.steps {
            let holds = match step.holds {
                Some(true) => "yes",
                Some(false) => "no ",
                None => "?  ",
            };
            let arrow = if step.decides { "->" } else { "  " };
            let indent = "  ".repeat(step.depth);
            write!(f, "{arrow} {holds} {indent}{}", step.check)?;
            if step.because.is_empty() { writeln!(f)? } else { writeln!(f, "    [{}]", step.because)? }
        }
        Ok(())
    }
}
