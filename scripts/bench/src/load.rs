//! Clients in a closed loop, each on one keep-alive connection.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

/// One connection.
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub fn new(port: u16) -> Client {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Client { stream, buffer: vec![0; 256 * 1024] }
    }

    /// Sends a request and reads the answer; status and the body's beginning.
    pub fn ask(&mut self, request: &[u8]) -> (u16, String) {
        self.stream.write_all(request).unwrap();
        let mut have = 0;
        let (head, mut left) = loop {
            let n = self.stream.read(&mut self.buffer[have..]).unwrap();
            assert!(n > 0, "closed");
            have += n;
            let Some(end) = self.buffer[..have].windows(4).position(|w| w == b"\r\n\r\n") else {
                continue;
            };
            let head = String::from_utf8_lossy(&self.buffer[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.map_or(0, |n| n.trim().parse().unwrap());
            let first = String::from_utf8_lossy(&self.buffer[end + 4..have]).into_owned();
            break ((head, first), length - (have - end - 4));
        };
        while left > 0 {
            let most = left.min(self.buffer.len());
            left -= self.stream.read(&mut self.buffer[..most]).unwrap();
        }
        (head.0[9..12].parse().unwrap(), head.1)
    }
}

/// Durations of one run, sorted.
#[derive(Default, Clone)]
pub struct Times(Vec<f64>);

impl Times {
    /// Milliseconds below which this part of the requests stayed.
    pub fn at(&self, part: f64) -> f64 {
        let last = self.0.len().saturating_sub(1);
        self.0.get((last as f64 * part) as usize).copied().unwrap_or(f64::NAN)
    }

    /// Requests.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// So many clients ask again and again for so long; `request` makes the n-th of a client.
pub fn run(
    port: u16,
    clients: usize,
    time: Duration,
    request: &(impl Fn(usize, usize) -> Vec<u8> + Sync),
) -> (Times, f64) {
    let start = Instant::now();
    let mut all: Vec<f64> = thread::scope(|scope| {
        let threads: Vec<_> = (0..clients)
            .map(|client| {
                scope.spawn(move || {
                    let (mut connection, mut times) = (Client::new(port), Vec::new());
                    while start.elapsed() < time {
                        let bytes = request(client, times.len());
                        let begin = Instant::now();
                        let (status, body) = connection.ask(&bytes);
                        times.push(begin.elapsed().as_secs_f64() * 1000.0);
                        assert!((200..300).contains(&status), "{status} {body}");
                    }
                    times
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let per_second = all.len() as f64 / start.elapsed().as_secs_f64();
    all.sort_by(f64::total_cmp);
    (Times(all), per_second)
}
