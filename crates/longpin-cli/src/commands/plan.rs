//! `longpin check FILE --device NAME`: which registration the device gets, or the rule that refuses.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::Duration;

use longpin::activation::{ByteRange, CheckVerdict, Name, Reason};
use longpin::plan::{
    self, Alternative, Device, Level, Medium, Obstacles, Plan, PlanRequest, Planned, Rule, Wish,
};
use longpin::registration::Trial;
use longpin_linux::file::{Found, Kind};
use longpin_linux::memory::{self, Sharing};
use longpin_rdma::{
    Access, Context, DeviceError, MemoryRegion, RegisterOptions, VerbsError, find_device,
};
use rustix::fs::OFlags;

use crate::cli::{self, Check, DeviceAccess, Registration, TryPin};
use crate::output::{CANNOT_TELL, NotRegular, REFUSED, Refusal, human, visible};

const IO_URING: &str = "io_uring";

pub(crate) fn run(options: &Check, device: &str) -> anyhow::Result<ExitCode> {
    let (file, may_write) = open(options)?;
    let (device, kernel) = find_device(device).map_err(|err| unanswered(device, err))?;
    let request = PlanRequest {
        wanted: options.range.map(|range| ByteRange {
            offset: range.offset,
            len: range.len,
        }),
        sharing: Sharing::Shared,
        access: access_of(options.access),
        wish: wish_of(options.registration),
        level: level_of(options.level),
        device,
        kernel,
        may_write,
        memlock: memory::memlock_limit()?,
        look_at_blocks: true,
    };
    let planned = plan::plan_file(&file, &options.file, &request)?;
    let seen = Seen {
        obstacles: obstacles(&file, &planned)?,
        tried: try_it(options, &file, &planned)?,
        planned,
    };
    if options.json {
        anstream::println!("{}", seen.to_json(options));
    } else {
        seen.print(options);
    }
    Ok(seen.exit_code())
}

fn open(options: &Check) -> anyhow::Result<(File, bool)> {
    let path = &options.file;
    let failed = |source| longpin::activation::CheckError {
        path: path.clone(),
        source,
    };
    let found = Found::at(path).map_err(failed)?;
    let kind = found.kind().map_err(failed)?;
    let is_memory = longpin_linux::devdax::read(&found)
        .map_err(failed)?
        .is_some();
    if kind != Kind::Regular && !is_memory {
        let path = path.clone();
        return Err(NotRegular { path, kind }.into());
    }
    let may_write = found.open(OFlags::RDWR).is_ok();
    Ok((found.open(OFlags::RDONLY).map_err(failed)?, may_write))
}

const fn access_of(access: DeviceAccess) -> Access {
    match access {
        DeviceAccess::Read => Access::READ,
        DeviceAccess::ReadWrite => Access::READ_WRITE,
    }
}

const fn wish_of(registration: Registration) -> Wish {
    match registration {
        Registration::Any => Wish::Any,
        Registration::OnDemand => Wish::OnDemand,
        Registration::Pin => Wish::Pin,
    }
}

pub(super) const fn level_of(level: cli::Level) -> Level {
    match level {
        cli::Level::Layout => Level::Layout,
        cli::Level::Swapfile => Level::Swapfile,
    }
}

fn unanswered(name: &str, err: DeviceError) -> anyhow::Error {
    match err {
        DeviceError::Verbs(err) => no_device(name, err).into(),
        other => other.into(),
    }
}

fn no_device(name: &str, err: VerbsError) -> Refusal {
    let hint = match &err {
        VerbsError::NoLibrary { .. } => "apt-get install libibverbs1 ibverbs-providers",
        VerbsError::NoDevice { .. } => "rdma link   # lists them; `--device io_uring` needs none",
        _ => "ls -l /dev/infiniband   # who may use it?",
    };
    Refusal {
        text: format!("cannot ask the device {}", visible(name)),
        status: CANNOT_TELL,
        hints: vec![hint.to_owned()],
        source: Box::new(err),
    }
}

/// Only where something is to be pinned.
fn obstacles(file: &File, planned: &Planned) -> anyhow::Result<Option<Obstacles>> {
    let is_device = planned.question.medium == Medium::DaxDevice;
    if is_device || !matches!(planned.plan, Plan::Longterm(_)) {
        return Ok(None);
    }
    let page = plan::page_of(file)?;
    Ok(Some(plan::read_obstacles(file, &planned.range, page)?))
}

