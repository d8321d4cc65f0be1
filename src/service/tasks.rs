//! `/v2/tasks` and `/v2/images/{id}/tasks`.

use std::time::Duration;

use serde_json::{Map, Value};

use super::{Error, Services};
use crate::domain::id::parse_uuid;
use crate::domain::task::{ImportTask, Task, TaskQuery, unknown_marker};
use crate::identity::Caller;
use crate::identity::policy::{Action, Target};

/// The task API, in the hands of a caller who may use it.
pub struct Tasks<'a> {
    services: &'a Services,
    caller: &'a Caller,
}

impl Services {
    /// Opens the task API: whoever may not use it is not told what is wrong with the rest of the request.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub async fn tasks<'a>(&'a self, caller: &'a Caller) -> Result<Tasks<'a>, Error> {
        self.authorize(Action::TasksApiAccess, caller, Target::Nothing).await?;
        Ok(Tasks { services: self, caller })
    }

    /// The tasks about an image that the caller may see: of another project's tasks nothing is told.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn image_tasks(&self, caller: &Caller, id: &str) -> Result<Vec<Task>, Error> {
        let image = self.visible(caller, id).await?;
        Ok(self.catalog.image_tasks(image.id, &caller.scope(), self.task_time_to_live()).await?)
    }

    fn task_time_to_live(&self) -> Duration {
        self.settings.task_time_to_live
    }
}

impl Tasks<'_> {
    /// One page of tasks.
    ///
    /// # Errors
    /// [`Error::Forbidden`]; [`Error::Invalid`] for a marker that is no task the caller may see.
    pub async fn list(&self, query: &TaskQuery) -> Result<Vec<Task>, Error> {
        let services = self.services;
        services.authorize(Action::GetTasks, self.caller, Target::Nothing).await?;
        let page = services.catalog.tasks(query, &self.caller.scope(), services.task_time_to_live()).await?;
        let marker = || query.marker.map(|id| id.to_string()).unwrap_or_default();
        page.ok_or_else(|| unknown_marker(&marker()).into())
    }

    /// One task.
    ///
    /// # Errors
    /// [`Error::Forbidden`]; [`Error::NotFound`], also for a task that has expired.
    pub async fn show(&self, id: &str) -> Result<Task, Error> {
        let services = self.services;
        services.authorize(Action::GetTask, self.caller, Target::Nothing).await?;
        let missing = || Error::NotFound(format!("No task found with ID {id}"));
        let parsed = parse_uuid(id).ok_or_else(missing)?;
        let task = services.catalog.task(parsed, &self.caller.scope(), services.task_time_to_live()).await?;
        task.ok_or_else(missing)
    }

    /// Begins the task that is asked for: an image is made and filled.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the member; [`Error::Forbidden`]; those of making an image.
    pub async fn create(&self, body: &Map<String, Value>) -> Result<Task, Error> {
        let wanted = ImportTask::parse(body)?;
        self.services.authorize(Action::AddTask, self.caller, Target::Nothing).await?;
        self.services.import_new(self.caller, wanted).await
    }
}
