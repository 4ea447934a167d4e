//! Sends an answer piece by piece, at a minimum rate, without holding its body in memory.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::pace::Paced;
use crate::http::Piece;
use crate::limits::{PIECE_BYTES, SEGMENT_BYTES, SENDFILE_BYTES};

/// Bytes of file whose base64 fills one piece: a multiple of three, so that only the last piece
/// is padded.
const ENCODED_FROM_BYTES: usize = PIECE_BYTES / 4 * 3;

/// Sends a head and the pieces of its body; says how many bytes of body went.
pub fn send(
    stream: &TcpStream, head: String, pieces: Vec<Piece>, grace: Duration,
) -> io::Result<u64> {
    // Head and small pieces leave in one segment. The socket's own time-out is short, so that the
    // pace is asked in time.
    let mut out = BufWriter::with_capacity(SEGMENT_BYTES, Paced::new(stream, grace));
    out.write_all(head.as_bytes())?;
    let mut sent = 0_u64;
    for piece in pieces {
        sent = sent.saturating_add(piece.wire_len());
        match piece {
            Piece::Bytes(bytes) => out.write_all(&bytes)?,
            Piece::File { file, len } => {
                out.flush()?;
                out.get_mut().send_file(&file, len)?;
            }
            Piece::Base64OfFile { file, len } => encode_file(&mut out, file, len)?,
        }
    }
    out.flush()?;
    Ok(sent)
}

impl Paced<&TcpStream> {
    fn send_file(&mut self, file: &File, len: u64) -> io::Result<()> {
        let mut offset = 0;
        while offset < len {
            let most = usize::try_from(len - offset).unwrap_or(usize::MAX).min(SENDFILE_BYTES);
            let sent =
                self.moves(|s| Ok(rustix::fs::sendfile(s, file, Some(&mut offset), most)?))?;
            // Cut since it was verified: the answer cannot be completed, so it is broken off.
            if sent == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }
}

fn encode_file(out: &mut impl Write, mut file: File, len: u64) -> io::Result<()> {
    let (mut plain, mut text) = (vec![0; ENCODED_FROM_BYTES], vec![0; PIECE_BYTES]);
    let mut left = len;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(ENCODED_FROM_BYTES);
        let piece = plain.get_mut(..most).unwrap_or_default();
        file.read_exact(piece)?;
        let encoded = STANDARD.encode_slice(piece, &mut text).map_err(io::Error::other)?;
        out.write_all(text.get(..encoded).unwrap_or_default())?;
        left -= most as u64;
    }
    Ok(())
}
