//! Who may do what: the policy language of OpenStack, with Glance's rules and their defaults.
//!
//! A rule is read into a tree of checks ([`check`]) when the files are, and asked with a caller and a target. Files are
//! followed while the daemon runs; new rules take the place of the old ones all at once.

mod action;
mod check;
mod defaults;
mod explain;
mod fact;
mod file;
mod parse;
mod remote;
mod rules;
mod target;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use serde_json::{Map, Value};

use super::Caller;
use check::{Open, Question};
use file::Texts;
use remote::{Answers, Remote};
use rules::Rules;
use target::Credentials;

pub use action::Action;
pub use explain::{Explanation, Step};
pub use file::{Config, Written};
pub use remote::ContentType;
pub use rules::Rule;
pub use target::Target;

/// The rules in force.
#[derive(Debug)]
pub struct Policy {
    rules: RwLock<Arc<Rules>>,
    config: Config,
    remote: Remote,
    /// What was read last, in force or not; `None` if something could not be read.
    read: Mutex<Option<Texts>>,
    /// What looked like a mistake at first.
    warnings: Vec<String>,
}

impl Policy {
    /// Reads the files that the configuration names.
    ///
    /// # Errors
    /// Everything that is wrong with the files, a sentence each.
    pub fn load(config: Config) -> Result<Self, Vec<String>> {
        let (texts, remote) = (config.texts()?, Remote::new(&config)?);
        let (rules, warnings) = compile(&texts, Some(&config.remote_checks_allowed_hosts))?;
        Ok(Self { rules: RwLock::new(Arc::new(rules)), config, remote, read: Mutex::new(Some(texts)), warnings })
    }

    /// What looked like a mistake when the files were read first, a sentence each.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The defaults with the rules of one file, which may name any server, and asks none.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn of_file(file: &Path) -> Result<Self, Vec<String>> {
        let config = Config { file: file.to_owned(), dirs: Vec::new(), ..Config::default() };
        let (texts, remote) = (config.texts()?, Remote::new(&config)?);
        let (rules, warnings) = compile(&texts, None)?;
        Ok(Self { rules: RwLock::new(Arc::new(rules)), config, remote, read: Mutex::new(Some(texts)), warnings })
    }

    /// How often the files are to be looked at.
    #[must_use]
    pub fn reload_interval(&self) -> Duration {
        Duration::from_secs(self.config.reload_interval_s)
    }

    /// Looks at the files again, and puts their rules in force if they have changed and nothing is wrong with them. Logs
    /// what came of it, once per change; always when `asked` for.
    pub fn reload(&self, asked: bool) {
        let texts = self.config.texts();
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if !asked && texts.as_ref().ok() == read.as_ref() {
            return;
        }
        *read = texts.as_ref().ok().cloned();
        match texts.and_then(|texts| compile(&texts, Some(&self.config.remote_checks_allowed_hosts))) {
            Ok((rules, warnings)) => {
                let overrides = rules.list.iter().filter(|rule| rule.origin.is_some()).count();
                *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
                tracing::info!(overrides, "the policy was read again");
                warnings.iter().for_each(|warning| tracing::warn!("policy: {warning}"));
            }
            Err(problems) => tracing::error!(
                problems = problems.join("; "),
                "the policy cannot be used; the rules read before stay in force"
            ),
        }
    }

    fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the caller administers the cloud (`context_is_admin`).
    pub async fn is_admin(&self, caller: &Caller) -> bool {
        let rules = self.rules();
        self.hold(&rules, rules.admin(), caller, Target::Caller(caller)).await
    }

    /// Whether `caller` may do `action` to `target`. An image that the caller may not see at all has been
    /// sorted out before, by the scope of the catalog query that looked for it: membership is decided there.
    pub async fn allows(&self, action: Action, caller: &Caller, target: Target<'_>) -> bool {
        let rules = self.rules();
        self.hold(&rules, rules.of(action), caller, target).await
    }

    /// As [`Self::allows`], for a rule that an operator has named; one that is not defined is `default`.
    pub async fn allows_rule(&self, name: &str, caller: &Caller, target: Target<'_>) -> bool {
        let rules = self.rules();
        self.hold(&rules, rules.named(name), caller, target).await
    }

    async fn hold(&self, rules: &Rules, rule: Option<&Rule>, caller: &Caller, target: Target<'_>) -> bool {
        match rule {
            Some(rule) => self.decide(rules, rule, Credentials::Caller(caller), target).await.0,
            None => false,
        }
    }

    /// Whether a rule holds, and what servers have said about it. What cannot be answered does not hold.
    async fn decide(
        &self,
        rules: &Rules,
        rule: &Rule,
        credentials: Credentials<'_>,
        target: Target<'_>,
    ) -> (bool, Answers) {
        // Checks are asked at once; where one needs a server's word, all of them again when it is there.
        let mut answers = Answers::new();
        loop {
            let question = Question { rules: &rules.list, credentials, target, answers: &answers };
            match question.holds(&rule.check) {
                Ok(holds) => return (holds, answers),
                Err(Open::Unanswerable) => return (false, answers),
                Err(Open::Ask(url)) => {
                    let answer = self.remote.ask(&url, &rule.name, &question).await;
                    answers.insert(url, answer);
                }
            }
        }
    }

    /// Whether there is a rule of that name itself.
    #[must_use]
    pub fn defines(&self, name: &str) -> bool {
        self.rules().list.iter().any(|rule| rule.name == name)
    }

    /// As [`Self::allows_rule`], for credentials that nobody vouches for. No server is asked.
    #[must_use]
    pub fn verdict(&self, name: &str, credentials: &Map<String, Value>, target: &Map<String, Value>) -> bool {
        let (rules, answers) = (self.rules(), Answers::new());
        let question = Question {
            rules: &rules.list,
            credentials: Credentials::Json(credentials),
            target: Target::Json(target),
            answers: &answers,
        };
        rules.named(name).is_some_and(|rule| question.holds(&rule.check).unwrap_or(false))
    }

    /// Calls `see` with every rule: the defaults in their order, then those that only files have.
    pub fn each_rule(&self, see: impl FnMut(&Rule)) {
        self.rules().list.iter().for_each(see);
    }
}

