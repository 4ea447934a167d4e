//! Receives a body into the sink of its route, in pieces, at a minimum rate.

use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::net::TcpStream;
use std::time::Duration;

use super::json::split_upload_json;
use super::pace::Paced;
use crate::app::{Body, Error, Response};
use crate::store::Upload;
use crate::util::limits::{PIECE_BYTES, SMALL_BODY_BYTES_MAX};

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

/// Why a request did not arrive whole. What follows on the connection cannot be told from a
/// second request.
#[derive(Debug)]
pub enum Broken {
    /// The client left: there is nobody to answer.
    Gone,
    /// Refused with this answer.
    Refused(Response),
}

impl<E: Into<Error>> From<E> for Broken {
    fn from(error: E) -> Broken {
        Broken::Refused(error.into().into())
    }
}

/// Of an error while reading from the client.
impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Broken {
        let slow = || Error::new(408, "too_slow", "the request came too slowly; try again");
        match error.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => slow().into(),
            _ => Broken::Gone,
        }
    }
}

/// Receives `length` bytes. A body cut short is an error, never a short body.
pub fn receive(
    stream: &mut BufReader<&TcpStream>, length: u64, sink: Sink, grace: Duration,
) -> Result<Body, Broken> {
    stream.get_ref().set_read_timeout(Some(grace))?;
    let piece = usize::try_from(length).unwrap_or(usize::MAX).min(PIECE_BYTES);
    let paced = Paced::new(stream.take(length), grace);
    let mut source = BufReader::with_capacity(piece, paced);
    match sink {
        Sink::Memory => {
            let mut bytes = Vec::new();
            source.read_to_end(&mut bytes)?;
            Ok(Body::Bytes(bytes))
        }
        Sink::RawFile(mut upload) => loop {
            let piece = source.fill_buf()?;
            if piece.is_empty() {
                return Ok(Body::File(upload));
            }
            upload.write(piece)?;
            let stored = piece.len();
            source.consume(stored);
        },
        Sink::JsonFile { mut upload, field, skip } => {
            let store = |bytes: &[u8]| Ok(upload.write(bytes)?);
            let rest = split_upload_json(source, field, skip, SMALL_BODY_BYTES_MAX, store)?;
            Ok(Body::JsonFile { rest, upload })
        }
    }
}
