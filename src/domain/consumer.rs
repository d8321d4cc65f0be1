//! Who has made an RBD image, as its name tells: Nova and Cinder name what they clone after what it is for.

use std::fmt;

use uuid::Uuid;

/// What an RBD image is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Consumer {
    /// The service whose it is.
    pub service: &'static str,
    /// What it is there.
    pub kind: &'static str,
    /// The id of the machine, volume or image there.
    pub id: Uuid,
}

impl Consumer {
    /// The consumer with an image of this name; `None` for names of nobody's custom.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        let id = |text: &str| (text.len() == UUID_CHARS).then(|| Uuid::try_parse(text).ok()).flatten();
        let found = |service, kind, text| Some(Self { service, kind, id: id(text)? });
        // Nova's disk.rescue, disk.config and their like are of the same machine.
        if let Some((machine, disk)) = name.split_once('_') {
            return match disk {
                "disk" => found("nova", "instance", machine),
                other if other.starts_with("disk.") => found("nova", "instance", machine),
                _ => None,
            };
        }
        if let Some(volume) = name.strip_prefix("volume-") {
            // What Cinder has deleted and cannot remove yet.
            return match volume.strip_suffix(".deleted") {
                Some(volume) => found("cinder", "deleted volume", volume),
                None => found("cinder", "volume", volume),
            };
        }
        if let Some(copy) = name.strip_prefix("uploading-") {
            return found("glance", "copy under way", copy.get(..UUID_CHARS)?);
        }
        found("glance", "image", name)
    }
}

impl fmt::Display for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.service, self.kind, self.id)
    }
}

/// Length of a UUID as everybody writes it.
const UUID_CHARS: usize = 36;

#[cfg(test)]
mod tests {
    use proptest::prelude::proptest;

    use super::Consumer;

    const ID: &str = "2f0c5ab1-8f3d-4c7e-9a52-1f0f3c2d4e5f";

    #[test]
    fn names_tell_who() {
        for (name, who) in [
            (format!("{ID}_disk"), Some("nova instance")),
            (format!("{ID}_disk.rescue"), Some("nova instance")),
            (format!("{ID}_disk.eph0"), Some("nova instance")),
            (format!("volume-{ID}"), Some("cinder volume")),
            (format!("volume-{ID}.deleted"), Some("cinder deleted volume")),
            (format!("uploading-{ID}-0123456789abcdef0123456789abcdef"), Some("glance copy under way")),
            (ID.to_owned(), Some("glance image")),
            (format!("{ID}_diskette"), None),
            (format!("{ID}_other"), None),
            ("x_disk".to_owned(), None),
            ("volume-".to_owned(), None),
            ("volume-1".to_owned(), None),
            (ID.replace('-', ""), None),
            ("by-hand".to_owned(), None),
            (String::new(), None),
        ] {
            let found = Consumer::of(&name).map(|consumer| consumer.to_string());
            assert_eq!(found, who.map(|who| format!("{who} {ID}")), "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_name_is_too_odd(name in "(volume-|uploading-)?\\PC{0,40}(_disk|.deleted)?") {
            let _ = Consumer::of(&name);
        }
    }
}
