//! Data that must have a hash which somebody knew before.

use futures_util::{StreamExt as _, stream};
use openssl::hash::{Hasher, MessageDigest};

use super::{Error, Fetched};
use crate::domain::location::Validation;

impl Fetched {
    /// The same data, which ends with an error unless it is what `expected` says. The bytes are hashed as they pass, in
    /// pieces of a fraction of a millisecond.
    ///
    /// # Errors
    /// [`Error::Unusable`] for an algorithm that is not known here.
    pub fn verified(self, expected: &Validation) -> Result<Self, Error> {
        let wanted = [
            ("MD5", "md5", expected.checksum.as_deref()),
            (expected.os_hash_algo.as_str(), expected.os_hash_algo.as_str(), Some(expected.os_hash_value.as_str())),
        ];
        let mut checks = Vec::new();
        for (shown, name, value) in wanted {
            let Some(value) = value else { continue };
            let hasher = MessageDigest::from_name(name).and_then(|function| Hasher::new(function).ok());
            let hasher = hasher.ok_or_else(|| Error::Unusable(format!("Nothing can be hashed by {shown} here.")))?;
            checks.push((shown.to_owned(), value.to_ascii_lowercase(), hasher));
        }
        let state = Some((self.body, checks));
        let body = stream::unfold(state, |state| async move {
            let (mut body, mut checks) = state?;
            let Some(piece) = body.next().await else {
                return checks.iter_mut().find_map(differs).map(|difference| (Err(difference), None));
            };
            if let Ok(bytes) = &piece
                && let Some(failed) = checks.iter_mut().find_map(|(_, _, hasher)| hasher.update(bytes).err())
            {
                return Some((Err(Error::Unusable(format!("The data cannot be hashed: {failed}."))), None));
            }
            let state = piece.is_ok().then_some((body, checks));
            Some((piece, state))
        });
        Ok(Self { body: Box::pin(body), ..self })
    }
}

fn differs((name, expected, hasher): &mut (String, String, Hasher)) -> Option<Error> {
    let found = match hasher.finish() {
        Ok(hash) => hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
        Err(failed) => return Some(Error::Unusable(format!("The data cannot be hashed: {failed}."))),
    };
    (found != *expected).then(|| {
        Error::Unusable(format!("The data is not what was expected: its {name} is {found}, and should be {expected}."))
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::{StreamExt as _, stream};

    use crate::domain::location::Validation;
    use crate::fetch::{Error, Fetched};

    async fn end(validation: &Validation) -> Result<Vec<u8>, Error> {
        let pieces = ["he", "", "llo"].map(|piece| Ok(Bytes::from(piece)));
        let fetched = Fetched { size_bytes: Some(5), body: Box::pin(stream::iter(pieces)) }.verified(validation)?;
        let pieces: Vec<_> = fetched.body.collect().await;
        Ok(pieces.into_iter().collect::<Result<Vec<_>, _>>()?.concat())
    }

    #[tokio::test]
    async fn only_the_expected_bytes_come_to_their_end() {
        let validation = |algo: &str, value: &str, md5: Option<&str>| Validation {
            checksum: md5.map(str::to_owned),
            os_hash_algo: algo.to_owned(),
            os_hash_value: value.to_owned(),
        };
        const SHA256: &str = "2CF24DBA5FB0A30E26E83B2AC5B9E29E1B161E5C1FA7425E73043362938B9824";
        const MD5: &str = "5d41402abc4b2a76b9719d911017c592";
        assert_eq!(end(&validation("sha256", SHA256, None)).await.unwrap(), b"hello");
        assert_eq!(end(&validation("sha256", SHA256, Some(MD5))).await.unwrap(), b"hello");
        assert_eq!(end(&validation("md5", MD5, None)).await.unwrap(), b"hello");
        let wrong = end(&validation("sha256", &SHA256.replace('2', "3"), None)).await.unwrap_err().to_string();
        assert!(wrong.contains("sha256") && wrong.contains("2cf24dba"), "{wrong}");
        assert!(end(&validation("sha256", SHA256, Some(&MD5.replace('5', "6")))).await.is_err());
        assert!(end(&validation("crc32", "00", None)).await.is_err());
    }
}
