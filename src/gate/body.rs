//! Receives a body in pieces and writes it where admission decided.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;

use super::error::Error;
use super::min_rate::MinRate;
use super::upload_json::split_upload_json;
use crate::util::limits::{PIECE_BYTES, SMALL_BODY_BYTES_MAX};

/// Where the body of a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spool {
    /// Into memory; admission has bounded its length.
    Memory,
    /// Into the upload, unchanged.
    Upload,
    /// A JSON object: the base64 value of `field` is decoded into the upload, the value of `skip`
    /// is dropped unparsed, and the rest stays in memory.
    UploadJson {
        /// Name of the member that holds the upload.
        field: &'static str,
        /// Name of the member that is dropped.
        skip: &'static str,
    },
}

/// Receives `length` bytes and returns those that stay in memory. A truncated body is an error,
/// never a shorter body.
pub fn receive(
    stream: &mut BufReader<MinRate<&TcpStream>>, length: u64, spool: Spool,
    mut sink: impl FnMut(&[u8]) -> Result<(), Error>,
) -> Result<Vec<u8>, Error> {
    let piece = usize::try_from(length).unwrap_or(usize::MAX).min(PIECE_BYTES);
    let mut source = BufReader::with_capacity(piece, stream.take(length));
    if let Spool::UploadJson { field, skip } = spool {
        return split_upload_json(source, field, skip, SMALL_BODY_BYTES_MAX, sink);
    }
    let mut small = Vec::new();
    loop {
        let piece = source.fill_buf().map_err(Error::of_body)?;
        let len = piece.len();
        match spool {
            _ if len == 0 => return Ok(small),
            Spool::Upload => sink(piece)?,
            _ => small.extend_from_slice(piece),
        }
        source.consume(len);
    }
}
