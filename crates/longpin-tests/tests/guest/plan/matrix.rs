//! Every cell of the plan's table on this kernel: what the plan says, then the act, and they agree, errno included.

use std::fs::File;
use std::mem::{offset_of, size_of};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use longpin::activation::ByteRange;
use longpin::plan::{
    Access, Device, KernelRules, Medium, Plan, PlanRequest, Planned, Wish, plan_file, writable,
};
use longpin_linux::memory::{DeviceMemory, Sharing};
use longpin_linux::verbs::{Region, abi};
use longpin_linux::{FixedBuffer, PinnedMemory, RegisterError};
use longpin_rdma::ProtectionDomain;
use longpin_tests::mapping::Mapping;
use longpin_tests::rdma::{self, QueuePair, loopback};
use longpin_tests::scratch::FsKind;
use rustix::fs::MemfdFlags;
use rustix::io::Errno;

use super::ground::with_huge_pages;
use super::special::{DaxMount, secret};
use crate::files::TestFile;

const LEN: u64 = 256 << 10;
const HUGE: u64 = 2 << 20;

/// The structures that are used without a header are rdma-core's.
pub(crate) fn plan_abi() -> Result<()> {
    use rdma_mummy_sys as sys;
    let before = |at: usize| (offset_of!(sys::verbs_context, context) - at) / size_of::<usize>();
    let same = [
        (
            offset_of!(abi::Context, abi_compat),
            offset_of!(sys::ibv_context, abi_compat),
        ),
        (size_of::<abi::Context>(), size_of::<sys::ibv_context>()),
        (
            abi::Before::Size as usize,
            before(offset_of!(sys::verbs_context, sz)),
        ),
        (
            abi::Before::QueryDeviceEx as usize,
            before(offset_of!(sys::verbs_context, query_device_ex)),
        ),
        (
            abi::Before::AdviseMr as usize,
            before(offset_of!(sys::verbs_context, advise_mr)),
        ),
        (offset_of!(abi::Mr, lkey), offset_of!(sys::ibv_mr, lkey)),
        (offset_of!(abi::Mr, rkey), offset_of!(sys::ibv_mr, rkey)),
        (
            offset_of!(abi::Pd, context),
            offset_of!(sys::ibv_pd, context),
        ),
        (size_of::<abi::Sge>(), size_of::<sys::ibv_sge>()),
        (
            offset_of!(abi::DeviceAttributes, max_mr_size),
            offset_of!(sys::ibv_device_attr, max_mr_size),
        ),
        (
            offset_of!(abi::DeviceAttributes, odp_general),
            offset_of!(sys::ibv_device_attr_ex, odp_caps),
        ),
    ];
    for (at, (ours, theirs)) in same.iter().enumerate() {
        ensure!(
            ours == theirs,
            "row {at}: {ours}, not {theirs} as in verbs.h"
        );
    }
    Ok(())
}

/// Devices and rules.
struct Bench {
    ends: (QueuePair, QueuePair),
    domain: ProtectionDomain,
    kernel: KernelRules,
    rdma: Device,
    cells: usize,
}

/// One file of the table.
struct Row<'a> {
    name: &'a str,
    path: PathBuf,
    file: &'a File,
    len: u64,
}

struct Cell {
    device: Device,
    access: Access,
    wish: Wish,
    sharing: Sharing,
}

/// What the kernel gave.
enum Got {
    Ring(
        Box<PinnedMemory>,
        #[expect(dead_code, reason = "kept mapped")] DeviceMemory,
    ),
    Region(Region),
}

