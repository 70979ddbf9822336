//! `longpin prepare`: make a file fit to be lent.

use std::path::Path;
use std::process::ExitCode;

use longpin::activation::CheckVerdict;
use longpin::preparation::{self, PrepareError, PrepareOptions, PrepareReport};

use super::check;
use super::progress::ByteBar;
use crate::cli::Prepare;
use crate::output::{CANNOT_TELL, REFUSED, Reasons, Refusal, SYSTEM, human, visible};

pub(crate) fn run(options: &Prepare) -> anyhow::Result<ExitCode> {
    if options.mutable {
        return make_mutable(&options.file);
    }
    let request = PrepareOptions {
        size: options.size,
        immutable: options.immutable,
    };
    let done = prepare(&options.file, &request)?;
    print(&options.file, &done, options.immutable);
    Ok(ExitCode::SUCCESS)
}

fn make_mutable(path: &Path) -> anyhow::Result<ExitCode> {
    let was = preparation::make_mutable(path).map_err(|err| refusal(path, err))?;
    let path = visible(&path.display().to_string());
    let done = if was {
        "mutable again"
    } else {
        "was not immutable; nothing done"
    };
    anstream::println!("{path}: {done}");
    Ok(ExitCode::SUCCESS)
}

/// With a progress bar; failures as the user sees them.
pub(super) fn prepare(path: &Path, request: &PrepareOptions) -> Result<PrepareReport, Refusal> {
    let bar = ByteBar::new("writing zeroes");
    let done = preparation::prepare(path, request, &mut |done, all| bar.show(done, all));
    drop(bar);
    done.map_err(|err| refusal(path, err))
}

fn refusal(path: &Path, mut err: PrepareError) -> Refusal {
    use PrepareError::{Held, InUse, Map, Missing, NotRegular, Opened, Refused, Shrink, SizeLimit};
    if let Refused(report) = &mut err {
        check::name_layer(report);
    }
    let hints = err.hints(path);
    let status = match &err {
        Refused(report) if report.verdict() == CheckVerdict::CannotTell => CANNOT_TELL,
        Refused(_) | InUse | Opened { .. } | Shrink { .. } => REFUSED,
        Missing { .. } | NotRegular { .. } | Held { .. } | SizeLimit { .. } => REFUSED,
        Map(_) => CANNOT_TELL,
        _ => SYSTEM,
    };
    let text = format!("cannot prepare {}", visible(&path.display().to_string()));
    let source = match err {
        Refused(report) => Reasons::of(&report).into(),
        other => other.into(),
    };
    Refusal {
        text,
        status,
        hints,
        source,
    }
}

pub(super) fn print(path: &Path, done: &PrepareReport, immutable: bool) {
    for line in lines(path, done, immutable) {
        anstream::println!("{line}");
    }
}

/// What was done, for people.
pub(super) fn lines(path: &Path, done: &PrepareReport, immutable: bool) -> Vec<String> {
    let path = visible(&path.display().to_string());
    let size = human(done.size);
    if !done.changed {
        return vec![format!("{path}: {size}, fit as it was; nothing done")];
    }
    let mut lines = Vec::new();
    if done.unshared > 0 {
        let unshared = human(done.unshared);
        lines.push(format!(
            "{path}: {unshared} put on blocks of its own (unshared)"
        ));
    }
    if done.zeroed > 0 {
        lines.push(format!(
            "{path}: {} of zeroes written {} in {:.1} s, {}",
            human(done.zeroed),
            done.method.as_str(),
            done.elapsed.as_secs_f64(),
            speed(done)
        ));
    }
    let kept = if immutable { ", immutable" } else { "" };
    lines.push(format!("{path}: {size}, fit to be lent{kept}"));
    lines
}

fn speed(done: &PrepareReport) -> String {
    let micros = done.elapsed.as_micros().max(1);
    let per_second = u128::from(done.zeroed) * 1_000_000 / micros;
    format!("{} MB/s", per_second / 1_000_000)
}
