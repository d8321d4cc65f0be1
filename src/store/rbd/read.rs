//! Reading a blob.

use async_trait::async_trait;
use ceph::{Image, Kind, Pool};

use super::error;
use crate::store::{BlobReader, Error};

/// An RBD image open at its snapshot: immutable, and with a valid object map.
pub(super) struct RbdReader {
    pool: Pool,
    image: Image,
    name: String,
    size_bytes: u64,
}

impl RbdReader {
    pub(super) async fn open(pool: &Pool, name: &str, snapshot: &str) -> Result<Self, ceph::Error> {
        let image = pool.open_read_only(name, Some(snapshot)).await?;
        let size_bytes = image.stat().await?.size_bytes;
        Ok(Self { pool: pool.clone(), image, name: name.to_owned(), size_bytes })
    }
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
