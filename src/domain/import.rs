//! `POST /v2/images/{id}/import`: what is asked for.

/// Where an import has its data from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Staged by the client before.
    GlanceDirect,
    /// Fetched from a URL.
    WebDownload,
    /// Another copy of the same image.
    CopyImage,
    /// An image of another region.
    GlanceDownload,
}

impl Method {
    /// Every method.
    pub const ALL: [Self; 4] = [Self::GlanceDirect, Self::WebDownload, Self::CopyImage, Self::GlanceDownload];

    /// The name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GlanceDirect => "glance-direct",
            Self::WebDownload => "web-download",
            Self::CopyImage => "copy-image",
            Self::GlanceDownload => "glance-download",
        }
    }

    /// The method of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.as_str() == name)
    }
}
