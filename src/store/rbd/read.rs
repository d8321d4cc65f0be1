//! Reading a blob.

use async_trait::async_trait;
use ceph::{Image, Kind, Pool};

use super::{RbdStore, SNAPSHOT, UPLOADING, error};
use crate::store::{Attempt, BlobReader, DESCRIPTION_PREFIX, Error, Purpose};

/// An RBD image open at its snapshot, or one that nobody writes to any more: immutable, and with a valid object map.
pub(super) struct RbdReader {
    pool: Pool,
    image: Image,
    name: String,
    size_bytes: u64,
    object_bytes: u64,
}

impl RbdReader {
    pub(super) async fn open(pool: &Pool, name: &str, snapshot: Option<&str>) -> Result<Self, ceph::Error> {
        let image = pool.open_read_only(name, snapshot).await?;
        let stat = image.stat().await?;
        let object_bytes = 1 << stat.order;
        Ok(Self { pool: pool.clone(), image, name: name.to_owned(), size_bytes: stat.size_bytes, object_bytes })
    }

    /// Opens what an attempt has left, if it was sealed. What is only staged has no snapshot.
    pub(super) async fn open_attempt(pool: &Pool, attempt: Attempt) -> Result<Option<Self>, ceph::Error> {
        let name = RbdStore::attempt_name(attempt);
        if attempt.purpose == Purpose::Image {
            return Self::open(pool, &name, Some(SNAPSHOT)).await.map(Some);
        }
        let reader = Self::open(pool, &name, None).await?;
        let state = reader.image.metadata_get(&format!("{DESCRIPTION_PREFIX}state")).await?;
        Ok(state.is_some_and(|state| state != UPLOADING).then_some(reader))
    }
}

/// Whether each object of which `buffer`, read at `offset`, has a part is known to be there: something in it is not
/// zero. Of nearly all data the first bytes tell, which spares a round trip for each read.
fn every_object_has_data(buffer: &[u8], offset: u64, object_bytes: u64) -> bool {
    let first = usize::try_from(object_bytes - offset % object_bytes).unwrap_or(usize::MAX).min(buffer.len());
    let (head, rest) = buffer.split_at(first);
    let has_data = |part: &[u8]| part.iter().any(|byte| *byte != 0);
    has_data(head) && rest.chunks(usize::try_from(object_bytes).unwrap_or(usize::MAX)).all(has_data)
}

#[async_trait]
impl BlobReader for RbdReader {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    async fn data(&self, start: u64, end: u64) -> Result<Vec<(u64, u64)>, Error> {
        let extents = self.image.allocated_extents(start, end - start).await.map_err(error)?;
        // Whole objects come back: cut them to what was asked for.
        Ok(extents
            .iter()
            .map(|extent| (extent.offset.max(start), (extent.offset + extent.length).min(end)))
            .filter(|(from, to)| from < to)
            .map(|(from, to)| (from, to - from))
            .collect())
    }

    async fn read(&self, offset: u64, buffer: Vec<u8>) -> Result<Vec<u8>, Error> {
        let wanted = buffer.len();
        let buffer = self.image.read(offset, buffer).await.map_err(error)?;
        if buffer.len() != wanted {
            return Err(Error::Other(format!("{}: {} bytes at {offset} instead of {wanted}", self.name, buffer.len())));
        }
        if every_object_has_data(&buffer, offset, self.object_bytes) {
            return Ok(buffer);
        }
        // To librbd an object that is not there reads as zeros. Objects are removed only after the
        // image has left its name for the trash: as long as the name is there, what was read is true.
        match self.pool.object_exists(&format!("rbd_id.{}", self.name)).await {
            Ok(true) => Ok(buffer),
            Ok(false) => Err(Error::NotFound(format!("{} was deleted while it was read", self.name))),
            Err(e) if e.kind() == Kind::NotFound => {
                Err(Error::NotFound(format!("{} was deleted while it was read", self.name)))
            }
            Err(e) => Err(error(e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::every_object_has_data;

    #[test]
    fn an_object_of_which_only_zeros_were_read_may_be_gone() {
        let read = |bytes: &[u8], offset| every_object_has_data(bytes, offset, 4);
        assert!(read(&[0, 0, 1, 0], 0));
        assert!(!read(&[0, 0, 0, 0], 4));
        // The end of one object, a whole one, the beginning of a third.
        assert!(read(&[1, 0, 0, 2, 0, 3], 3));
        assert!(!read(&[0, 9, 9, 9, 9, 9], 3));
        assert!(!read(&[9, 0, 0, 0, 0, 9], 3));
        assert!(!read(&[9, 9, 9, 9, 9, 0], 3));
        assert!(!read(&[], 0));
    }
}
