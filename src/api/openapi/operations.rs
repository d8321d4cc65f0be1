//! What each operation does, takes and gives: one line for each method of each path.

use serde_json::{Value, json};

/// A parameter beside those in the path.
pub(super) struct Parameter {
    place: &'static str,
    name: &'static str,
    description: &'static str,
    schema: fn() -> Value,
}

impl Parameter {
    pub(super) fn describe(&self) -> Value {
        json!({"name": self.name, "in": self.place, "description": self.description, "schema": (self.schema)()})
    }
}

/// The body of a request.
pub(super) enum Takes {
    Nothing,
    /// JSON of this component.
    Json(&'static str),
    /// A JSON patch of an image.
    Patch,
    /// Bytes.
    Data,
}

/// The body of an answer.
pub(super) enum Content {
    Nothing,
    /// JSON of this component.
    Json(&'static str),
    Data,
    /// Text, or JSON for whoever accepts that.
    TextOrJson,
}

/// One method of one path.
pub(super) struct Operation {
    pub(super) method: &'static str,
    /// With `{}` for each parameter, and without `/v2`.
    pub(super) path: &'static str,
    pub(super) does: &'static str,
    pub(super) parameters: &'static [Parameter],
    pub(super) takes: Takes,
    pub(super) gives: &'static [(u16, Content)],
}

impl Operation {
    const fn with(mut self, parameters: &'static [Parameter]) -> Self {
        self.parameters = parameters;
        self
    }

