//! Sends an answer piece by piece, at a minimum rate, without holding its body in memory.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::pace::Pace;
use crate::http::{Piece, Response};
use crate::limits::{PIECE_BYTES, SENDFILE_BYTES};

/// Sends head and pieces; says how many bytes of body went. `no_body` for HEAD.
pub fn send(
    stream: &TcpStream, head: String, response: Response, no_body: bool, grace: Duration,
) -> io::Result<u64> {
    let mut pace = Pace::new(grace);
    let mut first = head.into_bytes();
    if no_body || matches!(response.status, 204 | 304) {
        write(stream, &first, &mut pace)?;
        return Ok(0);
    }
    let length = response.content_length();
    let mut pieces = response.pieces.into_iter();
    for piece in pieces.by_ref() {
        match piece {
            // Head and small pieces leave in one segment.
            Piece::Bytes(bytes) => {
                first.extend_from_slice(&bytes);
                continue;
            }
            Piece::File { file, len } => {
                write(stream, &first, &mut pace)?;
                send_file(stream, &file, len, &mut pace)?;
            }
            Piece::Base64OfFile { file, len } => {
                encode_file(stream, &mut first, file, len, &mut pace)?;
            }
        }
        first.clear();
    }
    if !first.is_empty() {
        write(stream, &first, &mut pace)?;
    }
    Ok(length)
}

/// The short write timeout of the socket ends each call, so that the pace is asked in time.
fn write(mut stream: &TcpStream, mut bytes: &[u8], pace: &mut Pace) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                pace.moved(n)?;
                bytes = bytes.get(n..).unwrap_or_default();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The socket's write timeout passed and nothing moved.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => pace.moved(0)?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn send_file(stream: &TcpStream, file: &File, len: u64, pace: &mut Pace) -> io::Result<()> {
    let mut offset = 0;
    while offset < len {
        let most = usize::try_from(len - offset).unwrap_or(usize::MAX).min(SENDFILE_BYTES);
        match rustix::fs::sendfile(stream, file, Some(&mut offset), most) {
            // Cut since it was verified: the answer cannot be completed, so it is broken off.
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => pace.moved(n)?,
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => pace.moved(0)?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Bytes of file whose base64 fills one piece: a multiple of three, so that only the last piece
/// is padded.
const ENCODED_FROM_BYTES: usize = PIECE_BYTES / 4 * 3;

fn encode_file(
    stream: &TcpStream, out: &mut Vec<u8>, mut file: File, len: u64, pace: &mut Pace,
) -> io::Result<()> {
    let mut plain = vec![0; ENCODED_FROM_BYTES];
    let mut left = len;
    // What waits in `out` goes with the first piece.
    let mut start = out.len();
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(ENCODED_FROM_BYTES);
        let piece = plain.get_mut(..most).unwrap_or_default();
        file.read_exact(piece)?;
        // It only ever grows, so that its new bytes are set to zero once.
        let end = start + most.div_ceil(3) * 4;
        out.resize(end.max(out.len()), 0);
        STANDARD
            .encode_slice(piece, out.get_mut(start..end).unwrap_or_default())
            .map_err(io::Error::other)?;
        write(stream, out.get(..end).unwrap_or_default(), pace)?;
        start = 0;
        left -= most as u64;
    }
    out.clear();
    Ok(())
}
