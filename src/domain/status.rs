//! The states of an image, and which change leads where.
//!
//! ```text
//!              begin_upload            activate
//!   queued ─────────────────> saving ────────────> active
//!     ^ │                       │ │                  │
//!     │ │      abort_upload     │ │                  │
//!     └─┼───────────────────────┘ │ delete           │ delete
//!       │ delete                  v                  v
//!       └───────────────────> deleted <──────────────┘
//!                              ^ │
//!         deactivate    delete │ └── undelete ──> active, deactivated
//!   active ──────────> deactivated
//!          <──────────
//!          reactivate
//!
//!   data that somebody else has put into the store:
//!              locate
//!   queued ─────────────────> active
//!          begin_verify              verified
//!   queued ─────────────────> importing ───> active
//!     ^            reject        │
//!     └──────────────────────────┘
//!
//!   data that an import reads, staged before by the client, or fetched:
//!         begin_stage               begin_import               imported
//!   queued ───────────> uploading ────────────────> importing ─────────> active
//!     ^ ^   abort_stage  │  ^        import_undone   │ ^  │
//!     │ └────────────────┘  └────────────────────────┘ │  │
//!     │                begin_fetch                     │  │
//!   queued ────────────────────────────────────────────┘  │
//!     ^                        reject                     │
//!     └───────────────────────────────────────────────────┘
//! ```
//!
//! `deleted` is never shown: the row waits for its data to be removed and then goes too, while its id
//! stays reserved for ever. Undone is a deletion only while no byte has been touched, and the image is
//! then what it was before.

use std::fmt;

/// State of an image, by the names of the Image API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// The record exists, no data yet.
    Queued,
    /// Data is being received by `PUT /file`.
    Saving,
    /// Data is being received by `PUT /stage`.
    Uploading,
    /// An import task owns the image.
    Importing,
    /// Verified data is there; its bytes never change again.
    Active,
    /// As active, but its data is withheld from all but administrators.
    Deactivated,
    /// Gone for every caller; data is being removed.
    Deleted,
}

/// A permitted change of state: goes into the WHERE clause of the statement that makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// The states it may start from.
    pub from: &'static [Status],
    /// The state it leads to.
    pub to: Status,
}

/// Data starts to arrive: `queued -> saving`.
pub const BEGIN_UPLOAD: Transition = Transition { from: &[Status::Queued], to: Status::Saving };
/// The data did not make it: `saving -> queued`.
pub const ABORT_UPLOAD: Transition = Transition { from: &[Status::Saving], to: Status::Queued };
/// The data is complete and verified: `saving -> active`.
pub const ACTIVATE: Transition = Transition { from: &[Status::Saving], to: Status::Active };
/// Data that is there already is taken as it is: `queued -> active`.
pub const LOCATE: Transition = Transition { from: &[Status::Queued], to: Status::Active };
/// Data that is there already is compared with its hash first: `queued -> importing`.
pub const BEGIN_VERIFY: Transition = Transition { from: &[Status::Queued], to: Status::Importing };
/// It is what it should be: `importing -> active`.
pub const VERIFIED: Transition = Transition { from: &[Status::Importing], to: Status::Active };
/// It is not, or an import failed: `importing -> queued`.
pub const REJECT: Transition = Transition { from: &[Status::Importing], to: Status::Queued };
/// Data for an import starts to arrive: `queued -> uploading`.
pub const BEGIN_STAGE: Transition = Transition { from: &[Status::Queued], to: Status::Uploading };
/// It did not make it, or was never used: `uploading -> queued`.
pub const ABORT_STAGE: Transition = Transition { from: &[Status::Uploading], to: Status::Queued };
/// An import of staged data: `uploading -> importing`.
pub const BEGIN_IMPORT: Transition = Transition { from: &[Status::Uploading], to: Status::Importing };
/// An import of data that the service fetches itself: `queued -> importing`.
pub const BEGIN_FETCH: Transition = Transition { from: &[Status::Queued], to: Status::Importing };
/// The import is complete and verified: `importing -> active`.
pub const IMPORTED: Transition = Transition { from: &[Status::Importing], to: Status::Active };
/// It failed, and the staged data is still there: `importing -> uploading`.
pub const IMPORT_UNDONE: Transition = Transition { from: &[Status::Importing], to: Status::Uploading };
/// The image leaves every list: any visible state `-> deleted`.
pub const DELETE: Transition = Transition {
    from: &[Status::Queued, Status::Saving, Status::Uploading, Status::Importing, Status::Active, Status::Deactivated],
    to: Status::Deleted,
};
/// The data is withheld from all but administrators: `active -> deactivated`.
pub const DEACTIVATE: Transition = Transition { from: &[Status::Active], to: Status::Deactivated };
/// The data is to be had again: `deactivated -> active`.
pub const REACTIVATE: Transition = Transition { from: &[Status::Deactivated], to: Status::Active };

