//! All rules together: the defaults, with what files put in their place. References are resolved and limits checked
//! here, once, so that asking can neither fail nor run away.

use std::collections::{BTreeMap, BTreeSet};

use super::action::Action;
use super::check::{Check, Left};
use super::defaults::{ADMIN_RULE, DEFAULT_RULE, DEFAULTS};
use super::file::{Override, Written};
use super::parse;
use super::target::Credentials;

/// Deepest nesting of a rule with all rules that it refers to.
const DEPTH_MAX: usize = 256;
/// Most checks that one rule can lead to, with all rules that it refers to.
const CHECKS_MAX: usize = 10_000;
/// Most letters by which a name may differ from one that was meant.
const TYPO_EDITS_MAX: usize = 2;

/// A rule in force.
#[derive(Debug)]
pub struct Rule {
    /// Its name.
    pub name: String,
    /// As it is written.
    pub written: Written,
    /// As it is written in the defaults, if it is there.
    pub default: Option<&'static str>,
    /// File and line, where it is not a default.
    pub origin: Option<String>,
    pub(super) check: Check,
}

/// The rules in force.
#[derive(Debug)]
pub(super) struct Rules {
    /// The defaults in their order, then the others in the order of their names.
    pub(super) list: Vec<Rule>,
    /// Where each action's rule is.
    actions: Vec<usize>,
    admin: usize,
}

