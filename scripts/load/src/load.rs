//! Clients in a closed loop, each on one keep-alive connection.

use std::io::{self, Read, Write};
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
        Client::connect(port).unwrap()
    }

    pub fn connect(port: u16) -> io::Result<Client> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Client { stream, buffer: vec![0; 256 * 1024] })
    }

    /// Sends a request and reads the answer, or panics; status and the body's beginning.
    pub fn ask(&mut self, request: &[u8]) -> (u16, String) {
        let mut first = Vec::new();
        let take = |bytes: &[u8]| {
            let room = (64 * 1024_usize).saturating_sub(first.len());
            first.extend_from_slice(&bytes[..bytes.len().min(room)]);
        };
        let status = self.exchange(request, take).unwrap();
        (status, String::from_utf8_lossy(&first).into_owned())
    }

    /// Sends a request and hands the body of its answer over in pieces; says the status.
    pub fn exchange(&mut self, request: &[u8], mut take: impl FnMut(&[u8])) -> io::Result<u16> {
        self.stream.write_all(request)?;
        let mut have = 0;
        let end = loop {
            let n = self.stream.read(&mut self.buffer[have..])?;
            have += n;
            match self.buffer[..have].windows(4).position(|w| w == b"\r\n\r\n") {
                Some(end) => break end,
                None if n == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                None => {}
            }
        };
        let head = String::from_utf8_lossy(&self.buffer[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |n| n.trim().parse().unwrap());
        let status: u16 = head[9..12].parse().unwrap();
        take(&self.buffer[end + 4..have]);
        let mut left = if status == 304 { 0 } else { length - (have - end - 4) };
        while left > 0 {
            let most = left.min(self.buffer.len());
            let n = self.stream.read(&mut self.buffer[..most])?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            take(&self.buffer[..n]);
            left -= n;
        }
        Ok(status)
    }

    /// Sends a part of a request and goes.
    pub fn abandon(mut self, part: &[u8]) {
        let _ = self.stream.write_all(part);
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

/// So many clients ask again and again for so long; `request` makes the n-th of a client. The rate
/// is that of clients who need no time to make their requests.
pub fn run(
    port: u16, clients: usize, time: Duration, request: &(impl Fn(usize, usize) -> Vec<u8> + Sync),
) -> (Times, f64) {
    let start = Instant::now();
    let each: Vec<Vec<f64>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..clients)
            .map(|client| {
                scope.spawn(move || {
                    let (mut connection, mut times) = (Client::new(port), Vec::new());
                    while start.elapsed() < time {
                        let bytes = request(client, times.len());
                        let begin = Instant::now();
                        let status = connection.exchange(&bytes, |_| ()).unwrap();
                        times.push(begin.elapsed().as_secs_f64() * 1000.0);
                        assert!((200..300).contains(&status), "{status}");
                    }
                    times
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let rate = |times: &Vec<f64>| times.len() as f64 * 1000.0 / times.iter().sum::<f64>();
    let per_second = each.iter().map(rate).sum();
    let mut all: Vec<f64> = each.concat();
    all.sort_by(f64::total_cmp);
    (Times(all), per_second)
}
