//! True answers: faults that were met in the field, each with the answer that is right, on the case that showed it.

mod hints;
mod hints_of_commands;
mod in_place;
mod limits;
mod names;
mod refusals;
mod siblings;
mod silence;

use crate::Test;

/// Nobody is asked but the file system and the kernel.
pub(crate) const WITHOUT_GUARD: &[Test] = &[
    ("answers_limits_of_a_ring", limits::of_a_ring),
    ("answers_limits_of_memory", limits::of_memory),
    ("answers_sparse_is_cheap", limits::sparse_is_cheap),
    ("answers_large_blocks", limits::large_blocks),
    ("answers_subset_pid", silence::subset_pid),
    ("answers_names_of_devices", names::of_devices),
    ("answers_refused_leaves_nothing", refusals::leave_nothing),
    ("answers_hints_cure", hints::cure),
    ("answers_hints_of_odd_names", hints::of_odd_names),
    ("answers_sealed_memory", limits::sealed),
    ("answers_of_btrfs", siblings::btrfs),
    ("answers_overmounted_swap", siblings::overmounted),
    ("answers_without_extents", siblings::without_extents),
];

/// Under guard.
pub(crate) const TESTS: &[Test] = &[
    ("c12_in_place_ext4", in_place::ext4),
    ("c12_in_place_xfs", in_place::xfs),
    ("c12_in_place_btrfs", in_place::btrfs),
    ("c12_in_place_f2fs", in_place::f2fs),
    ("c12_in_place_seed", siblings::seed),
    ("answers_layout_says_what_it_holds", in_place::layout),
    ("answers_prepare_of_a_held_file", refusals::of_a_held_file),
    ("answers_hints_of_commands", hints_of_commands::cure),
    ("c12_names", names::of_held_files),
    ("answers_covered_process", silence::covered_process),
];

/// Slow: most of the hints of btrfs, and a scrub that goes on meanwhile.
pub(crate) const LONG_TESTS: &[Test] = &[
    ("answers_hints_cure_on_btrfs", hints::cure_on_btrfs),
    ("answers_swapon_meets_scrub", silence::swapon_meets_scrub),
];
