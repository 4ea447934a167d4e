//! Sends a response in pieces, at a minimum rate, without holding a file in memory.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::net::sockopt::set_tcp_cork;

use super::min_rate::MinRate;
use super::response::{Attachment, Response};
use crate::util::limits::{BASE64_PIECE_BYTES, SENDFILE_BYTES};

/// Sends a head and, unless the request was HEAD, the body. Returns how many bytes of the body went
/// into the socket, and an error if those were not all.
pub fn send(
    stream: &TcpStream, head: &str, response: &Response, without_body: bool, grace: Duration,
) -> (u64, io::Result<()>) {
    let body = if without_body { &[][..] } else { &response.body };
    let file = response.attachment.as_ref().filter(|_| !without_body);
    // A corked socket sends full segments only; otherwise a blocking sender would sleep and wake
    // for every few of them. Without a file, one write sends everything anyway.
    let corked = file.is_some() && set_tcp_cork(stream, true).is_ok();
    let mut out = MinRate::new(stream, grace);
    let sent = send_all(&mut out, head, body, file);
    if corked {
        let _ = set_tcp_cork(stream, false);
    }
    (out.transferred.saturating_sub(head.len() as u64), sent)
}

fn send_all(
    out: &mut MinRate<&TcpStream>, head: &str, body: &[u8], file: Option<&Attachment>,
) -> io::Result<()> {
    let offset = file.map_or(body.len(), |file| file.offset);
    let (before, after) = body.split_at_checked(offset).ok_or(io::ErrorKind::InvalidData)?;
    out.write_all(&[head.as_bytes(), before].concat())?;
    if let Some(Attachment { file, len, base64, .. }) = file {
        if *base64 {
            send_base64(out, file, *len)?;
        } else {
            out.send_file(file, *len)?;
        }
    }
    out.write_all(after)
}

fn send_base64(out: &mut MinRate<&TcpStream>, mut file: &File, len: u64) -> io::Result<()> {
    let (mut piece, mut text, mut left) = (vec![0; BASE64_PIECE_BYTES], String::new(), len);
    while left > 0 {
        let bytes = usize::try_from(left).unwrap_or(usize::MAX).min(BASE64_PIECE_BYTES);
        // All of it: only the last piece may need padding.
        let part = piece.get_mut(..bytes).unwrap_or_default();
        file.read_exact(part)?;
        STANDARD.encode_string(part, &mut text);
        out.write_all(text.as_bytes())?;
        text.clear();
        left = left.saturating_sub(bytes as u64);
    }
    Ok(())
}

impl MinRate<&TcpStream> {
    fn send_file(&mut self, file: &File, len: u64) -> io::Result<()> {
        let mut offset = 0;
        while offset < len {
            let most = usize::try_from(len - offset).unwrap_or(usize::MAX).min(SENDFILE_BYTES);
            let send = |s: &mut _, _| Ok(rustix::fs::sendfile(s, file, Some(&mut offset), most)?);
            whole(self.transfer(send)? > 0)?;
        }
        Ok(())
    }
}

/// A file truncated since its verification cannot complete its response, which is aborted.
fn whole(whole: bool) -> io::Result<()> {
    if whole { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_sent_as_base64_whole_or_the_response_is_broken_off() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        for size in [1, 2, 3, 49_151, 49_152, 49_153, 65_536, 98_305] {
            let bytes: Vec<u8> = (0..size).map(|n: u32| n.to_le_bytes()[n as usize % 2]).collect();
            let mut stored = tempfile::tempfile().unwrap();
            stored.write_all(&bytes).unwrap();
            let len = bytes.len() as u64;
            for (declared, whole) in [(len, true), (len + 1, false)] {
                io::Seek::rewind(&mut stored).unwrap();
                let file = stored.try_clone().unwrap();
                let mut reader = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                let (stream, _) = listener.accept().unwrap();
                let sender = std::thread::spawn(move || {
                    let mut out = MinRate::new(&stream, Duration::from_secs(60));
                    send_base64(&mut out, &file, declared)
                });
                let mut text = String::new();
                reader.read_to_string(&mut text).unwrap();
                assert_eq!(sender.join().unwrap().is_ok(), whole, "{size}");
                match whole {
                    true => assert!(text == STANDARD.encode(&bytes), "{size}"),
                    false => assert!(!text.contains('='), "{size}: it looks whole"),
                }
            }
        }
    }
}
