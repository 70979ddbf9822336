//! On-demand regions among the rows of `longpin ls --all`.

use longpin::on_demand::{OnDemand, OnDemandReport};

use super::ls;
use crate::cli::Column;
use crate::output::human;

const WHY: &str = "the hardware faults: nothing is pinned, and nobody is refused";

/// A cell of `ls`.
pub(super) fn cell(region: &OnDemand, column: Column, bytes: bool) -> String {
    let size = |n: u64| if bytes { n.to_string() } else { human(n) };
    match column {
        Column::Kind => "on-demand".into(),
        Column::Level => "none".into(),
        Column::Path if region.deleted => format!("{} (deleted)", region.path),
        Column::Path => region.path.clone(),
        Column::Start => size(region.start),
        Column::End => size(region.end),
        Column::Pid => region.pid.to_string(),
        Column::Uid => region.uid.to_string(),
        Column::Command => region.command.clone(),
        Column::Consumer => region.consumer.clone(),
        Column::Cgroup if !region.cgroup.is_empty() => region.cgroup.clone(),
        Column::Since => region
            .since
            .and_then(ls::since)
            .unwrap_or_else(|| "-".into()),
        Column::Pages | Column::Broken => "0".into(),
        Column::Why => WHY.into(),
        Column::Id | Column::Cgroup => "-".into(),
    }
}

/// The same members as a hold's, and what only a region has.
pub(super) fn to_json(region: &OnDemand) -> serde_json::Value {
    serde_json::json!({
        "id": 0,
        "kind": "on-demand",
        "backend": null,
        "given-up": 0,
        "level": "none",
        "path": region.path,
        "deleted": region.deleted,
        "was": null,
        "start": region.start,
        "end": region.end,
        "pages": 0,
        "broken-pages": 0,
        "enforced": false,
        "why": WHY,
        "pid": region.pid,
        "command": region.command,
        "uid": region.uid,
        "cgroup": (!region.cgroup.is_empty()).then_some(&region.cgroup),
        "consumer": region.consumer,
        "since": region.since.and_then(ls::since),
        "kernel-function": region.function,
        "torn-down": region.torn,
    })
}

/// A line of `why`.
pub(super) fn to_line(region: &OnDemand) -> String {
    format!(
        "used on demand: {}..{} by {}[{}] uid {} through {} ({WHY}); taken back from it {} times",
        human(region.start),
        human(region.end),
        region.command,
        region.pid,
        region.uid,
        region.consumer,
        region.torn
    )
}

/// What the table cannot show, for standard error.
pub(super) fn remark(found: Option<&OnDemandReport>) -> Option<String> {
    let Some(found) = found else {
        return Some(
            "on-demand regions are told only by a running guard, on kernels with MMU notifiers"
                .into(),
        );
    };
    if found.only_here {
        return Some(
            "on-demand regions of processes outside this pid namespace are not seen".into(),
        );
    }
    let (pid, command) = found.cut.first()?;
    Some(format!(
        "{command}[{pid}] has more on-demand regions than are shown"
    ))
}
