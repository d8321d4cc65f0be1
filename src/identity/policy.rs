//! Who may do what: Glance's rules and their defaults (`image-api.md` 2.1).

use std::borrow::Cow;

use super::Caller;
use crate::domain::image::{Attributes, Image, Visibility};

/// Declares the actions once, with the names of their rules.
macro_rules! actions {
    ($($name:ident => $rule:literal,)*) => {
        /// An action, by the name of its rule.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Action {
            $(#[doc = concat!("`", $rule, "`")] $name,)*
        }

        impl Action {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The rule's name.
            #[must_use]
            pub fn rule(self) -> &'static str {
                match self {
                    $(Self::$name => $rule,)*
                }
            }
        }
    };
}

actions! {
    AddImage => "add_image",
    GetImage => "get_image",
    GetImages => "get_images",
    ModifyImage => "modify_image",
    DeleteImage => "delete_image",
    UploadImage => "upload_image",
    DownloadImage => "download_image",
    DownloadFromStore => "download_from_store",
    PublicizeImage => "publicize_image",
    CommunitizeImage => "communitize_image",
    Deactivate => "deactivate",
    Reactivate => "reactivate",
    CopyImage => "copy_image",
    SetImageLocation => "set_image_location",
    GetImageLocation => "get_image_location",
    DeleteImageLocation => "delete_image_location",
    AddImageLocation => "add_image_location",
    FetchImageLocation => "fetch_image_location",
    AddMember => "add_member",
    GetMember => "get_member",
    GetMembers => "get_members",
    ModifyMember => "modify_member",
    DeleteMember => "delete_member",
    ManageImageCache => "manage_image_cache",
    CacheImage => "cache_image",
    CacheList => "cache_list",
    CacheDelete => "cache_delete",
    CacheClean => "cache_clean",
    CachePrune => "cache_prune",
    ListCachedNodes => "list_cached_nodes",
    GetTask => "get_task",
    GetTasks => "get_tasks",
    AddTask => "add_task",
    ModifyTask => "modify_task",
    TasksApiAccess => "tasks_api_access",
    StoresInfoDetail => "stores_info_detail",
    GetMetadefNamespace => "get_metadef_namespace",
    GetMetadefNamespaces => "get_metadef_namespaces",
    ModifyMetadefNamespace => "modify_metadef_namespace",
    AddMetadefNamespace => "add_metadef_namespace",
    DeleteMetadefNamespace => "delete_metadef_namespace",
    GetMetadefObject => "get_metadef_object",
    GetMetadefObjects => "get_metadef_objects",
    ModifyMetadefObject => "modify_metadef_object",
    AddMetadefObject => "add_metadef_object",
    DeleteMetadefObject => "delete_metadef_object",
    ListMetadefResourceTypes => "list_metadef_resource_types",
    GetMetadefResourceType => "get_metadef_resource_type",
    AddMetadefResourceTypeAssociation => "add_metadef_resource_type_association",
    RemoveMetadefResourceTypeAssociation => "remove_metadef_resource_type_association",
    GetMetadefProperty => "get_metadef_property",
    GetMetadefProperties => "get_metadef_properties",
    ModifyMetadefProperty => "modify_metadef_property",
    AddMetadefProperty => "add_metadef_property",
    RemoveMetadefProperty => "remove_metadef_property",
    GetMetadefTag => "get_metadef_tag",
    GetMetadefTags => "get_metadef_tags",
    ModifyMetadefTag => "modify_metadef_tag",
    AddMetadefTag => "add_metadef_tag",
    AddMetadefTags => "add_metadef_tags",
    DeleteMetadefTag => "delete_metadef_tag",
    DeleteMetadefTags => "delete_metadef_tags",
}