pub(crate) fn plan_matrix() -> Result<()> {
    let theirs = rdma::Device::open("rxe0")?.protection_domain()?;
    let domain = theirs.for_longpin()?;
    let mut bench = Bench {
        ends: loopback(&theirs)?,
        kernel: longpin_rdma::kernel_rules(&domain)?,
        rdma: Device::Rdma(domain.capabilities()?),
        domain,
        cells: 0,
    };
    println!("{:?} {:?}", bench.kernel, bench.rdma);
    use FsKind::{Btrfs, Ext4, F2fs, Tmpfs, Xfs};
    for kind in [Tmpfs, Ext4, Xfs, Btrfs, F2fs] {
        let made = TestFile::new(kind, LEN)?;
        bench.all(&row(kind.name(), &made.path, &made.file, LEN))?;
        let reader = File::open(&made.path)?;
        let name = format!("{}, read-only", kind.name());
        bench.all(&row(&name, &made.path, &reader, LEN))?;
    }
    let made = TestFile::memfd(MemfdFlags::empty(), LEN)?;
    bench.all(&row("memfd", &made.path, &made.file, LEN))?;
    with_huge_pages(|| {
        let made = TestFile::memfd(MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB, HUGE)?;
        bench.all(&row("hugetlbfs", &made.path, &made.file, HUGE))
    })?;
    for maker in ["mkfs.ext4 -q -F -b 4096", "mkfs.xfs -q -f -m reflink=0"] {
        let dax = DaxMount::make(maker)?;
        dax_row(&mut bench, maker, &dax.path().join("longpin-plan"))?;
    }
    let device = PathBuf::from(std::env::var("LONGPIN_DEVDAX")?);
    let memory = File::options().read(true).write(true).open(&device)?;
    bench.all(&row("devdax", &device, &memory, HUGE))?;
    match secret(LEN)? {
        Some(file) => bench.all(&row("memfd_secret", Path::new("secret"), &file, LEN))?,
        None => crate::report::skip_part("memfd_secret", "it is switched off"),
    }
    println!("{} cells", bench.cells);
    ensure!(bench.cells > 150, "only {} cells", bench.cells);
    Ok(())
}

fn dax_row(bench: &mut Bench, maker: &str, path: &Path) -> Result<()> {
    let len = usize::try_from(LEN)?;
    longpin_tests::scratch::write_pattern(path, len, longpin_tests::pattern::Pattern::new(1))?;
    let file = File::options().read(true).write(true).open(path)?;
    bench.all(&row(&format!("{maker}, DAX"), path, &file, LEN))
}

fn row<'a>(name: &'a str, path: &Path, file: &'a File, len: u64) -> Row<'a> {
    Row {
        name,
        path: path.to_owned(),
        file,
        len,
    }
}

impl Bench {
    fn all(&mut self, row: &Row<'_>) -> Result<()> {
        println!("  {}", row.name);
        let is_device = row.file.metadata()?.file_type().is_char_device();
        for sharing in [Sharing::Shared, Sharing::Private] {
            if is_device && sharing == Sharing::Private {
                // mmap(2) refuses it.
                continue;
            }
            self.cell(
                row,
                &cell(Device::IoUring, Access::READ_WRITE, Wish::Any, sharing),
            )?;
            for access in [Access::READ, Access::READ_WRITE] {
                for wish in [Wish::Any, Wish::OnDemand, Wish::Pin] {
                    self.cell(row, &cell(self.rdma.clone(), access, wish, sharing))?;
                }
            }
        }
        Ok(())
    }

    fn cell(&mut self, row: &Row<'_>, cell: &Cell) -> Result<()> {
        self.cells += 1;
        let request = PlanRequest {
            wanted: Some(ByteRange {
                offset: 0,
                len: row.len,
            }),
            sharing: cell.sharing,
            access: cell.access,
            wish: cell.wish,
            level: longpin::plan::Level::Layout,
            device: cell.device.clone(),
            kernel: self.kernel,
            may_write: writable(row.file)?,
            memlock: None,
            look_at_blocks: false,
        };
        let planned = plan_file(row.file, &row.path, &request)?;
        let is_secret = planned.question.medium == Medium::Secret;
        if is_secret && (cell.wish == Wish::OnDemand || cell.sharing == Sharing::Private) {
            // On demand the kernel would register it, and find out at the first access; privately it maps none.
            ensure!(planned.plan.refusal().is_some(), "secret memory");
            return Ok(());
        }
        let answer = self.act(row, cell, &planned);
        let name = format!(
            "{}, {}, {:?}, writes {}, {:?}: plan {:?}",
            row.name,
            cell.device.name(),
            cell.sharing,
            cell.access.writes(),
            cell.wish,
            planned.plan
        );
        self.compare(row, cell, &planned, answer).context(name)
    }

