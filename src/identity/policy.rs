//! Who may do what: Glance's default rules (`image-api.md` 2.1) for the calls there are.

use super::Caller;
use crate::domain::image::{Image, Visibility};

/// An action, by the name of its rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// `add_image`
    AddImage,
    /// `get_image`
    GetImage,
    /// `get_images`
    GetImages,
    /// `modify_image`
    ModifyImage,
    /// `delete_image`
    DeleteImage,
    /// `upload_image`
    UploadImage,
    /// `download_image`
    DownloadImage,
    /// `publicize_image`
    PublicizeImage,
    /// `communitize_image`
    CommunitizeImage,
}

impl Action {
    /// The rule's name.
    #[must_use]
    pub fn rule(self) -> &'static str {
        match self {
            Self::AddImage => "add_image",
            Self::GetImage => "get_image",
            Self::GetImages => "get_images",
            Self::ModifyImage => "modify_image",
            Self::DeleteImage => "delete_image",
            Self::UploadImage => "upload_image",
            Self::DownloadImage => "download_image",
            Self::PublicizeImage => "publicize_image",
            Self::CommunitizeImage => "communitize_image",
        }
    }
}

/// What an action is done to.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Owning project; `None`: nobody's.
    pub owner: Option<&'a str>,
    /// Who may see it.
    pub visibility: Visibility,
}

impl<'a> From<&'a Image> for Target<'a> {
    fn from(image: &'a Image) -> Self {
        Self { owner: image.attributes.owner.as_deref(), visibility: image.attributes.visibility }
    }
}

/// Whether `caller` may do `action` to `target`. An image that the caller may not see at all has been
/// sorted out before, by the scope of the catalog query that looked for it: membership is decided there.
#[must_use]
pub fn allows(action: Action, caller: &Caller, target: Target<'_>) -> bool {
    if caller.is_admin() {
        return true;
    }
    let own = target.owner == Some(caller.project_id.as_str());
    // A target that its visibility opens to others: members of shared images were found by the scope. What
    // belongs to nobody is everybody's to see.
    let open = own
        || target.owner.is_none()
        || matches!(target.visibility, Visibility::Public | Visibility::Community | Visibility::Shared);
    match action {
        Action::AddImage
        | Action::ModifyImage
        | Action::DeleteImage
        | Action::UploadImage
        | Action::CommunitizeImage => caller.has_role("member") && own,
        Action::GetImages => caller.has_role("reader") && own,
        Action::GetImage => caller.has_role("reader") && open,
        Action::DownloadImage => caller.has_role("member") && open,
        Action::PublicizeImage => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{Action, Target, allows};
    use crate::domain::image::Visibility;
    use crate::identity::Caller;

    fn caller(project: &str, roles: &[&str]) -> Caller {
        Caller {
            user_id: "u".into(),
            project_id: project.into(),
            roles: roles.iter().map(|r| (*r).to_owned()).collect(),
        }
    }

    #[test]
    fn the_defaults_of_glance() {
        let mine = |visibility| Target { owner: Some("p"), visibility };
        let member = caller("p", &["member", "reader"]);
        let reader = caller("p", &["reader"]);
        let stranger = caller("q", &["member", "reader"]);
        let nobody = caller("p", &[]);
        for action in
            [Action::AddImage, Action::ModifyImage, Action::DeleteImage, Action::UploadImage, Action::CommunitizeImage]
        {
            assert!(allows(action, &member, mine(Visibility::Private)));
            for visibility in Visibility::ALL {
                assert!(!allows(action, &reader, mine(visibility)), "{action:?}");
                assert!(!allows(action, &stranger, mine(visibility)), "{action:?}");
                assert!(!allows(action, &nobody, mine(visibility)), "{action:?}");
            }
        }
        assert!(allows(Action::GetImage, &reader, mine(Visibility::Private)));
        assert!(!allows(Action::DownloadImage, &reader, mine(Visibility::Private)), "a pure reader cannot download");
        assert!(allows(Action::DownloadImage, &stranger, mine(Visibility::Community)));
        assert!(!allows(Action::GetImage, &stranger, mine(Visibility::Private)));
        assert!(!allows(Action::PublicizeImage, &member, mine(Visibility::Private)));
        assert!(allows(Action::PublicizeImage, &caller("q", &["admin"]), mine(Visibility::Private)));
    }
}
