//! Tasks: what the service does for a client that does not wait for it, as administrators see it.

use serde_json::{Map, Value};
use time::OffsetDateTime;
use uuid::Uuid;

use super::Refusal;
use super::id::{ImageId, parse_uuid};
use super::query::{Direction, PageSizes, limit};

/// What a task does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskKind {
    /// Makes an image and fills it, at the request of an administrator.
    Import,
    /// Fills an image (`POST /v2/images/{id}/import`).
    ImageImport,
    /// Registers data that is somewhere already (`POST /v2/images/{id}/locations`).
    LocationImport,
}

impl TaskKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Import, Self::ImageImport, Self::LocationImport];

    /// The name in the API and in the catalog.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Import => "import",
            Self::ImageImport => "api_image_import",
            Self::LocationImport => "location_import",
        }
    }

    /// The kind of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// How far a task has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskStatus {
    /// Waits for its turn.
    Pending,
    /// Is being worked on.
    Processing,
    /// Ended well.
    Success,
    /// Ended otherwise; its message says how.
    Failure,
}

impl TaskStatus {
    /// Every status.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Processing, Self::Success, Self::Failure];

    /// The name in the API and in the catalog.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Processing => "processing",
            Self::Success => "success",
            Self::Failure => "failure",
        }
    }

    /// The status of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }
}

/// A task.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Identifier.
    pub id: Uuid,
    /// What it does.
    pub kind: TaskKind,
    /// How far it has come.
    pub status: TaskStatus,
    /// Project that asked for it.
    pub owner: Option<String>,
    /// User who asked for it.
    pub user_id: Option<String>,
    /// Request that asked for it.
    pub request_id: Option<String>,
    /// The image it is about, if there is one yet.
    pub image: Option<ImageId>,
    /// What was asked for: an object, or null.
    pub input: Value,
    /// What came of it: an object, or null.
    pub result: Value,
    /// For people; empty while there is nothing to say.
    pub message: String,
    /// When it was asked for.
    pub created_at: OffsetDateTime,
    /// When it last changed: of a task that has ended, its end.
    pub updated_at: OffsetDateTime,
    /// When it will be forgotten; `None` before it has ended.
    pub expires_at: Option<OffsetDateTime>,
}

/// Columns of tasks that a list can be filtered by, for equality.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskField {
    /// Identifier.
    Id,
    /// Kind.
    Type,
    /// Status.
    Status,
    /// Project that asked for it.
    Owner,
    /// User who asked for it.
    UserId,
    /// Request that asked for it.
    RequestId,
    /// The image it is about.
    ImageId,
}

/// Columns of tasks that a list can be sorted by. What is missing comes before everything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskKey {
    /// A text.
    Field(TaskField),
    /// Time of creation.
    CreatedAt,
    /// Time of the last change.
    UpdatedAt,
    /// Time of being forgotten.
    ExpiresAt,
}

const FIELDS: [(&str, TaskField); 7] = [
    ("id", TaskField::Id),
    ("type", TaskField::Type),
    ("status", TaskField::Status),
    ("owner", TaskField::Owner),
    ("user_id", TaskField::UserId),
    ("request_id", TaskField::RequestId),
    ("image_id", TaskField::ImageId),
];
const TIMES: [(&str, TaskKey); 3] =
    [("created_at", TaskKey::CreatedAt), ("updated_at", TaskKey::UpdatedAt), ("expires_at", TaskKey::ExpiresAt)];

fn field(name: &str) -> Option<TaskField> {
    FIELDS.into_iter().find(|(known, _)| *known == name).map(|(_, field)| field)
}

/// What `GET /v2/tasks` asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskQuery {
    /// Page size; 0 gives an empty page.
    pub limit: usize,
    /// The last task of the previous page.
    pub marker: Option<Uuid>,
    /// Most significant key; ties are broken by `created_at` and `id`.
    pub key: TaskKey,
    /// Direction of all keys.
    pub direction: Direction,
    /// What the tasks must be equal in.
    pub filters: Vec<(TaskField, String)>,
}

