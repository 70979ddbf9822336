//! The command line.

use anyhow::{Result, bail};
use longpin_tests::scratch::FsKind;

/// What `--help` prints.
pub(crate) const HELP: &str = "\
rdma-demo: truncate and punch a file while an RDMA device has its pages pinned

usage: rdma-demo [--only-hazard] [--device NAME] [--fs KIND[,KIND...]]

  --only-hazard   only the half without the guard (also: --no-guard-phase)
  --device NAME   the RDMA device [default: rxe0]
  --fs KINDS      tmpfs, ext4, xfs [default: all three]

exit status: 0 everything as promised, 1 something is not, 2 cannot tell, 16 usage";

/// The file systems of the demo.
const KINDS: [FsKind; 3] = [FsKind::Tmpfs, FsKind::Ext4, FsKind::Xfs];

/// What this process is to be.
#[derive(Debug)]
pub(crate) enum Role {
    Help,
    /// The process that a person started.
    Supervise,
    /// The process that does the work, a child of the first.
    Show(Options),
    /// The process that registers the file, a child of the second.
    Serve {
        device: String,
    },
}

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) only_hazard: bool,
    pub(crate) device: String,
    pub(crate) kinds: Vec<FsKind>,
}

/// The argument that makes a process the worker; the others follow it.
pub(crate) const WORKER: &str = "--supervised";
/// The argument that makes a process the server; the device follows it.
pub(crate) const SERVER: &str = "serve";

pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Result<Role> {
    let mut options = Options {
        only_hazard: false,
        device: "rxe0".to_owned(),
        kinds: KINDS.to_vec(),
    };
    let mut supervised = false;
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        let mut value = || match arguments.next() {
            Some(value) => Ok(value),
            None => bail!("{argument} needs a value"),
        };
        match argument.as_str() {
            "-h" | "--help" => return Ok(Role::Help),
            SERVER => return Ok(Role::Serve { device: value()? }),
            WORKER => supervised = true,
            "--only-hazard" | "--no-guard-phase" => options.only_hazard = true,
            "--device" => options.device = value()?,
            "--fs" => options.kinds = value()?.split(',').map(kind).collect::<Result<_>>()?,
            other => bail!("unknown argument {other}; --help shows those that exist"),
        }
    }
    Ok(if supervised {
        Role::Show(options)
    } else {
        Role::Supervise
    })
}

fn kind(name: &str) -> Result<FsKind> {
    match KINDS.iter().find(|kind| kind.name() == name) {
        Some(kind) => Ok(*kind),
        None => bail!("unknown file system {name}; the demo knows tmpfs, ext4 and xfs"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Role> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn the_defaults_are_everything() {
        assert!(matches!(parsed(""), Ok(Role::Supervise)));
        let Ok(Role::Show(options)) = parsed("--supervised") else {
            panic!("not the worker");
        };
        assert_eq!((options.only_hazard, options.kinds.len()), (false, 3));
        assert_eq!(options.device, "rxe0");
    }

    #[test]
    fn takes_what_it_is_given() {
        let Ok(Role::Show(options)) =
            parsed("--supervised --fs xfs,tmpfs --only-hazard --device mlx5_0")
        else {
            panic!("not the worker");
        };
        assert_eq!(options.kinds, [FsKind::Xfs, FsKind::Tmpfs]);
        assert!(options.only_hazard);
        assert_eq!(options.device, "mlx5_0");
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        assert!(parsed("--fs ntfs").is_err());
        assert!(parsed("--fs").is_err());
        assert!(parsed("--guard").is_err());
    }
}