    /// What the plan is about, without asking it whether it will work.
    fn act(&self, row: &Row<'_>, cell: &Cell, planned: &Planned) -> Result<Got, Errno> {
        let by_plan = matches!(planned.plan, Plan::Longterm(pin) if pin.writable_mapping);
        // A private mapping may always be writable; on older kernels hugetlbfs needs that even to be read.
        let write = by_plan || cell.access.writes() || cell.sharing == Sharing::Private;
        let len = usize::try_from(row.len).map_err(|_| Errno::OVERFLOW)?;
        let memory = DeviceMemory::of_file(row.file, 0, len, write, cell.sharing)?;
        if cell.device == Device::IoUring {
            let pinned = FixedBuffer::register_memory(memory.address(), len);
            return Ok(Got::Ring(
                Box::new(pinned.map_err(|err| errno_of(&err))?),
                memory,
            ));
        }
        let on_demand = match planned.plan {
            Plan::OnDemand | Plan::HeldOnDemand => true,
            Plan::Longterm(_) | Plan::Copy => false,
            _ => cell.wish == Wish::OnDemand,
        };
        let memory = Arc::new(memory);
        let region = Region::register(&self.domain, &memory, len, cell.access, on_demand)?;
        Ok(Got::Region(region))
    }

    fn compare(
        &mut self,
        row: &Row<'_>,
        cell: &Cell,
        planned: &Planned,
        answer: Result<Got, Errno>,
    ) -> Result<()> {
        match (planned.plan.refusal(), answer) {
            (Some(rule), Err(errno)) => {
                ensure!(rule.errnos().contains(&errno), "answered {errno}");
                Ok(())
            }
            (Some(_), Ok(_)) => bail!("registered all the same"),
            (None, Err(errno)) => bail!("answered {errno}"),
            (None, Ok(got)) => self.look(row, cell, planned.plan, got),
        }
    }

    /// Whether the device sees the file: somebody else writes it, and the device reads.
    fn look(&mut self, row: &Row<'_>, cell: &Cell, plan: Plan, mut got: Got) -> Result<()> {
        let marker = u32::try_from(self.cells)?.to_ne_bytes();
        let file = match row.path.exists() {
            true => File::options().read(true).write(true).open(&row.path)?,
            false => row.file.try_clone()?,
        };
        let len = usize::try_from(row.len)?;
        Mapping::shared(&file, 0, len, true)?.copy_in(64, &marker);
        let seen = match &mut got {
            Got::Ring(pinned, _) => pinned.read_as_device()?,
            Got::Region(region) => {
                let address = region.memory().address() as u64;
                self.ends.0.read(address, region.rkey(), 4096)?
            }
        };
        let is_seen = seen[64..68] == marker;
        match plan {
            Plan::Copy => ensure!(!is_seen, "the device sees the file"),
            // A private mapping shows the file until somebody writes it.
            Plan::OnDemand if cell.sharing == Sharing::Private => {}
            _ => ensure!(is_seen, "the device does not see the file"),
        }
        match got {
            Got::Ring(pinned, _) => pinned.unregister()?,
            Got::Region(region) => region.deregister()?,
        }
        Ok(())
    }
}

fn cell(device: Device, access: Access, wish: Wish, sharing: Sharing) -> Cell {
    Cell {
        device,
        access,
        wish,
        sharing,
    }
}

fn errno_of(err: &RegisterError) -> Errno {
    match err {
        RegisterError::MemlockLimit { .. } => Errno::NOMEM,
        RegisterError::Disabled(err)
        | RegisterError::NotPinnable(err)
        | RegisterError::Ring(err) => Errno::from_io_error(err).unwrap_or(Errno::IO),
        _ => Errno::IO,
    }
}
