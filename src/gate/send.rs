//! Sends an answer piece by piece, at a minimum rate, without holding its body in memory.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use base64::engine::general_purpose::STANDARD;
use base64::write::EncoderWriter;

use super::pace::Paced;
use crate::app::Piece;
use crate::util::limits::{PIECE_BYTES, SEGMENT_BYTES, SENDFILE_BYTES};

/// Sends a head and the pieces of its body; says how many bytes of body went.
pub fn send(
    stream: &TcpStream, head: String, pieces: Vec<Piece>, grace: Duration,
) -> io::Result<u64> {
    // Head and small pieces leave in one segment. The socket's own time-out is short, so that the
    // pace is asked in time.
    let mut out = BufWriter::with_capacity(SEGMENT_BYTES, Paced::new(stream, grace));
    out.write_all(head.as_bytes())?;
    let length = pieces.iter().map(Piece::wire_len).fold(0, u64::saturating_add);
    for piece in pieces {
        match piece {
            Piece::Bytes(bytes) => out.write_all(&bytes)?,
            Piece::File { file, len } => {
                out.flush()?;
                out.get_mut().send_file(&file, len)?;
            }
            Piece::Base64OfFile { file, len } => {
                let mut file = BufReader::with_capacity(PIECE_BYTES, file.take(len));
                let out = BufWriter::with_capacity(PIECE_BYTES, &mut out);
                let mut encoder = EncoderWriter::new(out, &STANDARD);
                not_cut(io::copy(&mut file, &mut encoder)? == len)?;
                encoder.finish()?.flush()?;
            }
        }
    }
    out.flush()?;
    Ok(length)
}

impl Paced<&TcpStream> {
    fn send_file(&mut self, file: &File, len: u64) -> io::Result<()> {
        let mut offset = 0;
        while offset < len {
            let most = usize::try_from(len - offset).unwrap_or(usize::MAX).min(SENDFILE_BYTES);
            let send = |s: &mut _| Ok(rustix::fs::sendfile(s, file, Some(&mut offset), most)?);
            not_cut(self.moves(send)? > 0)?;
        }
        Ok(())
    }
}

/// A file that was cut since it was verified cannot complete its answer, which is broken off.
fn not_cut(whole: bool) -> io::Result<()> {
    if whole { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
