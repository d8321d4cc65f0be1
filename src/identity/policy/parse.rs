//! The policy language: text into a tree of checks. `oslo.policy` reads the same language; what it logs and then takes
//! for `!` is an error here.

use hyper::http::uri::Authority;

use super::check::{Check, Left, Part, Template};
use super::fact::float_written;

/// Deepest nesting of parentheses and `not`.
pub(super) const NESTING_MAX: usize = 64;

/// What is wrong with a rule, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at character {at}: {what}")]
pub(super) struct SyntaxError {
    /// Counted from 1.
    pub(super) at: usize,
    /// What is wrong, and how to write it.
    pub(super) what: String,
}

fn wrong<T>(at: usize, what: impl Into<String>) -> Result<T, SyntaxError> {
    Err(SyntaxError { at, what: what.into() })
}

/// Reads a rule.
pub(super) fn rule(text: &str) -> Result<Check, SyntaxError> {
    if text.is_empty() {
        return Ok(Check::Always);
    }
    let end = text.chars().count() + 1;
    let mut parser = Parser { tokens: tokens(text)?, next: 0, end };
    let check = parser.any(0)?;
    match parser.tokens.get(parser.next) {
        None => Ok(check),
        Some((at, Token::Close)) => wrong(*at, "there is no '(' for this ')'"),
        Some((at, _)) => wrong(*at, "'and' or 'or' is missing before this"),
    }
}

/// Reads one check of the older syntax, a list of lists: neither words nor parentheses have a meaning in it.
pub(super) fn single(text: &str) -> Result<Check, SyntaxError> {
    check(text, 1)
}

#[derive(Debug, PartialEq)]
enum Token {
    Open,
    Close,
    And,
    Or,
    Not,
    Check(Check),
}

/// Words, with their positions. Parentheses are tokens where a word begins or ends; inside they belong to it.
fn tokens(text: &str) -> Result<Vec<(usize, Token)>, SyntaxError> {
    let mut tokens = Vec::new();
    for (mut at, word) in words(text) {
        let inner = word.trim_start_matches('(');
        for _ in inner.len()..word.len() {
            tokens.push((at, Token::Open));
            at += 1;
        }
        let bare = inner.trim_end_matches(')');
        match bare.to_ascii_lowercase().as_str() {
            "" => {}
            "and" => tokens.push((at, Token::And)),
            "or" => tokens.push((at, Token::Or)),
            "not" => tokens.push((at, Token::Not)),
            // The reference looks for quotes before it takes the parentheses off.
            _ if inner.len() > 1
                && ['\'', '"'].iter().any(|quote| inner.starts_with(*quote) && inner.ends_with(*quote)) =>
            {
                return wrong(
                    at,
                    format!("{inner} is in quotes: write 'text':%(attribute)s, with quotes on the left side only"),
                );
            }
            _ => tokens.push((at, Token::Check(check(bare, at)?))),
        }
        at += bare.chars().count();
        for _ in bare.len()..inner.len() {
            tokens.push((at, Token::Close));
            at += 1;
        }
    }
    Ok(tokens)
}

/// What stands between white space, as Python's `\s` has it, with positions.
fn words(text: &str) -> Vec<(usize, &str)> {
    let is_space = |character: char| character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character);
    let mut words = Vec::new();
    let mut at = 1;
    for word in text.split(is_space) {
        let length = word.chars().count();
        if length > 0 {
            words.push((at, word));
        }
        at += length + 1;
    }
    words
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    next: usize,
    end: usize,
}

impl Parser {
    fn take(&mut self, wanted: &Token) -> bool {
        let found = self.tokens.get(self.next).is_some_and(|(_, token)| token == wanted);
        self.next += usize::from(found);
        found
    }

    fn any(&mut self, depth: usize) -> Result<Check, SyntaxError> {
        let mut checks = vec![self.all(depth)?];
        while self.take(&Token::Or) {
            checks.push(self.all(depth)?);
        }
        Ok(one_or(checks, Check::Any))
    }