impl TaskQuery {
    /// Reads the decoded pairs of a query string. Unknown parameters are ignored, as the reference does.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] naming the parameter.
    pub fn parse(pairs: &[(String, String)], sizes: PageSizes) -> Result<Self, Refusal> {
        let mut query = Self {
            limit: sizes.default.min(sizes.max),
            marker: None,
            key: TaskKey::CreatedAt,
            direction: Direction::Descending,
            filters: Vec::new(),
        };
        for (n, (name, value)) in pairs.iter().enumerate() {
            let known = matches!(name.as_str(), "limit" | "marker" | "sort_key" | "sort_dir") || field(name).is_some();
            if known && pairs[..n].iter().any(|(other, _)| other == name) {
                return Err(Refusal::Invalid(format!("Query parameter '{name}' is given twice; give it once.")));
            }
            match name.as_str() {
                "limit" => query.limit = limit(value, sizes.max)?,
                "marker" => query.marker = Some(parse_uuid(value).ok_or_else(|| unknown_marker(value))?),
                "sort_key" => query.key = sort_key(value)?,
                "sort_dir" => query.direction = Direction::parse(value)?,
                // One that is empty finds nothing.
                "status" if !value.is_empty() && TaskStatus::parse(value).is_none() => {
                    let names = TaskStatus::ALL.map(TaskStatus::as_str).join(", ");
                    return Err(Refusal::Invalid(format!(
                        "Invalid status value: {value}. It must be one of the following: {names}."
                    )));
                }
                // Of the other kinds the reference knows nothing here.
                "type" if !value.is_empty() && value != TaskKind::Import.as_str() => {
                    return Err(Refusal::Invalid(format!(
                        "Invalid type value: {value}. The one type that can be asked for is '{}'.",
                        TaskKind::Import.as_str()
                    )));
                }
                _ => query.filters.extend(field(name).map(|field| (field, value.clone()))),
            }
        }
        Ok(query)
    }
}

/// The refusal of a marker that is no task.
#[must_use]
pub fn unknown_marker(value: &str) -> Refusal {
    Refusal::Invalid(format!("Invalid marker: there is no task with ID {value}."))
}

fn sort_key(name: &str) -> Result<TaskKey, Refusal> {
    let time = TIMES.into_iter().find(|(known, _)| *known == name).map(|(_, key)| key);
    time.or_else(|| field(name).map(TaskKey::Field)).ok_or_else(|| {
        let names: Vec<&str> =
            FIELDS.iter().map(|(name, _)| *name).chain(TIMES.iter().map(|(name, _)| *name)).collect();
        Refusal::Invalid(format!("Invalid sort key: {name}. It must be one of the following: {}.", names.join(", ")))
    })
}

/// A task that a client asks for: an image is made and filled.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportTask {
    /// URL of the data.
    pub from: String,
    /// What the data is, as a `disk_format`.
    pub format: String,
    /// Attributes and properties of the image.
    pub properties: Map<String, Value>,
    /// All of that as the client wrote it.
    pub input: Value,
}

impl ImportTask {
    /// Reads the body of `POST /v2/tasks`.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] naming the member.
    pub fn parse(body: &Map<String, Value>) -> Result<Self, Refusal> {
        for required in ["type", "input"] {
            if !body.contains_key(required) {
                return Err(Refusal::Invalid(format!("Task '{required}' is required")));
            }
        }
        for (name, value) in body {
            check_member(name, value)?;
        }
        if body["type"] != TaskKind::Import.as_str() {
            return Err(Refusal::Invalid(format!(
                "Tasks of type {} are made by the calls that need them; a client can ask for type '{}' alone.",
                body["type"],
                TaskKind::Import.as_str()
            )));
        }
        let input = body["input"].as_object();
        let part = |name: &str| input.and_then(|input| input.get(name)).unwrap_or(&Value::Null);
        let needs =
            |name: &str, what: &str| Refusal::Invalid(format!("The input of an import needs '{name}': {what}."));
        let from = source(part("import_from"))?;
        let format = part("import_from_format").as_str().ok_or_else(|| needs("import_from_format", "a string"))?;
        let properties = part("image_properties").as_object().ok_or_else(|| needs("image_properties", "an object"))?;
        Ok(Self {
            from: from.to_owned(),
            format: format.to_owned(),
            properties: properties.clone(),
            input: body["input"].clone(),
        })
    }
}

/// What the schema of tasks says of one member. Others may be there, and count for nothing.
fn check_member(name: &str, value: &Value) -> Result<(), Refusal> {
    let text = |parse: fn(&str) -> bool| value.as_str().is_some_and(parse);
    let (right, what) = match name {
        "id" => (text(|text| parse_uuid(text).is_some()), "a UUID"),
        "type" => (text(|text| TaskKind::parse(text).is_some()), "import, api_image_import or location_import"),
        "status" => (text(|text| TaskStatus::parse(text).is_some()), "pending, processing, success or failure"),
        "input" | "result" => (value.is_object() || value.is_null(), "an object or null"),
        "expires_at" => (value.is_string() || value.is_null(), "a string or null"),
        "owner" | "message" | "image_id" | "request_id" | "user_id" | "created_at" | "updated_at" | "self"
        | "schema" => (value.is_string(), "a string"),
        _ => (true, ""),
    };
    if right {
        return Ok(());
    }
    Err(Refusal::Invalid(format!("Provided object does not match schema 'task': '{name}' must be {what}.")))
}

