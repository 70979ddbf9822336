//! `longpin doctor`: what this host can enforce, and the line to change if it cannot.

use std::process::ExitCode;

use longpin::doctor::{self, Check, DoctorReport, GuardFact, HostFacts, HostVerdict, State};
use longpin::guard::Host;

use crate::output::{CANNOT_TELL, REFUSED, print_table};

pub(crate) fn run(json: bool) -> anyhow::Result<ExitCode> {
    let facts = doctor::read_host(&Host::default());
    let report = doctor::judge(&facts);
    if json {
        anstream::println!("{}", to_json(&facts, &report));
    } else {
        print(&facts, &report);
    }
    Ok(match report.verdict() {
        HostVerdict::Yes => ExitCode::SUCCESS,
        HostVerdict::Partial | HostVerdict::No => ExitCode::from(REFUSED),
        HostVerdict::Unknown => ExitCode::from(CANNOT_TELL),
    })
}

fn print(facts: &HostFacts, report: &DoctorReport) {
    let kernel = vec!["kernel".to_owned(), "ok".to_owned(), facts.release.clone()];
    let guard = vec![
        "guard".to_owned(),
        "-".to_owned(),
        describe_guard(&facts.guard),
    ];
    let checks = report.checks.iter().map(check_row);
    let rows: Vec<_> = std::iter::once(kernel)
        .chain(checks)
        .chain([guard])
        .collect();
    print_table(Some(&["CHECK", "STATE", "FOUND"]), &[], &rows);
    anstream::println!();
    let mut rows = Vec::new();
    for claim in &report.claims {
        let verdict = verdict_word(claim.verdict).to_owned();
        rows.push(vec![claim.id.clone(), verdict, claim.summary.to_owned()]);
        // What all claims lack is in the table above.
        let own = claim
            .reason
            .iter()
            .filter(|reason| !is_common(report, reason));
        rows.extend(own.map(|reason| vec![String::new(), String::new(), format!("- {reason}")]));
    }
    print_table(Some(&["CLAIM", "HERE", "WHAT"]), &[], &rows);
    anstream::println!();
    let backends = report.backends.iter().map(|backend| {
        let verdict = verdict_word(backend.verdict).to_owned();
        vec![backend.name.to_owned(), verdict, backend.reason.clone()]
    });
    let rows: Vec<_> = backends.collect();
    print_table(Some(&["BACKEND", "HERE", "WHY"]), &[], &rows);
    anstream::println!();
    anstream::println!("{}", summary(facts, report));
    for line in remedies(report) {
        anstream::println!("hint: {line}");
    }
}

fn check_row(check: &Check) -> Vec<String> {
    let state = match check.state {
        State::Ok => "ok",
        State::Note => "note",
        State::Unknown => "unknown",
        State::Missing => "MISSING",
    };
    vec![check.name.to_owned(), state.to_owned(), check.found.clone()]
}

fn is_common(report: &DoctorReport, reason: &str) -> bool {
    let mut checks = report.checks.iter();
    checks.any(|check| {
        reason
            .strip_prefix(check.name)
            .is_some_and(|rest| rest.starts_with(": "))
    })
}

const fn verdict_word(verdict: HostVerdict) -> &'static str {
    match verdict {
        HostVerdict::Yes => "yes",
        HostVerdict::Partial => "partial",
        HostVerdict::No => "NO",
        HostVerdict::Unknown => "unknown",
    }
}

fn describe_guard(guard: &GuardFact) -> String {
    match guard {
        GuardFact::Running => "running".to_owned(),
        GuardFact::NotRunning => "not running".to_owned(),
        GuardFact::Other(why) => why.clone(),
        GuardFact::Unseen(why) => format!("not looked at: {why}"),
    }
}

fn summary(facts: &HostFacts, report: &DoctorReport) -> String {
    let count = |wanted| {
        report
            .claims
            .iter()
            .filter(|claim| claim.verdict == wanted)
            .count()
    };
    let all = report.claims.len();
    let can = match report.verdict() {
        HostVerdict::Yes => format!("this host can enforce all {all} claims"),
        HostVerdict::No => "this host can enforce nothing as it is".to_owned(),
        HostVerdict::Unknown => format!(
            "cannot tell about {} of {all} claims on this host",
            count(HostVerdict::Unknown)
        ),
        HostVerdict::Partial => format!(
            "this host can enforce {} of {all} claims, and {} in part",
            count(HostVerdict::Yes),
            count(HostVerdict::Partial)
        ),
    };
    let possible = matches!(report.verdict(), HostVerdict::Yes | HostVerdict::Partial);
    match &facts.guard {
        GuardFact::Running => format!("{can}; a guard runs: `longpin guard status`"),
        GuardFact::NotRunning if possible => {
            format!("{can}; no guard runs: `longpin guard start` starts and proves one")
        }
        GuardFact::NotRunning => format!("{can}; no guard runs"),
        GuardFact::Other(_) | GuardFact::Unseen(_) => can,
    }
}

/// Each once, in the order in which they are met.
fn remedies(report: &DoctorReport) -> Vec<&str> {
    let checks = report.checks.iter().flat_map(|check| &check.remedy);
    let claims = report.claims.iter().flat_map(|claim| &claim.remedy);
    let mut lines: Vec<&str> = Vec::new();
    for line in checks.chain(claims) {
        if !lines.contains(&line.as_str()) {
            lines.push(line);
        }
    }
    lines
}

fn to_json(facts: &HostFacts, report: &DoctorReport) -> serde_json::Value {
    let guard = match &facts.guard {
        GuardFact::Running => "running",
        GuardFact::NotRunning => "not-running",
        GuardFact::Other(_) => "other",
        GuardFact::Unseen(_) => "unknown",
    };
    serde_json::json!({
        "version": 1,
        "kernel": facts.release,
        "guard": guard,
        "verdict": report.verdict(),
        "checks": report.checks,
        "claims": report.claims,
        "backends": report.backends,
    })
}
