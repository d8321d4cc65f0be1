//! What callers do, by the names of Glance's rules.

use super::rules::meant;

/// Declares the actions once, with the names of their rules.
macro_rules! actions {
    ($($name:ident => $rule:literal,)*) => {
        /// An action, by the name of its rule.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Action {
            $(#[doc = concat!("`", $rule, "`")] $name,)*
        }

        impl Action {
            /// The action with a rule of that name.
            ///
            /// # Errors
            /// A sentence that may name the rule that was meant.
            pub fn named(rule: &str) -> Result<Self, String> {
                let found = Self::ALL.iter().find(|action| action.rule() == rule).copied();
                let rules = Self::ALL.iter().map(|action| action.rule());
                found.ok_or_else(|| format!("there is no action {rule}{}", meant(rule, rules)))
            }

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
