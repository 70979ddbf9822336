//! The rows.

use super::{Hook, If, Lost, On};
use crate::claim::Claim::{self, C01, C02, C03, C04, C05, C06, C07, C08, C09, C12, C13, C15, C16};

/// What the pin functions are watched for.
pub(super) const PINNING: &[Claim] = &[C09, C15];
const PERMISSION: &[Claim] = &[C02, C03, C04, C06];
const COPIES: &[Claim] = &[C03, C04];

/// The program that sees the switch of all tracing written.
pub const WITNESS: &str = "ftrace_switched";
/// The program that lists memory into which devices fault pages.
pub(crate) const REGIONS: &str = "list_regions";
/// The probe of an entry.
pub(super) const PROBED_ENTRY: &str = "remote_probe_entry";

/// Programs that are run by name.
pub(crate) mod requests {
    pub(crate) const ENTER_HOLD: &str = "enter_hold";
    pub(crate) const ADOPT: &str = "adopt";
    pub(crate) const TAKE_BACK: &str = "take_back";
    pub(crate) const TIDY: &str = "tidy";
    pub(crate) const COUNT_DIRECT: &str = "count_direct";
    pub(crate) const PUBLISH: &str = "publish";
    pub(crate) const ASK_INODE: &str = "ask_inode";
    pub(crate) const COUNT_OPENINGS: &str = "count_openings";
    pub(crate) const INTRODUCE: &str = "introduce";
    pub(crate) const INSPECT: &str = "inspect";
    pub(crate) const CHECK_HINTS: &str = "check_hints";
    pub(crate) const END_ROW: &str = "end_row";
    pub(crate) const END_STRAYS: &str = "end_strays";
    pub(crate) const FORGET: &str = "forget";
    pub(crate) const BEGIN_SWEEP: &str = "begin_sweep";
    pub(crate) const SWEEP_FRAMES: &str = "sweep_frames";
    pub(crate) const FIND_STATISTICS: &str = "find_statistics";
}
use requests as run;

