//! Key/value pairs of an image (`rbd image-meta`).

use std::collections::BTreeMap;

use crate::error::{Error, Kind, check};
use crate::image::Image;
use crate::sys;
use crate::text::{from_buffer, split_list, to_c};

/// Pairs asked for at a time.
const PAGE_KEYS: u64 = 128;

impl Image {
    /// The value of a key, `None` if it is not set.
    pub async fn metadata_get(&self, key: &str) -> Result<Option<String>, Error> {
        let name = to_c(key, "rbd_metadata_get")?;
        let found = self
            .call("rbd_metadata_get", move |raw, label| {
                let mut buffer = vec![0_u8; 1024];
                loop {
                    let mut length = buffer.len();
                    // SAFETY: a live image, a C string, a buffer of the length given.
                    let value =
                        unsafe { sys::rbd_metadata_get(raw, name.as_ptr(), buffer.as_mut_ptr().cast(), &mut length) };
                    if value == -libc::ERANGE {
                        buffer.resize(length.max(buffer.len() + 1), 0);
                        continue;
                    }
                    check(value, "rbd_metadata_get", label)?;
                    return Ok(from_buffer(&buffer));
                }
            })
            .await;
        match found {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sets a key. A key that begins with `conf_` overrides a configuration option for this image.
    pub async fn metadata_set(&self, key: &str, value: &str) -> Result<(), Error> {
        let (name, text) = (to_c(key, "rbd_metadata_set")?, to_c(value, "rbd_metadata_set")?);
        self.call("rbd_metadata_set", move |raw, label| {
            // SAFETY: a live image and two C strings.
            let value = unsafe { sys::rbd_metadata_set(raw, name.as_ptr(), text.as_ptr()) };
            check(value, "rbd_metadata_set", label).map(|_| ())
        })
        .await
    }

    /// All keys and values.
    pub async fn metadata_list(&self) -> Result<BTreeMap<String, String>, Error> {
        self.call("rbd_metadata_list", list).await
    }

    /// Removes a key. Errors: [`Kind::NotFound`].
    pub async fn metadata_remove(&self, key: &str) -> Result<(), Error> {
        let name = to_c(key, "rbd_metadata_remove")?;
        self.call("rbd_metadata_remove", move |raw, label| {
            // SAFETY: a live image and a C string.
            check(unsafe { sys::rbd_metadata_remove(raw, name.as_ptr()) }, "rbd_metadata_remove", label).map(|_| ())
        })
        .await
    }
}

fn list(raw: sys::rbd_image_t, label: &str) -> Result<BTreeMap<String, String>, Error> {
    let mut all = BTreeMap::new();
    let mut last = String::new();
    loop {
        let (keys, values) = page(raw, label, &last)?;
        let Some(end) = keys.last() else {
            return Ok(all);
        };
        last.clone_from(end);
        all.extend(keys.into_iter().zip(values));
    }
}

/// The pairs after `start`, at most a page.
fn page(raw: sys::rbd_image_t, label: &str, start: &str) -> Result<(Vec<String>, Vec<String>), Error> {
    let after = to_c(start, "rbd_metadata_list")?;
    let (mut keys, mut values) = (vec![0_u8; 8 * 1024], vec![0_u8; 32 * 1024]);
    loop {
        let (mut keys_length, mut values_length) = (keys.len(), values.len());
        // SAFETY: a live image, a C string, and two buffers of the lengths given.
        let value = unsafe {
            sys::rbd_metadata_list(
                raw,
                after.as_ptr(),
                PAGE_KEYS,
                keys.as_mut_ptr().cast(),
                &mut keys_length,
                values.as_mut_ptr().cast(),
                &mut values_length,
            )
        };
        if value == -libc::ERANGE {
            keys.resize(keys_length.max(keys.len()), 0);
            values.resize(values_length.max(values.len()), 0);
            continue;
        }
        check(value, "rbd_metadata_list", label)?;
        return Ok((split_list(&keys[..keys_length]), split_list(&values[..values_length])));
    }
}