/// What an action is done to, as rules see it through `%(name)s`.
#[derive(Debug, Clone, Copy)]
pub enum Target<'a> {
    /// An image that exists or is about to.
    Image {
        /// What clients set.
        attributes: &'a Attributes,
        /// The rest, if there is an image already.
        image: Option<&'a Image>,
        /// The member that the action is about.
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
    fn owner(self) -> Option<&'a str> {
        match self {
            Self::Image { attributes, .. } => attributes.owner.as_deref(),
            Self::Project(project) => Some(project),
            Self::Metadef { owner, .. } => owner,
            Self::Nothing => None,
        }
    }

    fn visibility(self) -> Option<Cow<'a, str>> {
        match self {
            // What belongs to nobody is everybody's to see.
            Self::Image { attributes, .. } if attributes.owner.is_none() => Some(Visibility::Public.as_str().into()),
            Self::Image { attributes, .. } => Some(attributes.visibility.as_str().into()),
            Self::Metadef { visibility, .. } => Some(visibility.into()),
            Self::Project(_) | Self::Nothing => None,
        }
    }

    fn member(self) -> Option<&'a str> {
        match self {
            Self::Image { member, .. } => member,
            Self::Project(_) | Self::Metadef { .. } | Self::Nothing => None,
        }
    }
}

/// The rules in force.
#[derive(Debug, Default)]
pub struct Policy {}

impl Policy {
    /// Whether the caller administers the cloud (`context_is_admin`).
    #[must_use]
    pub fn is_admin(&self, caller: &Caller) -> bool {
        caller.has_role("admin")
    }

    /// Whether `caller` may do `action` to `target`. An image that the caller may not see at all has been
    /// sorted out before, by the scope of the catalog query that looked for it: membership is decided there.
    #[must_use]
    pub fn allows(&self, action: Action, caller: &Caller, target: Target<'_>) -> bool {
        if caller.is_admin() {
            return true;
        }
        let own = target.owner() == Some(caller.project_id.as_str());
        let open = own
            || target.visibility().is_some_and(|visibility| matches!(&*visibility, "public" | "community" | "shared"));
        let concerned = own || target.member() == Some(caller.project_id.as_str());
        let service = caller.has_role("service");
        match action {
            Action::AddImage
            | Action::ModifyImage
            | Action::DeleteImage
            | Action::UploadImage
            | Action::Deactivate
            | Action::Reactivate
            | Action::CommunitizeImage
            | Action::SetImageLocation
            | Action::AddMember
            | Action::DeleteMember => caller.has_role("member") && own,
            Action::GetImages | Action::GetImageLocation | Action::GetMetadefNamespaces => {
                caller.has_role("reader") && own
            }
            Action::GetImage => caller.has_role("reader") && open,
            Action::DownloadImage | Action::DownloadFromStore => caller.has_role("member") && open,
            Action::AddImageLocation => service || caller.has_role("member") && own,
            Action::FetchImageLocation | Action::StoresInfoDetail => service,
            Action::GetMember | Action::GetMembers => caller.has_role("reader") && concerned,
            Action::ModifyMember => caller.has_role("member") && target.member() == Some(caller.project_id.as_str()),
            Action::GetTask | Action::GetTasks | Action::AddTask | Action::ModifyTask => true,
            Action::GetMetadefNamespace
            | Action::GetMetadefObject
            | Action::GetMetadefObjects
            | Action::ListMetadefResourceTypes
            | Action::GetMetadefResourceType
            | Action::GetMetadefProperty
            | Action::GetMetadefProperties
            | Action::GetMetadefTag
            | Action::GetMetadefTags => {
                caller.has_role("reader") && (own || target.visibility().as_deref() == Some("public"))
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Action, Policy, Target};
    use crate::domain::image::{Attributes, Visibility};
    use crate::identity::Caller;

    fn caller(project: &str, roles: &[&str]) -> Caller {
        let mut caller = Caller {
            user_id: "u".into(),
            project_id: project.into(),
            roles: roles.iter().map(|r| (*r).to_owned()).collect(),
            ..Caller::default()
        };
        caller.admin = Policy::default().is_admin(&caller);
        caller
    }

    fn allows(action: Action, caller: &Caller, visibility: Visibility) -> bool {
        let attributes = Attributes { visibility, ..Attributes::new(Some("p".into())) };
        Policy::default().allows(action, caller, Target::from(&attributes))
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
    }
}