/// All programs.
#[rustfmt::skip]
pub const HOOKS: &[Hook] = &[
    // Drivers pin.
    pins("pin_user_pages_entry", On::Entry("pin_user_pages"), PINNING),
    pins("pin_user_pages_exit", On::Exit("pin_user_pages"), PINNING),
    pins("pin_user_pages_fast_entry", On::Entry("pin_user_pages_fast"), PINNING),
    pins("pin_user_pages_fast_exit", On::Exit("pin_user_pages_fast"), PINNING)
        .lost(Lost::All("RDMA and io_uring pin with")),
    pins("pin_user_pages_remote_entry", On::Entry("pin_user_pages_remote"), PINNING),
    pins("pin_user_pages_remote_exit", On::Exit("pin_user_pages_remote"), PINNING),
    pins(PROBED_ENTRY, On::Probe("pin_user_pages_remote"), PINNING),
    pins("remote_probe_exit", On::Probe("pin_user_pages_remote"), PINNING),
    pins("pin_user_pages_unlocked_entry", On::Entry("pin_user_pages_unlocked"), PINNING),
    pins("pin_user_pages_unlocked_exit", On::Exit("pin_user_pages_unlocked"), PINNING),
    pins("memfd_pin_folios_entry", On::Entry("memfd_pin_folios"), PINNING),
    pins("memfd_pin_folios_exit", On::Exit("memfd_pin_folios"), PINNING),
    // Pages, inodes and file systems go.
    pins("page_removed", On::Tracepoint("mm_filemap_delete_from_page_cache"), &[C13]).lost(Lost::Claims),
    notes("inode_free_security", On::Lsm("inode_free_security"), PINNING).lost(Lost::All("tells that a file is gone")),
    notes("sb_delete", On::Lsm("sb_delete"), &[C08, C13]),
    // What is refused of every held file.
    refuses("inode_setattr", On::Lsm("inode_setattr"), &[C01]).only(If::Arguments(3))
        .lost(Lost::All("truncates are refused in")),
    refuses("inode_setattr_without_idmap", On::Lsm("inode_setattr"), &[C01]).only(If::Arguments(2))
        .lost(Lost::All("truncates are refused in")),
    refuses("file_permission", On::Lsm("file_permission"), PERMISSION)
        .lost(Lost::All("hole punches are refused in")),
    notes("vfs_fallocate_entry", On::Entry("vfs_fallocate"), &[C02])
        .lost(Lost::All("hole punches go through")),
    notes("vfs_fallocate_exit", On::Exit("vfs_fallocate"), &[C02]),
    notes("vfs_clone_file_range_entry", On::Entry("vfs_clone_file_range"), COPIES)
        .lost(Lost::Part("clone")),
    notes("vfs_clone_file_range_exit", On::Exit("vfs_clone_file_range"), COPIES),
    notes("vfs_dedupe_file_range_one_entry", On::Entry("vfs_dedupe_file_range_one"), COPIES)
        .lost(Lost::Part("dedupe")),
    notes("vfs_dedupe_file_range_one_exit", On::Exit("vfs_dedupe_file_range_one"), COPIES),
    notes("vfs_copy_file_range_entry", On::Entry("vfs_copy_file_range"), COPIES)
        .lost(Lost::Part("copy_file_range")),
    notes("vfs_copy_file_range_exit", On::Exit("vfs_copy_file_range"), COPIES),
    refuses("file_ioctl", On::Lsm("file_ioctl"), &[C05]).lost(Lost::Claims),
    refuses("file_ioctl_compat", On::Lsm("file_ioctl_compat"), &[C05]),
    refuses("inode_file_setattr", On::Lsm("inode_file_setattr"), &[C05]),
    refuses("quota_on", On::Lsm("quota_on"), &[C05]),
    refuses("quotactl", On::Lsm("quotactl"), &[C05]),
    // Ends of mounts.
    refuses("sb_umount", On::Lsm("sb_umount"), &[C08]).lost(Lost::Part("umount")),
    // Without the note each remount would count as one to read-only.
    refuses("sb_remount", On::Lsm("sb_remount"), &[C08]).only(If::Function("reconfigure_super"))
        .lost(Lost::Part("remount")),
    notes("reconfigure_super_entry", On::Entry("reconfigure_super"), &[C08])
        .lost(Lost::Part("reconfiguration by fsconfig(2)")),
    notes("reconfigure_super_exit", On::Exit("reconfigure_super"), &[C08]),
    refuses("mountpoint_rmdir", On::Lsm("inode_rmdir"), &[C08]).only(If::Mountpoints),
    // What is refused at level swapfile besides.
    refuses("strict_mmap", On::Lsm("mmap_file"), &[C06]).level(),
    refuses("strict_mprotect", On::Lsm("file_mprotect"), &[C06]).level(),
    refuses("strict_unlink", On::Lsm("inode_unlink"), &[C07]).level(),
    refuses("inode_rename", On::Lsm("inode_rename"), &[C07, C08]).level(),
    refuses("strict_exec", On::Lsm("bprm_check_security"), &[C16]).level(),
    refuses("strict_open", On::Lsm("file_open"), &[C06, C16]).level(),
    refuses("strict_touch", On::Lsm("file_ioctl"), &[C06]).level(),
    // Memory that devices fault in.
    pins("mmu_interval_notifier_insert_exit", On::Exit("mmu_interval_notifier_insert"), &[]),
    pins("mmu_interval_notifier_remove_exit", On::Exit("mmu_interval_notifier_remove"), &[]),
    pins("__mmu_notifier_invalidate_range_start_exit", On::Exit("__mmu_notifier_invalidate_range_start"), &[]),
    pins(REGIONS, On::Tasks, &[]).only(If::Function("mmu_interval_notifier_insert")),
    // Somebody switches programs off.
    pins(WITNESS, On::Sysctl, &[C09]),
    pins("write_enabled_file_bool_entry", On::Entry("write_enabled_file_bool"), &[C09])
        .only(If::Probed("pin_user_pages_remote")),
    // Run on request.
    notes(run::ENTER_HOLD, On::Request, &[C12]),
    notes(run::ADOPT, On::Request, &[C12]),
    notes(run::TAKE_BACK, On::Request, &[C12]),
    notes(run::TIDY, On::Request, &[C12]),
    notes(run::COUNT_DIRECT, On::Request, &[C12]),
    notes(run::PUBLISH, On::Request, &[C12]),
    notes(run::ASK_INODE, On::Request, &[C12]),
    notes(run::COUNT_OPENINGS, On::Request, &[C12]),
    notes(run::INTRODUCE, On::Request, &[]),
    notes(run::INSPECT, On::Request, &[]),
    notes(run::CHECK_HINTS, On::Request, &[]),
    pins(run::END_ROW, On::Request, &[]),
    pins(run::END_STRAYS, On::Request, &[C13]),
    pins(run::FORGET, On::Request, &[]),
    pins(run::BEGIN_SWEEP, On::Request, &[]),
    pins(run::SWEEP_FRAMES, On::Request, &[]),
    pins(run::FIND_STATISTICS, On::Start, &[]),
];

const fn notes(program: &'static str, on: On, claims: &'static [Claim]) -> Hook {
    Hook {
        program,
        on,
        swapfile: false,
        only: If::Always,
        pins: false,
        refuses: false,
        claims,
        lost: Lost::Nothing,
    }
}

const fn pins(program: &'static str, on: On, claims: &'static [Claim]) -> Hook {
    Hook {
        pins: true,
        ..notes(program, on, claims)
    }
}

const fn refuses(program: &'static str, on: On, claims: &'static [Claim]) -> Hook {
    Hook {
        refuses: true,
        ..notes(program, on, claims)
    }
}

impl Hook {
    const fn level(self) -> Self {
        Self {
            swapfile: true,
            lost: Lost::Claims,
            ..self
        }
    }

    const fn only(self, only: If) -> Self {
        Self { only, ..self }
    }

    const fn lost(self, lost: Lost) -> Self {
        Self { lost, ..self }
    }
}