fn source(source: &Value) -> Result<&str, Refusal> {
    let invalid = |what: &str| Err(Refusal::Invalid(format!("Invalid 'import_from': {what}")));
    match source.as_str() {
        None | Some("") => invalid("it must be the URL of the data."),
        Some(url) if url.starts_with("http://") || url.starts_with("https://") => Ok(url),
        Some(url) if url.starts_with("file://") || url.starts_with("filesystem://") => {
            invalid("File based imports are not allowed. Please use a non-local source of image data.")
        }
        Some(_) => invalid("its scheme must be http or https."),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};
    use serde_json::{Map, Value, json};

    use super::{ImportTask, TaskField, TaskKey, TaskQuery};
    use crate::domain::Refusal;
    use crate::domain::query::{Direction, PageSizes, pairs};

    fn parse(raw: &str) -> Result<TaskQuery, Refusal> {
        TaskQuery::parse(&pairs(raw)?, PageSizes { default: 25, max: 1000 })
    }

    fn check(body: &Value) -> Result<ImportTask, Refusal> {
        ImportTask::parse(body.as_object().unwrap())
    }

    #[test]
    fn what_a_list_of_tasks_is_asked_for() {
        let query = parse("").unwrap();
        assert_eq!((query.limit, query.key, query.direction), (25, TaskKey::CreatedAt, Direction::Descending));
        let query = parse("limit=2000&sort_key=owner&sort_dir=asc&status=success&type=import&owner=p&x=y&x=z").unwrap();
        assert_eq!((query.limit, query.key), (1000, TaskKey::Field(TaskField::Owner)));
        assert_eq!(query.filters.len(), 3);
        assert_eq!(parse("status=&type=").unwrap().filters.len(), 2);
        for bad in [
            "limit=x",
            "limit=-1",
            "limit=",
            "marker=x",
            "marker=",
            "sort_key=input",
            "sort_key=",
            "sort_dir=up",
            "status=done",
            "type=api_image_import",
            "status=success&status=failure",
            "owner=%00",
        ] {
            assert!(matches!(parse(bad), Err(Refusal::Invalid(_))), "{bad}");
        }
    }

    #[test]
    fn what_a_task_is_asked_for() {
        let good = json!({"type": "import", "input": {"import_from": "https://x/y", "import_from_format": "raw", "image_properties": {}}});
        let task = check(&good).unwrap();
        assert_eq!((task.from.as_str(), task.format.as_str()), ("https://x/y", "raw"));
        assert_eq!((&task.properties, &task.input), (&Map::new(), &good["input"]));
        let with = |pointer: &str, value: Value| {
            let mut body = good.clone();
            match body.pointer_mut(pointer) {
                Some(place) => *place = value,
                None => body[pointer.trim_start_matches('/')] = value,
            }
            body
        };
        check(&with("/owner", json!("p"))).unwrap();
        check(&with("/unknown", json!([1]))).unwrap();
        for bad in [
            json!({}),
            json!({"type": "import"}),
            json!({"input": {}}),
            with("/type", json!("export")),
            with("/type", json!(null)),
            with("/type", json!("location_import")),
            with("/input", json!(null)),
            with("/input", json!("https://x/y")),
            with("/input", json!({})),
            with("/input/import_from", json!(null)),
            with("/input/import_from", json!("")),
            with("/input/import_from", json!(["https://x"])),
            with("/input/import_from", json!("file:///etc/passwd")),
            with("/input/import_from", json!("FILE:///etc/passwd")),
            with("/input/import_from", json!("filesystem:///etc/passwd")),
            with("/input/import_from", json!("swift+https://x/y")),
            with("/input/import_from", json!("rbd://x/y")),
            with("/input/import_from_format", json!(5)),
            with("/input/image_properties", json!([])),
            with("/status", json!("done")),
            with("/owner", json!(5)),
            with("/id", json!("x")),
        ] {
            assert!(matches!(check(&bad), Err(Refusal::Invalid(_))), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_query_and_no_source_panics(raw in "[a-z_=&%:,0-9\"-]{0,60}|\\PC{0,30}", source in any::<String>()) {
            let _ = parse(&raw);
            let _ = ImportTask::parse(&Map::from_iter([("type".to_owned(), json!("import")), ("input".to_owned(), json!({"import_from": source}))]));
        }
    }
}
