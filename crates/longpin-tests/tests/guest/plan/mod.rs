//! The plan, held against what the kernel does; registrations that follow it. Over rxe0 and io_uring.

#[cfg(feature = "rdma")]
mod bad;
mod check;
mod clients;
#[cfg(feature = "rdma")]
mod dax;
#[cfg(feature = "rdma")]
mod dax_ground;
#[cfg(feature = "rdma")]
mod examples;
mod ground;
mod level;
#[cfg(feature = "rdma")]
mod matrix;
mod movable;
#[cfg(feature = "rdma")]
mod persist;
#[cfg(feature = "rdma")]
mod region;
mod ring;
#[cfg(feature = "rdma")]
mod special;

#[cfg(feature = "rdma")]
pub(crate) use dax::dax_and_wait;
#[cfg(feature = "rdma")]
pub(crate) use persist::{read as persist_read, write as persist_write};
#[cfg(feature = "rdma")]
pub(crate) use special::{DaxMount, sh};

use crate::Test;
#[cfg(feature = "rdma")]
use crate::on_demand;

/// Why a test of on-demand regions is skipped; that they are refused there is asserted first.
#[cfg(feature = "rdma")]
pub(crate) const NO_PAGING: &str = "rxe0 has no on-demand paging";

/// Before the first guard.
pub(crate) const WITHOUT_GUARD: &[Test] = &[
    ("plan_check", check::plan_check),
    ("plan_check_refuses", check::plan_check_refuses),
    ("plan_try", check::plan_try),
    ("plan_movable", movable::plan_movable),
    ("plan_ring_bad_input", ring::plan_ring_bad_input),
];

/// Under guard.
pub(crate) const TESTS: &[Test] = &[
    ("plan_ring", ring::plan_ring),
    ("plan_level_ring", level::plan_level_ring),
];

/// Under guard, and slow.
pub(crate) const LONG_TESTS: &[Test] = &[
    ("client_pingpong", clients::client_pingpong),
    ("client_fio", clients::client_fio),
    ("client_write_bw", clients::client_write_bw),
];

/// By verbs, before the first guard.
#[cfg(feature = "rdma")]
pub(crate) const RDMA_WITHOUT_GUARD: &[Test] = &[
    ("plan_abi", matrix::plan_abi),
    ("plan_matrix", matrix::plan_matrix),
    ("plan_unheld", region::plan_unheld),
    ("plan_bad_input", bad::plan_bad_input),
    ("plan_memlock", bad::plan_memlock),
];
#[cfg(not(feature = "rdma"))]
pub(crate) const RDMA_WITHOUT_GUARD: &[Test] = &[];

/// By verbs, under guard.
#[cfg(feature = "rdma")]
pub(crate) const RDMA_TESTS: &[Test] = &[
    ("plan_region_pinned", region::plan_region_pinned),
    ("plan_region_on_demand", region::plan_region_on_demand),
    ("plan_region_drop_order", region::plan_region_drop_order),
    ("c11_beside_a_pin", on_demand::c11_beside_a_pin),
    ("plan_level_pin", level::plan_level_pin),
    ("plan_level_refused", level::plan_level_refused),
    ("example_weights", examples::example_weights),
    ("plan_dax_longterm", dax::plan_dax_longterm),
    ("plan_dax_held", dax::plan_dax_held),
    ("plan_dax_on_demand", dax::plan_dax_on_demand),
];

/// By verbs, under guard, and slow.
#[cfg(feature = "rdma")]
pub(crate) const RDMA_LONG_TESTS: &[Test] = &[
    ("c11_rows", on_demand::c11_rows),
    ("example_ring", examples::example_ring),
    ("example_log", examples::example_log),
    ("c11_causes", on_demand::c11_causes),
    ("c11_killed", on_demand::c11_killed),
    ("c11_older_region", on_demand::c11_older_region),
    ("plan_dax_held_until_end", dax::plan_dax_held_until_end),
    ("plan_dax_killed", dax::plan_dax_killed),
];
#[cfg(not(feature = "rdma"))]
pub(crate) const RDMA_TESTS: &[Test] = &[];
#[cfg(not(feature = "rdma"))]
pub(crate) const RDMA_LONG_TESTS: &[Test] = &[];
