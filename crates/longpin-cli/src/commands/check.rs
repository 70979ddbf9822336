//! `longpin check`: may this file be held, lent or swapped to?

use std::process::ExitCode;

use longpin::activation::{self, ByteRange, CheckReport, CheckVerdict, Name, Policy, Reason};
use longpin::admin;
use longpin::guard::{Host, Running};

use crate::cli::{Check, For};
use crate::output::{CANNOT_TELL, REFUSED, USAGE, visible};

pub(crate) fn run(options: &Check) -> anyhow::Result<ExitCode> {
    let policy = match options.purpose {
        For::Pages => Policy::Pages,
        For::Blocks => Policy::Blocks,
        For::Swap => Policy::Swap,
    };
    if policy == Policy::Swap && options.range.is_some() {
        anstream::eprintln!("longpin: swap takes whole files: --range does not go with --for swap");
        return Ok(ExitCode::from(USAGE));
    }
    if let Some(device) = &options.device {
        if policy == Policy::Pages {
            return super::plan::run(options, device);
        }
        anstream::eprintln!("longpin: a device gets pages: --device goes with --for pages only");
        return Ok(ExitCode::from(USAGE));
    }
    let wanted = options.range.map(|range| ByteRange {
        offset: range.offset,
        len: range.len,
    });
    let mut report = activation::check(&options.file, policy, wanted)?;
    name_layer(&mut report);
    if options.json {
        anstream::println!("{}", to_json(&report));
    } else {
        print(&report);
    }
    Ok(exit_code(&report))
}

/// Who may ask the guard, if one runs, is told which file it is; others where the mount and the files say so.
pub(super) fn name_layer(report: &mut CheckReport) {
    if !report.reasons.iter().any(|it| it.name == Name::Overlay) {
        return;
    }
    let running = Running::open(&Host::default()).ok();
    let known = running.and_then(|it| admin::find_layer(&it, &report.path).ok().flatten());
    if let Some(layer) = known.or_else(|| admin::guess_layer(&report.path)) {
        report.name_layer(&layer);
    }
}

pub(crate) fn exit_code(report: &CheckReport) -> ExitCode {
    match report.verdict() {
        CheckVerdict::Yes => ExitCode::SUCCESS,
        CheckVerdict::Refused => ExitCode::from(REFUSED),
        CheckVerdict::CannotTell => ExitCode::from(CANNOT_TELL),
    }
}

/// The verdict first, then each reason, then what cures it.
pub(crate) fn print(report: &CheckReport) {
    let path = visible(&report.path.display().to_string());
    let policy = report.policy.as_str();
    let verdict = match report.verdict() {
        CheckVerdict::Yes => "yes",
        CheckVerdict::Refused => "refused",
        CheckVerdict::CannotTell => "cannot tell",
    };
    let looked = match (report.verdict(), report.extents) {
        (CheckVerdict::Yes, 1) => ", 1 extent".to_owned(),
        (CheckVerdict::Yes, n) if n > 0 => format!(", {n} extents"),
        _ => String::new(),
    };
    anstream::println!("{path}: for {policy}: {verdict} ({}{looked})", report.fs);
    for reason in &report.reasons {
        anstream::println!("  {}", visible(&reason.text()));
    }
    if let Some(unknown) = &report.unknown {
        anstream::println!("  not known: {}", visible(unknown));
    }
    for hint in report.hints() {
        anstream::println!("hint: {}", visible(&hint));
    }
}

fn to_json(report: &CheckReport) -> serde_json::Value {
    let reason = |reason: &Reason| {
        serde_json::json!({
            "name": reason.name.as_str(),
            "count": reason.count,
            "bytes": reason.bytes,
            "first": reason.first,
            "meaning": reason.name.meaning(),
            "detail": reason.detail,
            "hint": reason.hint(&report.path, report.family),
        })
    };
    let verdict = match report.verdict() {
        CheckVerdict::Yes => "yes",
        CheckVerdict::Refused => "refused",
        CheckVerdict::CannotTell => "unknown",
    };
    serde_json::json!({
        "version": 1,
        "path": report.path.display().to_string(),
        "for": report.policy.as_str(),
        "file-system": report.fs,
        "start": report.range.start,
        "end": report.range.end,
        "extents": report.extents,
        "verdict": verdict,
        "unknown": report.unknown,
        "reasons": report.reasons.iter().map(reason).collect::<Vec<_>>(),
    })
}