    fn all(&mut self, depth: usize) -> Result<Check, SyntaxError> {
        let mut checks = vec![self.operand(depth)?];
        while self.take(&Token::And) {
            checks.push(self.operand(depth)?);
        }
        Ok(one_or(checks, Check::All))
    }

    fn operand(&mut self, depth: usize) -> Result<Check, SyntaxError> {
        let Some((at, token)) = self.tokens.get(self.next) else {
            return wrong(self.end, "the rule ends where a check should follow");
        };
        let at = *at;
        if depth > NESTING_MAX {
            return wrong(
                at,
                format!("the rule is nested more than {NESTING_MAX} deep: give parts of it names of their own"),
            );
        }
        match token {
            Token::Check(check) => {
                let check = check.clone();
                self.next += 1;
                Ok(check)
            }
            Token::Not => {
                self.next += 1;
                Ok(Check::Not(Box::new(self.operand(depth + 1)?)))
            }
            Token::Open => {
                self.next += 1;
                let check = self.any(depth + 1)?;
                if self.take(&Token::Close) {
                    return Ok(check);
                }
                match self.tokens.get(self.next) {
                    None => wrong(at, "there is no ')' for this '('"),
                    Some((at, _)) => wrong(*at, "'and' or 'or' is missing before this"),
                }
            }
            Token::Close => wrong(at, "a check is missing before this ')'"),
            Token::And | Token::Or => wrong(at, "a check is missing before this word"),
        }
    }
}

/// The check alone if it is the only one.
pub(super) fn one_or(mut checks: Vec<Check>, list: fn(Vec<Check>) -> Check) -> Check {
    match checks.pop() {
        Some(only) if checks.is_empty() => only,
        Some(last) => {
            checks.push(last);
            list(checks)
        }
        None => list(checks),
    }
}

/// One check: `kind:match`, `@` or `!`.
fn check(text: &str, at: usize) -> Result<Check, SyntaxError> {
    match text {
        "@" => return Ok(Check::Always),
        "!" => return Ok(Check::Never),
        _ => {}
    }
    let Some((kind, rest)) = text.split_once(':') else {
        return wrong(
            at,
            format!("'{text}' is no check: write role:NAME, rule:NAME, credential:%(attribute)s, @ or !"),
        );
    };
    let right = || template(rest, at + kind.chars().count() + 1);
    Ok(match kind {
        "rule" => Check::Rule { name: rest.to_owned(), index: None },
        "role" => Check::Role(right()?),
        "http" | "https" => Check::Remote { url: template(text, at)?, server: server(rest, at)? },
        _ => Check::Same { left: left(kind, at)?, right: right()? },
    })
}

/// Host and port of a URL, which attributes cannot be a part of.
fn server(rest: &str, at: usize) -> Result<String, SyntaxError> {
    let authority = rest.strip_prefix("//").and_then(|rest| rest.split(['/', '?']).next());
    match authority.map(str::parse::<Authority>) {
        Some(Ok(authority)) if !authority.as_str().contains(['@', '%', '#']) => Ok(authority.as_str().to_lowercase()),
        _ => wrong(
            at,
            "a server is asked by http://HOST/PATH or https://HOST:PORT/PATH, without user and password; attributes can stand in the path only",
        ),
    }
}

fn left(text: &str, at: usize) -> Result<Left, SyntaxError> {
    let literal = |meaning: String| Ok(Left::Literal { written: text.to_owned(), text: meaning });
    let mut characters = text.chars();
    match (characters.next(), characters.next_back()) {
        (Some(quote @ ('\'' | '"')), Some(last)) => {
            let inner = &text[1..text.len() - last.len_utf8()];
            if last != quote || inner.contains([quote, '\\']) {
                return wrong(
                    at,
                    format!("{text} is no text: write it between two equal quotes, without backslashes or colons"),
                );
            }
            literal(inner.to_owned())
        }
        _ if matches!(text, "True" | "False" | "None") => literal(text.to_owned()),
        (Some('0'..='9' | '-' | '+' | '.'), _) => match number(text) {
            Some(meaning) => literal(meaning),
            None => wrong(at, format!("{text} is no number: write digits, or put it between quotes")),
        },
        _ => {
            let path: Vec<String> = text.split('.').map(str::to_owned).collect();
            let is_name = |part: &String| {
                part.starts_with(|c: char| c.is_alphabetic() || c == '_')
                    && part.chars().all(|c| c.is_alphanumeric() || c == '_')
            };
            if path.iter().all(is_name) {
                return Ok(Left::Credential(path));
            }
            wrong(
                at,
                format!(
                    "'{text}' is neither a credential, such as project_id, nor a text between quotes, nor a number, True, False or None"
                ),
            )
        }
    }
}

