//! Limits the wait for a peer: by a deadline, or by a minimum rate.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::util::limits::RATE_MIN_BYTES_PER_S;

/// A stream that fails once its peer is too slow.
///
/// Each wait for the peer reduces the time left, and each [`RATE_MIN_BYTES_PER_S`] bytes add a
/// second, but never beyond the grace, so that a fast start cannot be saved up. Without a grace,
/// the time left is a deadline. Time not spent waiting for the peer does not count.
pub struct MinRate<S> {
    stream: S,
    left: Duration,
    grace: Duration,
    /// Bytes transferred so far.
    pub transferred: u64,
}

impl<S> MinRate<S> {
    /// Starts with the grace as the time left.
    pub fn new(stream: S, grace: Duration) -> Self {
        MinRate { stream, left: grace, grace, transferred: 0 }
    }

    /// From now on the peer has this long, whatever it moves.
    pub fn set_deadline(&mut self, left: Duration) {
        (self.left, self.grace) = (left, Duration::ZERO);
    }

    /// From now on the minimum rate counts, after this grace.
    pub fn set_grace(&mut self, grace: Duration) {
        (self.left, self.grace) = (grace, grace);
    }

    /// Runs a call that moves bytes and blocks no longer than the time it is given. Repeats it if
    /// it was interrupted or would block; fails with TimedOut once no time is left.
    pub fn transfer(
        &mut self, mut run: impl FnMut(&mut S, Duration) -> io::Result<usize>,
    ) -> io::Result<usize> {
        while !self.left.is_zero() {
            let begin = Instant::now();
            let moved = run(&mut self.stream, self.left);
            let bytes = *moved.as_ref().unwrap_or(&0) as u64;
            self.transferred = self.transferred.saturating_add(bytes);
            let earned = bytes.saturating_mul(1_000_000_000) / RATE_MIN_BYTES_PER_S;
            // Bytes that moved too late have moved all the same: the next call fails.
            self.left = self.left.checked_sub(begin.elapsed()).map_or(Duration::ZERO, |left| {
                left.saturating_add(Duration::from_nanos(earned)).min(self.grace.max(left))
            });
            match moved.as_ref().map_err(io::Error::kind) {
                Err(ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                _ => return moved,
            }
        }
        Err(ErrorKind::TimedOut.into())
    }
}

/// A reader always expects more bytes, so the end of the stream is an error: truncated data never
/// looks complete.
impl Read for MinRate<&TcpStream> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.transfer(|stream, left| {
            stream.set_read_timeout(Some(left))?;
            stream.read(buffer)
        });
        match read? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            n => Ok(n),
        }
    }
}

/// The socket's own write timeout is short, so that the rate is checked in time.
impl Write for MinRate<&TcpStream> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.transfer(|stream, _| stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_fast_start_cannot_be_saved_up() {
        let mut paced = MinRate::new((), Duration::from_millis(30));
        paced.transfer(|(), _| Ok(usize::MAX)).unwrap();
        let waited = paced.transfer(|(), _| {
            std::thread::sleep(Duration::from_millis(60));
            Ok(1)
        });
        // The byte that moved too late is not lost, but no further call is made.
        assert_eq!(waited.unwrap(), 1);
        let error = paced.transfer(|(), _| panic!("called")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn a_trickle_does_not_move_the_deadline() {
        let mut paced = MinRate::new((), Duration::from_millis(40));
        let dropped = (0..100).any(|_| {
            let drip = |(): &mut (), _| {
                std::thread::sleep(Duration::from_millis(2));
                Ok(1)
            };
            paced.transfer(drip).is_err()
        });
        assert!(dropped);
    }

    #[test]
    fn time_in_which_nobody_waits_for_the_peer_does_not_count() {
        let mut paced = MinRate::new((), Duration::from_millis(500));
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(200));
            assert!(paced.transfer(|(), _| Ok(1)).is_ok());
        }
    }

    #[test]
    fn what_is_interrupted_or_has_to_wait_is_tried_again_until_no_time_is_left() {
        let mut paced = MinRate::new((), Duration::from_millis(40));
        let mut errors = vec![ErrorKind::WouldBlock, ErrorKind::Interrupted];
        let moved = paced.transfer(|(), _| errors.pop().map_or(Ok(5), |kind| Err(kind.into())));
        assert_eq!(moved.unwrap(), 5);
        let error = paced.transfer(|(), _| Err(ErrorKind::WouldBlock.into())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        let mut other = MinRate::new((), Duration::from_millis(40));
        let error = other.transfer(|(), _| Err(ErrorKind::BrokenPipe.into())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    }

    #[test]
    fn without_a_grace_the_time_is_a_deadline() {
        let mut paced = MinRate::new((), Duration::from_secs(9));
        paced.set_deadline(Duration::from_millis(30));
        for _ in 0..3 {
            let _ = paced.transfer(|(), left| {
                std::thread::sleep(left.min(Duration::from_millis(20)));
                Ok(usize::MAX)
            });
        }
        assert_eq!(paced.transfer(|(), _| Ok(1)).unwrap_err().kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn a_stream_that_ends_before_its_limit_fails() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.write_all(b"abcdef").unwrap();
        drop(client);
        let stream = listener.accept().unwrap().0;
        let mut paced = MinRate::new(&stream, Duration::from_secs(1));
        let mut whole = Vec::new();
        assert_eq!((&mut paced).take(4).read_to_end(&mut whole).unwrap(), 4);
        let cut = paced.take(4).read_to_end(&mut whole).unwrap_err();
        assert_eq!((cut.kind(), &whole[..]), (ErrorKind::UnexpectedEof, &b"abcdef"[..]));
    }
}
