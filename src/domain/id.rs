//! Identifiers.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Reads the 36-character text form of a UUID, in either case, and no other.
#[must_use]
pub fn parse_uuid(text: &str) -> Option<Uuid> {
    if text.len() == 36 { Uuid::try_parse(text).ok() } else { None }
}

/// Identifier of an image: also the name of its RBD image, always in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ImageId(Uuid);

impl ImageId {
    /// A fresh random (version 4) identifier.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// Reads the 36-character text form, in either case. Every other spelling of a UUID (braces,
    /// URN, no dashes) is `None`: the Image API's schema knows this one alone.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        parse_uuid(text).map(Self)
    }

    /// The UUID, as the catalog stores it.
    #[must_use]
    pub fn uuid(self) -> Uuid {
        self.0
    }
}

impl From<Uuid> for ImageId {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::ImageId;

    #[test]
    fn only_the_hyphenated_form_is_an_id() {
        let text = "6d0b3d2e-07d4-4a4f-9d0e-3f4f0f6f1a2b";
        assert_eq!(ImageId::parse(text).unwrap().to_string(), text);
        assert_eq!(ImageId::parse(&text.to_uppercase()).unwrap().to_string(), text);
        for bad in [
            "",
            "abc",
            "6d0b3d2e07d44a4f9d0e3f4f0f6f1a2b",
            "{6d0b3d2e-07d4-4a4f-9d0e-3f4f0f6f1a}",
            "../../../../../../../etc/passwd-aaaaa",
        ] {
            assert_eq!(ImageId::parse(bad), None, "{bad}");
        }
    }
}