/// `None`: not asked for, or nothing to try.
fn try_it(
    options: &Check,
    file: &File,
    planned: &Planned,
) -> anyhow::Result<Option<Result<(), String>>> {
    let Some(seconds) = options.try_for else {
        return Ok(None);
    };
    if planned.verdict() != CheckVerdict::Yes {
        return Ok(None);
    }
    let trial = Trial {
        program: std::env::current_exe()?,
        deadline: Duration::from_secs(seconds),
    };
    let question = &planned.question;
    let flags = if question.may_write {
        OFlags::RDWR
    } else {
        OFlags::RDONLY
    };
    let file = Found::at(&options.file)?
        .open(flags)
        .or_else(|_| file.try_clone())?;
    let tried = trial.run(
        &file,
        question.device.name(),
        &planned.range,
        question.access,
    );
    Ok(Some(tried.map_err(|err| err.to_string())))
}

/// What is told.
struct Seen {
    planned: Planned,
    obstacles: Option<Obstacles>,
    tried: Option<Result<(), String>>,
}

impl Seen {
    fn exit_code(&self) -> ExitCode {
        match (self.planned.verdict(), &self.tried) {
            (CheckVerdict::Refused, _) | (_, Some(Err(_))) => ExitCode::from(REFUSED),
            (CheckVerdict::Yes, _) => ExitCode::SUCCESS,
            (CheckVerdict::CannotTell, _) => ExitCode::from(CANNOT_TELL),
        }
    }

    fn print(&self, options: &Check) {
        let planned = &self.planned;
        let path = visible(&options.file.display().to_string());
        let question = &planned.question;
        let verdict = match planned.verdict() {
            CheckVerdict::CannotTell => "cannot tell".to_owned(),
            _ => describe(planned),
        };
        let does = if question.access.writes() || question.device == Device::IoUring {
            "to read and write"
        } else {
            "to read"
        };
        let device = visible(question.device.name());
        anstream::println!("{path}: for {device} {does}: {verdict} ({})", planned.fs);
        for line in self.lines() {
            anstream::println!("  {}", visible(&line));
        }
        for hint in self.hints(options) {
            anstream::println!("hint: {}", visible(&hint));
        }
    }

    /// Reasons and numbers.
    fn lines(&self) -> Vec<String> {
        let planned = &self.planned;
        let mut lines = Vec::new();
        if let Some(rule) = planned.plan.refusal() {
            let lack = planned.question.lack.filter(|lack| lack.rule == rule);
            let numbers = lack.map_or_else(String::new, |lack| {
                format!(" ({} bytes needed, {} there)", lack.needed, lack.there)
            });
            lines.push(format!("{}: {}{numbers}", rule.as_str(), rule.meaning()));
            if !rule.errno_names().is_empty() {
                let errnos = rule.errno_names().join(" or ");
                lines.push(format!("the registration would answer {errnos}"));
            }
        }
        lines.extend(planned.question.unfit.iter().map(Reason::text));
        if let Some(unknown) = &planned.unknown {
            lines.push(format!("not known: {unknown}"));
        }
        if let Plan::Longterm(pin) = planned.plan {
            let bytes = human(planned.question.bytes);
            let limit = planned.question.memlock.map_or("no limit".into(), human);
            lines.push(format!("pinned: {bytes}; locked memory: {limit}"));
            if pin.writable_mapping && !planned.question.access.writes() {
                lines.push("this kernel pins for writing: the mapping must be writable".into());
            }
        }
        lines.extend(self.obstacles.as_ref().and_then(describe_obstacles));
        match &self.tried {
            Some(Ok(())) => lines.push("tried: registered, and let go".into()),
            Some(Err(said)) => lines.push(format!("tried: {said}")),
            None => {}
        }
        lines
    }

    fn hints(&self, options: &Check) -> Vec<String> {
        let question = &self.planned.question;
        let cures = question.unfit.iter().filter_map(|reason| {
            let family = longpin::filesystem::Family::Unknown;
            let is_here = !matches!(reason.name, Name::NotOnPages);
            reason.hint(&options.file, family).filter(|_| is_here)
        });
        let path = longpin::activation::quote(&options.file);
        let others = self.planned.alternatives.iter();
        let device = question.device.name();
        cures
            .chain(others.map(|other| other.hint(&path, device)))
            .collect()
    }