impl Rules {
    /// Puts rules together; the last one of a name counts. Returns with them what looks like a mistake. Checks may ask
    /// the servers `allowed`, or any without it.
    ///
    /// # Errors
    /// Everything that is wrong, a sentence each.
    pub(super) fn new(overrides: &[Override], allowed: Option<&[String]>) -> Result<(Self, Vec<String>), Vec<String>> {
        let (mut problems, mut warnings) = (Vec::new(), Vec::new());
        let mut named: BTreeMap<&str, Rule> = BTreeMap::new();
        for &(name, text) in DEFAULTS {
            match parse::rule(text) {
                Ok(check) => {
                    let written = Written::Text(text.into());
                    let rule = Rule { name: name.into(), written, default: Some(text), origin: None, check };
                    named.insert(name, rule);
                }
                Err(error) => problems.push(format!("the default of {name}: {error}")),
            }
        }
        for item in overrides {
            match item.check() {
                Ok(mut check) => {
                    check.visit(&mut |check| match (check, allowed) {
                        (Check::Remote { server, .. }, None) => warnings.push(format!(
                            "{}: rule {} asks the server {server}, which policy.remote_checks_allowed_hosts has to name",
                            item.origin(),
                            item.name
                        )),
                        (Check::Remote { server, .. }, Some(allowed)) if !names(allowed, server) => problems.push(format!(
                            "{}: rule {} asks the server {server}, which policy.remote_checks_allowed_hosts does not name",
                            item.origin(),
                            item.name
                        )),
                        _ => {}
                    });
                    let default = named.get(item.name.as_str()).and_then(|rule| rule.default);
                    let (name, written, origin) = (item.name.clone(), item.written.clone(), Some(item.origin()));
                    named.insert(&item.name, Rule { name, written, default, origin, check });
                }
                Err(error) => problems.push(format!("{}: rule {}, {error}", item.origin(), item.name)),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let mut list: Vec<Rule> = DEFAULTS.iter().filter_map(|(name, _)| named.remove(name)).collect();
        list.extend(named.into_values());
        let places: BTreeMap<String, usize> =
            list.iter().enumerate().map(|(place, rule)| (rule.name.clone(), place)).collect();
        let mut referred = BTreeSet::new();
        for rule in &mut list {
            let origin = rule.origin.clone().unwrap_or_else(|| "the defaults".into());
            rule.check.visit(&mut |check| match check {
                Check::Rule { name, index } => {
                    referred.insert(name.clone());
                    *index = places.get(name).or_else(|| places.get(DEFAULT_RULE)).copied();
                    if !places.contains_key(name) {
                        warnings.push(format!(
                            "{origin}: rule {} refers to rule:{name}, which is not defined: the rule \"{DEFAULT_RULE}\" stands in for it{}",
                            rule.name,
                            meant(name, places.keys().map(String::as_str))
                        ));
                    }
                }
                Check::Same { left: Left::Credential(path), .. } => {
                    if let Some(name) = path.first().filter(|name| !Credentials::NAMES.contains(&name.as_str())) {
                        warnings.push(format!(
                            "{origin}: rule {} asks for \"{name}\", which no caller has{}",
                            rule.name,
                            meant(name, Credentials::NAMES.into_iter().chain(["role", "rule"]))
                        ));
                    }
                }
                _ => {}
            });
        }
        for rule in list.iter().filter(|rule| rule.default.is_none() && !referred.contains(&rule.name)) {
            warnings.push(format!(
                "{}: rule {} is none of Rockpool's, and no rule refers to it{}",
                rule.origin.as_deref().unwrap_or_default(),
                rule.name,
                meant(&rule.name, DEFAULTS.iter().map(|(name, _)| *name))
            ));
        }
        let same: Vec<&str> = list.iter().filter(|rule| rule.is_redundant()).map(|rule| rule.name.as_str()).collect();
        if !same.is_empty() {
            warnings.push(format!("rules that say what the defaults say can be left out: {}", same.join(", ")));
        }
        problems.extend(unbounded(&list));
        let place = |name: &str| places.get(name).copied();
        let actions: Option<Vec<usize>> = Action::ALL.iter().map(|action| place(action.rule())).collect();
        match (actions, place(ADMIN_RULE)) {
            (Some(actions), Some(admin)) if problems.is_empty() => Ok((Self { list, actions, admin }, warnings)),
            (None, _) | (_, None) => Err(vec!["an action has no default rule".into()]),
            (Some(_), Some(_)) => Err(problems),
        }
    }

    /// The rule that an action asks for.
    pub(super) fn of(&self, action: Action) -> Option<&Rule> {
        self.actions.get(action as usize).and_then(|place| self.list.get(*place))
    }

    /// The rule that says who administers the cloud.
    pub(super) fn admin(&self) -> Option<&Rule> {
        self.list.get(self.admin)
    }

    /// The rule of that name, or the one that stands in for it.
    pub(super) fn named(&self, name: &str) -> Option<&Rule> {
        let find = |name: &str| self.list.iter().find(|rule| rule.name == name);
        find(name).or_else(|| find(DEFAULT_RULE))
    }
}

/// Whether a server is among those that are named, with or without its port.
fn names(allowed: &[String], server: &str) -> bool {
    let host = server.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map_or(server, |(host, _)| host);
    allowed.iter().any(|name| name.eq_ignore_ascii_case(server) || name.eq_ignore_ascii_case(host))
}

impl Rule {
    /// Whether a file says the same as the default.
    fn is_redundant(&self) -> bool {
        self.origin.is_some()
            && self
                .default
                .is_some_and(|text| parse::rule(text).is_ok_and(|check| check.to_string() == self.check.to_string()))
    }
}

impl Override {
    fn check(&self) -> Result<Check, String> {
        let groups = match &self.written {
            Written::Text(text) => return parse::rule(text).map_err(|error| error.to_string()),
            Written::Lists(groups) if groups.is_empty() => return Ok(Check::Always),
            Written::Lists(groups) => groups,
        };
        let single = |text: &String| parse::single(text).map_err(|error| format!("\"{text}\" {error}"));
        let mut any = Vec::new();
        for group in groups.iter().filter(|group| !group.is_empty()) {
            any.push(parse::one_or(group.iter().map(single).collect::<Result<_, _>>()?, Check::All));
        }
        Ok(if any.is_empty() { Check::Never } else { parse::one_or(any, Check::Any) })
    }
}

impl Check {
    fn visit(&mut self, see: &mut impl FnMut(&mut Self)) {
        see(self);
        match self {
            Self::Not(check) => check.visit(see),
            Self::All(checks) | Self::Any(checks) => checks.iter_mut().for_each(|check| check.visit(see)),
            Self::Always
            | Self::Never
            | Self::Role(_)
            | Self::Rule { .. }
            | Self::Same { .. }
            | Self::Remote { .. } => {}
        }
    }
}

/// How much there is below a check.
#[derive(Debug, Clone, Copy)]
struct Extent {
    depth: usize,
    checks: usize,
}

/// Rules that refer to themselves, nest too deep, or lead to too many checks.
fn unbounded(list: &[Rule]) -> Vec<String> {
    let mut known = vec![None; list.len()];
    let mut problems = BTreeSet::new();
    for place in 0..list.len() {
        if let Err(problem) = measure(list, place, &mut Vec::new(), &mut known) {
            problems.insert(problem);
        }
    }
    problems.into_iter().collect()
}

fn measure(list: &[Rule], place: usize, path: &mut Vec<usize>, known: &mut [Option<Extent>]) -> Result<Extent, String> {
    let name = |place: usize| list.get(place).map_or("", |rule| rule.name.as_str());
    if let Some(start) = path.iter().position(|before| *before == place) {
        // The same circle has the same description wherever it is entered.
        let mut circle: Vec<&str> = path[start..].iter().map(|place| name(*place)).collect();
        let first = circle.iter().enumerate().min_by_key(|(_, name)| **name).map_or(0, |(first, _)| first);
        circle.rotate_left(first);
        circle.extend(circle.first().copied());
        return Err(format!("rules refer to each other in a circle: {}", circle.join(" -> ")));
    }
    if let Some(extent) = known[place] {
        return Ok(extent);
    }
    if path.len() > DEPTH_MAX {
        return Err(format!("rule {} refers to a chain of more than {DEPTH_MAX} rules", name(path[0])));
    }
    path.push(place);
    let extent = match list.get(place) {
        Some(rule) => below(list, &rule.check, path, known),
        None => Ok(Extent { depth: 0, checks: 0 }),
    };
    path.pop();
    let extent = extent?;
    if extent.depth > DEPTH_MAX {
        return Err(format!(
            "rule {} is nested {} deep with all that it refers to; at most {DEPTH_MAX} is possible",
            name(place),
            extent.depth
        ));
    }
    if extent.checks > CHECKS_MAX {
        return Err(format!(
            "rule {} leads to {} checks with all that it refers to; at most {CHECKS_MAX} are possible",
            name(place),
            extent.checks
        ));
    }
    known[place] = Some(extent);
    Ok(extent)
}

fn below(list: &[Rule], check: &Check, path: &mut Vec<usize>, known: &mut [Option<Extent>]) -> Result<Extent, String> {
    let inner: &[Check] = match check {
        Check::Always
        | Check::Never
        | Check::Role(_)
        | Check::Same { .. }
        | Check::Remote { .. }
        | Check::Rule { index: None, .. } => &[],
        Check::Rule { index: Some(place), .. } => {
            let extent = measure(list, *place, path, known)?;
            return Ok(Extent { depth: extent.depth + 1, checks: extent.checks + 1 });
        }
        Check::Not(check) => std::slice::from_ref(check),
        Check::All(checks) | Check::Any(checks) => checks,
    };
    let mut sum = Extent { depth: 0, checks: 1 };
    for check in inner {
        let extent = below(list, check, path, known)?;
        sum.depth = sum.depth.max(extent.depth);
        sum.checks += extent.checks;
    }
    Ok(Extent { depth: sum.depth + 1, ..sum })
}

/// The known name that somebody may have meant, as the end of a sentence.
pub(super) fn meant<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    known
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(edits, candidate)| (1..=TYPO_EDITS_MAX).contains(edits) && candidate.len() > TYPO_EDITS_MAX)
        .min()
        .map(|(_, candidate)| format!("; did you mean {candidate}?"))
        .unwrap_or_default()
}