fn compile(texts: &Texts, allowed: Option<&[String]>) -> Result<(Rules, Vec<String>), Vec<String>> {
    let (mut overrides, mut problems) = (Vec::new(), Vec::new());
    for (path, text) in texts {
        match file::overrides(path, text) {
            Ok(found) => overrides.extend(found),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Rules::new(&overrides, allowed) } else { Err(problems) }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, RwLock};

    use futures_util::FutureExt as _;
    use serde_json::{Value, json};
    use time::OffsetDateTime;

    use super::{Action, Config, Policy, Remote, Target, compile};
    use crate::domain::id::ImageId;
    use crate::domain::image::{Attributes, Image, Import, Visibility};
    use crate::domain::status::Status;
    use crate::identity::Caller;

    /// The defaults with a file of this text.
    fn policy(text: &str) -> Result<Policy, Vec<String>> {
        let (rules, warnings) = compile(&vec![("p.yaml".into(), text.to_owned())], Some(&[]))?;
        let config = Config::default();
        let remote = Remote::new(&config)?;
        Ok(Policy { rules: RwLock::new(Arc::new(rules)), config, remote, read: Mutex::new(None), warnings })
    }

    /// What needs no server is decided at once.
    fn now<T>(verdict: impl Future<Output = T>) -> T {
        verdict.now_or_never().unwrap()
    }

    fn caller(project: &str, roles: &[&str]) -> Caller {
        let mut caller = Caller {
            user_id: "u".into(),
            project_id: project.into(),
            roles: roles.iter().map(|r| (*r).to_owned()).collect(),
            ..Caller::default()
        };
        caller.admin = now(policy("").unwrap().is_admin(&caller));
        caller
    }

    fn image(owner: Option<&str>, visibility: Visibility) -> Image {
        let mut attributes = Attributes { visibility, ..Attributes::new(owner.map(str::to_owned)) };
        attributes.properties.insert("site".into(), "north".into());
        // Whoever sets a property cannot make himself a member by it.
        attributes.properties.insert("member_id".into(), "q".into());
        Image {
            id: ImageId::random(),
            status: Status::Queued,
            attributes,
            content: None,
            locations: Vec::new(),
            upload_failure: None,
            import: Import::default(),
            created_at: OffsetDateTime::UNIX_EPOCH,
            updated_at: OffsetDateTime::UNIX_EPOCH,
            version: 1,
        }
    }

    fn allows(action: Action, caller: &Caller, visibility: Visibility) -> bool {
        let attributes = Attributes { visibility, ..Attributes::new(Some("p".into())) };
        now(policy("").unwrap().allows(action, caller, Target::from(&attributes)))
    }

    #[test]
    fn the_defaults_of_glance() {
        let member = caller("p", &["member", "reader"]);
        let reader = caller("p", &["reader"]);
        let stranger = caller("q", &["member", "reader"]);
        let nobody = caller("p", &[]);
        for action in
            [Action::AddImage, Action::ModifyImage, Action::DeleteImage, Action::UploadImage, Action::CommunitizeImage]
        {
            assert!(allows(action, &member, Visibility::Private));
            for visibility in Visibility::ALL {
                assert!(!allows(action, &reader, visibility), "{action:?}");
                assert!(!allows(action, &stranger, visibility), "{action:?}");
                assert!(!allows(action, &nobody, visibility), "{action:?}");
            }
        }
        assert!(allows(Action::GetImage, &reader, Visibility::Private));
        assert!(!allows(Action::DownloadImage, &reader, Visibility::Private), "a pure reader cannot download");
        assert!(allows(Action::DownloadImage, &stranger, Visibility::Community));
        assert!(!allows(Action::GetImage, &stranger, Visibility::Private));
        assert!(!allows(Action::PublicizeImage, &member, Visibility::Private));
        assert!(allows(Action::PublicizeImage, &caller("q", &["admin"]), Visibility::Private));
        let service = caller("s", &["service"]);
        assert!(allows(Action::FetchImageLocation, &service, Visibility::Private));
        assert!(!allows(Action::GetImage, &service, Visibility::Public), "a service user is no reader");
    }

    #[test]
    fn every_action_has_a_default_and_every_default_a_use() {
        let policy = policy("").unwrap();
        assert!(policy.warnings().is_empty(), "{:?}", policy.warnings());
        let mut names = Vec::new();
        policy.each_rule(|rule| names.push(rule.name.clone()));
        for action in Action::ALL {
            assert!(names.iter().any(|name| name == action.rule()), "{action:?}");
        }
        names.retain(|name| !Action::ALL.iter().any(|action| action.rule() == name));
        assert_eq!(names, ["context_is_admin", "default", "service_api", "metadef_default", "metadef_admin"]);
    }

    #[test]
    fn what_belongs_to_nobody_is_everybodys_to_see() {
        let policy = policy("").unwrap();
        for visibility in Visibility::ALL {
            let image = image(None, visibility);
            let target = Target::from(&image);
            assert!(now(policy.allows(Action::GetImage, &caller("q", &["reader"]), target)));
            assert!(!now(policy.allows(Action::ModifyImage, &caller("q", &["member", "reader"]), target)));
        }
    }

    #[test]
    fn an_administrator_is_whom_the_rule_says() {
        let policy =
            policy("context_is_admin: role:cloud_admin and project_id:%(project)s and user_id:u\npublicize_image: '!'")
                .unwrap();
        assert!(now(policy.is_admin(&caller("p", &["cloud_admin"]))));
        assert!(!now(policy.is_admin(&Caller { user_id: "v".into(), ..caller("p", &["cloud_admin"]) })));
        assert!(!now(policy.is_admin(&caller("p", &["admin"]))));
        // Being an administrator is no way around a rule.
        let admin = Caller { admin: true, ..caller("p", &["cloud_admin"]) };
        assert!(!now(policy.allows(Action::PublicizeImage, &admin, Target::Nothing)));
    }

    #[test]
    fn rules_see_the_caller_and_the_image() {
        let image = image(Some("p"), Visibility::Shared);
        let attributes = &image.attributes;
        let member = caller("q", &["member", "reader"]);
        let owner = Caller { service_roles: ["service".to_owned()].into(), ..caller("p", &["member", "reader"]) };
        for (rule, for_member, for_owner) in [
            ("project_id:%(member_id)s", true, false),
            ("project_id:%(owner)s and project_id:%(project_id)s", false, true),
            ("'shared':%(visibility)s and 'queued':%(status)s", true, true),
            ("'north':%(site)s", true, true),
            ("'None':%(name)s and None:%(size)s and False:%(protected)s and 0:%(min_disk)s", true, true),
            ("'x':%(nothing)s", false, false),
            ("not 'x':%(nothing)s", true, true),
            ("service_roles:service", false, true),
            ("roles:member and not roles:MEMBER and role:MEMBER", true, true),
            ("is_admin:False and user_domain_id:None", true, true),
            ("user_id:%(id)s", false, false),
            // No part of a text, and no answer either: denied in spite of the "not".
            ("not user_id.domain:x", false, false),
            ("@ or user_id.domain:x", true, true),
        ] {
            let policy = policy(&json!({"get_image": rule}).to_string()).unwrap();
            let target = Target::from(&image);
            assert_eq!(now(policy.allows(Action::GetImage, &member, target)), for_member, "{rule}");
            assert_eq!(now(policy.allows(Action::GetImage, &owner, target)), for_owner, "{rule}");
            // The explanation agrees with the verdict.
            assert_eq!(now(policy.explain(Action::GetImage, &member, target)).unwrap().allowed, for_member, "{rule}");
        }
        let policy = policy("add_member: project_id:%(member_id)s").unwrap();
        let target = Target::Image { attributes, image: Some(&image), member: Some("p") };
        assert!(now(policy.allows(Action::AddMember, &owner, target)));
        assert!(!now(policy.allows(Action::AddMember, &member, target)), "the member that the action is about counts");
    }

    #[test]
    fn a_rule_that_is_not_defined_is_the_default_rule() {
        let stranger = caller("q", &[]);
        let lenient = policy("get_tasks: rule:nothing").unwrap();
        assert!(now(lenient.allows(Action::GetTasks, &stranger, Target::Nothing)));
        assert!(now(lenient.allows_rule("nothing", &stranger, Target::Nothing)));
        assert!(lenient.warnings()[0].contains("rule:nothing"), "{:?}", lenient.warnings());
        let strict = policy("default: '!'\nget_tasks: rule:nothing").unwrap();
        assert!(!now(strict.allows(Action::GetTasks, &stranger, Target::Nothing)));
        assert!(!now(strict.allows_rule("nothing", &stranger, Target::Nothing)));
    }

    #[test]
    fn the_older_syntax_means_the_same() {
        let member = caller("p", &["member"]);
        for (lists, allowed) in [
            (json!([]), true),
            (json!([[]]), false),
            (json!([""]), false),
            (json!(["role:member"]), true),
            (json!([["role:member"]]), true),
            (json!([["role:member", "project_id:q"], []]), false),
            (json!([["role:member", "project_id:q"], "user_id:u"]), true),
            (json!([["@"], ["!"]]), true),
            (json!([["role:member and role:other"]]), false),
        ] {
            let policy = policy(&json!({"get_tasks": lists}).to_string()).unwrap();
            assert_eq!(now(policy.allows(Action::GetTasks, &member, Target::Nothing)), allowed, "{lists}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_with_its_place() {
        let circle = "a: rule:b\nb: not rule:c\nc: role:x or rule:a";
        let chain: String = (0..400).map(|n| format!("r{n}: rule:r{}\n", n + 1)).collect();
        let bomb: String = (0..40).map(|n| format!("r{n}: rule:r{0} or rule:r{0}\n", n + 1)).collect();
        for (text, words) in [
            ("a: [", vec!["p.yaml:", "not YAML"]),
            ("- a", vec!["p.yaml:1", "lines of the form"]),
            ("get_image: role:a and\n", vec!["p.yaml:1", "get_image", "character 11", "ends"]),
            (
                "a: '@'\nb: 'x'\nc: http://h/",
                vec!["p.yaml:2: rule b", "'x' is no check", "p.yaml:3: rule c", "remote_checks_allowed_hosts"],
            ),
            ("a: '@'\na: '!'", vec!["p.yaml:2", "rule a is there twice"]),
            ("a:", vec!["p.yaml:1", "rule a is empty"]),
            ("a: ~", vec!["rule a is empty"]),
            ("a: !", vec!["tags"]),
            ("a: {b: c}", vec!["rule a must be a text"]),
            ("a: [[role:x, [y]]]", vec!["lists of rule a"]),
            ("a: [[role:x, y]]", vec!["rule a, \"y\" at character 1"]),
            ("a: &x '@'\nb: *x", vec!["aliases"]),
            ("a: '@'\n---\nb: '@'", vec!["one document"]),
            (circle, vec!["circle: a -> b -> c -> a"]),
            (&chain, vec!["chain of more than 256"]),
            (&bomb, vec!["checks with all that it refers to"]),
            ("default: rule:nothing", vec!["circle: default -> default"]),
        ] {
            let problems = policy(text).map(|_| ()).unwrap_err().join("; ");
            for word in words {
                assert!(problems.contains(word), "{word:?} is not in: {problems}");
            }
        }
    }

    #[test]
    fn what_looks_like_a_mistake_is_said() {
        let policy = policy(
            "get_imagee: role:x\nget_image: rule:context_is_admn or projectid:x\nadd_task: ''\nget_task: rule:default",
        )
        .unwrap();
        let warnings = policy.warnings().join("\n");
        for words in [
            "p.yaml:1: rule get_imagee is none of Rockpool's, and no rule refers to it; did you mean get_image?",
            "p.yaml:2: rule get_image refers to rule:context_is_admn, which is not defined",
            "did you mean context_is_admin?",
            "rule get_image asks for \"projectid\", which no caller has; did you mean project_id?",
            "can be left out: get_task",
        ] {
            assert!(warnings.contains(words), "{words:?} is not in: {warnings}");
        }
        assert_eq!(policy.warnings().len(), 4, "{warnings}");
    }

    #[test]
    fn an_explanation_points_at_what_decided() {
        let policy = policy("get_image: role:admin or (role:reader and project_id:%(project_id)s)").unwrap();
        let image = image(Some("p"), Visibility::Private);
        let explained = now(policy.explain(Action::GetImage, &caller("q", &["reader"]), Target::from(&image))).unwrap();
        assert!(!explained.allowed);
        assert_eq!(explained.origin.as_deref(), Some("p.yaml:1"));
        let deciding: Vec<&str> =
            explained.steps.iter().filter(|step| step.decides).map(|step| step.check.as_str()).collect();
        assert_eq!(
            deciding,
            [
                "role:admin or role:reader and project_id:%(project_id)s",
                "role:admin",
                "role:reader and project_id:%(project_id)s",
                "project_id:%(project_id)s"
            ]
        );
        let text = explained.to_string();
        assert!(text.contains("denied by the rule get_image (p.yaml:1)"), "{text}");
        assert!(text.contains("the caller's project_id is \"q\", the target has \"p\""), "{text}");
    }

    #[test]
    fn files_are_followed_and_a_broken_one_changes_nothing() {
        let folder = std::env::temp_dir().join(format!("rockpool-policy-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(folder.join("d")).unwrap();
        let (file, overlay) = (folder.join("policy.yaml"), folder.join("d/50.json"));
        let config = Config { file: file.clone(), dirs: vec![folder.join("d")], ..Config::default() };
        assert!(
            Policy::load(config.clone()).unwrap_err()[0].contains("cannot be read"),
            "a file that is named must exist"
        );
        let write = |path: &std::path::Path, value: &Value| std::fs::write(path, value.to_string()).unwrap();
        write(&file, &json!({"get_tasks": "!", "get_task": "!"}));
        std::fs::write(folder.join("d/.hidden.yaml"), "broken: [").unwrap();
        std::fs::write(folder.join("d/60.yaml~"), "broken: [").unwrap();
        let policy = Policy::load(config).unwrap();
        let allowed = || {
            [Action::GetTasks, Action::GetTask]
                .map(|action| now(policy.allows(action, &caller("p", &[]), Target::Nothing)))
        };
        assert_eq!(allowed(), [false, false]);
        write(&overlay, &json!({"get_tasks": "@"}));
        assert_eq!(allowed(), [false, false], "only a reload changes rules");
        policy.reload(false);
        assert_eq!(allowed(), [true, false]);
        std::fs::write(&overlay, "get_task: '@'\nget_tasks: 'role:'").unwrap();
        policy.reload(false);
        assert_eq!(allowed(), [false, true]);
        std::fs::write(&file, "get_tasks: (").unwrap();
        policy.reload(false);
        policy.reload(true);
        assert_eq!(allowed(), [false, true]);
        std::fs::remove_file(&overlay).unwrap();
        write(&file, &json!({}));
        policy.reload(false);
        assert_eq!(allowed(), [true, true]);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
