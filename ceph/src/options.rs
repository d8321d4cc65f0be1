//! How new images are made.

use crate::error::{Error, check};
use crate::sys;
use crate::text::to_c;

/// A new image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateOptions {
    /// Its size; nothing is allocated.
    pub size_bytes: u64,
    /// log2 of the object size: 23 is 8 MiB.
    pub order: u8,
    /// RBD feature bits; `None`: `rbd_default_features` of the cluster.
    pub features: Option<u64>,
    /// The pool for the data, when it is not the image's own (for instance an erasure-coded one).
    pub data_pool: Option<String>,
}

/// A new clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CloneOptions {
    /// Which kind of clone.
    pub format: CloneFormat,
    /// RBD feature bits; `None`: the parent's, adapted by librbd.
    pub features: Option<u64>,
    /// log2 of the object size; `None`: the parent's.
    pub order: Option<u8>,
    /// The pool for the data, when it is not the clone's own.
    pub data_pool: Option<String>,
}

/// The two kinds of clones; children of both can exist at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CloneFormat {
    /// What `rbd_default_clone_format` says: v2 if the cluster requires mimic clients or later, else v1.
    #[default]
    Auto,
    /// Needs a protected snapshot, which cannot be unprotected while the clone exists.
    V1,
    /// Needs no protection; the snapshot can be removed and lives on hidden until the last clone is gone.
    V2,
}

/// An owned `rbd_image_options_t`.
pub(crate) struct RawOptions(sys::rbd_image_options_t);

impl RawOptions {
    pub(crate) fn for_create(options: &CreateOptions) -> Result<RawOptions, Error> {
        let raw = RawOptions::new();
        raw.set_number(sys::RBD_IMAGE_OPTION_ORDER, u64::from(options.order))?;
        if let Some(features) = options.features {
            raw.set_number(sys::RBD_IMAGE_OPTION_FEATURES, features)?;
        }
        if let Some(pool) = &options.data_pool {
            raw.set_text(sys::RBD_IMAGE_OPTION_DATA_POOL, pool)?;
        }
        Ok(raw)
    }

    pub(crate) fn for_clone(options: &CloneOptions) -> Result<RawOptions, Error> {
        let raw = RawOptions::new();
        match options.format {
            CloneFormat::Auto => {}
            CloneFormat::V1 => raw.set_number(sys::RBD_IMAGE_OPTION_CLONE_FORMAT, 1)?,
            CloneFormat::V2 => raw.set_number(sys::RBD_IMAGE_OPTION_CLONE_FORMAT, 2)?,
        }
        if let Some(features) = options.features {
            raw.set_number(sys::RBD_IMAGE_OPTION_FEATURES, features)?;
        }
        if let Some(order) = options.order {
            raw.set_number(sys::RBD_IMAGE_OPTION_ORDER, u64::from(order))?;
        }
        if let Some(pool) = &options.data_pool {
            raw.set_text(sys::RBD_IMAGE_OPTION_DATA_POOL, pool)?;
        }
        Ok(raw)
    }

    pub(crate) fn pointer(&self) -> sys::rbd_image_options_t {
        self.0
    }

    fn new() -> RawOptions {
        let mut raw = std::ptr::null_mut();
        // SAFETY: the out pointer lives for the call.
        unsafe { sys::rbd_image_options_create(&mut raw) };
        RawOptions(raw)
    }

    fn set_number(&self, option: u32, value: u64) -> Result<(), Error> {
        // SAFETY: live options of this thread.
        let result = unsafe { sys::rbd_image_options_set_uint64(self.0, option as libc::c_int, value) };
        check(result, "rbd_image_options_set_uint64", &option.to_string()).map(|_| ())
    }

    fn set_text(&self, option: u32, value: &str) -> Result<(), Error> {
        let text = to_c(value, "rbd_image_options_set_string")?;
        // SAFETY: live options of this thread; librbd copies the string.
        let result = unsafe { sys::rbd_image_options_set_string(self.0, option as libc::c_int, text.as_ptr()) };
        check(result, "rbd_image_options_set_string", value).map(|_| ())
    }
}

impl Drop for RawOptions {
    fn drop(&mut self) {
        // SAFETY: made by rbd_image_options_create, destroyed once.
        unsafe { sys::rbd_image_options_destroy(self.0) }
    }
}
