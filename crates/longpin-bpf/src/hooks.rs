//! The table of hooks: each program of `bpf/guard.bpf.c`, what it is attached to, where, for which claims, and what is lost
//! where the kernel has no place for it.
//!
//! What is loaded, pinned and opened again, the order in which it is removed, what is enforced, and what `doctor` says
//! before anything is loaded: all that is read from here. To add a hook is a row in `table.rs`, and a program.

mod table;

use crate::claim::Claim;
use crate::shared::Level;

pub use table::{HOOKS, WITNESS};
pub(crate) use table::{REGIONS, requests};

/// Tracing programs can watch functions of at most this many arguments.
const MAX_ARGUMENTS: usize = 6;

/// What a program is attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// A security hook, by the kernel's name of it.
    Lsm(&'static str),
    /// The entry of a kernel function.
    Entry(&'static str),
    /// Its return.
    Exit(&'static str),
    /// Entry or return of a function by a probe, where it takes too many arguments for a tracing program.
    Probe(&'static str),
    /// A tracepoint whose arguments have types.
    Tracepoint(&'static str),
    /// Writes below `/proc/sys`, at the root of the cgroups.
    Sysctl,
    /// The read of its link goes over all tasks.
    Tasks,
    /// Nothing: it is run on request.
    Request,
    /// Nothing: it is run at the start, and never again.
    Start,
}

/// What the kernel must have besides the place itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum If {
    /// Nothing.
    Always,
    /// The place takes so many arguments: it differs by kernel.
    Arguments(usize),
    /// This function.
    Function(&'static str),
    /// The table of mount points can be read.
    Mountpoints,
    /// This function is probed.
    Probed(&'static str),
}

/// What is lost where the kernel has no place for a program, or another one with the same place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// Everything: the guard does not start. What the kernel does at that place.
    All(&'static str),
    /// Its claims.
    Claims,
    /// This act, a part of its claims.
    Part(&'static str),
    /// Nothing that the table of claims counts: `docs/guarantee.md` says which kernels are concerned.
    Nothing,
}

/// A row: one program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hook {
    /// Its name in the object, and behind `link_` or `prog_` in bpffs.
    pub program: &'static str,
    /// What it is attached to.
    pub on: On,
    /// Level layout does without it.
    pub swapfile: bool,
    /// Where.
    pub only: If,
    /// It watches pins, or what became of them: explicit holds do without it.
    pub pins: bool,
    /// It refuses: the first to be removed.
    pub refuses: bool,
    /// Claims that it serves.
    pub claims: &'static [Claim],
    /// What is lost without it.
    pub lost: Lost,
}

/// What a kernel offers.
pub trait Offered {
    /// How many arguments a function takes; `None`: there is none, or its type is not told.
    fn arguments(&self, function: &str) -> Option<usize>;
    /// Is there a tracepoint of this name whose arguments have types?
    fn has_tracepoint(&self, name: &str) -> bool;
}

impl Hook {
    /// The row of a program.
    #[must_use]
    pub fn of(program: &str) -> Option<&'static Self> {
        HOOKS.iter().find(|hook| hook.program == program)
    }

    /// The kernel function that stands for its place in BTF.
    #[must_use]
    pub fn function(&self) -> Option<String> {
        match self.on {
            On::Lsm(name) => Some(format!("bpf_lsm_{name}")),
            On::Entry(name) | On::Exit(name) | On::Probe(name) => Some(name.to_owned()),
            _ => None,
        }
    }

    /// Has the kernel such a place, and what else it takes? `mountpoints`: the table of mount points can be read.
    #[must_use]
    pub fn fits(&self, kernel: &impl Offered, mountpoints: bool) -> bool {
        let taken = self.function().map(|name| kernel.arguments(&name));
        let place = match (self.on, taken) {
            (On::Tracepoint(name), _) => kernel.has_tracepoint(name),
            (On::Probe(_), Some(count)) => count.is_some_and(|count| count > MAX_ARGUMENTS),
            (_, Some(count)) => count.is_some_and(|count| count <= MAX_ARGUMENTS),
            (_, None) => true,
        };
        place
            && match self.only {
                If::Always => true,
                If::Arguments(count) => taken == Some(Some(count)),
                If::Function(name) => kernel.arguments(name).is_some(),
                If::Mountpoints => mountpoints,
                If::Probed(name) => is_probed(kernel, name),
            }
    }

    /// Nobody calls it but who runs it.
    #[must_use]
    pub const fn is_on_request(&self) -> bool {
        matches!(self.on, On::Request)
    }

    /// Is it attached, or else kept to be run?
    pub(crate) const fn is_attached(&self) -> bool {
        !matches!(self.on, On::Request | On::Start)
    }

    /// Is a function probed because of it?
    pub(crate) fn is_probe(&self) -> bool {
        matches!(self.on, On::Probe(_))
    }

    /// Does it watch the entry of a pin function?
    pub(crate) fn sees_pins_begin(&self) -> bool {
        let entry = matches!(self.on, On::Entry(_)) || self.program == table::PROBED_ENTRY;
        entry && self.is_about_pin_function()
    }

    /// Is it attached to one of the functions by which drivers pin?
    fn is_about_pin_function(&self) -> bool {
        self.pins && self.claims == table::PINNING
    }

    /// The name of its link in bpffs.
    #[must_use]
    pub fn link(&self) -> String {
        format!("link_{}", self.program)
    }

    /// The name of the program itself in bpffs, where it is run on request.
    #[must_use]
    pub fn pinned(&self) -> String {
        format!("prog_{}", self.program)
    }
}

fn is_probed(kernel: &impl Offered, function: &str) -> bool {
    kernel
        .arguments(function)
        .is_some_and(|count| count > MAX_ARGUMENTS)
}

/// The program that level swapfile needs, and that is not attached, if there is one.
#[must_use]
pub fn find_unattached(is_attached: impl Fn(&str) -> bool) -> Option<&'static str> {
    let mut hooks = HOOKS.iter().filter(|hook| hook.swapfile);
    let missing = hooks.find(|hook| !is_attached(hook.program));
    missing.map(|hook| hook.program)
}

/// In which order what is pinned is removed: what refuses, the rest, and last the state that says whether anything does.
#[must_use]
pub fn removal_rank(name: &str) -> u8 {
    let hook = name.strip_prefix("link_").and_then(Hook::of);
    match (name, hook) {
        (_, Some(hook)) if hook.refuses => 0,
        ("map_state", _) => 2,
        _ => 1,
    }
}

/// Every kernel function that a row asks for.
pub fn functions() -> impl Iterator<Item = String> {
    let besides = HOOKS.iter().filter_map(|hook| match hook.only {
        If::Function(name) | If::Probed(name) => Some(name.to_owned()),
        _ => None,
    });
    HOOKS.iter().filter_map(Hook::function).chain(besides)
}

/// Every tracepoint that a row asks for.
pub fn tracepoints() -> impl Iterator<Item = &'static str> {
    HOOKS.iter().filter_map(|hook| match hook.on {
        On::Tracepoint(name) => Some(name),
        _ => None,
    })
}

/// The rows of this one's place and level, itself included: one of them is enough.
fn same_as(hook: &Hook) -> impl Iterator<Item = &'static Hook> {
    let (on, swapfile) = (hook.on, hook.swapfile);
    HOOKS
        .iter()
        .filter(move |other| other.on == on && other.swapfile == swapfile)
}

/// Has the kernel a place for this program, or for another one that does the same?
#[must_use]
pub fn has_place(kernel: &impl Offered, hook: &Hook) -> bool {
    same_as(hook).any(|same| same.fits(kernel, true))
}

/// What the kernel lacks, and what it would do there, if nothing worth the name can be enforced without it.
#[must_use]
pub fn find_missing(kernel: &impl Offered) -> Option<(String, &'static str)> {
    HOOKS.iter().find_map(|hook| match hook.lost {
        Lost::All(purpose) if !has_place(kernel, hook) => Some((hook.function()?, purpose)),
        _ => None,
    })
}

/// The kernel's functions by which drivers pin, as far as any supported kernel has them.
#[must_use]
pub fn pin_functions() -> Vec<&'static str> {
    let exits = HOOKS.iter().filter(|hook| hook.is_about_pin_function());
    exits
        .filter_map(|hook| match hook.on {
            On::Exit(name) => Some(name),
            _ => None,
        })
        .collect()
}

