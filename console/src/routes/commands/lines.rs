use bytes::{Bytes, BytesMut};

/// What stands on one line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Valid UTF-8 and not blank, without its end.
    Text(Bytes),
    /// Something else than UTF-8.
    NotText,
    /// More bytes than allowed; they were not kept.
    TooLong,
}

/// Cuts a stream of chunks into numbered lines, holding at most one line and one chunk.
#[derive(Debug)]
pub(super) struct Lines {
    buffer: BytesMut,
    /// So many bytes at the front of `buffer` hold no line end.
    scanned: usize,
    /// The line that arrives is too long and was reported.
    skipping: bool,
    /// Complete lines so far.
    number: u64,
    bytes_max: usize,
}

impl Lines {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            scanned: 0,
            skipping: false,
            number: 0,
            bytes_max,
        }
    }

    pub(super) fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next line that is not blank, with its number from 1; `None` if more input is needed.
    pub(super) fn next(&mut self) -> Option<(u64, Line)> {
        loop {
            let Some(at) = self.buffer[self.scanned..].iter().position(|b| *b == b'\n') else {
                return self.overflow();
            };
            let line = self.buffer.split_to(self.scanned + at + 1).freeze();
            let line = line.slice(..line.len() - 1);
            self.scanned = 0;
            self.number += 1;
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            if let Some(line) = self.classify(line) {
                return Some((self.number, line));
            }
        }
    }

    /// The last line, if the input did not end with a line end. Only after [`Lines::next`] has
    /// returned `None`.
    pub(super) fn finish(&mut self) -> Option<(u64, Line)> {
        let rest = self.buffer.split().freeze();
        self.scanned = 0;
        if std::mem::take(&mut self.skipping) || rest.is_empty() {
            return None;
        }
        self.number += 1;
        self.classify(rest).map(|line| (self.number, line))
    }

    fn overflow(&mut self) -> Option<(u64, Line)> {
        let reported = self.skipping;
        if reported || self.buffer.len() > self.bytes_max {
            self.skipping = true;
            self.buffer.clear();
        }
        self.scanned = self.buffer.len();
        (self.skipping && !reported).then_some((self.number + 1, Line::TooLong))
    }

    fn classify(&self, line: Bytes) -> Option<Line> {
        if line.len() > self.bytes_max {
            Some(Line::TooLong)
        } else if line.trim_ascii().is_empty() {
            None
        } else if std::str::from_utf8(&line).is_err() {
            Some(Line::NotText)
        } else {
            Some(Line::Text(line))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All lines of `input`, given in chunks of `size`.
    fn cut(input: &[u8], size: usize, bytes_max: usize) -> Vec<(u64, Line)> {
        let mut lines = Lines::new(bytes_max);
        let mut found = Vec::new();
        for chunk in input.chunks(size) {
            lines.push(chunk);
            while let Some(line) = lines.next() {
                found.push(line);
            }
            assert!(
                lines.buffer.len() <= bytes_max,
                "keeps {}",
                lines.buffer.len()
            );
        }
        found.extend(lines.finish());
        found
    }

    fn text(line: &str) -> Line {
        Line::Text(Bytes::copy_from_slice(line.as_bytes()))
    }

    #[test]
    fn lines_do_not_depend_on_chunks() {
        let input = b"one\n\n  \r\ntwo\r\n\xff\xfe\nfar too long\nx\nlast";
        let expected = vec![
            (1, text("one")),
            (4, text("two\r")),
            (5, Line::NotText),
            (6, Line::TooLong),
            (7, text("x")),
            (8, text("last")),
        ];
        for size in 1..=input.len() {
            assert_eq!(cut(input, size, 8), expected, "chunks of {size}");
        }
    }

    #[test]
    fn a_line_at_the_limit_passes_and_one_above_does_not() {
        for size in [1, 3, 100] {
            assert_eq!(cut(b"12345678\n", size, 8), [(1, text("12345678"))]);
            assert_eq!(cut(b"12345678", size, 8), [(1, text("12345678"))]);
            assert_eq!(cut(b"123456789\n", size, 8), [(1, Line::TooLong)]);
            assert_eq!(cut(b"123456789", size, 8), [(1, Line::TooLong)]);
        }
    }

    #[test]
    fn a_long_last_line_is_reported_once() {
        assert_eq!(cut(&[b'a'; 1000], 10, 8), [(1, Line::TooLong)]);
        let found = cut(b"aaaaaaaaaaaaaaaaaaaa\nb\n", 5, 8);
        assert_eq!(found, [(1, Line::TooLong), (2, text("b"))]);
    }

    #[test]
    fn nothing_has_no_lines() {
        assert_eq!(cut(b"", 1, 8), []);
        assert_eq!(cut(b"\n\n\r\n  ", 1, 8), []);
    }
}
