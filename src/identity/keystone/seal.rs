//! What a job needs of a request after the request has gone: its token, in a form that is good for the gateways of this
//! site alone. The key comes from the credentials that they log in with, which are in no database.

use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkcs5::pbkdf2_hmac;
use openssl::rand::rand_bytes;
use openssl::symm::{Cipher, decrypt_aead, encrypt_aead};

use crate::secret::Secret;

/// Rounds by which a guess at the credentials costs whoever has a copy of the database a tenth of a second.
const ROUNDS: usize = 200_000;
const SALT_BYTES: usize = 16;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
const KEY_BYTES: usize = 32;

/// Seals `token` with the gateways' `credentials`, for what `bound_to` names alone. Takes a tenth of a second of a processor.
pub(super) fn seal(credentials: &Secret, bound_to: &str, token: &str) -> Result<String, ErrorStack> {
    let (mut sealed, mut tag) = ([0; SALT_BYTES + NONCE_BYTES], [0; TAG_BYTES]);
    rand_bytes(&mut sealed)?;
    let (salt, nonce) = sealed.split_at(SALT_BYTES);
    let key = key(credentials, salt)?;
    let text = encrypt_aead(Cipher::aes_256_gcm(), &key, Some(nonce), bound_to.as_bytes(), token.as_bytes(), &mut tag)?;
    Ok(openssl::base64::encode_block(&[sealed.as_slice(), &tag, &text].concat()))
}

/// What was sealed; `None` if that was something else, for something else, or with other credentials.
pub(super) fn open(credentials: &Secret, bound_to: &str, sealed: &str) -> Option<Secret> {
    let bytes = openssl::base64::decode_block(sealed).ok()?;
    let (salt, rest) = bytes.split_at_checked(SALT_BYTES)?;
    let (nonce, rest) = rest.split_at_checked(NONCE_BYTES)?;
    let (tag, text) = rest.split_at_checked(TAG_BYTES)?;
    let key = key(credentials, salt).ok()?;
    let token = decrypt_aead(Cipher::aes_256_gcm(), &key, Some(nonce), bound_to.as_bytes(), text, tag).ok()?;
    String::from_utf8(token).ok().map(Secret::new)
}

fn key(credentials: &Secret, salt: &[u8]) -> Result<[u8; KEY_BYTES], ErrorStack> {
    let mut key = [0; KEY_BYTES];
    pbkdf2_hmac(credentials.expose().as_bytes(), salt, ROUNDS, MessageDigest::sha256(), &mut key)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::{open, seal};
    use crate::secret::Secret;

    #[test]
    fn what_is_sealed_is_for_one_purpose_and_one_site() {
        let (ours, theirs) = (Secret::new("password"), Secret::new("passwore"));
        let sealed = seal(&ours, "job 1", "gAAAA-token").unwrap();
        assert!(!sealed.contains("gAAAA"), "{sealed}");
        assert_ne!(sealed, seal(&ours, "job 1", "gAAAA-token").unwrap());
        assert_eq!(open(&ours, "job 1", &sealed).unwrap().expose(), "gAAAA-token");
        assert_eq!(open(&ours, "job 2", &sealed), None);
        assert_eq!(open(&theirs, "job 1", &sealed), None);
        let mut changed = sealed.into_bytes();
        changed[70] = if changed[70] == b'A' { b'B' } else { b'A' };
        for wrong in [String::from_utf8(changed).unwrap(), String::new(), "!".into(), "QUJD".into()] {
            assert_eq!(open(&ours, "job 1", &wrong), None, "{wrong}");
        }
    }
}
