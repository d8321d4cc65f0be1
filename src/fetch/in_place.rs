//! Data that stays where it is, and is read in pieces, in any order.

use std::sync::Arc;

use hyper::StatusCode;

use super::answer::{ContentRange, Validator};
use super::body::Tries;
use super::exchange::{Client, Question};
use super::target::Target;
use super::{Error, Fetcher};

/// Data elsewhere.
pub struct InPlace {
    client: Arc<Client>,
    origin: Target,
    size_bytes: u64,
    validator: Option<Validator>,
    tries_max: u32,
}

impl Fetcher {
    /// Looks at data that is to be read in pieces.
    ///
    /// # Errors
    /// [`Error`]; [`Error::Unusable`] also where the server gives no ranges.
    pub async fn in_place(&self, url: &str) -> Result<InPlace, Error> {
        let origin = self.rules().check(url).map_err(|refusal| Error::Refused(refusal.to_string()))?;
        let answer = self.ask(&origin, &Question { range: Some(0..1), ..Question::default() }).await?;
        let range = ContentRange::read(&answer.headers).filter(|range| (range.first, range.last) == (0, 0));
        match range {
            Some(range) if answer.status == StatusCode::PARTIAL_CONTENT => Ok(InPlace {
                client: Arc::clone(&self.client),
                origin,
                size_bytes: range.total,
                validator: Validator::read(&answer.headers),
                tries_max: self.config.tries_max,
            }),
            _ if answer.status.is_success() => Err(Error::Unusable(format!(
                "The server {} gives no ranges, so that its data cannot be used where it is.",
                answer.target.host
            ))),
            _ => Err(answer.failure()),
        }
    }
}

impl InPlace {
    /// Its length.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Fills `buffer` with the bytes from `offset`, and gives it back.
    ///
    /// # Errors
    /// [`Error`]; [`Error::Unusable`] also when it is not what it was.
    pub async fn read(&self, offset: u64, mut buffer: Vec<u8>) -> Result<Vec<u8>, Error> {
        let length = buffer.len();
        if length == 0 {
            return Ok(buffer);
        }
        let mut tries = Tries::new(self.tries_max);
        loop {
            match self.try_read(offset, length, &mut buffer).await {
                Ok(()) => return Ok(buffer),
                Err(failure) => tries.after(failure).await?,
            }
        }
    }

    async fn try_read(&self, offset: u64, length: usize, buffer: &mut Vec<u8>) -> Result<(), Error> {
        buffer.clear();
        let end = offset + length as u64;
        let question = Question { range: Some(offset..end), validator: self.validator.clone(), ..Question::default() };
        let mut answer = self.client.ask(&self.origin, &question, None).await?;
        let host = &self.origin.host;
        let expected = ContentRange { first: offset, last: end - 1, total: self.size_bytes };
        let same = self.validator.as_ref().is_none_or(|known| known.agrees(&answer.headers));
        match answer.status {
            StatusCode::PARTIAL_CONTENT if same && ContentRange::read(&answer.headers) == Some(expected) => {}
            StatusCode::PARTIAL_CONTENT | StatusCode::OK | StatusCode::RANGE_NOT_SATISFIABLE => {
                return Err(Error::Unusable(format!("The data on the server {host} is not what it was.")));
            }
            _ => return Err(answer.failure()),
        }
        while let Some(piece) = answer.next().await? {
            if buffer.len() + piece.len() > length {
                return Err(Error::Unusable(format!("The server {host} sends more than it says.")));
            }
            buffer.extend_from_slice(&piece);
        }
        if buffer.len() < length {
            return Err(Error::Unavailable(format!("The server {host} broke off its answer.")));
        }
        Ok(())
    }
}
