//! `/v2/images/{id}/members`: a shared image is offered to projects, and each of them says what it thinks of it.
//!
//! The owner (and an administrator) knows and chooses the members; a member knows itself alone, and answers for
//! itself alone. A membership of any status lets its project see the image.

use serde_json::{Map, Value, json};

use super::{Error, Services, conclude};
use crate::catalog::Tx;
use crate::domain::id::ImageId;
use crate::domain::image::{Image, Visibility, timestamp};
use crate::domain::limits::Quotas;
use crate::domain::member::{MemberStatus, Membership, project_from_json};
use crate::domain::status::Status;
use crate::identity::Caller;
use crate::identity::policy::{Action, Target};

impl Services {
    /// The members of an image that the caller may know of.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Forbidden`] for an image that is not shared.
    pub async fn members(&self, caller: &Caller, id: &str) -> Result<Vec<Membership>, Error> {
        let image = self.visible(caller, id).await?;
        if image.attributes.visibility != Visibility::Shared {
            return Err(Error::Forbidden(format!(
                "Not allowed to list members for image {id}: Only shared images have members."
            )));
        }
        let target = target(&image, caller);
        self.authorize(Action::GetMembers, caller, target).await?;
        if !self.policy.allows(Action::GetMember, caller, target).await {
            return Ok(Vec::new());
        }
        Ok(self.catalog.members(image.id, horizon(&image, caller)).await?)
    }

    /// One member of an image.
    ///
    /// # Errors
    /// [`Error::NotFound`], also for an image that is not shared and for a member that the caller may not know of.
    pub async fn member(&self, caller: &Caller, id: &str, project: &str) -> Result<Membership, Error> {
        let image = self.visible(caller, id).await?;
        let known = image.attributes.visibility == Visibility::Shared
            && within(&image, caller, project)
            && self.policy.allows(Action::GetMember, caller, target(&image, caller)).await;
        let members = if known { self.catalog.members(image.id, Some(project)).await? } else { Vec::new() };
        members.into_iter().next().ok_or_else(|| unknown(project, id))
    }

    /// Offers an image to the project that a JSON object names.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::NotFound`], [`Error::Forbidden`] for an image that is not shared,
    /// [`Error::TooLarge`] beyond the quota, [`Error::Conflict`] for a member already.
    pub async fn add_member(&self, caller: &Caller, id: &str, body: &Map<String, Value>) -> Result<Membership, Error> {
        // 1. To whom?
        let project = body.get("member").ok_or_else(|| Error::Invalid("Member to be added not specified".into()))?;
        let project = project_from_json(project)?;
        // 2. Under the lock of the image, so that parallel calls neither overshoot the quota nor pass a change of
        //    the visibility.
        let image = self.visible(caller, id).await?;
        let tx = self.catalog.begin("member_add").await?;
        let added = async {
            let image = lock_shared(&tx, image.id, "create").await?;
            self.authorize(Action::AddMember, caller, target(&image, caller)).await?;
            let attempted = tx.count_members(image.id).await? + 1;
            if Quotas::exceeded(self.settings.quotas.members, attempted) {
                return Err(Error::TooLarge(format!(
                    "Image member limit exceeded for image {id}: The limit has been exceeded on the number of allowed image members for this image. Attempted: {attempted}, Maximum: {}",
                    self.settings.quotas.members
                )));
            }
            let now = tx.now().await?;
            let member = Membership {
                image: image.id,
                project,
                status: MemberStatus::Pending,
                created_at: now,
                updated_at: now,
            };
            if !tx.insert_member(&member).await? {
                return Err(Error::Conflict(format!("Member {} is duplicated for image {id}", member.project)));
            }
            tx.event("image.member.create", image.id, &payload(&member)).await?;
            leave_describe_job(&tx, &image).await?;
            Ok(member)
        };
        let added = added.await;
        let added = conclude(tx, added).await;
        self.job_bell.notify_one();
        added
    }

