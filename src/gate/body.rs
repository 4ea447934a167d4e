//! Receives a body into the sink of its route, in pieces, at a minimum rate.

use std::io;
use std::time::{Duration, Instant};

use super::connection::Incoming;
use super::json::{ScanError, Scanner};
use super::pace::Pace;
use crate::http::{ApiError, Body, Response};
use crate::limits::{PIECE_BYTES, SMALL_BODY_BYTES_MAX};
use crate::store::{StoreError, Upload};

/// Where a body goes.
pub enum Sink {
    /// Into memory; the length was vetted.
    Memory,
    /// Into a file, as it is.
    RawFile(Upload),
    /// A JSON object: the base64 of `field` is decoded into the file, the value of `skip` is
    /// dropped unread, the rest stays in memory.
    JsonFile {
        /// The file.
        upload: Upload,
        /// Its member.
        field: &'static str,
        /// The member that is never kept.
        skip: &'static str,
    },
}

/// Why there is no body.
pub enum BodyError {
    /// The client left or was too slow: there is nobody to answer.
    Gone,
    /// Refused with this answer.
    Refused(Response),
}

/// Receives `length` bytes. A body cut short is an error, never a short body.
pub fn receive(
    incoming: &mut Incoming<'_>, length: u64, sink: Sink, grace: Duration,
) -> Result<Body, BodyError> {
    match sink {
        Sink::Memory => {
            let mut bytes = Vec::new();
            each_piece(incoming, length, grace, |piece| {
                bytes.extend_from_slice(piece);
                Ok(())
            })?;
            Ok(Body::Bytes(bytes))
        }
        Sink::RawFile(mut upload) => {
            each_piece(incoming, length, grace, |piece| store(&mut upload, piece))?;
            Ok(Body::File(upload))
        }
        Sink::JsonFile { mut upload, field, skip } => {
            let mut scanner = Scanner::new(field, skip, SMALL_BODY_BYTES_MAX);
            let mut decoded = Vec::new();
            each_piece(incoming, length, grace, |piece| {
                decoded.clear();
                scanner.feed(piece, &mut decoded).map_err(|e| refuse_json(e, field))?;
                store(&mut upload, &decoded)
            })?;
            let (rest, _) = scanner.finish().map_err(|e| refuse_json(e, field))?;
            Ok(Body::JsonFile { rest, upload })
        }
    }
}

fn each_piece(
    incoming: &mut Incoming<'_>, length: u64, grace: Duration,
    mut take: impl FnMut(&[u8]) -> Result<(), BodyError>,
) -> Result<(), BodyError> {
    let mut pace = Pace::new(grace);
    let mut left = length;
    let mut buffer = Vec::new();
    incoming.set_read_timeout(grace).map_err(|_| BodyError::Gone)?;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_BYTES);
        buffer.resize(most, 0);
        let n = incoming.read(&mut buffer).map_err(slow_or_gone)?;
        if n == 0 {
            return Err(BodyError::Gone);
        }
        pace.moved(n).map_err(slow_or_gone)?;
        let begin = Instant::now();
        take(buffer.get(..n).unwrap_or_default())?;
        pace.skip(begin);
        left = left.saturating_sub(n as u64);
    }
    Ok(())
}

fn slow_or_gone(error: io::Error) -> BodyError {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => BodyError::Refused(
            ApiError::new(408, "too_slow", "the body came too slowly; try again").into(),
        ),
        _ => BodyError::Gone,
    }
}

fn store(upload: &mut Upload, bytes: &[u8]) -> Result<(), BodyError> {
    upload.write(bytes).map_err(|error| {
        let error = StoreError::io("write", std::path::Path::new("an upload"), error);
        BodyError::Refused(ApiError::from(error).into())
    })
}

fn refuse_json(error: ScanError, field: &str) -> BodyError {
    let error = match error {
        ScanError::Malformed(sentence) => ApiError::malformed(sentence),
        ScanError::Base64 => ApiError::malformed(format!(
            "{field} must be canonical base64 (standard alphabet, padded, nothing else)"
        )),
        ScanError::RestTooLarge => ApiError::too_large(
            SMALL_BODY_BYTES_MAX as u64,
            &format!(" beside {field}, whatever --max-body allows"),
        ),
    };
    BodyError::Refused(error.into())
}
