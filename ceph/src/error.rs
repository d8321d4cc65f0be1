//! What a failed call says: the errno, the call, the object it was about, and a kind to branch on.

use std::fmt;

/// A failed call to Ceph. Displays as one sentence, for instance
/// ``rbd_open "images/abc": No such file or directory (ENOENT)``.
///
/// Cheap to clone, so that several waiters on one connection attempt can each have it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{call} \"{object}\": {}{}", Reason(*errno), Detail(detail.as_deref()))]
pub struct Error {
    errno: i32,
    call: &'static str,
    object: String,
    kind: Kind,
    detail: Option<String>,
}

/// What a caller may want to tell apart. Everything else is [`Kind::Other`]; the errno says more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// ENOENT: no such pool, image, snapshot, key or file.
    NotFound,
    /// EEXIST: the name is taken.
    Exists,
    /// ENOSPC, EDQUOT: the cluster is full or the pool reached its quota.
    NoSpace,
    /// EBUSY: somebody else uses it, for an image: has it open (a watch outlives a killed process by
    /// some 30 seconds).
    Busy,
    /// EBUSY of unprotecting a snapshot: it has clones.
    HasChildren,
    /// ENOTEMPTY: the image still has snapshots (maybe hidden ones that clones use).
    HasSnapshots,
    /// ETIMEDOUT: no answer within the timeouts of the connection.
    TimedOut,
    /// EACCES, EPERM: wrong key, or the user's caps do not allow it.
    Denied,
    /// ESHUTDOWN (Ceph's EBLOCKLISTED): the cluster refuses this client instance for good; only a new
    /// connection helps.
    Blocklisted,
    /// EROFS: a write to a snapshot or to an image opened read-only.
    ReadOnly,
    /// EINVAL, EDOM, ERANGE: the request makes no sense to Ceph.
    InvalidArgument,
    /// ENOTCONN: the connection was shut down.
    Disconnected,
    /// EINTR, ECANCELED: given up by this side, for instance because the runtime is stopping.
    Interrupted,
    /// ENOSYS, EOPNOTSUPP: this cluster or image cannot do that.
    Unsupported,
    /// Anything else.
    Other,
}

impl Error {
    /// From an errno (positive).
    pub(crate) fn new(call: &'static str, object: impl Into<String>, errno: i32) -> Error {
        Error { errno, call, object: object.into(), kind: Kind::of(errno), detail: None }
    }

    /// From the negative return value of a C call.
    pub(crate) fn from_return(call: &'static str, object: &str, value: i64) -> Error {
        let errno = i32::try_from(value.unsigned_abs()).unwrap_or(libc::EIO);
        Error::new(call, object, errno)
    }

    pub(crate) fn with_detail(mut self, detail: impl Into<String>) -> Error {
        let detail = detail.into();
        self.detail = (!detail.is_empty()).then_some(detail);
        self
    }

    pub(crate) fn with_kind(mut self, kind: Kind) -> Error {
        self.kind = kind;
        self
    }

    /// What happened, to branch on.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The errno, positive.
    pub fn errno(&self) -> i32 {
        self.errno
    }

    /// The call that failed, as the C library names it.
    pub fn call(&self) -> &'static str {
        self.call
    }

    /// What the call was about, for instance `images/abc@snap`.
    pub fn object(&self) -> &str {
        &self.object
    }

    /// True when the connection itself is at fault and a new one would help: see
    /// [`Connection::invalidate`](crate::Connection::invalidate).
    pub fn is_connection_fault(&self) -> bool {
        matches!(self.kind, Kind::Blocklisted | Kind::Disconnected)
    }
}

impl Kind {
    /// A name for it, in snake case.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::NotFound => "not_found",
            Kind::Exists => "exists",
            Kind::NoSpace => "no_space",
            Kind::Busy => "busy",
            Kind::HasChildren => "has_children",
            Kind::HasSnapshots => "has_snapshots",
            Kind::TimedOut => "timed_out",
            Kind::Denied => "denied",
            Kind::Blocklisted => "blocklisted",
            Kind::ReadOnly => "read_only",
            Kind::InvalidArgument => "invalid_argument",
            Kind::Disconnected => "disconnected",
            Kind::Interrupted => "interrupted",
            Kind::Unsupported => "unsupported",
            Kind::Other => "other",
        }
    }

    fn of(errno: i32) -> Kind {
        match errno {
            libc::ENOENT => Kind::NotFound,
            libc::EEXIST => Kind::Exists,
            libc::ENOSPC | libc::EDQUOT => Kind::NoSpace,
            libc::EBUSY => Kind::Busy,
            libc::ENOTEMPTY => Kind::HasSnapshots,
            libc::ETIMEDOUT => Kind::TimedOut,
            libc::EACCES | libc::EPERM => Kind::Denied,
            libc::ESHUTDOWN => Kind::Blocklisted,
            libc::EROFS => Kind::ReadOnly,
            libc::EINVAL | libc::EDOM | libc::ERANGE => Kind::InvalidArgument,
            libc::ENOTCONN => Kind::Disconnected,
            libc::EINTR | libc::ECANCELED => Kind::Interrupted,
            libc::ENOSYS | libc::EOPNOTSUPP => Kind::Unsupported,
            _ => Kind::Other,
        }
    }
}

