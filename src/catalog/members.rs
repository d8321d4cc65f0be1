//! Who an image is shared with.

use time::OffsetDateTime;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{Catalog, Error, Tx};
use crate::domain::id::ImageId;
use crate::domain::member::{MemberStatus, Membership};

impl TryFrom<&Row> for Membership {
    type Error = Error;

    fn try_from(row: &Row) -> Result<Self, Error> {
        let project: String = row.get("member");
        let status: String = row.get("status");
        let status = MemberStatus::parse(&status).ok_or_else(|| Error::Inconsistent {
            table: "image_members",
            row: project.clone(),
            what: format!("unknown status {status}"),
        })?;
        Ok(Self {
            image: ImageId::from(row.get::<_, Uuid>("image_id")),
            project,
            status,
            created_at: row.get("created_at"),
            updated_at: row.get("updated_at"),
        })
    }
}

impl Catalog {
    /// Memberships of an image, oldest first: all of them, or that of one project.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Inconsistent`].
    pub async fn members(&self, id: ImageId, project: Option<&str>) -> Result<Vec<Membership>, Error> {
        let sql = "-- members\n\
            SELECT image_id, member, status, created_at, updated_at FROM image_members\n\
            WHERE image_id = $1 /* image_id */ AND ($2 /* member */::text IS NULL OR member = $2)\n\
            ORDER BY created_at, member";
        self.rows("members", sql, &[&id.uuid(), &project]).await?.iter().map(Membership::try_from).collect()
    }
}

// The image is locked by the caller in all of these.
impl Tx {
    /// One membership.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Inconsistent`].
    pub async fn member(&self, id: ImageId, project: &str) -> Result<Option<Membership>, Error> {
        let sql = "-- member\n\
            SELECT image_id, member, status, created_at, updated_at FROM image_members\n\
            WHERE image_id = $1 /* image_id */ AND member = $2 /* member */";
        self.rows(sql, &[&id.uuid(), &project]).await?.first().map(Membership::try_from).transpose()
    }

    /// All memberships of an image, oldest first.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Inconsistent`].
    pub async fn members(&self, id: ImageId) -> Result<Vec<Membership>, Error> {
        let sql = "-- members_locked\n\
            SELECT image_id, member, status, created_at, updated_at FROM image_members\n\
            WHERE image_id = $1 /* image_id */ ORDER BY created_at, member";
        self.rows(sql, &[&id.uuid()]).await?.iter().map(Membership::try_from).collect()
    }

    /// How many members an image has.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn count_members(&self, id: ImageId) -> Result<usize, Error> {
        let sql = "-- members_count\nSELECT count(*) FROM image_members WHERE image_id = $1 /* image_id */";
        let rows = self.rows(sql, &[&id.uuid()]).await?;
        Ok(rows.first().map_or(0, |row| usize::try_from(row.get::<_, i64>(0)).unwrap_or(usize::MAX)))
    }

    /// Adds a membership. `false`: there is one of that project already.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn insert_member(&self, member: &Membership) -> Result<bool, Error> {
        let sql = "-- member_insert\n\
            INSERT INTO image_members (image_id, member, status, created_at, updated_at)\n\
            VALUES ($1 /* image_id */, $2 /* member */, $3 /* status */, $4 /* created_at */, $5 /* updated_at */) ON CONFLICT DO NOTHING";
        let params: [super::Param<'_>; 5] =
            [&member.image.uuid(), &member.project, &member.status.as_str(), &member.created_at, &member.updated_at];
        Ok(self.execute(sql, &params).await? == 1)
    }

    /// Changes what a member says to the offer.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn set_member_status(
        &self,
        id: ImageId,
        project: &str,
        status: MemberStatus,
        now: OffsetDateTime,
    ) -> Result<(), Error> {
        let sql = "-- member_status\n\
            UPDATE image_members SET status = $3 /* status */, updated_at = $4 /* updated_at */\n\
            WHERE image_id = $1 /* image_id */ AND member = $2 /* member */";
        self.execute(sql, &[&id.uuid(), &project, &status.as_str(), &now]).await.map(drop)
    }

    /// Ends a membership.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn delete_member(&self, id: ImageId, project: &str) -> Result<(), Error> {
        let sql = "-- member_delete\nDELETE FROM image_members WHERE image_id = $1 /* image_id */ AND member = $2 /* member */";
        self.execute(sql, &[&id.uuid(), &project]).await.map(drop)
    }
}