/// Python's text for a number.
fn number(text: &str) -> Option<String> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if all_digits(digits) {
        // As in Python, 007 is no number.
        return (digits == "0" || !digits.starts_with('0')).then(|| match text.strip_prefix('-') {
            Some(_) if digits != "0" => format!("-{digits}"),
            _ => digits.to_owned(),
        });
    }
    let (whole, fraction) = digits.split_once('.')?;
    (all_digits(whole) && all_digits(fraction)).then(|| text.parse().ok().map(float_written))?
}

/// Text with `%(name)s` in it; `%%` stands for `%`. Python's other conversions are refused.
fn template(text: &str, at: usize) -> Result<Template, SyntaxError> {
    let mut parts = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(found) = rest.find('%') {
        let position = at + text[..text.len() - rest.len() + found].chars().count();
        plain.push_str(&rest[..found]);
        rest = &rest[found + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            plain.push('%');
            rest = after;
            continue;
        }
        let name = rest.strip_prefix('(').and_then(|inner| inner.get(..closing(inner)?));
        let after = name.and_then(|name| rest[name.len() + 2..].strip_prefix('s'));
        let (Some(name), Some(after)) = (name, after) else {
            return wrong(position, "write %(NAME)s for an attribute of the target, and %% for a percent sign");
        };
        if !plain.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut plain)));
        }
        parts.push(Part::Attribute(name.to_owned()));
        rest = after;
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        parts.push(Part::Text(plain));
    }
    Ok(Template(parts))
}