    const fn takes(mut self, takes: Takes) -> Self {
        self.takes = takes;
        self
    }
}

const fn op(
    method: &'static str,
    path: &'static str,
    does: &'static str,
    gives: &'static [(u16, Content)],
) -> Operation {
    Operation { method, path, does, parameters: &[], takes: Takes::Nothing, gives }
}

const fn query(name: &'static str, description: &'static str, schema: fn() -> Value) -> Parameter {
    Parameter { place: "query", name, description, schema }
}

const fn header(name: &'static str, description: &'static str, schema: fn() -> Value) -> Parameter {
    Parameter { place: "header", name, description, schema }
}

fn text() -> Value {
    json!({"type": "string"})
}

fn number() -> Value {
    json!({"type": "integer", "minimum": 0})
}

fn boolean() -> Value {
    json!({"type": "string", "enum": ["true", "false"]})
}

fn direction() -> Value {
    json!({"type": "string", "enum": ["asc", "desc"]})
}

const LIMIT: Parameter = query("limit", "Most entries of a page.", number);
const MARKER: Parameter = query("marker", "The last entry of the page before.", text);
const SORT_KEY: Parameter = query("sort_key", "What to sort by.", text);
const SORT_DIR: Parameter = query("sort_dir", "Which way to sort.", direction);

const IMAGE_LIST: &[Parameter] = &[
    LIMIT,
    MARKER,
    SORT_KEY,
    SORT_DIR,
    query("sort", "What to sort by and which way: key[:direction], with commas.", text),
    query("id", "Identifier; operators eq: and in:.", text),
    query("name", "Name; operators eq: and in:.", text),
    query("status", "State; operators eq: and in:.", text),
    query("disk_format", "Disk format; operators eq: and in:.", text),
    query("container_format", "Container format; operators eq: and in:.", text),
    query("owner", "Owning project.", text),
    query("checksum", "MD5.", text),
    query("os_hash_value", "Hash.", text),
    query(
        "visibility",
        "Visibility, or all.",
        || json!({"type": "string", "enum": ["public", "private", "shared", "community", "all"]}),
    ),
    query(
        "member_status",
        "The project's answer to shared images.",
        || json!({"type": "string", "enum": ["pending", "accepted", "rejected", "all"]}),
    ),
    query("os_hidden", "Hidden images instead of the others.", boolean),
    query("protected", "Whether deletion is refused.", boolean),
    query("tag", "A label; may be repeated.", text),
    query("size_min", "Least size, in bytes.", number),
    query("size_max", "Largest size, in bytes.", number),
    query("min_ram", "Memory needed, in MiB.", number),
    query("min_disk", "Disk needed, in GiB.", number),
    query("created_at", "Time of creation; operators gt: gte: lt: lte: eq: neq:.", text),
    query("updated_at", "Time of the last change; the same operators.", text),
];
const TASK_LIST: &[Parameter] = &[
    LIMIT,
    MARKER,
    SORT_KEY,
    SORT_DIR,
    query("status", "State.", text),
    query("type", "Kind.", text),
    query("owner", "Owning project.", text),
];
const NAMESPACE_LIST: &[Parameter] = &[
    LIMIT,
    MARKER,
    SORT_KEY,
    SORT_DIR,
    query("visibility", "public or private.", text),
    query("resource_types", "Only those associated with one of these types, with commas.", text),
];
const PAGE: &[Parameter] = &[LIMIT, MARKER, SORT_KEY, SORT_DIR];
const RESOURCE_TYPE: &[Parameter] = &[query("resource_type", "Type whose prefix names carry.", text)];
const APPEND: &[Parameter] = &[header("X-Openstack-Append", "Whether to keep the tags that are there.", boolean)];
const UPLOAD: &[Parameter] = &[
    header("X-Image-Meta-Store", "Store to put the data into.", text),
    header("X-OpenStack-Image-Size", "How many bytes will come.", number),
];
const IMPORT: &[Parameter] = &[header("X-Image-Meta-Store", "The one store to put the data into.", text)];
const STAGE: &[Parameter] = &[header("X-OpenStack-Image-Size", "How many bytes will come.", number)];
const DOWNLOAD: &[Parameter] = &[
    header("Range", "One part of the data: bytes=FIRST-LAST.", text),
    header("If-None-Match", "ETag of data that is already there.", text),
    header("If-Range", "ETag of the data that the range is of.", text),
    query("prefer", "Stores to read from, with commas.", text),
];
const CLEAR_TARGET: &[Parameter] = &[header("x-image-cache-clear-target", "cache or queue.", text)];

const DONE: &[(u16, Content)] = &[(204, Content::Nothing)];
const ACCEPTED: &[(u16, Content)] = &[(202, Content::Nothing)];
const SCHEMA: &[(u16, Content)] = &[(200, Content::Json("any"))];
/// Nothing but refusals.
const NEVER: &[(u16, Content)] = &[];

macro_rules! json_of {
    ($status:literal $component:literal) => {
        &[($status, Content::Json($component))]
    };
}

/// Every operation of the Image API, and what is beside it.
pub(super) const OPERATIONS: &[Operation] = &[
    op("GET", "/", "Leads to the path with a slash, where nothing is.", &[(302, Content::Nothing)]),
    op("GET", "/images", "Lists images.", json_of!(200 "images")).with(IMAGE_LIST),
    op("POST", "/images", "Makes an image, without data.", json_of!(201 "image")).takes(Takes::Json("new-image")),
    op("GET", "/images/{}", "Shows an image.", json_of!(200 "image")),
    op("PATCH", "/images/{}", "Changes an image, all or nothing.", json_of!(200 "image")).takes(Takes::Patch),
    op("DELETE", "/images/{}", "Deletes an image and its data.", DONE),
    op("PUT", "/images/{}/file", "Uploads the data.", DONE).with(UPLOAD).takes(Takes::Data),
    op("POST", "/images/{}/import", "Fills the image, while the client does not wait.", ACCEPTED)
        .with(IMPORT)
        .takes(Takes::Json("import")),
    op("PUT", "/images/{}/stage", "Keeps the data for an import.", DONE).with(STAGE).takes(Takes::Data),
    op(
        "GET",
        "/images/{}/file",
        "Downloads the data.",
        &[(200, Content::Data), (204, Content::Nothing), (206, Content::Data), (304, Content::Nothing)],
    )
    .with(DOWNLOAD),
    op("GET", "/images/{}/tasks", "Lists the tasks of an image.", json_of!(200 "any")),
    op("GET", "/images/{}/locations", "Lists where the data is.", json_of!(200 "locations")),
    op("POST", "/images/{}/locations", "Adds a place where the data is.", ACCEPTED).takes(Takes::Json("new-location")),
    op("GET", "/images/{}/members", "Lists whom the image is shared with.", json_of!(200 "members")),
    op("POST", "/images/{}/members", "Shares the image with a project.", json_of!(200 "member"))
        .takes(Takes::Json("new-member")),
    op("GET", "/images/{}/members/{}", "Shows a membership.", json_of!(200 "member")),
    op("PUT", "/images/{}/members/{}", "Answers an offer.", json_of!(200 "member")).takes(Takes::Json("member-status")),
    op("DELETE", "/images/{}/members/{}", "Ends a membership.", DONE),
    op("PUT", "/images/{}/tags/{}", "Adds a label.", DONE),
    op("DELETE", "/images/{}/tags/{}", "Removes a label.", DONE),
    op("POST", "/images/{}/actions/deactivate", "Withholds the data from all but administrators.", DONE),
    op("POST", "/images/{}/actions/reactivate", "Gives the data out again.", DONE),
    op("DELETE", "/stores/{}/{}", "Removes the copy of an image in one store.", DONE),
    op("GET", "/tasks", "Lists tasks.", json_of!(200 "tasks")).with(TASK_LIST),
    op("POST", "/tasks", "Makes an image and fills it, while the client does not wait.", json_of!(201 "task"))
        .takes(Takes::Json("new-task")),
    op("GET", "/tasks/{}", "Shows a task.", json_of!(200 "task")),
    op("DELETE", "/tasks/{}", "Tasks go by themselves: 405.", NEVER),
    op("GET", "/cache", "There is no image cache: 404.", NEVER),
    op("DELETE", "/cache", "There is no image cache: 404.", NEVER).with(CLEAR_TARGET),
    op("PUT", "/cache/{}", "There is no image cache: 404.", NEVER),
    op("DELETE", "/cache/{}", "There is no image cache: 404.", NEVER),
    op("GET", "/cache/nodes/{}", "There is no image cache: 404.", NEVER),
    op("POST", "/cache/clean", "There is no image cache: 404.", NEVER),
    op("POST", "/cache/prune", "There is no image cache: 404.", NEVER),
    op("GET", "/info/import", "Names the methods of import.", json_of!(200 "any")),
    op("GET", "/info/stores", "Lists the stores.", json_of!(200 "stores")),
    op("GET", "/info/stores/detail", "Lists the stores with their settings.", json_of!(200 "stores")),
    op("GET", "/info/usage", "Tells what the project uses of its limits.", json_of!(200 "usage")),
    op("GET", "/schemas/image", "JSON schema of an image.", SCHEMA),
    op("GET", "/schemas/images", "JSON schema of a list of images.", SCHEMA),
    op("GET", "/schemas/member", "JSON schema of a membership.", SCHEMA),
    op("GET", "/schemas/members", "JSON schema of a list of memberships.", SCHEMA),
    op("GET", "/schemas/task", "JSON schema of a task.", SCHEMA),
    op("GET", "/schemas/tasks", "JSON schema of a list of tasks.", SCHEMA),
    op("GET", "/schemas/metadefs/{}", "JSON schema of a kind of definition, or of a list of them.", SCHEMA),
    op("GET", "/metadefs/namespaces", "Lists namespaces of definitions.", json_of!(200 "any")).with(NAMESPACE_LIST),
    op("POST", "/metadefs/namespaces", "Makes a namespace and what is in it.", json_of!(201 "any"))
        .takes(Takes::Json("namespace")),
    op("GET", "/metadefs/namespaces/{}", "Shows a namespace and what is in it.", json_of!(200 "any"))
        .with(RESOURCE_TYPE),
    op("PUT", "/metadefs/namespaces/{}", "Replaces a namespace.", json_of!(200 "any")).takes(Takes::Json("namespace")),
    op("DELETE", "/metadefs/namespaces/{}", "Deletes a namespace and what is in it.", DONE),
    op("GET", "/metadefs/resource_types", "Lists resource types.", json_of!(200 "any")),
    op(
        "GET",
        "/metadefs/namespaces/{}/resource_types",
        "Lists the types that a namespace is for.",
        json_of!(200 "any"),
    ),
    op("POST", "/metadefs/namespaces/{}/resource_types", "Associates a namespace with a type.", json_of!(201 "any"))
        .takes(Takes::Json("resource-type")),
    op("DELETE", "/metadefs/namespaces/{}/resource_types/{}", "Ends such an association.", DONE),
    op("GET", "/metadefs/namespaces/{}/properties", "Lists property definitions.", json_of!(200 "any")),
    op("POST", "/metadefs/namespaces/{}/properties", "Makes a property definition.", json_of!(201 "any"))
        .takes(Takes::Json("property")),
    op("DELETE", "/metadefs/namespaces/{}/properties", "Deletes all property definitions.", DONE),
    op("GET", "/metadefs/namespaces/{}/properties/{}", "Shows a property definition.", json_of!(200 "any"))
        .with(RESOURCE_TYPE),
    op("PUT", "/metadefs/namespaces/{}/properties/{}", "Replaces a property definition.", json_of!(200 "any"))
        .takes(Takes::Json("property")),
    op("DELETE", "/metadefs/namespaces/{}/properties/{}", "Deletes a property definition.", DONE),
    op("GET", "/metadefs/namespaces/{}/objects", "Lists object definitions.", json_of!(200 "any")).with(PAGE),
    op("POST", "/metadefs/namespaces/{}/objects", "Makes an object definition.", json_of!(201 "any"))
        .takes(Takes::Json("object")),
    op("DELETE", "/metadefs/namespaces/{}/objects", "Deletes all object definitions.", DONE),
    op("GET", "/metadefs/namespaces/{}/objects/{}", "Shows an object definition.", json_of!(200 "any")),
    op("PUT", "/metadefs/namespaces/{}/objects/{}", "Replaces an object definition.", json_of!(200 "any"))
        .takes(Takes::Json("object")),
    op("DELETE", "/metadefs/namespaces/{}/objects/{}", "Deletes an object definition.", DONE),
    op("GET", "/metadefs/namespaces/{}/tags", "Lists tag definitions.", json_of!(200 "any")).with(PAGE),
    op("POST", "/metadefs/namespaces/{}/tags", "Replaces all tag definitions, or adds to them.", json_of!(201 "any"))
        .with(APPEND)
        .takes(Takes::Json("tags")),
    op("DELETE", "/metadefs/namespaces/{}/tags", "Deletes all tag definitions.", DONE),
    op("GET", "/metadefs/namespaces/{}/tags/{}", "Shows a tag definition.", json_of!(200 "any")),
    op("POST", "/metadefs/namespaces/{}/tags/{}", "Makes a tag definition.", json_of!(201 "any")),
    op("PUT", "/metadefs/namespaces/{}/tags/{}", "Replaces a tag definition.", json_of!(200 "any"))
        .takes(Takes::Json("tag")),
    op("DELETE", "/metadefs/namespaces/{}/tags/{}", "Deletes a tag definition.", DONE),
    op("GET", "/versions", "Lists the versions.", json_of!(200 "versions")),
    op("HEAD", "/versions", "Like GET, without the body.", &[(200, Content::Nothing)]),
    op("POST", "/versions", "Like GET.", json_of!(200 "versions")),
    op("GET", "/versions/", "Lists the versions.", json_of!(200 "versions")),
    op("HEAD", "/versions/", "Like GET, without the body.", &[(200, Content::Nothing)]),
    op("POST", "/versions/", "Like GET.", json_of!(200 "versions")),
    op("GET", "/healthcheck", "Whether the process serves and nobody has disabled it.", &[(200, Content::TextOrJson)]),
    op("HEAD", "/healthcheck", "Like GET, without the body.", DONE),
    op("GET", "/livez", "Whether the process answers.", &[(200, Content::TextOrJson)]),
    op("HEAD", "/livez", "Like GET, without the body.", &[(200, Content::Nothing)]),
    op("GET", "/readyz", "Whether all that is needed answers.", &[(200, Content::TextOrJson)]).with(&[query(
        "verbose",
        "Whether to tell the state of each.",
        text,
    )]),
    op("HEAD", "/readyz", "Like GET, without the body.", &[(200, Content::Nothing)]),
    op("GET", "/metrics", "What is counted, for Prometheus.", &[(200, Content::TextOrJson)]),
    op("GET", "/openapi.json", "This description.", json_of!(200 "any")),
];
