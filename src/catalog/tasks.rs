//! Tasks. One that has ended does not change any more: it expires so long after its last change.

use std::time::Duration;

use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::{Catalog, Error, Param, Params, Tx};
use crate::domain::id::ImageId;
use crate::domain::query::{Direction, Scope};
use crate::domain::task::{Task, TaskField, TaskKey, TaskKind, TaskQuery, TaskStatus};

/// Columns of a task `t`; the first parameter is how long it is kept after its end.
const COLUMNS: &str = "t.id, t.type, t.status, t.owner, t.user_id, t.request_id, t.image_id, t.input, t.result, t.message, t.created_at, t.updated_at, \
    CASE WHEN t.status IN ('success', 'failure') THEN t.updated_at + make_interval(secs => $1 /* time_to_live_s */) END AS expires_at";
/// The condition that a task is to be seen: not expired, and of the project that is the second parameter.
const SEEN: &str = "(t.status NOT IN ('success', 'failure') OR t.updated_at > now() - make_interval(secs => $1 /* time_to_live_s */)) \
    AND ($2 /* owner */::text IS NULL OR t.owner = $2 OR t.owner IS NULL)";

/// What an event tells of a task `t`: neither what was asked for nor what came of it.
const TOLD: &str = "jsonb_build_object('id', t.id, 'type', t.type, 'status', t.status, 'owner', t.owner, 'user_id', t.user_id, \
    'request_id', t.request_id, 'image_id', t.image_id, \
    'created_at', to_char(t.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), \
    'updated_at', to_char(t.updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), \
    'deleted', false, 'deleted_at', NULL)";

/// Expired tasks removed at once.
const PRUNED_PER_CALL: i64 = 10_000;

impl TryFrom<&Row> for Task {
    type Error = Error;

    fn try_from(row: &Row) -> Result<Self, Error> {
        let id: Uuid = row.get("id");
        let (kind, status): (String, String) = (row.get("type"), row.get("status"));
        let unknown = |what: &str, name: &str| Error::Inconsistent {
            table: "tasks",
            row: id.to_string(),
            what: format!("unknown {what} {name}"),
        };
        Ok(Self {
            id,
            kind: TaskKind::parse(&kind).ok_or_else(|| unknown("type", &kind))?,
            status: TaskStatus::parse(&status).ok_or_else(|| unknown("status", &status))?,
            owner: row.get("owner"),
            user_id: row.get("user_id"),
            request_id: row.get("request_id"),
            image: row.get::<_, Option<Uuid>>("image_id").map(ImageId::from),
            input: row.get::<_, Option<Value>>("input").unwrap_or_default(),
            result: row.get::<_, Option<Value>>("result").unwrap_or_default(),
            message: row.get("message"),
            created_at: row.get("created_at"),
            updated_at: row.get("updated_at"),
            expires_at: row.get("expires_at"),
        })
    }
}

impl Catalog {
    /// The task, if it is within `scope` and has not expired.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Inconsistent`].
    pub async fn task(&self, id: Uuid, scope: &Scope, time_to_live: Duration) -> Result<Option<Task>, Error> {
        let sql = format!("-- task\nSELECT {COLUMNS} FROM tasks t WHERE {SEEN} AND t.id = $3 /* id */");
        let rows = self.rows("task", &sql, &[&time_to_live.as_secs_f64(), &owner(scope), &id]).await?;
        rows.first().map(Task::try_from).transpose()
    }

    /// The tasks about an image that are within `scope`, oldest first.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Inconsistent`].
    pub async fn image_tasks(&self, id: ImageId, scope: &Scope, time_to_live: Duration) -> Result<Vec<Task>, Error> {
        let sql = format!(
            "-- image_tasks\nSELECT {COLUMNS} FROM tasks t WHERE {SEEN} AND t.image_id = $3 /* image_id */ ORDER BY t.created_at, t.id"
        );
        let rows = self.rows("image_tasks", &sql, &[&time_to_live.as_secs_f64(), &owner(scope), &id.uuid()]).await?;
        rows.iter().map(Task::try_from).collect()
    }

