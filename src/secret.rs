//! Passwords, keys and tokens of our own: nothing that formats or logs a value can show them.

use std::fmt;
use std::path::Path;

use serde::Deserialize;

/// A text that must not be seen. It has no `Display`, and its `Debug` says only that it is there.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Reads a file that holds the secret and nothing else; a line end after it is no part of it.
    ///
    /// # Errors
    /// Why it cannot be read, with its path.
    pub fn from_file(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|e| format!("{} cannot be read: {e}", path.display()))?;
        Ok(Self(text.trim_end_matches(['\r', '\n']).to_owned()))
    }

    /// The text, for the one place that sends it where it belongs.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn a_secret_is_not_printed() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?} {:#?}", Some(&secret)).matches("hunter2").count(), 0);
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn a_file_ends_with_a_line_end_or_without() {
        let path = std::env::temp_dir().join(format!("rockpool-secret-{}", uuid::Uuid::new_v4()));
        for text in ["two words ", "two words \n", "two words \r\n"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(Secret::from_file(&path).unwrap().expose(), "two words ");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(Secret::from_file(&path).unwrap_err().contains(path.to_str().unwrap()));
    }
}
