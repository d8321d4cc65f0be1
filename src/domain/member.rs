//! Membership: a project that a shared image is offered to.

use serde_json::Value;
use time::OffsetDateTime;

use super::Refusal;
use super::id::ImageId;
use super::limits::TEXT_CHARS_MAX;

/// What the member says to the offer. It decides whether the image is in the member's default list, not
/// whether the member may see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberStatus {
    /// Nothing yet.
    Pending,
    /// Yes.
    Accepted,
    /// No.
    Rejected,
}

impl MemberStatus {
    /// Every status.
    pub const ALL: [Self; 3] = [Self::Pending, Self::Accepted, Self::Rejected];

    /// The name in the API and in the catalog.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
        }
    }

    /// The status of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }

    /// Reads the `status` of a request.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] for everything but the three names.
    pub fn from_json(value: &Value) -> Result<Self, Refusal> {
        value.as_str().and_then(Self::parse).ok_or_else(|| {
            Refusal::Invalid("Incorrect request: Status must be \"pending\", \"accepted\" or \"rejected\".".into())
        })
    }
}

/// A membership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The image.
    pub image: ImageId,
    /// The project.
    pub project: String,
    /// Its answer.
    pub status: MemberStatus,
    /// When the image was offered.
    pub created_at: OffsetDateTime,
    /// When the status last changed.
    pub updated_at: OffsetDateTime,
}

/// Reads the project that a request names. Whether there is such a project is the identity service's
/// business; the reference does not ask it either.
///
/// # Errors
/// [`Refusal::Invalid`] for what cannot be the id of a project.
pub fn project_from_json(value: &Value) -> Result<String, Refusal> {
    let empty = match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(members) => members.is_empty(),
    };
    if empty {
        return Err(Refusal::Invalid("Member can't be empty".into()));
    }
    let project =
        value.as_str().ok_or_else(|| Refusal::Invalid("'member' must be a string: the id of a project.".into()))?;
    let count = project.chars().count();
    if count > TEXT_CHARS_MAX {
        return Err(Refusal::Invalid(format!(
            "'member' is too long: {count} characters, at most {TEXT_CHARS_MAX} are allowed."
        )));
    }
    if project.chars().any(char::is_control) {
        return Err(Refusal::Invalid("'member' must not contain control characters.".into()));
    }
    Ok(project.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};
    use serde_json::{Value, json};

    use super::{MemberStatus, project_from_json};

    #[test]
    fn a_member_is_a_short_text() {
        for good in
            ["p", "no such project", "a/b", "'; DROP TABLE images", "ż", "🐧", &"m".repeat(255), &"ż".repeat(255)]
        {
            assert_eq!(project_from_json(&json!(good)).unwrap(), good);
        }
        for bad in [
            json!(null),
            json!(false),
            json!(true),
            json!(0),
            json!(5),
            json!(""),
            json!([]),
            json!(["p"]),
            json!({}),
            json!({"member": "p"}),
            json!("m".repeat(256)),
            json!("a\u{0}b"),
            json!("a\nb"),
            json!("\u{9b}"),
        ] {
            project_from_json(&bad).unwrap_err();
        }
    }

    #[test]
    fn only_the_three_names_are_a_status() {
        for status in MemberStatus::ALL {
            assert_eq!(MemberStatus::from_json(&json!(status.as_str())).unwrap(), status);
        }
        for bad in [json!("Accepted"), json!("all"), json!(""), json!(null), json!(1), json!(["accepted"])] {
            MemberStatus::from_json(&bad).unwrap_err();
        }
    }

    proptest! {
        #[test]
        fn a_member_that_is_taken_is_taken_as_it_is(text in any::<String>()) {
            if let Ok(project) = project_from_json(&Value::String(text.clone())) {
                assert_eq!(project, text);
            }
        }
    }
}
