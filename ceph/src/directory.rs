//! The names of a pool's images, page by page: `rbd_list2` answers with all of them at once.

use crate::error::{Error, Kind, check};
use crate::pool::{ImageId, Pool};
use crate::sys;
use crate::text::to_c;

/// The object that lists the images of a pool; librbd reads it by the same method.
const DIRECTORY: &str = "rbd_directory";
const CALL: &str = "rados_exec(rbd.dir_list)";
/// Room for one line of an answer, to begin with; twice as much whenever it is too little.
const LINE_BYTES: usize = 128;

/// See [`Pool::list_images_after`].
pub(crate) async fn page(pool: &Pool, after: &str, limit: u32) -> Result<Vec<ImageId>, Error> {
    let (object, class, method) = (to_c(DIRECTORY, CALL)?, to_c("rbd", CALL)?, to_c("dir_list", CALL)?);
    let question = question(after, limit);
    let listed = pool.call(CALL, DIRECTORY, move |io, label| {
        let mut room = LINE_BYTES * usize::try_from(limit).unwrap_or(1).max(1);
        loop {
            let mut answer = vec![0_u8; room];
            // SAFETY: a live io context, C strings, and two buffers of the lengths given.
            let value = unsafe {
                sys::rados_exec(
                    io,
                    object.as_ptr(),
                    class.as_ptr(),
                    method.as_ptr(),
                    question.as_ptr().cast(),
                    question.len(),
                    answer.as_mut_ptr().cast(),
                    answer.len(),
                )
            };
            if value == -libc::ERANGE {
                room *= 2;
                continue;
            }
            answer.truncate(check(value, CALL, label)?);
            return read(&answer).ok_or_else(|| {
                Error::new(CALL, label, libc::EIO).with_detail("the list of images is not in the form that is known")
            });
        }
    });
    match listed.await {
        // No image has ever been made here.
        Err(error) if error.kind() == Kind::NotFound => Ok(Vec::new()),
        listed => listed,
    }
}

/// Ceph's encoding: lengths of 32 bits before texts and lists, all numbers little-endian.
fn question(after: &str, limit: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(12 + after.len());
    bytes.extend(u32::try_from(after.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend(after.as_bytes());
    bytes.extend(u64::from(limit).to_le_bytes());
    bytes
}

/// Names and ids; `None` for an answer of another form.
fn read(mut bytes: &[u8]) -> Option<Vec<ImageId>> {
    let count = number(&mut bytes)?;
    let mut images = Vec::new();
    for _ in 0..count {
        images.push(ImageId { name: text(&mut bytes)?, id: text(&mut bytes)? });
    }
    Some(images)
}

fn number(bytes: &mut &[u8]) -> Option<usize> {
    let (number, rest) = bytes.split_first_chunk::<4>()?;
    *bytes = rest;
    usize::try_from(u32::from_le_bytes(*number)).ok()
}

fn text(bytes: &mut &[u8]) -> Option<String> {
    let length = number(bytes)?;
    let (text, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::{question, read};

    #[test]
    fn asks_and_reads_in_cephs_encoding() {
        assert_eq!(question("ab", 3), [2, 0, 0, 0, b'a', b'b', 3, 0, 0, 0, 0, 0, 0, 0]);
        let one = [1, 0, 0, 0, 2, 0, 0, 0, b'n', b'm', 1, 0, 0, 0, b'7'];
        let images = read(&one).unwrap();
        assert_eq!((images.len(), images[0].name.as_str(), images[0].id.as_str()), (1, "nm", "7"));
        assert!(read(&[0, 0, 0, 0]).unwrap().is_empty());
        for short in 0..one.len() {
            assert!(read(&one[..short]).is_none(), "{short}");
        }
    }
}
