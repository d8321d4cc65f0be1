//! `/openapi.json`: what this daemon serves, for tools. Made from the route table, the tables of members and
//! the one in [`operations`].

mod operations;
mod shapes;

use axum::Extension;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use bytes::Bytes;
use serde_json::{Map, Value, json};

use self::operations::{Content, OPERATIONS, Operation, Takes};
use super::Settings;
use super::routes::Paths;

/// Media types of image patches and of data.
const PATCH_MEDIA_TYPE: &str = "application/openstack-images-v2.1-json-patch";
const OLD_PATCH_MEDIA_TYPE: &str = "application/openstack-images-v2.0-json-patch";
const OCTET_STREAM: &str = "application/octet-stream";

/// The description as it is sent.
#[derive(Clone)]
pub(super) struct Document(Bytes);

impl Document {
    /// Describes the routes under `/v2` and those beside it.
    pub(super) fn of(v2: &Paths, open: &Paths, settings: &Settings) -> Self {
        Self(document(v2, open, settings).to_string().into())
    }
}

/// `GET /openapi.json`.
pub(super) async fn show(Extension(Document(text)): Extension<Document>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], text)
}

fn document(v2: &Paths, open: &Paths, settings: &Settings) -> Value {
    let mut paths = Map::new();
    for (prefix, list) in [("/v2", v2), ("", open)] {
        for (path, methods) in list {
            let whole = format!("{prefix}{}", if *path == "/" { "" } else { path });
            let described = methods.iter().filter_map(|method| find(method, path));
            let item =
                described.map(|operation| (operation.method.to_lowercase(), describe(operation, &whole, prefix)));
            paths.insert(whole.clone(), Value::Object(item.collect()));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Rockpool",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The OpenStack Image API v2.",
        },
        "paths": paths,
        "components": {
            "schemas": shapes::components(settings),
            "securitySchemes": {"token": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"}},
        },
    })
}

/// The description of an operation, whatever its parameters are called.
fn find(method: &str, path: &str) -> Option<&'static Operation> {
    let anonymous = anonymous(path);
    OPERATIONS.iter().find(|operation| operation.method == method && operation.path == anonymous)
}

/// The path with `{}` for each parameter.
fn anonymous(path: &str) -> String {
    let segments = path.split('/').map(|segment| if segment.starts_with('{') { "{}" } else { segment });
    segments.collect::<Vec<_>>().join("/")
}

fn describe(operation: &Operation, path: &str, prefix: &str) -> Value {
    let names = path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
    let in_path = names.map(
        |name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "minLength": 1}}),
    );
    let parameters: Vec<Value> =
        in_path.chain(operation.parameters.iter().map(|parameter| parameter.describe())).collect();
    let mut described = json!({
        "operationId": identifier(operation.method, path),
        "summary": operation.does,
        "tags": [path.trim_start_matches(prefix).split('/').find(|segment| !segment.is_empty()).unwrap_or("versions")],
        "parameters": parameters,
        "responses": responses(operation),
    });
    if let Some(body) = body(&operation.takes) {
        described["requestBody"] = body;
    }
    if !prefix.is_empty() {
        described["security"] = json!([{"token": []}]);
    }
    described
}

/// `get_v2_images_id`.
fn identifier(method: &str, path: &str) -> String {
    let words = path.split(|character: char| !character.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    std::iter::once(method.to_lowercase().as_str()).chain(words).collect::<Vec<_>>().join("_")
}

fn body(takes: &Takes) -> Option<Value> {
    let content = match takes {
        Takes::Nothing => return None,
        Takes::Json(component) => json!({"application/json": {"schema": reference(component)}}),
        Takes::Patch => json!({
            PATCH_MEDIA_TYPE: {"schema": reference("patch")},
            OLD_PATCH_MEDIA_TYPE: {"schema": reference("old-patch")},
        }),
        Takes::Data => json!({OCTET_STREAM: {"schema": {}}}),
    };
    Some(json!({"required": true, "content": content}))
}

fn responses(operation: &Operation) -> Value {
    let mut responses = Map::new();
    for (status, content) in operation.gives {
        let (description, content) = match content {
            Content::Nothing => ("Done; no body.", None),
            Content::Json(component) => ("JSON.", Some(json!({"application/json": {"schema": reference(component)}}))),
            Content::Data => ("The data, or a part of it.", Some(json!({OCTET_STREAM: {"schema": {}}}))),
            Content::TextOrJson => (
                "Text, or JSON for whoever accepts that.",
                Some(json!({
                    "text/plain": {"schema": {"type": "string"}},
                    "text/html": {"schema": {"type": "string"}},
                    "application/json": {"schema": reference("any")},
                })),
            ),
        };
        let mut response = json!({"description": description});
        if let Some(content) = content {
            response["content"] = content;
        }
        responses.insert(status.to_string(), response);
    }
    // The form of a refusal is the one that the client accepts.
    let refusal = json!({
        "description": "A refusal: a sentence that names what is wrong.",
        "content": {
            "application/json": {"schema": reference("refusal")},
            "text/html": {"schema": {"type": "string"}},
            "text/plain": {"schema": {"type": "string"}},
        },
    });
    responses.insert("4XX".into(), refusal.clone());
    responses.insert("503".into(), refusal);
    Value::Object(responses)
}

fn reference(component: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{component}")})
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::{open_routes, v2_routes};
    use super::{OPERATIONS, anonymous, document, find};
    use crate::api::Settings;

    #[test]
    fn every_route_is_described() {
        let mut missing = Vec::new();
        for (_, list) in [v2_routes().into_parts(), open_routes(true).into_parts()] {
            for (path, methods) in list {
                let undescribed = methods.into_iter().filter(|method| find(method, path).is_none());
                missing.extend(undescribed.map(|method| format!("{method} {path}")));
            }
        }
        assert!(missing.is_empty(), "no line in OPERATIONS (src/api/openapi/operations.rs) for: {missing:#?}");
    }

    #[test]
    fn nothing_is_described_that_is_not_there() {
        let described = [&v2_routes().into_parts().1, &open_routes(true).into_parts().1]
            .into_iter()
            .flatten()
            .flat_map(|(path, methods)| methods.iter().map(|method| (*method, anonymous(path))))
            .collect::<Vec<_>>();
        for operation in OPERATIONS.iter().filter(|operation| operation.path != "/openapi.json") {
            let there = described.contains(&(operation.method, operation.path.to_owned()));
            assert!(there, "{} {}", operation.method, operation.path);
        }
    }

    #[test]
    fn no_operation_is_described_twice() {
        for (n, operation) in OPERATIONS.iter().enumerate() {
            assert_eq!(operation.path, anonymous(operation.path));
            let mut before = OPERATIONS[..n].iter();
            let twin = before.find(|other| (other.method, other.path) == (operation.method, operation.path));
            assert!(twin.is_none(), "{} {}", operation.method, operation.path);
        }
    }

    fn references<'v>(value: &'v Value, found: &mut Vec<&'v str>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str));
                members.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let described = document(&v2_routes().into_parts().1, &open_routes(true).into_parts().1, &Settings::default());
        let mut found = Vec::new();
        references(&described, &mut found);
        assert!(found.len() > 50);
        for reference in found {
            let pointer = reference.trim_start_matches('#');
            assert!(
                described.pointer(pointer).is_some(),
                "{reference}: a name for it in documents (src/api/schemas.rs)?"
            );
        }
    }
}