/// The data turned out to be in use before any of it was touched: from `deleted` back to what the image `was`.
#[must_use]
pub fn undelete(was: Status) -> Transition {
    // Withheld or unverified before, so afterwards: a deletion that fails must not open an image.
    let to = if matches!(was, Status::Deactivated | Status::Importing) { was } else { Status::Active };
    Transition { from: &[Status::Deleted], to }
}

impl Transition {
    /// Whether an image in `status` may take this change.
    #[must_use]
    pub fn allows(&self, status: Status) -> bool {
        self.from.contains(&status)
    }

    /// The names of `from`, as the catalog stores them.
    #[must_use]
    pub fn from_names(&self) -> Vec<&'static str> {
        self.from.iter().map(|status| status.as_str()).collect()
    }
}

impl Status {
    /// Every state.
    pub const ALL: [Self; 7] =
        [Self::Queued, Self::Saving, Self::Uploading, Self::Importing, Self::Active, Self::Deactivated, Self::Deleted];

    /// The name in the API and in the catalog.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Saving => "saving",
            Self::Uploading => "uploading",
            Self::Importing => "importing",
            Self::Active => "active",
            Self::Deactivated => "deactivated",
            Self::Deleted => "deleted",
        }
    }

    /// The state of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }

    /// Whether `disk_format` and `container_format` may still change.
    #[must_use]
    pub fn formats_are_open(self) -> bool {
        matches!(self, Self::Queued | Self::Importing)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::{
        ABORT_STAGE, ABORT_UPLOAD, ACTIVATE, BEGIN_FETCH, BEGIN_IMPORT, BEGIN_STAGE, BEGIN_UPLOAD, BEGIN_VERIFY,
        DEACTIVATE, DELETE, IMPORT_UNDONE, IMPORTED, LOCATE, REACTIVATE, REJECT, Status, Transition, VERIFIED,
        undelete,
    };

    const FILLING: [Transition; 13] = [
        BEGIN_UPLOAD,
        ABORT_UPLOAD,
        ACTIVATE,
        LOCATE,
        BEGIN_VERIFY,
        VERIFIED,
        REJECT,
        BEGIN_STAGE,
        ABORT_STAGE,
        BEGIN_IMPORT,
        BEGIN_FETCH,
        IMPORTED,
        IMPORT_UNDONE,
    ];

    #[test]
    fn names_round_trip() {
        for status in Status::ALL {
            assert_eq!(Status::parse(status.as_str()), Some(status));
        }
        assert_eq!(Status::parse("Active"), None);
    }

    #[test]
    fn bytes_of_an_active_image_cannot_be_replaced() {
        for transition in FILLING {
            assert!(!transition.allows(Status::Active));
            assert!(!transition.allows(Status::Deactivated));
            assert!(!transition.allows(Status::Deleted));
        }
    }

    #[test]
    fn a_deleted_image_only_comes_back_by_undelete() {
        assert!(!DELETE.allows(Status::Deleted));
        for transition in FILLING.iter().chain(&[DEACTIVATE, REACTIVATE, DELETE]) {
            assert!(!transition.from.contains(&Status::Deleted));
        }
        for was in [Status::Active, Status::Deactivated, Status::Importing] {
            assert!(DELETE.allows(was) && undelete(was).allows(Status::Deleted));
            assert_eq!(undelete(was).to, was);
        }
    }
}
