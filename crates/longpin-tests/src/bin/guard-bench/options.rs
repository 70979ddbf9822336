//! The command line.

use anyhow::{Result, bail};

/// What `--help` prints.
pub(crate) const HELP: &str = "\
guard-bench: what the guard costs, in instructions

usage: guard-bench [--only PART[,PART...]] [--largest MIB] [--rounds N]

  --only PARTS    hot, register, memory, walk, hold, perftest [default: all]
                  start: starting guard and holds, by stage and program, and the sweep; comes alone
                  disk: the block maps and new files in the current directory, by the clock; needs neither
                  guard nor guest, and comes alone
  --largest MIB   largest file and region [default: 4096; regions at most 1024]
  --rounds N      how often all states are gone through [default: 2]

exit status: 0 measured, 2 cannot measure, 16 usage";

/// What is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) hot: bool,
    pub(crate) register: bool,
    pub(crate) memory: bool,
    pub(crate) walk: bool,
    pub(crate) hold: bool,
    pub(crate) start: bool,
    pub(crate) disk: bool,
    pub(crate) perftest: bool,
    /// Bytes.
    pub(crate) largest: usize,
    pub(crate) rounds: usize,
}

/// `None`: the user asked for help.
pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Asked>> {
    let mut parts = "hot,register,memory,walk,hold,perftest".to_owned();
    let mut largest = 4096_usize;
    let mut rounds = 2;
    while let Some(argument) = arguments.next() {
        let mut value = || match arguments.next() {
            Some(value) => Ok(value),
            None => bail!("{argument} needs a value"),
        };
        match argument.as_str() {
            "-h" | "--help" => return Ok(None),
            "--only" => parts = value()?,
            "--largest" => largest = value()?.parse()?,
            "--rounds" => rounds = value()?.parse()?,
            other => bail!("unknown argument {other}; --help shows those that exist"),
        }
    }
    let mut asked = Asked {
        hot: false,
        register: false,
        memory: false,
        walk: false,
        hold: false,
        start: false,
        disk: false,
        perftest: false,
        largest: largest << 20,
        rounds,
    };
    for part in parts.split(',') {
        match part {
            "hot" => asked.hot = true,
            "register" => asked.register = true,
            "memory" => asked.memory = true,
            "walk" => asked.walk = true,
            "hold" => asked.hold = true,
            "start" => asked.start = true,
            "disk" => asked.disk = true,
            "perftest" => asked.perftest = true,
            other => bail!("unknown part {other}; --help shows those that exist"),
        }
    }
    Ok(Some(asked))
}
