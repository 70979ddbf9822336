//! A process group that cannot outlive us: however this process ends, even by SIGKILL, the group is killed and its
//! scratch directory removed. A guest left behind would burn a processor for ever.

use anyhow::{Context, Result};
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The leader of the group. Its standard input is a pipe from us that nobody ever writes to: when its other end is
/// gone, so are we, and the background shell ends the group it is itself a member of.
const LEADER: &str = r#"
exec 3<&0 </dev/null
dir=$1; shift
(read -r _ <&3; rm -rf "$dir"; kill -KILL 0) >/dev/null 2>&1 &
"$@" 3<&-
status=$?
times >"$dir/times"
exit $status
"#;

/// A running group. Dropping it ends the group and removes the directory.
pub(crate) struct Leash {
    leader: Child,
    rope: Option<ChildStdin>,
    /// Where the leader writes how much time its children took.
    times: PathBuf,
}

impl Leash {
    /// Starts `argv` in a group of its own; `dir` is removed when the leash goes. Standard output and error are pipes.
    pub(crate) fn spawn(dir: &Path, argv: &[OsString]) -> Result<Self> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", LEADER, "leash"]).arg(dir).args(argv);
        command.process_group(0);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut leader = command.spawn().context("cannot start /bin/sh")?;
        let rope = leader.stdin.take();
        Ok(Self {
            leader,
            rope,
            times: dir.join("times"),
        })
    }

    /// The group's standard output and error, to be read until their end.
    pub(crate) fn outputs(&mut self) -> Result<(ChildStdout, ChildStderr)> {
        let outputs = self.leader.stdout.take().zip(self.leader.stderr.take());
        outputs.context("the outputs were taken before")
    }

    /// Waits until the group's command ends and calls `tick` meanwhile. After the deadline, `None`; the command runs on.
    pub(crate) fn wait(
        &mut self,
        deadline: Instant,
        mut tick: impl FnMut(),
    ) -> Result<Option<ExitStatus>> {
        loop {
            if let Some(status) = self.leader.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            tick();
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Processor time of the command and of what it waited for, once it has ended.
    pub(crate) fn processor_time(&self) -> Option<Duration> {
        children_time(&std::fs::read_to_string(&self.times).ok()?)
    }

    /// Ends the group, running or not, and removes the directory.
    pub(crate) fn cut(&mut self) {
        drop(self.rope.take());
        // Reaped so that no zombie stays; there is nothing to do if that fails.
        let _ = self.leader.wait();
    }
}

/// The second line of what the shell's `times` prints: user and system time of its children, as 3m14.15s.
fn children_time(printed: &str) -> Option<Duration> {
    let mut sum = 0.0;
    for word in printed.lines().nth(1)?.split_whitespace() {
        let (minutes, seconds) = word.strip_suffix('s')?.split_once('m')?;
        sum += minutes.parse::<f64>().ok()? * 60.0 + seconds.parse::<f64>().ok()?;
    }
    Some(Duration::from_secs_f64(sum))
}

impl Drop for Leash {
    fn drop(&mut self) {
        self.cut();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(dir: &Path) -> Leash {
        Leash::spawn(dir, &["sleep".into(), "1000".into()]).unwrap()
    }

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("longpin-leash-{name}-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        dir
    }

    #[test]
    fn a_status_passes_through() {
        let dir = scratch("status");
        let argv = ["sh", "-c", "exit 7"].map(OsString::from);
        let mut leash = Leash::spawn(&dir, &argv).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let status = leash.wait(deadline, || ()).unwrap();
        assert_eq!(status.and_then(|status| status.code()), Some(7));
        assert!(
            leash
                .processor_time()
                .is_some_and(|time| time.as_secs() < 10)
        );
    }

    #[test]
    fn the_times_of_children_are_summed() {
        let printed = "0m0.00s 0m0.01s\n3m14.15s 0m1.85s\n";
        assert_eq!(children_time(printed), Some(Duration::from_secs(196)));
        assert_eq!(children_time(""), None);
    }

    #[test]
    fn a_cut_leash_ends_the_command_and_removes_the_directory() {
        let dir = scratch("cut");
        let mut leash = sleeper(&dir);
        assert!(leash.wait(Instant::now(), || ()).unwrap().is_none());
        leash.cut();
        assert!(!dir.exists());
    }
}