    fn to_json(&self, options: &Check) -> serde_json::Value {
        let planned = &self.planned;
        let question = &planned.question;
        let verdict = match planned.verdict() {
            CheckVerdict::Yes => "yes",
            CheckVerdict::Refused => "refused",
            CheckVerdict::CannotTell => "unknown",
        };
        let rule = planned.plan.refusal();
        let path = longpin::activation::quote(&options.file);
        let other = |other: &Alternative| serde_json::json!({ "name": other.as_str(), "hint": other.hint(&path, question.device.name()) });
        serde_json::json!({
            "version": 1,
            "path": options.file.display().to_string(),
            "for": "pages",
            "file-system": planned.fs,
            "medium": question.medium.as_str(),
            "start": planned.range.start,
            "end": planned.range.end,
            "verdict": verdict,
            "unknown": planned.unknown,
            "reasons": question.unfit.iter().map(to_json).collect::<Vec<_>>(),
            "device": device_json(&question.device),
            "plan": planned.plan.as_str(),
            "hold": hold_of(planned).map(Level::as_str),
            "rule": rule.map(Rule::as_str),
            "meaning": rule.map(Rule::meaning),
            "errno": rule.map(Rule::errno_names),
            "alternatives": planned.alternatives.iter().map(other).collect::<Vec<_>>(),
            "needed": question.lack.map(|lack| lack.needed),
            "there": question.lack.map(|lack| lack.there),
            "memlock": question.memlock,
            "obstacles": self.obstacles.as_ref().map(obstacles_json),
            "tried": self.tried.as_ref().map(|tried| match tried {
                Ok(()) => "registered",
                Err(said) => said,
            }),
        })
    }
}

/// What the file is held at; nothing where nobody can take the memory away.
fn hold_of(planned: &Planned) -> Option<Level> {
    let hold = planned.plan.hold();
    hold.filter(|_| planned.question.medium != Medium::DaxDevice)
}

fn describe(planned: &Planned) -> String {
    match planned.plan {
        Plan::Longterm(_) if hold_of(planned).is_none() => {
            "a long-term pin, which needs no hold".into()
        }
        Plan::OnDemand => "on demand: nothing is pinned, the file stays free".into(),
        Plan::HeldOnDemand => "on demand: nothing is pinned, hold at level swapfile".into(),
        Plan::Longterm(pin) => format!("a long-term pin, hold at level {}", pin.level.as_str()),
        Plan::Copy => "a pin of a private copy".into(),
        Plan::LendBlocks(_) => "refused; its blocks can be lent".into(),
        _ => "refused".into(),
    }
}

/// Nothing where no memory of this host needs moving.
fn describe_obstacles(found: &Obstacles) -> Option<String> {
    if found.are_impossible() {
        return None;
    }
    if let Some(why) = &found.unknown {
        return Some(format!(
            "not known: whether pages would be moved before they are pinned ({why})"
        ));
    }
    let movable = match found.movable {
        Some(pages) => format!("{pages} of {} pages in memory", found.resident),
        None => "unknown pages (CAP_SYS_ADMIN may see)".into(),
    };
    let (zone, cma) = (human(found.zone_movable), human(found.cma));
    Some(format!(
        "to be moved before they are pinned: {movable}, from ZONE_MOVABLE ({zone}); pages from CMA ({cma}) are moved, too"
    ))
}

fn to_json(reason: &Reason) -> serde_json::Value {
    serde_json::json!({
        "name": reason.name.as_str(),
        "meaning": reason.name.meaning(),
        "detail": reason.detail,
    })
}

fn device_json(device: &Device) -> serde_json::Value {
    match device {
        Device::IoUring => serde_json::json!({ "name": IO_URING, "on-demand": false }),
        Device::Rdma(caps) => serde_json::json!({
            "name": caps.device,
            "on-demand": caps.on_demand,
            "rc": caps.rc.0,
            "uc": caps.uc.0,
            "ud": caps.ud.0,
            "max-region": caps.max_region,
        }),
    }
}

fn obstacles_json(found: &Obstacles) -> serde_json::Value {
    serde_json::json!({
        "unknown": found.unknown,
        "resident-pages": found.resident,
        "movable-pages": found.movable,
        "zone-movable": found.zone_movable,
        "cma": found.cma,
    })
}

/// Register what is on standard input, and let go.
pub(crate) fn try_pin(options: &TryPin) -> anyhow::Result<ExitCode> {
    let file = File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let range = options.range.offset..options.range.offset.saturating_add(options.range.len);
    if options.device == IO_URING {
        longpin::fixed_buffer::FixedBuffer::register(&file, range)?.unregister()?;
        return Ok(ExitCode::SUCCESS);
    }
    let domain = Context::open(&options.device)?.protection_domain()?;
    let wish = RegisterOptions {
        wish: Wish::Pin,
        ..RegisterOptions::default()
    };
    let access = access_of(options.access);
    MemoryRegion::register_with(&domain, &file, range, access, &wish)?.deregister()?;
    Ok(ExitCode::SUCCESS)
}
