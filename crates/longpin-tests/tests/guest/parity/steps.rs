//! What is tried, by which descriptor, and the trial itself.

use anyhow::{Context, Result};
use longpin_tests::operations::{self, Build, Ground, Home, Operation, Victim};
use longpin_tests::stores::Answer;

use super::mappings::{self, Mapped};
use super::subject::{Kind, Refused, Subject};

/// What cannot be tried on a file that is lent, or is tried otherwise here.
const LEFT_OUT: &[&str] = &[
    // These need a writable mapping: see `mappings`.
    "store through a mapping",
    "MADV_REMOVE",
    "MADV_PAGEOUT",
    "MADV_COLD",
    "MADV_DONTNEED",
    "MADV_COLLAPSE",
    // Slow, and does nothing to a file.
    "compact_memory",
    // The end of its mount is tried by other operations; a swap file keeps no mount namespace.
    "end of its mount namespace",
    // The same with no descriptor left: whoever keeps the file has one.
    "unlink, only the pin left",
    "rename over, only the pin left",
    "btrfs subvolume delete, only the pin left",
];

/// These leave the victim with another descriptor than before.
const REOPENS: &[&str] = &["enable fs-verity", "f2fs atomic write, only closed"];

/// The descriptor that an operation is tried through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// Opened before the file was swapped to, or held.
    Old,
    /// Opened after.
    New,
}

/// What an operation answered, and what it changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trial {
    Answered(Answer, Option<&'static str>),
    /// `longpin hold` refused the file in the state that the operation needs.
    NotHeld,
    /// The test failed.
    Failed(String),
}

/// Something to try.
#[derive(Clone, Copy)]
pub(super) enum Step {
    Operation(&'static Operation, Door),
    Mapped(&'static Mapped),
}

impl Step {
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Operation(operation, _) => operation.name,
            Self::Mapped(mapped) => mapped.name,
        }
    }

    /// Whether it has to be tried on a file of its own.
    fn needs_own(&self) -> bool {
        match self {
            Self::Operation(operation, _) => operation.build == Build::Short,
            Self::Mapped(mapped) => mapped.older,
        }
    }
}

/// Every step on this file system: through old descriptors first.
pub(super) fn all(home: Home) -> Vec<Step> {
    let operations = || {
        let all = operations::uses().chain(operations::all());
        all.filter(move |it| it.homes.contains(&home) && is_wanted(it))
    };
    let old = operations().filter(|it| !it.alone && !REOPENS.contains(&it.name));
    let old = old.map(|it| Step::Operation(it, Door::Old));
    let new = operations().map(|it| Step::Operation(it, Door::New));
    let mapped = mappings::ALL.iter().map(Step::Mapped);
    let steps = mapped.chain(old).chain(new);
    let part = std::env::var("LONGPIN_PARITY_OPERATION").unwrap_or_default();
    steps.filter(|step| step.name().contains(&part)).collect()
}

fn is_wanted(operation: &Operation) -> bool {
    let build = matches!(
        operation.build,
        Build::Plain | Build::Short | Build::Subvolume | Build::PlacePinned
    );
    build && !LEFT_OUT.contains(&operation.name)
}

/// Tries steps on files in one state, one file as long as nothing changes it.
pub(super) struct Trier<'a> {
    ground: &'a Ground,
    kind: Kind,
    subject: Option<(Subject<'a>, Door)>,
    not_offered: Option<String>,
}

impl<'a> Trier<'a> {
    pub(super) fn new(ground: &'a Ground, kind: Kind) -> Self {
        Self {
            ground,
            kind,
            subject: None,
            not_offered: None,
        }
    }

    /// What `longpin hold` said when it refused an ordinary file: then it refuses every one.
    pub(super) fn not_offered(&self) -> Option<&str> {
        self.not_offered.as_deref()
    }

    pub(super) fn try_step(&mut self, step: &Step) -> Trial {
        self.tried(step)
            .unwrap_or_else(|err| Trial::Failed(format!("{err:#}")))
    }

    fn tried(&mut self, step: &Step) -> Result<Trial> {
        match step {
            Step::Mapped(mapped) if mapped.older => self.with_older_mapping(mapped),
            Step::Mapped(mapped) => self.on_subject(step, |victim| {
                victim.open_anew()?;
                Ok(match mapped.map(victim)? {
                    Ok(mapping) => mapped.act(&mapping)?,
                    Err(errno) => Answer::Errno(errno),
                })
            }),
            Step::Operation(operation, door) => {
                let alone = operation.alone && !self.must_keep_descriptor(operation);
                let anew = *door == Door::New;
                self.on_subject(step, |victim| {
                    if anew {
                        victim.open_anew()?;
                    }
                    if alone {
                        victim.close();
                    }
                    Ok(operation.try_on(victim)?.into())
                })
            }
        }
    }

    /// What is detached lazily can no longer be found by its name, not even to end swapping to it.
    fn must_keep_descriptor(&self, operation: &Operation) -> bool {
        self.kind != Kind::Ordinary && operation.name.contains("lazy")
    }

    fn on_subject(
        &mut self,
        step: &Step,
        act: impl FnOnce(&mut Victim<'_>) -> Result<Answer>,
    ) -> Result<Trial> {
        let door = match step {
            Step::Operation(_, door) => *door,
            Step::Mapped(_) => Door::New,
        };
        let Some(mut subject) = self.subject_for(step, door)? else {
            return Ok(Trial::NotHeld);
        };
        let answer = act(&mut subject.victim);
        let change = match self.kind {
            Kind::Ordinary => None,
            _ => subject.change(),
        };
        let keep = self.kind != Kind::Ordinary && change.is_none() && !step.needs_own();
        if keep && answer.is_ok() {
            self.subject = Some((subject, door));
        } else {
            subject.end().context("afterwards")?;
        }
        Ok(Trial::Answered(answer?, change))
    }

    /// The one that is there, if it will do. `None`: it cannot be held.
    fn subject_for(&mut self, step: &Step, door: Door) -> Result<Option<Subject<'a>>> {
        if let Some((subject, its_door)) = self.subject.take() {
            // What was opened anew is never old again.
            if !step.needs_own() && (door == Door::New || its_door == Door::Old) {
                return Ok(Some(subject));
            }
            subject.end()?;
        }
        let short = step.needs_own() && matches!(step, Step::Operation(..));
        let victim = Victim::lent(self.ground, short)?;
        Ok(match Subject::new(self.ground, victim, self.kind)? {
            Ok(subject) => Some(subject),
            Err(Refused(words)) => {
                self.not_offered = Some(words);
                None
            }
        })
    }

    fn with_older_mapping(&mut self, mapped: &Mapped) -> Result<Trial> {
        self.end()?;
        let victim = Victim::lent(self.ground, false)?;
        let mapping = mapped.map(&victim)?.context("a mapping beforehand")?;
        let subject = match Subject::new(self.ground, victim, self.kind)? {
            Ok(subject) => subject,
            Err(Refused(words)) => {
                println!("{}: not held: {words}", mapped.name);
                return Ok(Trial::NotHeld);
            }
        };
        let answer = mapped.act(&mapping);
        drop(mapping);
        let change = match self.kind {
            Kind::Ordinary => None,
            _ => subject.change(),
        };
        subject.end().context("afterwards")?;
        Ok(Trial::Answered(answer?, change))
    }

    /// Ends the file that is there, after a look at the device under it.
    pub(super) fn end(&mut self) -> Result<()> {
        let Some((subject, _)) = self.subject.take() else {
            return Ok(());
        };
        let checked = subject.check_device();
        subject.end()?;
        checked
    }
}
