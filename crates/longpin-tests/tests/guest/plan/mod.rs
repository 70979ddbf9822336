//! The plan, held against what the kernel does; registrations that follow it. Over rxe0 and io_uring.

#[cfg(feature = "rdma")]
mod bad;
mod check;
mod ground;
#[cfg(feature = "rdma")]
mod matrix;
mod movable;
#[cfg(feature = "rdma")]
mod region;
mod ring;

use crate::Test;

/// Before the first guard.
#[cfg(feature = "rdma")]
pub(crate) const WITHOUT_GUARD: &[Test] = &[
    ("plan_abi", matrix::plan_abi),
    ("plan_matrix", matrix::plan_matrix),
    ("plan_unheld", region::plan_unheld),
    ("plan_bad_input", bad::plan_bad_input),
    ("plan_memlock", bad::plan_memlock),
    ("plan_check", check::plan_check),
    ("plan_check_refuses", check::plan_check_refuses),
    ("plan_try", check::plan_try),
    ("plan_movable", movable::plan_movable),
    ("plan_ring_bad_input", ring::plan_ring_bad_input),
];
#[cfg(not(feature = "rdma"))]
pub(crate) const WITHOUT_GUARD: &[Test] = &[
    ("plan_movable", movable::plan_movable),
    ("plan_ring_bad_input", ring::plan_ring_bad_input),
];

/// Under guard.
#[cfg(feature = "rdma")]
pub(crate) const TESTS: &[Test] = &[
    ("plan_region_pinned", region::plan_region_pinned),
    ("plan_region_on_demand", region::plan_region_on_demand),
    ("plan_region_drop_order", region::plan_region_drop_order),
    ("plan_ring", ring::plan_ring),
];
#[cfg(not(feature = "rdma"))]
pub(crate) const TESTS: &[Test] = &[("plan_ring", ring::plan_ring)];
