//! A task as clients see it (`image-api.md` 2.4), in the two forms of the reference.

use serde_json::{Map, Value, json};
use time::{OffsetDateTime, UtcOffset};

use super::{Member, View, member, read_only, some, text, uuid, write};
use crate::api::Settings;
use crate::domain::image::timestamp;
use crate::domain::task::{Task, TaskKind, TaskStatus};

/// What a task has, in the order of the schema.
pub(in crate::api) const MEMBERS: [Member<Task>; 15] = [
    member("id", "Identifier of the task.", uuid, |task, _| some(task.id.to_string())),
    member(
        "type",
        "What it does.",
        |_| names(&TaskKind::ALL.map(TaskKind::as_str)),
        |task, _| some(task.kind.as_str()),
    ),
    member(
        "status",
        "How far it has come.",
        |_| names(&TaskStatus::ALL.map(TaskStatus::as_str)),
        |task, _| some(task.status.as_str()),
    ),
    member("input", "What was asked for.", object_or_null, |task, _| some(&task.input)),
    member("result", "What came of it.", object_or_null, |task, _| some(&task.result)),
    member("owner", "Project that asked for it.", text, |task, _| some(&task.owner)),
    member("message", "What there is to say of it, mostly of its failure.", text, |task, _| some(&task.message)),
    member("image_id", "The image it is about.", text, |task, _| task.image.map(|id| json!(id.to_string()))),
    member("request_id", "Request that asked for it.", text, |task, _| task.request_id.as_ref().map(|id| json!(id))),
    member("user_id", "User who asked for it.", text, |task, _| task.user_id.as_ref().map(|id| json!(id))),
    member(
        "expires_at",
        "When it will be forgotten.",
        |_| json!({"type": ["null", "string"]}),
        |task, _| task.expires_at.map(|moment| json!(timestamp(moment))),
    ),
    member("created_at", "When it was asked for.", text, |task, _| some(timestamp(task.created_at))),
    member("updated_at", "When it last changed.", text, |task, _| some(timestamp(task.updated_at))),
    read_only("self", "URL of the task.", text, |task, _| some(path(task))),
    read_only("schema", "URL of this schema.", text, |_, _| some("/v2/schemas/task")),
];

/// Members that no task in a list has, by its schema.
const NOT_LISTED: [&str; 3] = ["input", "result", "message"];
/// Members that no task in a list has either, although the schema has them.
const NOT_WRITTEN: [&str; 3] = ["image_id", "request_id", "user_id"];

fn names(names: &[&str]) -> Value {
    json!({"type": "string", "enum": names})
}

fn object_or_null(_: &Settings) -> Value {
    json!({"type": ["null", "object"]})
}

/// The members of a task in a list.
pub(in crate::api) fn listed() -> impl Iterator<Item = &'static Member<Task>> {
    const ALL: &[Member<Task>] = &MEMBERS;
    ALL.iter().filter(|member| !NOT_LISTED.contains(&member.name))
}

/// Where a task is.
pub(in crate::api) fn path(task: &Task) -> String {
    format!("/v2/tasks/{}", task.id)
}

/// Writes a task.
pub(in crate::api) fn task(task: &Task, settings: &Settings) -> Value {
    document(&MEMBERS, task, settings)
}

/// Writes a task for a list.
pub(in crate::api) fn stub(task: &Task, settings: &Settings) -> Value {
    document(listed().filter(|member| !NOT_WRITTEN.contains(&member.name)), task, settings)
}

fn document<'m>(members: impl IntoIterator<Item = &'m Member<Task>>, task: &Task, settings: &Settings) -> Value {
    let mut object = Map::new();
    write(members, task, &View { settings, admin: true }, &mut object);
    Value::Object(object)
}

/// Writes a task among those of its image: the reference shows its row there as it is.
pub(in crate::api) fn row(task: &Task) -> Value {
    json!({
        "id": task.id.to_string(),
        "type": task.kind.as_str(),
        "status": task.status.as_str(),
        "owner": task.owner,
        "expires_at": task.expires_at.map(precise),
        "created_at": precise(task.created_at),
        "updated_at": precise(task.updated_at),
        "deleted_at": null,
        "deleted": false,
        "image_id": task.image.map(|id| id.to_string()),
        "request_id": task.request_id,
        "user_id": task.user_id,
        "input": task.input,
        "result": task.result,
        "message": task.message,
    })
}

/// A moment with microseconds and without a zone: UTC.
fn precise(moment: OffsetDateTime) -> String {
    let seconds = timestamp(moment);
    format!("{}.{:06}", seconds.trim_end_matches('Z'), moment.to_offset(UtcOffset::UTC).microsecond())
}
