//! Which kernel code asks for a consumer's pins.

use std::ops::Range;

use longpin_linux::code::Code;

use super::lookup::Lookup;
use super::resolve::Found;
use super::values::nearest;
use super::{Consumer, Problem, Rule};

/// Ranges of code that one consumer may have.
pub const MAX_RANGES: usize = longpin_bpf::rule::MAX_RANGES;

pub(super) fn find_consumer(
    host: &dyn Lookup,
    rule: &Rule,
    problems: &mut Vec<Problem>,
) -> Found<Vec<Range<u64>>> {
    let Some(consumer) = &rule.consumer else {
        return Found::Any;
    };
    let code = match host.code() {
        Ok(code) => code,
        Err(why) => {
            let problem = Problem::cannot_tell(rule.line, why);
            let remedy = "run this as root; kernel.kptr_restrict must not be 2";
            problems.push(problem.try_this(remedy));
            return Found::Nothing;
        }
    };
    let ranges = code_of(consumer, code);
    if ranges.is_empty() {
        problems.push(not_loaded(rule.line, consumer, code));
        return Found::Nothing;
    }
    if ranges.len() > MAX_RANGES {
        let (name, count) = (consumer.word(), ranges.len());
        let what = format!(
            "`{name}` is the name of {count} pieces of code, at most {MAX_RANGES} are possible"
        );
        let remedy = "name the module, or a function that has the name alone";
        problems.push(Problem::error(rule.line, what).try_this(remedy));
        return Found::Nothing;
    }
    Found::This(ranges)
}

/// Where the code that asks for this consumer's pins lies.
fn code_of(consumer: &Consumer, code: &Code) -> Vec<Range<u64>> {
    let (modules, functions) = whereabouts(consumer);
    let of_modules = modules.iter().flat_map(|name| code.module(name));
    let mut ranges: Vec<_> = of_modules.collect();
    if ranges.is_empty() {
        ranges.extend(functions.iter().flat_map(|name| code.function(name)));
    }
    match consumer {
        Consumer::Named(name) => {
            // modprobe takes both, /proc/kallsyms has one.
            ranges = code.module(&name.replace('-', "_"));
            if ranges.is_empty() {
                ranges = code.function(name);
            }
        }
        // The modules that pin come first in the list.
        _ => ranges.truncate(MAX_RANGES),
    }
    ranges
}

/// The modules whose code asks for a known consumer's pins, and the functions where that is built in.
fn whereabouts(consumer: &Consumer) -> (&'static [&'static str], &'static [&'static str]) {
    match consumer {
        Consumer::Rdma => (
            &["ib_uverbs", "ib_core", "ib_qib", "ib_mthca"],
            &["ib_umem_get", "ib_umem_get_desc", "ib_umem_get_va"],
        ),
        Consumer::IoUring => (&[], &["io_pin_pages"]),
        Consumer::Vfio => (
            &[
                "vfio_iommu_type1",
                "vfio_iommu_spapr_tce",
                "vfio",
                "vfio_pci_core",
            ],
            &["vaddr_get_pfns", "vfio_pin_pages_remote"],
        ),
        Consumer::Iommufd => (
            &["iommufd"],
            &["pfn_reader_user_pin", "iopt_pages_rw_access"],
        ),
        Consumer::Udmabuf => (&["udmabuf"], &["udmabuf_create", "udmabuf_ioctl"]),
        Consumer::Named(_) => (&[], &[]),
    }
}

fn not_loaded(line: usize, consumer: &Consumer, code: &Code) -> Problem {
    let (modules, functions) = whereabouts(consumer);
    let name = consumer.word();
    let what = match (modules, functions) {
        ([module, ..], _) => format!("module {module} is not loaded"),
        ([], [function, ..]) => format!("this kernel has no function {function}"),
        ([], []) => format!("no loaded module and no kernel function is called `{name}`"),
    };
    let known = Consumer::KNOWN;
    let words = known.iter().map(Consumer::word).chain(code.modules());
    let remedy = match (consumer, nearest(name, words)) {
        (Consumer::Named(_), Some(meant)) => format!("did you mean consumer={meant}?"),
        _ => "load the module, then reload".to_owned(),
    };
    let what = format!("{what}: the rule has no effect now");
    Problem::warning(line, what).try_this(remedy)
}
