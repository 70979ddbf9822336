//! What the guest writes, passed on as it comes and kept.

use std::io::{Read, Write};
use std::thread::JoinHandle;

/// Passes a stream on as it comes and returns a copy of it.
pub(crate) fn relay(
    mut from: impl Read + Send + 'static,
    mut to: impl Write + Send + 'static,
) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut copy = Vec::new();
        let mut buffer = [0; 8192];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            copy.extend_from_slice(&buffer[..count]);
            // Nobody listens any more (`| head`): the guest goes on, its status still counts.
            let _ = to.write_all(&buffer[..count]).and_then(|()| to.flush());
        }
        copy
    })
}

/// A stream on which each line begins with a label.
pub(crate) struct Labelled<W> {
    to: W,
    label: Option<String>,
    line: Vec<u8>,
}

impl<W: Write> Labelled<W> {
    pub(crate) fn new(to: W, label: Option<&str>) -> Self {
        Self {
            to,
            label: label.map(|label| format!("{label:<7} ")),
            line: Vec::new(),
        }
    }
}

impl<W: Write> Write for Labelled<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let Some(label) = &self.label else {
            return self.to.write(bytes);
        };
        for part in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                // In one piece: other guests write, too.
                self.to
                    .write_all(&[label.as_bytes(), &self.line].concat())?;
                self.line.clear();
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_gets_its_label() {
        let mut out = Vec::new();
        let mut to = Labelled::new(&mut out, Some("6.1"));
        to.write_all(b"test a ... ").unwrap();
        to.write_all(b"ok\ntest b").unwrap();
        assert_eq!(out, b"6.1     test a ... ok\n");
        let mut out = Vec::new();
        Labelled::new(&mut out, None).write_all(b"test a").unwrap();
        assert_eq!(out, b"test a");
    }
}
