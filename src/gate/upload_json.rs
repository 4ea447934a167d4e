//! Splits an uploaded JSON object as it arrives: decodes one large base64 member, drops another
//! unparsed, and leaves the small rest to serde_json, so that memory use stays flat however large
//! the body is.

use std::io::{BufRead, Read};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::error::Error;
use crate::util::limits::JSON_NESTING_MAX;

/// Characters decoded at once: a multiple of four, and enough for one write to a file.
const DECODE_CHARS: usize = 64 * 1024;
/// Characters of the longest escape, such as `\u002B`.
const ESCAPE_CHARS: usize = 6;

/// Reads a document to the end of its source. Decodes the string of the top-level member `field`
/// and passes it to `sink`, in pieces of at most 48 KiB, drops the value of `skip`, and returns the
/// rest, at most `rest_max` bytes, white space included.
///
/// Everything but the two values is copied to the rest unchanged, with `null` in their places, and
/// serde_json checks the syntax of the document when it parses the rest. If the rest is valid JSON,
/// this parser found every name at the top level, and decoded it as serde_json does. Neither of the
/// two members may appear twice, however its name is spelled. Inside the skipped value, only
/// strings, escapes and open brackets are tracked.
pub fn split_upload_json(
    source: impl BufRead, field: &str, skip: &str, rest_max: usize,
    sink: impl FnMut(&[u8]) -> Result<(), Error>,
) -> Result<Vec<u8>, Error> {
    let (rest, position) = (Vec::new(), Position::default());
    Splitter { source, position, sink, field, skip, rest, rest_max }.run()
}

/// Refuses a document that nests too deeply.
pub fn check_nesting(document: &[u8]) -> Result<(), Error> {
    let mut position = Position::default();
    match document.iter().all(|byte| position.pass(*byte)) {
        true => Ok(()),
        false => Err(Error::malformed(TOO_DEEP)),
    }
}

/// The position of the next byte in the structure of a JSON document.
#[derive(Default)]
struct Position {
    /// Number of open objects and arrays.
    depth: u32,
    in_string: bool,
    /// True after the backslash of an escape.
    escaped: bool,
}

impl Position {
    /// Advances past a byte; returns false if the document nests too deeply.
    fn pass(&mut self, byte: u8) -> bool {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = self.in_string,
            b'"' => self.in_string = !self.in_string,
            b'{' | b'[' if !self.in_string => self.depth += 1,
            b'}' | b']' if !self.in_string => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        self.depth <= JSON_NESTING_MAX
    }

    /// True among the names, colons and values of the outermost object.
    fn is_top_level(&self) -> bool {
        self.depth == 1 && !self.in_string
    }
}

struct Splitter<'a, S, T> {
    source: S,
    position: Position,
    sink: T,
    field: &'a str,
    skip: &'a str,
    rest: Vec<u8>,
    rest_max: usize,
}

impl<'a, S: BufRead, T: FnMut(&[u8]) -> Result<(), Error>> Splitter<'a, S, T> {
    fn run(mut self) -> Result<Vec<u8>, Error> {
        let (mut name_at, mut found) = (None, Vec::new());
        while let Some(byte) = self.peek()? {
            if self.position.depth == 0 && !b"{ \t\r\n".contains(&byte) {
                return refuse("the body must be one JSON object");
            }
            self.next()?;
            self.keep(&[byte])?;
            if b"{,".contains(&byte) && self.position.is_top_level() {
                name_at = Some(self.rest.len());
            }
            if byte != b':' || !self.position.is_top_level() {
                continue;
            }
            // `take`, because a second colon has no name: the same one must not be parsed again.
            let member = name_at.take().and_then(|at| self.member(at));
            let Some(member) = member else { continue };
            if found.contains(&member) {
                return refuse(&format!("{member} appears twice in the body"));
            }
            found.push(member);
            if member == self.field { self.decode_value()? } else { self.skip_value()? }
        }
        Ok(self.rest)
    }

