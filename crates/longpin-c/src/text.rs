//! A caller's buffer for words.

use std::ffi::c_char;

/// Room for a string with its 0; none, if the caller wants no words.
pub(crate) struct Text {
    start: *mut c_char,
    size: usize,
}

impl Text {
    /// # Safety
    ///
    /// `start` is null, or has room for `size` bytes as long as the value lives.
    pub(crate) unsafe fn new(start: *mut c_char, size: usize) -> Self {
        let size = if start.is_null() { 0 } else { size };
        Self { start, size }
    }

    /// As much of the words as there is room for, in whole characters.
    pub(crate) fn write(&mut self, words: &str) {
        let Some(room) = self.size.checked_sub(1) else {
            return;
        };
        let mut end = words.len().min(room);
        while !words.is_char_boundary(end) {
            end -= 1;
        }
        // SAFETY: `end` bytes and a 0 are at most `size`, for which there is room; the words are no part of it.
        unsafe { std::ptr::copy_nonoverlapping(words.as_ptr(), self.start.cast(), end) };
        // SAFETY: as above.
        let last = unsafe { self.start.add(end) };
        // SAFETY: as above.
        unsafe { last.write(0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    fn written(size: usize, words: &str) -> String {
        let mut room = [c_char::MAX; 16];
        // SAFETY: no test asks for more than there is.
        let mut text = unsafe { Text::new(room.as_mut_ptr(), size) };
        text.write(words);
        assert!(room[size..].iter().all(|&byte| byte == c_char::MAX));
        if size == 0 {
            return String::new();
        }
        // SAFETY: it ends with a 0.
        let text = unsafe { CStr::from_ptr(room.as_ptr()) };
        text.to_str().unwrap().to_owned()
    }

    #[test]
    fn words_are_cut_to_the_room_in_whole_characters() {
        assert_eq!(written(16, "hole"), "hole");
        assert_eq!(written(5, "hole"), "hole");
        assert_eq!(written(4, "hole"), "hol");
        assert_eq!(written(3, "h\u{f6}le"), "h");
        assert_eq!(written(1, "hole"), "");
        assert_eq!(written(0, "hole"), "");
        // SAFETY: null is allowed.
        unsafe { Text::new(std::ptr::null_mut(), 9) }.write("hole");
    }
}
