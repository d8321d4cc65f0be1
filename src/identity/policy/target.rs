//! What an action is done to, and who does it, as rules see them.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::fact::{Fact, Unanswerable};
use crate::domain::image::{Attributes, Image, Visibility, timestamp};
use crate::identity::Caller;

/// What an action is done to, as rules see it through `%(name)s`.
#[derive(Debug, Clone, Copy)]
pub enum Target<'a> {
    /// An image that exists or is about to.
    Image {
        /// What clients set.
        attributes: &'a Attributes,
        /// The rest, if there is an image already.
        image: Option<&'a Image>,
        /// The member that the action is about. Without one it is the caller's project, if the image can only have
        /// been found by its membership.
        member: Option<&'a str>,
    },
    /// Something that belongs to a project as a whole.
    Project(&'a str),
    /// A metadata definition.
    Metadef {
        /// Owning project of the namespace.
        owner: Option<&'a str>,
        /// `public` or `private`.
        visibility: &'a str,
    },
    /// The caller, who may be an administrator.
    Caller(&'a Caller),
    /// Attributes as a command line or a file gives them.
    Json(&'a Map<String, Value>),
    /// Nothing in particular.
    Nothing,
}

impl<'a> From<&'a Image> for Target<'a> {
    fn from(image: &'a Image) -> Self {
        Self::Image { attributes: &image.attributes, image: Some(image), member: None }
    }
}

impl<'a> From<&'a Attributes> for Target<'a> {
    fn from(attributes: &'a Attributes) -> Self {
        Self::Image { attributes, image: None, member: None }
    }
}

impl<'a> Target<'a> {
    /// The target's attribute of that name; `None` if it has no such attribute.
    pub(super) fn get(self, name: &str, credentials: Credentials<'a>) -> Option<Fact<'a>> {
        match self {
            Self::Image { attributes, image, member } => image_attribute(name, attributes, image, || {
                member.or_else(|| image.and_then(|image| found_as_member(image, credentials)))
            }),
            Self::Project(project) => (name == "project_id").then_some(project.into()),
            Self::Metadef { owner, visibility } => match name {
                "project_id" | "owner" => Some(owner.into()),
                "visibility" => Some(visibility.into()),
                _ => None,
            },
            Self::Caller(caller) => match name {
                "user" => Some(caller.user_id.as_str().into()),
                "project" => Some(caller.project_id.as_str().into()),
                "user_domain" => Some(caller.user_domain_id.as_deref().into()),
                "project_domain" => Some(caller.project_domain_id.as_deref().into()),
                _ => Credentials::Caller(caller).get(name),
            },
            Self::Json(members) => members.get(name).map(Fact::Json),
            Self::Nothing => None,
        }
    }
}

impl<'a> Target<'a> {
    /// All attributes that rules can ask for, as JSON.
    pub(super) fn json(self, credentials: Credentials<'a>) -> Map<String, Value> {
        let mut members = Map::new();
        let names: &[&str] = match self {
            Self::Image { attributes, .. } => {
                members.extend(attributes.properties.iter().map(|(name, value)| (name.clone(), value.clone().into())));
                &IMAGE_ATTRIBUTES
            }
            Self::Project(_) => &["project_id"],
            Self::Metadef { .. } => &["project_id", "owner", "visibility"],
            Self::Caller(_) => &["user", "project", "user_domain", "project_domain"],
            Self::Json(given) => return given.clone(),
            Self::Nothing => &[],
        };
        members.extend(names.iter().filter_map(|name| Some(((*name).to_owned(), self.get(name, credentials)?.json()))));
        members
    }
}

/// What images have besides properties.
const IMAGE_ATTRIBUTES: [&str; 23] = [
    "id",
    "image_id",
    "owner",
    "project_id",
    "member_id",
    "member",
    "visibility",
    "name",
    "status",
    "protected",
    "os_hidden",
    "container_format",
    "disk_format",
    "min_disk",
    "min_ram",
    "tags",
    "created_at",
    "updated_at",
    "size",
    "virtual_size",
    "checksum",
    "os_hash_algo",
    "os_hash_value",
];

fn image_attribute<'a>(
    name: &str,
    attributes: &'a Attributes,
    image: Option<&'a Image>,
    member: impl FnOnce() -> Option<&'a str>,
) -> Option<Fact<'a>> {
    let content = || image.map(|image| image.content.as_ref());
    let size = |bytes: u64| Fact::Integer(i64::try_from(bytes).unwrap_or(i64::MAX));
    Some(match name {
        "owner" | "project_id" => attributes.owner.as_deref().into(),
        // What belongs to nobody is everybody's to see.
        "visibility" if attributes.owner.is_none() => Visibility::Public.as_str().into(),
        "visibility" => attributes.visibility.as_str().into(),
        "member_id" | "member" => member().into(),
        "name" => attributes.name.as_deref().into(),
        "protected" => Fact::Flag(attributes.protected),
        "os_hidden" => Fact::Flag(attributes.hidden),
        "container_format" => attributes.container_format.as_deref().into(),
        "disk_format" => attributes.disk_format.as_deref().into(),
        "min_disk" => Fact::Integer(attributes.min_disk_gib.into()),
        "min_ram" => Fact::Integer(attributes.min_ram_mib.into()),
        "tags" => Fact::Texts(&attributes.tags),
        "id" | "image_id" => Fact::Text(Cow::Owned(image?.id.to_string())),
        "status" => image?.status.as_str().into(),
        "created_at" => Fact::Text(timestamp(image?.created_at).into()),
        "updated_at" => Fact::Text(timestamp(image?.updated_at).into()),
        "size" => content()?.map_or(Fact::Null, |content| size(content.size_bytes)),
        "virtual_size" => content()?.and_then(|content| content.virtual_size_bytes).map_or(Fact::Null, size),
        "checksum" => content()?.and_then(|content| content.checksum.as_deref()).into(),
        "os_hash_algo" => content()?.and_then(|content| content.os_hash_algo.as_deref()).into(),
        "os_hash_value" => content()?.and_then(|content| content.os_hash_value.as_deref()).into(),
        _ => attributes.properties.get(name)?.as_str().into(),
    })
}