    /// The member that begins, if the bytes copied since `name_at` are its name and a colon.
    fn member(&self, name_at: usize) -> Option<&'a str> {
        let name = self.rest.get(name_at..)?.strip_suffix(b":")?;
        let name: String = serde_json::from_slice(name).ok()?;
        [self.field, self.skip].into_iter().find(|member| *member == name)
    }

    /// Decodes a member's base64 value and passes the bytes to `sink`.
    fn decode_value(&mut self) -> Result<(), Error> {
        let rule = "must be a string of canonical base64 (standard alphabet, padded, nothing else)";
        let rule = format!("{} {rule}", self.field);
        if self.begin_value()? != b'"' {
            return refuse(&rule);
        }
        let (mut chars, mut padded, mut ended) = (Vec::new(), false, false);
        while !ended {
            let room = DECODE_CHARS.saturating_sub(chars.len()) as u64;
            let arrived = Read::take(&mut self.source, room).read_until(b'"', &mut chars);
            if arrived.map_err(Error::of_body)? == 0 {
                return refuse(CUT_SHORT);
            }
            ended = chars.pop_if(|last| *last == b'"').is_some();
            let Some(incomplete) = unescape(&mut chars, ended) else { return refuse(&rule) };
            let whole = if ended { chars.len() } else { chars.len() / 4 * 4 };
            let fours = chars.get(..whole).unwrap_or_default();
            // Nothing may follow the padding.
            let decoded = STANDARD.decode(fours).ok().filter(|_| !padded || whole == 0);
            let Some(bytes) = decoded else { return refuse(&rule) };
            padded |= fours.ends_with(b"=");
            chars.drain(..whole);
            chars.extend(incomplete);
            (self.sink)(&bytes)?;
        }
        self.position.in_string = false;
        Ok(())
    }

    /// Skips a member's value: a string, an object, an array or a bare word.
    fn skip_value(&mut self) -> Result<(), Error> {
        let in_word = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        let mut byte = self.begin_value()?;
        if !in_word(byte) && !b"\"{[".contains(&byte) {
            return refuse(&format!("{} has no value", self.skip));
        }
        while !self.position.is_top_level() || in_word(byte) && self.peek()?.is_some_and(in_word) {
            byte = self.next()?;
        }
        Ok(())
    }

    /// Copies `null` in place of a value, and returns the value's first byte.
    fn begin_value(&mut self) -> Result<u8, Error> {
        self.keep(b"null")?;
        loop {
            let byte = self.next()?;
            if !b" \t\r\n".contains(&byte) {
                return Ok(byte);
            }
        }
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.rest.extend_from_slice(bytes);
        if self.rest.len() > self.rest_max {
            let beside = format!(" beside {}, whatever --max-body allows", self.field);
            return Err(Error::too_large(self.rest_max as u64, &beside));
        }
        Ok(())
    }

    fn next(&mut self) -> Result<u8, Error> {
        let byte = self.peek()?.ok_or_else(|| Error::malformed(CUT_SHORT))?;
        self.source.consume(1);
        if self.position.pass(byte) { Ok(byte) } else { refuse(TOO_DEEP) }
    }

    /// The next byte, or None at the end.
    fn peek(&mut self) -> Result<Option<u8>, Error> {
        Ok(self.source.fill_buf().map_err(Error::of_body)?.first().copied())
    }
}

/// Replaces escapes with their characters, and splits off and returns an incomplete escape at the
/// end. Returns None if an escape is invalid or stands for a backslash, which is not base64 and
/// would be taken for the beginning of another escape.
fn unescape(chars: &mut Vec<u8>, ended: bool) -> Option<Vec<u8>> {
    if !chars.contains(&b'\\') {
        return Some(Vec::new());
    }
    let complete = if ended { chars.len() } else { chars.len().saturating_sub(ESCAPE_CHARS - 1) };
    let cut = chars.iter().skip(complete).position(|byte| *byte == b'\\');
    let incomplete = cut.map_or_else(Vec::new, |at| chars.split_off(complete.saturating_add(at)));
    let string = [b"\"", chars.as_slice(), b"\""].concat();
    *chars = serde_json::from_slice::<String>(&string).ok()?.into_bytes();
    (!chars.contains(&b'\\')).then_some(incomplete)
}

fn refuse<T>(sentence: &str) -> Result<T, Error> {
    Err(Error::malformed(sentence))
}

const TOO_DEEP: &str = "the JSON in the body nests too deeply";
const CUT_SHORT: &str = "the JSON object in the body is cut short";

#[cfg(test)]
mod tests;
