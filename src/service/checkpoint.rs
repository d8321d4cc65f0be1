//! Digests that can be put down and taken up again by another process. Those of an upload (`digest`) are faster, but
//! their library keeps its state to itself.

use md5::Md5;
use sha1::Sha1;
use sha2::digest::Digest;
use sha2::digest::common::hazmat::{SerializableState, SerializedState};
use sha2::{Sha256, Sha384, Sha512};

use super::digest::hex;
use crate::domain::content::HashAlgorithm;

/// Form of saved states. To be raised with the minor versions of `md-5`, `sha1` and `sha2`, between which states cannot be
/// exchanged.
pub(super) const FORM: u32 = 11;

/// A digest of the bytes so far.
pub(super) struct Resumable(Box<dyn State>);

trait State: Send + Sync {
    fn update(&mut self, bytes: &[u8]);
    fn save(&self) -> Vec<u8>;
    fn finish(self: Box<Self>) -> Vec<u8>;
}

impl<D: Digest + SerializableState + Send + Sync> State for D {
    fn update(&mut self, bytes: &[u8]) {
        Digest::update(self, bytes);
    }

    fn save(&self) -> Vec<u8> {
        self.serialize().to_vec()
    }

    fn finish(self: Box<Self>) -> Vec<u8> {
        self.finalize().to_vec()
    }
}

impl Resumable {
    /// A digest of nothing.
    pub(super) fn start(algorithm: HashAlgorithm) -> Self {
        Self(match algorithm {
            HashAlgorithm::Md5 => Box::new(Md5::new()),
            HashAlgorithm::Sha1 => Box::new(Sha1::new()),
            HashAlgorithm::Sha256 => Box::new(Sha256::new()),
            HashAlgorithm::Sha384 => Box::new(Sha384::new()),
            HashAlgorithm::Sha512 => Box::new(Sha512::new()),
        })
    }

    /// A digest as it was when it was saved; `None` for what no digest of this algorithm has saved.
    pub(super) fn resume(algorithm: HashAlgorithm, saved: &[u8]) -> Option<Self> {
        fn restored<D: Digest + SerializableState + Send + Sync + 'static>(saved: &[u8]) -> Option<Box<dyn State>> {
            let state = <&SerializedState<D>>::try_from(saved).ok()?;
            D::deserialize(state).ok().map(|digest| Box::new(digest) as Box<dyn State>)
        }
        let state = match algorithm {
            HashAlgorithm::Md5 => restored::<Md5>(saved),
            HashAlgorithm::Sha1 => restored::<Sha1>(saved),
            HashAlgorithm::Sha256 => restored::<Sha256>(saved),
            HashAlgorithm::Sha384 => restored::<Sha384>(saved),
            HashAlgorithm::Sha512 => restored::<Sha512>(saved),
        };
        state.map(Self)
    }

    /// Adds bytes. Takes milliseconds for some MiB: not on a worker of the runtime.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// What [`Resumable::resume`] takes.
    pub(super) fn save(&self) -> Vec<u8> {
        self.0.save()
    }

    /// The digest, in lower-case hex.
    pub(super) fn finish(self) -> String {
        hex(&self.0.finish())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, proptest};

    use super::Resumable;
    use crate::domain::content::HashAlgorithm;

    const ALL: [HashAlgorithm; 5] =
        [HashAlgorithm::Md5, HashAlgorithm::Sha1, HashAlgorithm::Sha256, HashAlgorithm::Sha384, HashAlgorithm::Sha512];

    proptest! {
        #[test]
        fn a_digest_that_was_put_down_anywhere_is_that_of_the_whole(
            bytes in prop::collection::vec(0_u8.., 0..600), cut in 0_usize..600,
        ) {
            let (first, rest) = bytes.split_at(cut.min(bytes.len()));
            for algorithm in ALL {
                let mut digest = Resumable::start(algorithm);
                digest.update(first);
                let mut digest = Resumable::resume(algorithm, &digest.save()).unwrap();
                digest.update(rest);
                let whole = openssl::hash::hash(super::super::digest::function(algorithm), &bytes).unwrap();
                assert_eq!(digest.finish(), super::hex(&whole));
            }
        }

        #[test]
        fn what_no_digest_has_saved_is_refused_or_harmless(saved in prop::collection::vec(0_u8.., 0..400)) {
            for algorithm in ALL {
                if let Some(mut digest) = Resumable::resume(algorithm, &saved) {
                    digest.update(b"more");
                    digest.finish();
                }
            }
        }
    }
}
