//! `/proc/*/task/*/stack`: which tasks are inside a kernel function.

use std::fs;

/// How many tasks sleep inside one of these kernel functions. A running task's stack cannot be read, so
/// ask more than once.
///
/// # Errors
///
/// `/proc` cannot be listed. Tasks that end meanwhile are left out.
pub fn count_tasks_inside(functions: &[&str]) -> std::io::Result<u64> {
    let mut count = 0;
    for process in fs::read_dir("/proc")? {
        let tasks = process?.path().join("task");
        let Ok(tasks) = fs::read_dir(tasks) else {
            continue;
        };
        for task in tasks.flatten() {
            let stack = fs::read_to_string(task.path().join("stack")).unwrap_or_default();
            count += u64::from(is_inside(&stack, functions));
        }
    }
    Ok(count)
}

pub(crate) fn is_inside(stack: &str, functions: &[&str]) -> bool {
    stack.lines().any(|line| {
        let frame = line.split_once("] ").map_or(line, |(_, frame)| frame);
        let name = frame.split('+').next().unwrap_or_default();
        functions.contains(&name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_matched_by_its_whole_name() {
        let stack = "[<0>] handle_userfault+0x3c/0x90\n[<0>] pin_user_pages_fast+0x51/0x70\n";
        assert!(is_inside(stack, &["pin_user_pages_fast"]));
        assert!(!is_inside(stack, &["pin_user_pages"]));
        assert!(!is_inside("", &["pin_user_pages"]));
    }
}