/// The caller's project, if it is neither the image's owner nor needs to be a member of an image to see it: the
/// catalog has shown it a shared image of somebody else, so it is a member.
fn found_as_member<'a>(image: &Image, credentials: Credentials<'a>) -> Option<&'a str> {
    let Credentials::Caller(caller) = credentials else { return None };
    let shared = image.attributes.visibility == Visibility::Shared && image.attributes.owner.is_some();
    let other = image.attributes.owner.as_deref() != Some(&caller.project_id);
    (shared && other && !caller.is_admin()).then_some(&caller.project_id)
}

/// Who acts, as rules see it on the left of a colon.
#[derive(Debug, Clone, Copy)]
pub(super) enum Credentials<'a> {
    /// Whom the identity provider vouches for.
    Caller(&'a Caller),
    /// Credentials as a command line or a file gives them.
    Json(&'a Map<String, Value>),
}

impl<'a> Credentials<'a> {
    /// What a rule can ask of a caller.
    pub(super) const NAMES: [&'static str; 15] = [
        "user_id",
        "user_domain_id",
        "project_id",
        "project_domain_id",
        "domain_id",
        "system_scope",
        "system",
        "roles",
        "is_admin",
        "is_admin_project",
        "service_roles",
        "service_user_id",
        "service_user_domain_id",
        "service_project_id",
        "service_project_domain_id",
    ];

    /// The credential of that name; `None` if there is none.
    pub(super) fn get(self, name: &str) -> Option<Fact<'a>> {
        match self {
            Self::Caller(caller) => Some(match name {
                "user_id" => caller.user_id.as_str().into(),
                "user_domain_id" => caller.user_domain_id.as_deref().into(),
                "project_id" => caller.project_id.as_str().into(),
                "project_domain_id" => caller.project_domain_id.as_deref().into(),
                "roles" => Fact::Texts(&caller.roles),
                "service_roles" => Fact::Texts(&caller.service_roles),
                "is_admin" => Fact::Flag(caller.admin),
                // Tokens for a domain or the system get no further than to their 403.
                "domain_id" | "system_scope" => Fact::Null,
                "is_admin_project" => Fact::Flag(true),
                "service_user_id" | "service_user_domain_id" | "service_project_id" | "service_project_domain_id" => {
                    Fact::Null
                }
                _ => return None,
            }),
            Self::Json(members) => {
                let scope = members.get("system_scope").filter(|scope| scope.as_str().is_some_and(|s| !s.is_empty()));
                let found = if name == "system" { scope.or_else(|| members.get(name)) } else { members.get(name) };
                found.map(Fact::Json)
            }
        }
    }

    /// All of them, as JSON. Tokens are not among them.
    pub(super) fn json(self) -> Map<String, Value> {
        match self {
            Self::Json(members) => members.clone(),
            Self::Caller(_) => {
                let member = |name: &str| Some((name.to_owned(), self.get(name)?.json()));
                Self::NAMES.iter().filter_map(|name| member(name)).collect()
            }
        }
    }

    /// Whether the caller has the role, which is in lower case.
    pub(super) fn has_role(self, role: &str) -> Result<bool, Unanswerable> {
        match self {
            Self::Caller(caller) => Ok(caller.has_role(role)),
            Self::Json(members) => match members.get("roles") {
                None => Ok(false),
                Some(Value::Array(roles)) => {
                    let roles: Option<Vec<&str>> = roles.iter().map(Value::as_str).collect();
                    roles.map(|roles| roles.iter().any(|held| held.to_lowercase() == role)).ok_or(Unanswerable)
                }
                Some(_) => Err(Unanswerable),
            },
        }
    }
}
