//! Each thing that may be missing, on hosts made up for the purpose.

use longpin_bpf::hooks;

use super::*;

/// A host that has everything.
fn good() -> HostFacts {
    HostFacts {
        release: "7.2.13".into(),
        machine: "x86_64".into(),
        page_size: 4096,
        privileged: true,
        security_modules: Ok(Some(vec!["yama".into(), "bpf".into()])),
        lsm_option: None,
        lockdown: Ok(Some("integrity".into())),
        btf: Ok(Some(BtfFacts {
            functions: hooks::functions().map(|name| (name, 3)).collect(),
            tracepoints: hooks::tracepoints().collect(),
        })),
        bpf_fs: Ok(true),
        symbols: Ok(SymbolFacts {
            shown: true,
            kptr_restrict: Some(1),
            pin_functions: hooks::pin_functions(),
        }),
        ftrace_enabled: Ok(Some(1)),
        io_uring_disabled: Ok(None),
        io_uring: Ok(true),
        swap_areas: Ok(Some(1)),
        may_make_immutable: true,
        guard: GuardFact::NotRunning,
    }
}

fn with(change: impl FnOnce(&mut HostFacts)) -> DoctorReport {
    let mut facts = good();
    change(&mut facts);
    judge(&facts)
}

fn btf(facts: &mut HostFacts) -> &mut BtfFacts {
    facts.btf.as_mut().unwrap().as_mut().unwrap()
}