/// Those of them that the kernel has and no program can watch, not even a probe: their pins are found only by walking
/// every file.
#[must_use]
pub fn unwatched(kernel: &impl Offered) -> Vec<&'static str> {
    let watches = |name: &str| {
        let mut hooks = HOOKS.iter().filter(|hook| hook.is_about_pin_function());
        hooks.any(|hook| hook.function().as_deref() == Some(name) && hook.fits(kernel, true))
    };
    let mut all = pin_functions();
    all.retain(|name| kernel.arguments(name).is_some() && !watches(name));
    all
}

/// Does a claim hold with what is attached? Of each place that it depends on, one program must be.
#[must_use]
pub fn holds(claim: Claim, level: Level, is_attached: impl Fn(&str) -> bool) -> bool {
    let mut needed = needed_by(claim, level);
    needed.all(|needed| same_as(needed).any(|hook| is_attached(hook.program)))
}

/// The programs that a claim depends on at a level.
pub fn needed_by(claim: Claim, level: Level) -> impl Iterator<Item = &'static Hook> {
    HOOKS.iter().filter(move |hook| {
        let at_level = level == Level::Swapfile || !hook.swapfile;
        hook.claims.contains(&claim) && hook.lost != Lost::Nothing && at_level
    })
}

#[cfg(test)]
mod tests;
