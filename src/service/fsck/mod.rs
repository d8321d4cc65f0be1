//! `rockpool fsck`: whether the catalog and the pools agree.
//!
//! ```text
//!   queue     jobs that nobody works on, tasks that no job works on
//!   images    every record: is its data there, published, protected, of the right size, and described as it should be?
//!   pools     every name: does the catalog know it?
//! ```
//!
//! Everything is read page by page, beside gateways that go on working. What looks wrong is only a suspicion: it is
//! looked at again under the lock of its image before it is said, and what a job is at, or what is younger than the
//! grace period, is nobody's business but the gateways'. A repair looks once more, in its own transaction, and is one
//! step that may be repeated; where there is a job for it, it is that job.

mod images;
mod pools;
mod queue;
mod repair;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;

use self::repair::Repair;
use super::pace::Pace;
use super::{Error, Services, Verdict};
use crate::domain::id::ImageId;

/// Records, names, jobs or tasks of one page.
const PAGE: u32 = 500;
/// Images of the stores that are looked at side by side.
const EXAMINED_AT_ONCE: usize = 8;

/// What to do.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// What is younger is not looked at.
    pub grace: Duration,
    /// Images of the stores looked at in one second; 0: as fast as it goes.
    pub images_per_s: u32,
    /// Whether what is found is repaired, where that is safe.
    pub repair: bool,
}

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Data that no image refers to.
    Orphan,
    /// What an upload or a copy has left.
    HalfWritten,
    /// What was staged for an import that does not exist.
    StagingLeftover,
    /// What the start of a gateway has left.
    StartupCheck,
    /// What a deletion has left.
    Trash,
    /// An image whose data is not there.
    NoData,
    /// Data without the snapshot that consumers clone.
    NoSnapshot,
    /// A snapshot that anybody could remove.
    UnprotectedSnapshot,
    /// More or fewer bytes than recorded.
    Size,
    /// Objects of another size than this store makes.
    ObjectSize,
    /// The description beside the data differs from the record.
    Metadata,
    /// A record that waits for data which nobody sends.
    StuckImage,
    /// A deleted image whose data nobody removes.
    StuckDelete,
    /// An image that is locked by an import which does not exist.
    StuckImport,
    /// A job that nobody works on.
    ExpiredJob,
    /// A task that no job works on.
    StuckTask,
    /// Tasks that should have been forgotten.
    ExpiredTasks,
}

/// Something that is wrong.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// What is wrong.
    pub kind: Kind,
    /// How much it matters.
    pub verdict: Verdict,
    /// The image, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The store, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// The name in the store, or the id of the job or task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What was found.
    pub found: String,
    /// What a repair does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repair: Option<String>,
    /// What to do where a repair does nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    #[serde(skip)]
    step: Option<Repair>,
}

impl Finding {
    fn new(kind: Kind, found: impl Into<String>) -> Self {
        Self {
            kind,
            verdict: Verdict::Problem,
            image: None,
            store: None,
            name: None,
            found: found.into(),
            repair: None,
            advice: None,
            step: None,
        }
    }

    fn note(self) -> Self {
        Self { verdict: Verdict::Note, ..self }
    }

    fn of(self, image: ImageId) -> Self {
        Self { image: Some(image.to_string()), ..self }
    }

    fn at(self, store: &str, name: &str) -> Self {
        Self { store: Some(store.to_owned()), ..self }.named(name)
    }

    fn named(self, name: impl ToString) -> Self {
        Self { name: Some(name.to_string()), ..self }
    }

    fn repaired_by(self, step: Repair) -> Self {
        Self { repair: Some(step.to_string()), step: Some(step), ..self }
    }

    fn advised(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }
}

/// What is told while it goes on.
#[derive(Debug)]
pub enum Told<'t> {
    /// This was found; if it is to be repaired, that comes next.
    Found(&'t Finding),
    /// It has been repaired.
    Repaired(&'t Finding),
    /// It could not be repaired.
    Unrepaired(&'t Finding, Error),
    /// This could not be checked.
    Unchecked(String),
}

/// How it ended.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Summary {
    /// Records looked at.
    pub images: u64,
    /// Names in the stores looked at.
    pub stored: u64,
    /// Names that others made.
    pub foreign: u64,
    /// What is wrong.
    pub problems: u64,
    /// What is worth knowing.
    pub notes: u64,
    /// How many of the problems have been repaired.
    pub repaired: u64,
    /// What could not be checked.
    pub unchecked: u64,
}

/// A check that goes on.
struct Check<'c> {
    request: Request,
    /// What changed after this is too young.
    before: OffsetDateTime,
    pace: Pace,
    summary: Summary,
    /// Stores that did not answer: nobody waits for them twice.
    silent: BTreeSet<String>,
    tell: &'c mut (dyn FnMut(Told<'_>) + Send),
}

impl Check<'_> {
    /// Notes what could not be checked.
    fn unchecked(&mut self, what: String) {
        self.summary.unchecked += 1;
        (self.tell)(Told::Unchecked(what));
    }

    /// Notes that a store does not answer.
    fn silence(&mut self, store: &str, why: &str) {
        if self.silent.insert(store.to_owned()) {
            self.unchecked(format!("store {store}: {why}"));
        }
    }

    fn is_silent(&self, store: &str) -> bool {
        self.silent.contains(store)
    }
}

impl Services {
    /// Compares the catalog with the stores, and tells what does not agree as it is found.
    ///
    /// # Errors
    /// [`Error::Unavailable`] for the catalog; stores that do not answer are told as unchecked.
    pub async fn fsck(
        self: &Arc<Self>,
        request: Request,
        tell: &mut (dyn FnMut(Told<'_>) + Send),
    ) -> Result<Summary, Error> {
        let before = self.catalog.time_before(request.grace).await?;
        let pace = Pace::new(request.images_per_s.into());
        let mut check = Check { request, before, pace, summary: Summary::default(), silent: BTreeSet::new(), tell };
        // 1. What should be going on: what a job leaves behind is its own until it has ended.
        self.check_queue(&mut check).await?;
        // 2. From the catalog to the stores.
        self.check_images(&mut check).await?;
        // 3. And back.
        self.check_pools(&mut check).await?;
        Ok(check.summary)
    }

    /// Tells what was found, and repairs it if that is asked for.
    async fn report(self: &Arc<Self>, check: &mut Check<'_>, finding: Finding) {
        match finding.verdict {
            Verdict::Problem => check.summary.problems += 1,
            Verdict::Note | Verdict::Ok => check.summary.notes += 1,
        }
        (check.tell)(Told::Found(&finding));
        let Some(step) = finding.step.as_ref().filter(|_| check.request.repair) else { return };
        match self.repair(step, check.before).await {
            Ok(()) => {
                check.summary.repaired += u64::from(finding.verdict == Verdict::Problem);
                (check.tell)(Told::Repaired(&finding));
            }
            Err(error) => (check.tell)(Told::Unrepaired(&finding, error)),
        }
    }
}