/// The report without these functions.
fn without(functions: &[&'static str]) -> DoctorReport {
    with(|facts| {
        for name in functions {
            assert!(
                btf(facts).functions.remove(*name).is_some(),
                "{name} is not asked for"
            );
            facts
                .symbols
                .as_mut()
                .unwrap()
                .pin_functions
                .retain(|there| there != name);
        }
    })
}

/// Everything ends with this, and the remedy has these words.
fn ends_all(report: &DoctorReport, verdict: HostVerdict, words: &[&str]) {
    assert_eq!(report.verdict(), verdict);
    for claim in &report.claims {
        assert_eq!(claim.verdict, verdict, "{}", claim.id);
        let told = format!("{:?} {:?}", claim.reason, claim.remedy);
        for word in words {
            assert!(told.contains(word), "{}: no {word} in {told}", claim.id);
        }
    }
}

/// The claims that are not enforced as a whole.
fn lacking(report: &DoctorReport) -> Vec<(&str, HostVerdict)> {
    let claims = report
        .claims
        .iter()
        .filter(|claim| claim.verdict != HostVerdict::Yes);
    claims.map(|claim| (&*claim.id, claim.verdict)).collect()
}

#[test]
fn a_host_that_has_everything_enforces_everything() {
    let report = judge(&good());
    assert_eq!(
        (report.verdict(), report.claims.len()),
        (HostVerdict::Yes, 13)
    );
    assert!(
        report
            .claims
            .iter()
            .all(|claim| claim.reason.is_none() && claim.remedy.is_empty())
    );
    assert!(
        report.checks.iter().all(|check| check.state == State::Ok),
        "{:?}",
        report.checks
    );
}

#[test]
fn what_all_claims_need_ends_all() {
    let no = HostVerdict::No;
    ends_all(&with(|f| f.machine = "aarch64".into()), no, &["x86_64"]);
    ends_all(&with(|f| f.page_size = 65_536), no, &["65536"]);
    ends_all(&with(|f| f.btf = Ok(None)), no, &["CONFIG_DEBUG_INFO_BTF"]);
    ends_all(
        &with(|f| f.bpf_fs = Ok(false)),
        no,
        &["mount -t bpf bpf /sys/fs/bpf"],
    );
    ends_all(
        &with(|f| f.ftrace_enabled = Ok(Some(0))),
        no,
        &["sysctl kernel.ftrace_enabled=1"],
    );
    ends_all(
        &with(|f| f.io_uring_disabled = Ok(Some(2))),
        no,
        &["sysctl kernel.io_uring_disabled=0"],
    );
    let locked = with(|f| f.lockdown = Ok(Some("confidentiality".into())));
    ends_all(&locked, no, &["lockdown=confidentiality"]);
    let hidden = with(|f| f.symbols.as_mut().unwrap().shown = false);
    ends_all(&hidden, no, &["sysctl kernel.kptr_restrict=1"]);
}

#[test]
fn the_lsm_line_is_built_from_the_present_list() {
    let list = Ok(Some(vec!["lockdown".into(), "yama".into()]));
    let report = with(|f| f.security_modules = list.clone());
    ends_all(
        &report,
        HostVerdict::No,
        &["lsm=lockdown,yama,bpf", "update-grub"],
    );
    let report = with(|f| {
        f.security_modules = list;
        f.lsm_option = Some("lockdown,yama".into());
    });
    ends_all(&report, HostVerdict::No, &["`lsm=lockdown,yama` now"]);
}

#[test]
fn what_could_not_be_looked_at_is_unknown() {
    let unknown = HostVerdict::Unknown;
    ends_all(
        &with(|f| f.security_modules = Ok(None)),
        unknown,
        &["mount -t securityfs"],
    );
    ends_all(
        &with(|f| f.lockdown = Err("broken".into())),
        unknown,
        &["broken"],
    );
    ends_all(
        &with(|f| f.btf = Err("broken".into())),
        unknown,
        &["broken"],
    );
    ends_all(
        &with(|f| f.bpf_fs = Err("broken".into())),
        unknown,
        &["broken"],
    );
    ends_all(
        &with(|f| f.symbols = Err("broken".into())),
        unknown,
        &["broken"],
    );
    let both = with(|f| {
        f.security_modules = Ok(None);
        btf(f).functions.remove("bpf_lsm_file_ioctl");
    });
    assert_eq!(both.verdict(), HostVerdict::Partial);
    assert_eq!(both.claims[4].verdict, HostVerdict::No);
}

#[test]
fn somebody_without_privilege_sees_almost_everything() {
    let plain = |kptr_restrict| {
        with(|f| {
            f.privileged = false;
            f.guard = GuardFact::Unseen("no privilege".into());
            let symbols = f.symbols.as_mut().unwrap();
            (symbols.shown, symbols.kptr_restrict) = (false, kptr_restrict);
        })
    };
    assert_eq!(plain(Some(1)).verdict(), HostVerdict::Yes);
    assert_eq!(plain(Some(1)).checks[1].state, State::Note);
    ends_all(&plain(Some(2)), HostVerdict::No, &["kptr_restrict"]);
    ends_all(
        &plain(None),
        HostVerdict::Unknown,
        &["hidden from this user"],
    );
}

#[test]
fn a_missing_function_ends_what_needs_it() {
    let (no, partial) = (HostVerdict::No, HostVerdict::Partial);
    assert_eq!(
        lacking(&without(&["vfs_clone_file_range"])),
        [("C03", partial), ("C04", partial)]
    );
    let copies = [
        "vfs_clone_file_range",
        "vfs_dedupe_file_range_one",
        "vfs_copy_file_range",
    ];
    assert_eq!(lacking(&without(&copies)), [("C03", no), ("C04", no)]);
    assert_eq!(lacking(&without(&["bpf_lsm_file_ioctl"])), [("C05", no)]);
    assert_eq!(
        lacking(&without(&["bpf_lsm_sb_remount"])),
        [("C08", partial)]
    );
    let report = with(|f| btf(f).tracepoints.clear());
    assert_eq!(lacking(&report), [("C13", no)]);
    assert!(report.claims[10].remedy[0].contains("kernel-support"));
}

#[test]
fn what_a_start_cannot_do_without_ends_all() {
    for function in [
        "bpf_lsm_inode_setattr",
        "bpf_lsm_file_permission",
        "bpf_lsm_inode_free_security",
        "vfs_fallocate",
        "pin_user_pages_fast",
    ] {
        ends_all(&without(&[function]), HostVerdict::No, &[function]);
    }
}

#[test]
fn a_pin_function_that_no_kernel_need_have_may_be_absent() {
    assert_eq!(
        lacking(&without(&["memfd_pin_folios", "pin_user_pages_unlocked"])),
        []
    );
}

#[test]
fn a_pin_function_that_nobody_can_watch_costs_walks_and_denials() {
    let seven = with(|f| {
        btf(f).functions.insert("pin_user_pages_unlocked".into(), 7);
    });
    let untyped = with(|f| {
        btf(f).functions.remove("pin_user_pages_remote");
    });
    for report in [seven, untyped] {
        assert_eq!(lacking(&report), [("C15", HostVerdict::Partial)]);
        let reason = report.claims[7].reason.clone().unwrap();
        assert!(reason.contains("every file is walked"), "{reason}");
    }
}

#[test]
fn the_function_of_seven_arguments_on_older_kernels_is_probed() {
    let seven = with(|f| {
        btf(f).functions.insert("pin_user_pages_remote".into(), 7);
    });
    assert_eq!(lacking(&seven), []);
}

fn backends(report: &DoctorReport) -> Vec<(&'static str, HostVerdict)> {
    let backends = report.backends.iter();
    backends
        .map(|backend| (backend.name, backend.verdict))
        .collect()
}

#[test]
fn without_bpf_the_kernel_itself_is_left() {
    let (yes, no) = (HostVerdict::Yes, HostVerdict::No);
    let all = |bpf, swap| [("bpf", bpf), ("swap-header", swap), ("immutable", yes)];
    assert_eq!(backends(&with(|_| ())), all(yes, yes));
    let report = with(|f| f.security_modules = Ok(Some(vec!["yama".into()])));
    assert_eq!(backends(&report), all(no, yes));
    let reason = &report.backends[0].reason;
    assert!(
        reason.starts_with("security modules: `bpf` is not"),
        "{reason}"
    );
    let report = with(|f| f.swap_areas = Ok(None));
    assert_eq!(backends(&report), all(yes, no));
    let report = with(|f| f.swap_areas = Ok(Some(23)));
    assert_eq!(backends(&report), all(yes, HostVerdict::Partial));
    let report = with(|f| f.may_make_immutable = false);
    assert_eq!(backends(&report)[2], ("immutable", no));
}

#[test]
fn a_filter_is_not_the_switch() {
    let refused = with(|facts| {
        facts.io_uring_disabled = Ok(Some(0));
        facts.io_uring = Ok(false);
    });
    let check = refused.checks.iter().find(|check| check.name == "io_uring");
    let check = check.unwrap();
    assert_eq!(check.state, State::Missing);
    assert!(check.remedy.iter().all(|line| !line.contains("sysctl")));
    let unread = with(|facts| facts.io_uring_disabled = Err("not shown".into()));
    let is_it = |check: &&Check| check.name == "kernel.io_uring_disabled";
    let check = unread.checks.iter().find(is_it).unwrap();
    assert_eq!(check.state, State::Unknown);
}
