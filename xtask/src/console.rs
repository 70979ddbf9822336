//! What the guest's kernel log says: panics and bugs, which fail a run, and warnings, which are shown.

/// What was found in a kernel log.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    /// The kernel gave up.
    pub(crate) panic: bool,
    /// The kernel found itself broken: BUG, oops, KASAN.
    pub(crate) bug: bool,
    /// The lines to show, in order.
    pub(crate) excerpt: Vec<String>,
}

impl Findings {
    /// The line of the first panic or bug.
    pub(crate) fn first(&self) -> &str {
        let bad = |line: &&String| matches!(alarm(line), Some(Alarm::Panic | Alarm::Bug));
        self.excerpt.iter().find(bad).map_or("", |line| line.trim())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Alarm {
    Panic,
    Bug,
    Warning,
}

/// What an alarm line contains. The first match decides.
const ALARMS: &[(&str, Alarm)] = &[
    ("Kernel panic - not syncing", Alarm::Panic),
    // A busy host starves an emulated processor for longer than these watchdogs allow: not the kernel's fault.
    ("BUG: soft lockup", Alarm::Warning),
    ("BUG: workqueue lockup", Alarm::Warning),
    ("BUG:", Alarm::Bug),
    ("kernel BUG at", Alarm::Bug),
    ("Oops:", Alarm::Bug),
    ("general protection fault", Alarm::Bug),
    ("KASAN:", Alarm::Bug),
    ("Unable to handle kernel", Alarm::Bug),
    ("WARNING:", Alarm::Warning),
    ("UBSAN:", Alarm::Warning),
    ("blocked for more than", Alarm::Warning),
    ("INFO: rcu", Alarm::Warning),
    ("rcu: INFO:", Alarm::Warning),
];

/// Alarm lines that every boot has, with the reason why they mean nothing here.
const HARMLESS: &[(&str, &str)] = &[];

/// Lines shown after an alarm: a register dump and a call trace fit.
const TRACE_LINES: usize = 60;

/// Looks through a kernel log.
pub(crate) fn examine(log: &str) -> Findings {
    let mut findings = Findings::default();
    let mut shown_until = 0;
    let lines: Vec<&str> = log
        .lines()
        .map(|line| line.trim_end_matches('\r'))
        .collect();
    for (index, line) in lines.iter().enumerate() {
        if let Some(alarm) = alarm(line) {
            findings.panic |= alarm == Alarm::Panic;
            findings.bug |= alarm == Alarm::Bug;
            shown_until = shown_until.max(index + TRACE_LINES);
        }
        if index < shown_until {
            findings.excerpt.push((*line).to_owned());
        }
        if line.contains("---[ end ") {
            shown_until = index;
        }
    }
    findings
}

/// The last lines of a kernel log: where a boot got stuck.
pub(crate) fn tail(log: &str) -> Vec<String> {
    let lines: Vec<&str> = log.lines().collect();
    let from = lines.len().saturating_sub(20);
    lines[from..].iter().map(|&line| line.to_owned()).collect()
}

fn alarm(line: &str) -> Option<Alarm> {
    if HARMLESS.iter().any(|(text, _)| line.contains(text)) {
        return None;
    }
    ALARMS
        .iter()
        .find(|(text, _)| line.contains(text))
        .map(|&(_, alarm)| alarm)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_log_has_no_findings() {
        assert_eq!(
            examine("[ 1.0] Linux version\n[ 2.0] tsc: fine\n"),
            Findings::default()
        );
    }

    #[test]
    fn a_warning_is_shown_to_the_end_of_its_trace_and_fails_nothing() {
        let findings = examine("a\nWARNING: CPU: 0\nRIP: x\n---[ end trace 0 ]---\nafter\n");
        assert!(!findings.panic && !findings.bug);
        assert_eq!(
            findings.excerpt,
            ["WARNING: CPU: 0", "RIP: x", "---[ end trace 0 ]---"]
        );
    }

    #[test]
    fn lockups_are_warnings_and_other_bugs_are_not() {
        assert!(!examine("watchdog: BUG: soft lockup - CPU#0 stuck").bug);
        assert!(examine("BUG: kernel NULL pointer dereference").bug);
        assert!(examine("Kernel panic - not syncing: sysrq").panic);
    }
}
