//! The minimum rate of request and response bodies.

use std::io::{self, ErrorKind, Read, Take, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::util::limits::RATE_MIN_BYTES_PER_S;

/// A stream that fails once its peer is too slow.
///
/// At first the peer may be waited for as long as the grace; each wait takes from that and each
/// [`RATE_MIN_BYTES_PER_S`] bytes give a second, but never beyond the grace, so that a fast start
/// cannot be saved up. Time in which nobody waits for the peer does not count.
pub struct MinRate<S> {
    /// The stream.
    pub stream: S,
    left: Duration,
    grace: Duration,
    /// Bytes that went so far.
    pub transferred: u64,
}

impl<S> MinRate<S> {
    /// Begins with the grace.
    pub fn new(stream: S, grace: Duration) -> Self {
        MinRate { stream, left: grace, grace, transferred: 0 }
    }

    /// Makes a call that moves bytes, again where it was interrupted or the socket's own time-out
    /// passed in vain; an error of kind TimedOut once no time is left.
    pub fn transfer(
        &mut self, mut run: impl FnMut(&mut S) -> io::Result<usize>,
    ) -> io::Result<usize> {
        while !self.left.is_zero() {
            let begin = Instant::now();
            let moved = run(&mut self.stream);
            let bytes = *moved.as_ref().unwrap_or(&0) as u64;
            self.transferred = self.transferred.saturating_add(bytes);
            let earned = bytes.saturating_mul(1_000_000_000) / RATE_MIN_BYTES_PER_S;
            // What came too late has moved all the same: it is the next call that fails.
            self.left = self.left.checked_sub(begin.elapsed()).map_or(Duration::ZERO, |left| {
                left.saturating_add(Duration::from_nanos(earned)).min(self.grace)
            });
            match moved.as_ref().map_err(io::Error::kind) {
                Err(ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                _ => return moved,
            }
        }
        Err(ErrorKind::TimedOut.into())
    }
}

/// A stream that is cut short before its limit fails: it can never look whole.
impl<S: Read> Read for MinRate<Take<S>> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.transfer(|stream| stream.read(buffer))? {
            0 if self.stream.limit() > 0 => Err(ErrorKind::UnexpectedEof.into()),
            n => Ok(n),
        }
    }
}

impl Write for MinRate<&TcpStream> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.transfer(|stream| stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_start_cannot_be_saved_up() {
        let mut paced = MinRate::new((), Duration::from_millis(30));
        paced.transfer(|()| Ok(usize::MAX)).unwrap();
        let waited = paced.transfer(|()| {
            std::thread::sleep(Duration::from_millis(60));
            Ok(1)
        });
        // It moved and is not lost, but nothing is waited for any more.
        assert_eq!(waited.unwrap(), 1);
        let error = paced.transfer(|()| panic!("called")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn a_trickle_does_not_move_the_deadline() {
        let mut paced = MinRate::new((), Duration::from_millis(40));
        let dropped = (0..100).any(|_| {
            let drip = |(): &mut ()| {
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
            assert!(paced.transfer(|()| Ok(1)).is_ok());
        }
    }

    #[test]
    fn what_is_interrupted_or_has_to_wait_is_tried_again_until_no_time_is_left() {
        let mut paced = MinRate::new((), Duration::from_millis(40));
        let mut errors = vec![ErrorKind::WouldBlock, ErrorKind::Interrupted];
        let moved = paced.transfer(|()| errors.pop().map_or(Ok(5), |kind| Err(kind.into())));
        assert_eq!(moved.unwrap(), 5);
        let error = paced.transfer(|()| Err(ErrorKind::WouldBlock.into())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        let mut other = MinRate::new((), Duration::from_millis(40));
        let error = other.transfer(|()| Err(ErrorKind::BrokenPipe.into())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_stream_that_ends_before_its_limit_fails() {
        let grace = Duration::from_secs(1);
        let mut whole = Vec::new();
        assert_eq!(MinRate::new(b"abcd".take(3), grace).read_to_end(&mut whole).unwrap(), 3);
        let cut = MinRate::new(b"ab".take(3), grace).read_to_end(&mut whole).unwrap_err();
        assert_eq!(cut.kind(), ErrorKind::UnexpectedEof);
    }
}