    /// One page of tasks, in order. `None`: the marker is no task within `scope`.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Inconsistent`].
    pub async fn tasks(
        &self,
        query: &TaskQuery,
        scope: &Scope,
        time_to_live: Duration,
    ) -> Result<Option<Vec<Task>>, Error> {
        if let Some(marker) = query.marker
            && self.task(marker, scope, time_to_live).await?.is_none()
        {
            return Ok(None);
        }
        let (time_to_live_s, owner) = (time_to_live.as_secs_f64(), owner(scope));
        let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
        let mut params: Vec<(Param<'_>, Type)> =
            vec![(&time_to_live_s, Type::FLOAT8), (&owner, Type::TEXT), (&limit, Type::INT8)];
        let mut conditions = String::new();
        for (field, value) in &query.filters {
            params.push((value, Type::TEXT));
            conditions.push_str(&format!(" AND {} = ${} /* {} */", text(*field), params.len(), column(*field)));
        }
        let (sign, word) = match query.direction {
            Direction::Ascending => (">", "ASC"),
            Direction::Descending => ("<", "DESC"),
        };
        let key = expression(query.key);
        if let Some(marker) = &query.marker {
            params.push((marker, Type::UUID));
            let after = format!(
                " AND ({key}, t.created_at, t.id) {sign} (SELECT {}, m.created_at, m.id FROM tasks m WHERE m.id = ${} /* marker */)",
                key.replace("t.", "m."),
                params.len()
            );
            conditions.push_str(&after);
        }
        let sql = format!(
            "-- tasks\nSELECT {COLUMNS} FROM tasks t WHERE {SEEN}{conditions}\n\
             ORDER BY {key} {word}, t.created_at {word}, t.id {word} LIMIT $3 /* limit */"
        );
        // Not kept prepared: a client could ask for any number of shapes.
        let rows = self.read("tasks", &sql, Params::Typed(&params)).await?;
        rows.iter().map(Task::try_from).collect::<Result<Vec<_>, _>>().map(Some)
    }

    /// Tells how far a task has come that has not ended.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn task_progress(&self, id: Uuid, message: &str, result: &Value) -> Result<(), Error> {
        let sql = "-- task_progress\n\
            UPDATE tasks SET status = 'processing', message = $2 /* message */, result = $3 /* result */, updated_at = now()\n\
            WHERE id = $1 /* id */ AND status IN ('pending', 'processing') RETURNING 1";
        // Saying it twice does no harm.
        self.rows("task_progress", sql, &[&id, &message, result]).await.map(drop)
    }

    /// Removes a bounded number of expired tasks; returns how many.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn prune_tasks(&self, time_to_live: Duration) -> Result<u64, Error> {
        let tx = self.begin("tasks_prune").await?;
        let sql = "-- tasks_prune\n\
            DELETE FROM tasks WHERE id IN (\n\
              SELECT id FROM tasks WHERE status IN ('success', 'failure') AND updated_at <= now() - make_interval(secs => $1 /* time_to_live_s */)\n\
              ORDER BY updated_at LIMIT $2 /* limit */)";
        let removed = tx.execute(sql, &[&time_to_live.as_secs_f64(), &PRUNED_PER_CALL]).await?;
        tx.commit().await?;
        Ok(removed)
    }
}

/// A task to be recorded.
#[derive(Debug)]
pub struct NewTask<'a> {
    /// Identifier.
    pub id: Uuid,
    /// What it does.
    pub kind: TaskKind,
    /// How far it has come already.
    pub status: TaskStatus,
    /// Project that asked for it.
    pub owner: &'a str,
    /// User who asked for it.
    pub user_id: &'a str,
    /// The request by which it was asked for.
    pub request_id: Option<&'a str>,
    /// The image it is about.
    pub image: ImageId,
    /// What was asked for.
    pub input: &'a Value,
}

