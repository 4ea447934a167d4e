//! What the machine can do at best: servers that do one thing and check nothing.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread;

use rustix::net::sockopt::set_tcp_cork;

/// Receives bodies and answers when each is durable: write, fsync, rename, fsync of the folder.
pub fn durable(dir: PathBuf) -> u16 {
    serve(move |stream| {
        let mut number = 0_u64;
        let mut piece = vec![0; 256 * 1024];
        while let Some((_, mut body, length)) = head(stream) {
            number += 1;
            let name = format!("{:?}-{number}", thread::current().id());
            let (tmp, place) = (dir.join(format!("{name}.tmp")), dir.join(name));
            let mut file = File::create(&tmp).unwrap();
            file.write_all(&body).unwrap();
            let mut left = length - body.len();
            body.clear();
            while left > 0 {
                let most = left.min(piece.len());
                let n = stream.read(&mut piece[..most]).unwrap();
                file.write_all(&piece[..n]).unwrap();
                left -= n;
            }
            file.sync_all().unwrap();
            fs::rename(&tmp, &place).unwrap();
            File::open(&dir).unwrap().sync_all().unwrap();
            stream.write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n").unwrap();
        }
    })
}

/// Sends one file to everybody with sendfile, head and file under TCP_CORK.
pub fn sendfile(path: PathBuf) -> u16 {
    serve(move |stream| {
        while head(stream).is_some() {
            let file = File::open(&path).unwrap();
            let length = file.metadata().unwrap().len();
            let line = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            set_tcp_cork(&*stream, true).unwrap();
            stream.write_all(line.as_bytes()).unwrap();
            let mut offset = 0;
            while offset < length {
                let left = (length - offset) as usize;
                if rustix::fs::sendfile(&*stream, &file, Some(&mut offset), left).is_err() {
                    return;
                }
            }
            set_tcp_cork(&*stream, false).unwrap();
        }
    })
}

/// tiny_http with eight workers and without Nagle's algorithm, answering the same bytes to everybody.
pub fn tiny(body: Vec<u8>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // Accepted sockets inherit it.
    rustix::net::sockopt::set_tcp_nodelay(&listener, true).unwrap();
    let server = std::sync::Arc::new(tiny_http::Server::from_listener(listener, None).unwrap());
    for _ in 0..8 {
        let (server, body) = (std::sync::Arc::clone(&server), body.clone());
        thread::spawn(move || {
            while let Ok(request) = server.recv() {
                let _ = request.respond(tiny_http::Response::from_data(body.clone()));
            }
        });
    }
    port
}

fn serve(each: impl Fn(&mut TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let each = std::sync::Arc::new(each);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, each) = (stream.unwrap(), std::sync::Arc::clone(&each));
            stream.set_nodelay(true).unwrap();
            thread::spawn(move || each(&mut stream));
        }
    });
    port
}

/// A request's head, what came with it of the body, and the body's length.
fn head(stream: &mut TcpStream) -> Option<(Vec<u8>, Vec<u8>, usize)> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            let body = bytes.split_off(end + 4);
            let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
            let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
            return Some((bytes, body, length.map_or(0, |n| n.trim().parse().unwrap())));
        }
        match stream.read(&mut piece) {
            Ok(n) if n > 0 => bytes.extend_from_slice(&piece[..n]),
            _ => return None,
        }
    }
}
