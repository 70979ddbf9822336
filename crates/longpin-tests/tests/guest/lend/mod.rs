//! Lends: the module gives pages of a held DAX file to devices that cannot take page faults, by three doors. Real bytes go
//! through each, others are refused as for an active swap file, and nothing is freed under a device.

mod attack;
mod bad;
mod camera;
mod devdax;
mod flag;
mod force;
mod ground;
mod kill;
mod module;
mod rdma;
mod revoke;
mod ring;
mod taken;
mod vfio;

pub(crate) use kill::victim;

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    ("m13_module", module::loads),
    ("m13_listed_until_gone", module::listed_until_gone),
    ("m13_bad_input_requests", bad::requests),
    ("m13_bad_input_not_held", bad::not_held),
    ("m13_bad_input_twice", bad::twice),
    ("m13_bad_input_many", bad::thousand),
    ("m13_bad_input_hold_lost", bad::hold_lost),
    ("m13_locked_memory", bad::locked_memory),
    ("m13_flag_life", flag::life),
    ("m13_vfio", vfio::main),
    ("m13_vfio_group_named_late", vfio::group_named_late),
    ("m13_vfio_kill", kill::vfio),
    ("m13_rdma", rdma::main),
    ("m13_rdma_others", rdma::others),
    ("m13_rdma_kill", kill::rdma),
    ("m13_ring", ring::main),
    ("m13_ring_kill", kill::ring),
    ("m13_camera", camera::main),
    ("m13_revoke", revoke::main),
    ("m13_attack_mappings", attack::on_mappings),
    ("m13_attack_child", attack::child_keeps_mapping),
    ("m13_attack_descriptors", attack::without_descriptors),
    ("m13_attack_tokens", attack::tokens),
    ("m13_attack_at_once", attack::at_once),
    ("m13_attack_32_bits", attack::of_32_bits),
    ("m13_devdax_leak", devdax::leak),
];

pub(crate) const LONG_TESTS: &[Test] = &[
    ("m13_flag_beside_a_lend", flag::beside_a_lend),
    ("m13_vfio_orders", vfio::orders_xfs),
    ("m13_bad_input_ten_thousand", bad::ten_thousand),
    ("m13_vfio_orders_ext4", vfio::orders_ext4),
    ("m13_vfio_full_disk", vfio::full_disk),
    ("m13_vfio_force", vfio::force),
    ("m13_rdma_orders", rdma::orders),
    ("m13_rdma_force", rdma::force),
    ("m13_rdma_force_orphan", rdma::force_orphan),
    ("m13_camera_orders", camera::orders),
    ("m13_camera_kill", kill::camera),
    ("m13_attack_killed", attack::killed_while_lending),
    ("m13_namespace_disabled", taken::namespace),
    ("m13_lockdown", taken::lockdown),
];
