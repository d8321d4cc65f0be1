//! Digests of a stream, each computed on a thread of its own beside the writes.

use std::sync::Arc;

use openssl::hash::{Hasher, MessageDigest};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Error;
use super::ingest::Block;
use crate::domain::content::HashAlgorithm;

/// The digest function of an algorithm. OpenSSL's are the fastest measured (`ceph.md` 2.1), and librados
/// links libcrypto anyway.
pub(super) fn function(algorithm: HashAlgorithm) -> MessageDigest {
    match algorithm {
        HashAlgorithm::Md5 => MessageDigest::md5(),
        HashAlgorithm::Sha1 => MessageDigest::sha1(),
        HashAlgorithm::Sha256 => MessageDigest::sha256(),
        HashAlgorithm::Sha384 => MessageDigest::sha384(),
        HashAlgorithm::Sha512 => MessageDigest::sha512(),
    }
}

/// A digest that is being computed. Dropped, it stops after the block it is at.
pub(super) struct Digest {
    blocks: mpsc::UnboundedSender<Arc<Block>>,
    result: JoinHandle<Result<String, Error>>,
}

impl Digest {
    /// Starts a digest.
    pub(super) fn start(function: MessageDigest) -> Self {
        // Unbounded in form only: every block holds one of the transfer's few permits.
        let (blocks, mut queue) = mpsc::unbounded_channel::<Arc<Block>>();
        let result = tokio::spawn(async move {
            let mut hasher = Hasher::new(function).map_err(failed)?;
            while let Some(block) = queue.recv().await {
                let hashed = tokio::task::spawn_blocking(move || {
                    for piece in block.pieces() {
                        hasher.update(piece)?;
                    }
                    Ok(hasher)
                });
                hasher = hashed.await.map_err(failed)?.map_err(|e: openssl::error::ErrorStack| failed(e))?;
            }
            Ok(hex(&hasher.finish().map_err(failed)?))
        });
        Self { blocks, result }
    }

    /// Adds a block; blocks are taken in the order in which they are added.
    pub(super) fn add(&self, block: &Arc<Block>) {
        // A digest that has failed says so when it is finished.
        let _ = self.blocks.send(Arc::clone(block));
    }

    /// The digest of all blocks, in lower-case hex.
    pub(super) async fn finish(self) -> Result<String, Error> {
        drop(self.blocks);
        self.result.await.map_err(failed)?
    }
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Internal(format!("a digest failed: {error}"))
}

/// Bytes in lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