/// Turns the `int` of a C call into a result; a value that is not negative is the call's answer.
pub(crate) fn check(value: libc::c_int, call: &'static str, object: &str) -> Result<usize, Error> {
    usize::try_from(value).map_err(|_| Error::from_return(call, object, i64::from(value)))
}

struct Reason(i32);

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // std appends " (os error N)"; the symbol says more to those who read Ceph's documentation.
        let text = std::io::Error::from_raw_os_error(self.0).to_string();
        let text = text.split(" (os error").next().unwrap_or_default();
        if self.0 == libc::ESHUTDOWN {
            return f.write_str("this client is blocklisted (ESHUTDOWN)");
        }
        match symbol(self.0) {
            Some(symbol) => write!(f, "{text} ({symbol})"),
            None => write!(f, "{text} (errno {})", self.0),
        }
    }
}

struct Detail<'a>(Option<&'a str>);

impl fmt::Display for Detail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}

fn symbol(errno: i32) -> Option<&'static str> {
    let symbol = match errno {
        libc::EACCES => "EACCES",
        libc::EBUSY => "EBUSY",
        libc::ECANCELED => "ECANCELED",
        libc::EDOM => "EDOM",
        libc::EDQUOT => "EDQUOT",
        libc::EEXIST => "EEXIST",
        libc::EINTR => "EINTR",
        libc::EINVAL => "EINVAL",
        libc::EIO => "EIO",
        libc::ENOENT => "ENOENT",
        libc::ENOMEM => "ENOMEM",
        libc::ENOSPC => "ENOSPC",
        libc::ENOSYS => "ENOSYS",
        libc::ENOTCONN => "ENOTCONN",
        libc::ENOTEMPTY => "ENOTEMPTY",
        libc::EOPNOTSUPP => "EOPNOTSUPP",
        libc::EPERM => "EPERM",
        libc::ERANGE => "ERANGE",
        libc::EROFS => "EROFS",
        libc::ETIMEDOUT => "ETIMEDOUT",
        _ => return None,
    };
    Some(symbol)
}

#[cfg(test)]
mod tests {
    use super::{Error, Kind, check};

    #[test]
    fn displays_one_sentence() {
        let error = Error::from_return("rbd_open", "images/abc", -2);
        assert_eq!(error.to_string(), "rbd_open \"images/abc\": No such file or directory (ENOENT)");
        let error = error.with_detail("no keyring at /etc/ceph/k");
        assert!(error.to_string().ends_with("(ENOENT): no keyring at /etc/ceph/k"));
        assert_eq!(
            Error::new("rbd_open", "p/i", 108).to_string(),
            "rbd_open \"p/i\": this client is blocklisted (ESHUTDOWN)"
        );
        assert_eq!(Error::new("x", "y", 5).with_detail("").to_string(), "x \"y\": Input/output error (EIO)");
    }

    #[test]
    fn maps_kinds() {
        for (errno, kind) in [
            (libc::ENOENT, Kind::NotFound),
            (libc::EDQUOT, Kind::NoSpace),
            (libc::EPERM, Kind::Denied),
            (libc::EACCES, Kind::Denied),
            (108, Kind::Blocklisted),
            (libc::ENOTEMPTY, Kind::HasSnapshots),
            (libc::EXDEV, Kind::Other),
        ] {
            assert_eq!(Error::new("c", "o", errno).kind(), kind);
        }
    }

    #[test]
    fn checks_return_values() {
        assert_eq!(check(7, "c", "o").unwrap(), 7);
        assert_eq!(check(-17, "c", "o").unwrap_err().kind(), Kind::Exists);
        assert_eq!(Error::from_return("c", "o", i64::MIN).errno(), libc::EIO);
    }
}
