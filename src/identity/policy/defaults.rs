//! The rules in force where no file says otherwise: Glance's, with `enforce_new_defaults`.
//!
//! `context_is_admin`, `default`, `service_api`, `metadef_default` and `metadef_admin` are blocks that the others
//! are built of, or that operators' files refer to; every other rule is asked for by name ([`super::Action`]).

/// The rule that says who administers the cloud.
pub(super) const ADMIN_RULE: &str = "context_is_admin";
/// The rule that stands in for one that is not defined.
pub(super) const DEFAULT_RULE: &str = "default";

const ADMIN: &str = "rule:context_is_admin";
const OWNER_WRITES: &str = "rule:context_is_admin or (role:member and project_id:%(project_id)s)";
const OWNER_READS: &str = "rule:context_is_admin or (role:reader and project_id:%(project_id)s)";
const IMAGE_READ: &str = "rule:context_is_admin or (role:reader and (project_id:%(project_id)s or project_id:%(member_id)s \
    or 'community':%(visibility)s or 'public':%(visibility)s or 'shared':%(visibility)s))";
const IMAGE_DOWNLOAD: &str = "rule:context_is_admin or (role:member and (project_id:%(project_id)s or project_id:%(member_id)s \
    or 'community':%(visibility)s or 'public':%(visibility)s or 'shared':%(visibility)s))";
const MEMBER_READ: &str =
    "rule:context_is_admin or role:reader and (project_id:%(project_id)s or project_id:%(member_id)s)";
const METADEF_READ: &str =
    "rule:context_is_admin or (role:reader and (project_id:%(project_id)s or 'public':%(visibility)s))";
const METADEF_WRITE: &str = "rule:metadef_admin";

/// Every rule, with its name.
pub(super) const DEFAULTS: &[(&str, &str)] = &[
    // Building blocks.
    (ADMIN_RULE, "role:admin"),
    (DEFAULT_RULE, ""),
    ("service_api", "role:service or role:admin"),
    ("metadef_default", ""),
    ("metadef_admin", ADMIN),
    // Images.
    ("add_image", "rule:context_is_admin or (role:member and project_id:%(project_id)s and project_id:%(owner)s)"),
    ("get_image", IMAGE_READ),
    ("get_images", OWNER_READS),
    ("modify_image", OWNER_WRITES),
    ("delete_image", OWNER_WRITES),
    ("upload_image", OWNER_WRITES),
    ("download_image", IMAGE_DOWNLOAD),
    ("download_from_store", IMAGE_DOWNLOAD),
    ("publicize_image", ADMIN),
    ("communitize_image", OWNER_WRITES),
    ("deactivate", OWNER_WRITES),
    ("reactivate", OWNER_WRITES),
    ("copy_image", ADMIN),
    // Locations.
    ("set_image_location", OWNER_WRITES),
    ("get_image_location", OWNER_READS),
    ("delete_image_location", ADMIN),
    ("add_image_location", "rule:service_api or (role:member and project_id:%(project_id)s and project_id:%(owner)s)"),
    ("fetch_image_location", "rule:service_api"),
    // Members.
    ("add_member", OWNER_WRITES),
    ("get_member", MEMBER_READ),
    ("get_members", MEMBER_READ),
    ("modify_member", "rule:context_is_admin or (role:member and project_id:%(member_id)s)"),
    ("delete_member", OWNER_WRITES),
    // The cache.
    ("manage_image_cache", ADMIN),
    ("cache_image", ADMIN),
    ("cache_list", ADMIN),
    ("cache_delete", ADMIN),
    ("cache_clean", ADMIN),
    ("cache_prune", ADMIN),
    ("list_cached_nodes", ADMIN),
    // Tasks.
    ("get_task", "rule:default"),
    ("get_tasks", "rule:default"),
    ("add_task", "rule:default"),
    ("modify_task", "rule:default"),
    ("tasks_api_access", ADMIN),
    // Stores.
    ("stores_info_detail", "rule:context_is_admin or rule:service_api"),
    // Metadata definitions.
    ("get_metadef_namespace", METADEF_READ),
    ("get_metadef_namespaces", OWNER_READS),
    ("modify_metadef_namespace", METADEF_WRITE),
    ("add_metadef_namespace", METADEF_WRITE),
    ("delete_metadef_namespace", METADEF_WRITE),
    ("get_metadef_object", METADEF_READ),
    ("get_metadef_objects", METADEF_READ),
    ("modify_metadef_object", METADEF_WRITE),
    ("add_metadef_object", METADEF_WRITE),
    ("delete_metadef_object", METADEF_WRITE),
    ("list_metadef_resource_types", METADEF_READ),
    ("get_metadef_resource_type", METADEF_READ),
    ("add_metadef_resource_type_association", METADEF_WRITE),
    ("remove_metadef_resource_type_association", METADEF_WRITE),
    ("get_metadef_property", METADEF_READ),
    ("get_metadef_properties", METADEF_READ),
    ("modify_metadef_property", METADEF_WRITE),
    ("add_metadef_property", METADEF_WRITE),
    ("remove_metadef_property", METADEF_WRITE),
    ("get_metadef_tag", METADEF_READ),
    ("get_metadef_tags", METADEF_READ),
    ("modify_metadef_tag", METADEF_WRITE),
    ("add_metadef_tag", METADEF_WRITE),
    ("add_metadef_tags", METADEF_WRITE),
    ("delete_metadef_tag", METADEF_WRITE),
    ("delete_metadef_tags", METADEF_WRITE),
];