impl Tx {
    /// Records a task.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn insert_task(&self, task: &NewTask<'_>) -> Result<(), Error> {
        let sql = format!(
            "-- task_insert\n\
            WITH t AS (\n\
              INSERT INTO tasks (id, type, status, owner, user_id, request_id, image_id, input, created_at, updated_at)\n\
              VALUES ($1 /* id */, $2 /* type */, $3 /* status */, $4 /* owner */, $5 /* user_id */, $6 /* request_id */, $7 /* image_id */, $8 /* input */, now(), now()) RETURNING *)\n\
            INSERT INTO events (type, payload) SELECT 'task.' || e.kind, {TOLD} FROM t,\n\
              unnest(CASE t.status WHEN 'pending' THEN ARRAY['create'] ELSE ARRAY['create', t.status] END) WITH ORDINALITY AS e (kind, n) ORDER BY e.n"
        );
        let (kind, status) = (task.kind.as_str(), task.status.as_str());
        let image = task.image.uuid();
        let params: [Param<'_>; 8] =
            [&task.id, &kind, &status, &task.owner, &task.user_id, &task.request_id, &image, task.input];
        self.execute(&sql, &params).await.map(drop)
    }

    /// As [`Tx::end_task`], with a result.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn end_task_with(
        &self,
        id: Uuid,
        status: TaskStatus,
        message: &str,
        result: &Value,
    ) -> Result<(), Error> {
        let sql = "-- task_end_with\n\
            UPDATE tasks SET status = $2 /* status */, message = $3 /* message */, result = $4 /* result */, updated_at = now()\n\
            WHERE id = $1 /* id */ AND status IN ('pending', 'processing')";
        self.execute(sql, &[&id, &status.as_str(), &message, result]).await.map(drop)
    }

    /// Ends a task that is being worked on; one that has ended stays as it is.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn end_task(&self, id: Uuid, status: TaskStatus, message: &str) -> Result<(), Error> {
        let sql = format!(
            "-- task_end\n\
            WITH t AS (\n\
              UPDATE tasks SET status = $2 /* status */, message = $3 /* message */, updated_at = now() WHERE id = $1 /* id */ AND status = 'processing' RETURNING *)\n\
            INSERT INTO events (type, payload) SELECT 'task.' || t.status, {TOLD} FROM t"
        );
        self.execute(&sql, &[&id, &status.as_str(), &message]).await.map(drop)
    }
}

/// The project whose tasks are within a scope; `None`: all tasks are.
fn owner(scope: &Scope) -> Option<&str> {
    match scope {
        Scope::Everything(_) => None,
        Scope::Project(project) => Some(project),
    }
}

fn column(field: TaskField) -> &'static str {
    match field {
        TaskField::Id => "id",
        TaskField::Type => "type",
        TaskField::Status => "status",
        TaskField::Owner => "owner",
        TaskField::UserId => "user_id",
        TaskField::RequestId => "request_id",
        TaskField::ImageId => "image_id",
    }
}

/// A column as the text that the API shows.
fn text(field: TaskField) -> &'static str {
    match field {
        TaskField::Id => "t.id::text",
        TaskField::Type => "t.type",
        TaskField::Status => "t.status",
        TaskField::Owner => "t.owner",
        TaskField::UserId => "t.user_id",
        TaskField::RequestId => "t.request_id",
        TaskField::ImageId => "t.image_id::text",
    }
}

/// What a key sorts by; missing values come first.
fn expression(key: TaskKey) -> String {
    match key {
        TaskKey::Field(field) => format!("coalesce({}, '')", text(field)),
        TaskKey::CreatedAt => "t.created_at".into(),
        TaskKey::UpdatedAt => "t.updated_at".into(),
        // The same order as that of expires_at.
        TaskKey::ExpiresAt => {
            "CASE WHEN t.status IN ('success', 'failure') THEN t.updated_at ELSE '-infinity' END".into()
        }
    }
}
