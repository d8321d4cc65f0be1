//! Jobs whose lease has run out, and tasks without a job.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::repair::Repair;
use super::{Check, Finding, Kind, PAGE};
use crate::service::{Error, Services};

/// A job that was left for later may wait for as long while the gateways are busy.
const WAITING_TIME: Duration = Duration::from_secs(60);

impl Services {
    pub(super) async fn check_queue(self: &Arc<Self>, check: &mut Check<'_>) -> Result<(), Error> {
        // 1. Jobs.
        let before = check.before.min(self.catalog.time_before(WAITING_TIME).await?);
        let mut after = Uuid::nil();
        loop {
            let page = self.catalog.overdue_jobs(before, after, i64::from(PAGE)).await?;
            let Some(last) = page.last() else { break };
            after = last.id;
            for job in page {
                // A gateway may have come for it since.
                let standing = self.catalog.job_standing(job.id, before).await?;
                if !standing.is_some_and(|standing| standing.is_overdue) {
                    continue;
                }
                let why = job.last_error.map(|error| format!(": {error}")).unwrap_or_default();
                let found = format!(
                    "the lease of a job of kind {} ({}, taken up {} times) has run out, and nobody takes it up{why}",
                    job.kind, job.state, job.attempts
                );
                let finding = Finding::new(Kind::ExpiredJob, found)
                    .of(job.image)
                    .named(job.id)
                    .repaired_by(Repair::TakeUp { job: job.id });
                self.report(check, finding).await;
            }
        }
        // 2. Tasks.
        let mut after = Uuid::nil();
        loop {
            let page = self.catalog.abandoned_tasks(check.before, after, i64::from(PAGE)).await?;
            let Some(last) = page.last() else { break };
            after = last.id;
            for task in page {
                let found = format!("a task of type {} is {}, and no job works on it", task.kind, task.status);
                let mut finding = Finding::new(Kind::StuckTask, found)
                    .named(task.id)
                    .repaired_by(Repair::AbandonTask { task: task.id });
                finding.image = task.image.map(|image| image.to_string());
                self.report(check, finding).await;
            }
        }
        let expired = self.catalog.count_expired_tasks(check.before, self.settings.task_time_to_live).await?;
        if expired > 0 {
            let found = format!("{expired} task(s) ended longer ago than tasks are kept");
            self.report(check, Finding::new(Kind::ExpiredTasks, found).repaired_by(Repair::Prune)).await;
        }
        Ok(())
    }
}