/// Where the parenthesis closes that was opened before `text`.
fn closing(text: &str) -> Option<usize> {
    let mut open = 1;
    text.char_indices().find_map(|(index, character)| {
        match character {
            '(' => open += 1,
            ')' => open -= 1,
            _ => {}
        }
        (open == 0).then_some(index)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};

    use super::super::check::{Check, Left, Part, Template};
    use super::{NESTING_MAX, rule, single};

    fn printed(text: &str) -> String {
        rule(text).unwrap_or_else(|e| panic!("{text}: {e}")).to_string()
    }

    #[test]
    fn not_binds_closer_than_and_and_and_closer_than_or() {
        for (text, meaning) in [
            ("", "@"),
            ("@", "@"),
            ("( ! )", "!"),
            ("role:a or role:b and not role:c", "role:a or role:b and not role:c"),
            ("role:a or (role:b and (not role:c))", "role:a or role:b and not role:c"),
            ("(role:a or role:b) and role:c", "(role:a or role:b) and role:c"),
            ("NOT (role:a OR role:b) AND role:c", "not (role:a or role:b) and role:c"),
            ("not not role:a", "not not role:a"),
            ("((role:a)and role:b)", ""),
            ("role:a\tand\n (rule:b)", "role:a and rule:b"),
            ("'public':%(visibility)s", "'public':%(visibility)s"),
            ("a.b_c.d:x%%%(y)sz", "a.b_c.d:x%%%(y)sz"),
            ("('x':'y')", "'x':'y'"),
            ("not http://Policy:80/%(id)s/%%", "not http://Policy:80/%(id)s/%%"),
        ] {
            if meaning.is_empty() {
                assert!(rule(text).is_err(), "{text}");
            } else {
                assert_eq!(printed(text), meaning);
            }
        }
    }

    #[test]
    fn a_mistake_is_named_with_its_place() {
        for (text, at, word) in [
            (" ", 2, "ends"),
            ("role:a and", 11, "ends"),
            ("role:a role:b", 8, "missing"),
            ("(role:a role:b)", 9, "missing"),
            ("role:a) and role:b", 7, "'('"),
            ("(role:a and (role:b)", 1, "')'"),
            ("()", 2, "before"),
            ("or role:a", 1, "before"),
            ("role:a and admin", 12, "'admin' is no check"),
            ("role:a or 'public'", 11, "quotes"),
            ("role:a or 'x':'y'", 11, "quotes"),
            ("project_id:%(project_id)", 12, "%(NAME)s"),
            ("project_id:ü%d", 13, "%(NAME)s"),
            ("project_id:%(a", 12, "%(NAME)s"),
            ("not http:policy/%(id)s", 5, "http://HOST/PATH"),
            ("https:x", 1, "http://HOST/PATH"),
            ("http://%(name)s/x", 1, "in the path only"),
            ("http://a:b@policy/x", 1, "without user"),
            ("http:///x", 1, "http://HOST/PATH"),
            ("http://policy/%d", 15, "%(NAME)s"),
            ("a..b:x", 1, "credential"),
            ("user-id:x", 1, "credential"),
            (":x", 1, "credential"),
            ("'a:b':x", 1, "quotes"),
            ("007:x", 1, "number"),
        ] {
            let error = rule(text).unwrap_err();
            assert_eq!(error.at, at, "{text}: {error}");
            assert!(error.what.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| format!("{}role:a{}", "(".repeat(depth), ")".repeat(depth));
        assert_eq!(printed(&nested(NESTING_MAX)), "role:a");
        for text in [nested(NESTING_MAX + 1), nested(200_000), "not ".repeat(200_000)] {
            assert!(rule(&text).is_err());
        }
    }

    fn template() -> impl Strategy<Value = Template> {
        let part = prop_oneof![
            "[a-z%ü]{1,4}".prop_map(Part::Text),
            "[a-z._(]{0,4}".prop_map(|name| {
                let close = ")".repeat(name.matches('(').count());
                Part::Attribute(name + &close)
            })
        ];
        // Two texts in a row are one.
        prop::collection::vec(part, 0..4).prop_map(|parts| {
            let mut joined: Vec<Part> = Vec::new();
            for part in parts {
                match (joined.last_mut(), part) {
                    (Some(Part::Text(before)), Part::Text(text)) => before.push_str(&text),
                    (_, part) => joined.push(part),
                }
            }
            Template(joined)
        })
    }

    fn tree() -> impl Strategy<Value = Check> {
        let left = prop_oneof![
            Just(Left::Literal { written: "'a(b)'".into(), text: "a(b)".into() }),
            Just(Left::Literal { written: "None".into(), text: "None".into() }),
            Just(Left::Literal { written: "-5".into(), text: "-5".into() }),
            Just(Left::Credential(vec!["a".into(), "b_c".into()])),
        ];
        let leaf = prop_oneof![
            Just(Check::Always),
            Just(Check::Never),
            template().prop_map(Check::Role),
            "[a-z:_]{0,5}".prop_map(|name| Check::Rule { name, index: None }),
            (left, template()).prop_map(|(left, right)| Check::Same { left, right }),
        ];
        leaf.prop_recursive(6, 40, 4, |inner| {
            prop_oneof![
                inner.clone().prop_map(|check| Check::Not(Box::new(check))),
                prop::collection::vec(inner.clone(), 2..4).prop_map(Check::All),
                prop::collection::vec(inner, 2..4).prop_map(Check::Any),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in any::<String>(), words in "[ ()ab:'%s!@]{0,40}|((not|and|or|\\(|\\)|a:b|role:%\\(x\\)s) ?){0,30}") {
            for text in [text, words] {
                let _ = single(&text);
                if let Err(error) = rule(&text) {
                    assert!((1..=text.chars().count() + 1).contains(&error.at), "{text:?}: {error}");
                }
            }
        }

        #[test]
        fn what_is_printed_reads_the_same(check in tree()) {
            assert_eq!(rule(&check.to_string()), Ok(check));
        }
    }
}
