//! `/etc/passwd`: a user's number from the name.
//!
//! Not getpwnam(3): what it asks beside this file (a directory server, say) may not be there yet when
//! the guard starts, and would be waited for.

use std::path::Path;

/// The user's number; `None` when the file does not name the user.
///
/// # Errors
///
/// The file cannot be read.
pub fn find_user(passwd: &Path, name: &str) -> std::io::Result<Option<u32>> {
    let text = std::fs::read(passwd)?;
    Ok(find_in(&String::from_utf8_lossy(&text), name))
}

fn find_in(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let number = fields
            .next()
            .filter(|&user| user == name)
            .and(fields.nth(1));
        number?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_the_whole_name() {
        let text = "root:x:0:0:root:/root:/bin/bash\n# comment\nbroken:x\n\nalice:x:1000:1000::/:/bin/sh\n";
        assert_eq!(find_in(text, "root"), Some(0));
        assert_eq!(find_in(text, "alice"), Some(1000));
        assert_eq!(find_in(text, "ali"), None);
        assert_eq!(find_in(text, "broken"), None);
        assert_eq!(find_in(text, ""), None);
        assert!(find_user(Path::new("/no/such/file"), "root").is_err());
    }
}