    /// Records what a member says to the offer.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Forbidden`] for all but the member itself, [`Error::Invalid`].
    pub async fn set_member_status(
        &self,
        caller: &Caller,
        id: &str,
        project: &str,
        body: &Map<String, Value>,
    ) -> Result<Membership, Error> {
        let status = body.get("status").ok_or_else(|| Error::Invalid("Status not specified".into()))?;
        let image = self.visible(caller, id).await?;
        let tx = self.catalog.begin("member_update").await?;
        let changed = async {
            let image = lock_shared(&tx, image.id, "update").await?;
            let member = self.locked_member(&tx, &image, caller, project).await?;
            self.authorize(Action::ModifyMember, caller, target(&image, caller)).await?;
            let member = Membership { status: MemberStatus::from_json(status)?, updated_at: tx.now().await?, ..member };
            tx.set_member_status(image.id, project, member.status, member.updated_at).await?;
            tx.event("image.member.update", image.id, &payload(&member)).await?;
            leave_describe_job(&tx, &image).await?;
            Ok(member)
        };
        let changed = changed.await;
        let changed = conclude(tx, changed).await;
        self.job_bell.notify_one();
        changed
    }

    /// Takes an offer back. The member itself cannot: it can reject.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub async fn remove_member(&self, caller: &Caller, id: &str, project: &str) -> Result<(), Error> {
        let image = self.visible(caller, id).await?;
        let tx = self.catalog.begin("member_delete").await?;
        let removed = async {
            let image = lock_shared(&tx, image.id, "delete").await?;
            let member = self.locked_member(&tx, &image, caller, project).await?;
            self.authorize(Action::DeleteMember, caller, target(&image, caller)).await?;
            tx.delete_member(image.id, project).await?;
            let mut payload = payload(&member);
            payload["deleted"] = json!(true);
            payload["deleted_at"] = json!(timestamp(tx.now().await?));
            tx.event("image.member.delete", image.id, &payload).await?;
            leave_describe_job(&tx, &image).await?;
            Ok(())
        };
        let removed = removed.await;
        let removed = conclude(tx, removed).await;
        self.job_bell.notify_one();
        removed
    }

    /// The member that a change is about, if the caller may know of it.
    async fn locked_member(&self, tx: &Tx, image: &Image, caller: &Caller, project: &str) -> Result<Membership, Error> {
        let unknown = || unknown(project, &image.id.to_string());
        if !within(image, caller, project) {
            return Err(unknown());
        }
        let member = tx.member(image.id, project).await?.ok_or_else(unknown)?;
        self.authorize(Action::GetMember, caller, target(image, caller)).await?;
        Ok(member)
    }
}

/// Locks the image of memberships that are about to change.
async fn lock_shared(tx: &Tx, id: ImageId, verb: &str) -> Result<Image, Error> {
    let image = super::lock(tx, id).await?;
    if image.attributes.visibility == Visibility::Shared {
        return Ok(image);
    }
    Err(Error::Forbidden(format!("Not allowed to {verb} members for image {id}.")))
}

/// Members stand beside the data, too, once there is any.
async fn leave_describe_job(tx: &Tx, image: &Image) -> Result<(), Error> {
    if matches!(image.status, Status::Active | Status::Deactivated) {
        tx.leave_describe_job(image.id).await?;
    }
    Ok(())
}

/// The image as the rules on members see it: whoever sees another's shared image sees it as a member.
fn target<'a>(image: &'a Image, caller: &'a Caller) -> Target<'a> {
    let member = (!owns(image, caller)).then_some(caller.project_id.as_str());
    Target::Image { attributes: &image.attributes, image: Some(image), member }
}

fn owns(image: &Image, caller: &Caller) -> bool {
    image.attributes.owner.as_ref() == Some(&caller.project_id)
}

/// The one project whose membership the caller may know of; `None`: all may be known.
fn horizon<'a>(image: &Image, caller: &'a Caller) -> Option<&'a str> {
    (!caller.is_admin() && !owns(image, caller)).then_some(caller.project_id.as_str())
}

/// Whether the caller may know of that project's membership. What no member can be called is none, and is not
/// looked up.
fn within(image: &Image, caller: &Caller, project: &str) -> bool {
    horizon(image, caller).is_none_or(|own| own == project) && !project.chars().any(char::is_control)
}

fn unknown(project: &str, id: &str) -> Error {
    Error::NotFound(format!("{project} not found in the member list of the image {id}."))
}

/// What an event tells of a membership.
fn payload(member: &Membership) -> Value {
    json!({
        "image_id": member.image.to_string(),
        "member_id": member.project,
        "status": member.status.as_str(),
        "created_at": timestamp(member.created_at),
        "updated_at": timestamp(member.updated_at),
        "deleted": false,
        "deleted_at": null,
    })
}
