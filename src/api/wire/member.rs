//! A membership as clients see it (`image-api.md` 3.7).

use serde_json::{Map, Value, json};

use super::{Member, View, member, read_only, some, text, uuid, write};
use crate::api::Settings;
use crate::domain::image::timestamp;
use crate::domain::member::{MemberStatus, Membership};

/// What every membership has, in the order of the schema.
pub(in crate::api) const MEMBERS: [Member<Membership>; 6] = [
    member("member_id", "Project that the image is shared with.", text, |member, _| some(&member.project)),
    member("image_id", "Identifier of the image.", uuid, |member, _| some(member.image.to_string())),
    member("created_at", "When the image was offered.", text, |member, _| some(timestamp(member.created_at))),
    member("updated_at", "When the status last changed.", text, |member, _| some(timestamp(member.updated_at))),
    member(
        "status",
        "What the member says to the offer.",
        |_| json!({"type": "string", "enum": MemberStatus::ALL.map(MemberStatus::as_str)}),
        |member, _| some(member.status.as_str()),
    ),
    read_only("schema", "URL of this schema.", text, |_, _| some("/v2/schemas/member")),
];

/// Writes a membership.
pub(in crate::api) fn membership(member: &Membership, settings: &Settings) -> Value {
    let mut object = Map::new();
    write(&MEMBERS, member, &View { settings, admin: false }, &mut object);
    Value::Object(object)
}
