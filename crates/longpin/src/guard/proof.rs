//! Attached is not enforced: pin a file of one's own and try the forbidden acts.

use std::fs::File;
use std::time::{Duration, Instant};

use longpin_linux::{FixedBuffer, RegisterError};
use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, ftruncate, memfd_create};
use rustix::io::Errno;

/// The file that proves the guard: sixteen pages.
const LEN: u64 = 65_536;
/// How long the kernel may take to drop the pins of a closed ring.
const RELEASE_LIMIT: Duration = Duration::from_secs(5);

/// How the proof failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// No file could be pinned to try it on.
    #[error("cannot pin a file to try it on")]
    NoPin(#[source] RegisterError),
    /// The proof's own file could not be made.
    #[error("cannot make a file to try it on")]
    NoFile(#[source] std::io::Error),
    /// The programs on the pin functions do not run: pins would be found by sweeps alone.
    #[error("the programs on the pin functions did not see the pin")]
    NoHint,
    /// A forbidden act went through, or failed for another reason.
    #[error("{act} of a pinned file answered {answer}, not ETXTBSY")]
    NotRefused {
        /// What was tried.
        act: &'static str,
        /// What the kernel answered.
        answer: String,
    },
    /// An act that must be allowed was refused.
    #[error("{act} answered {answer}")]
    Refused {
        /// What was tried.
        act: &'static str,
        /// What the kernel answered.
        answer: String,
    },
}

fn answer(result: Result<(), Errno>) -> String {
    result.map_or_else(|errno| format!("{errno:?}"), |()| "success".into())
}

fn must_refuse(act: &'static str, result: Result<(), Errno>) -> Result<(), ProofError> {
    if result == Err(Errno::TXTBSY) {
        return Ok(());
    }
    Err(ProofError::NotRefused {
        act,
        answer: answer(result),
    })
}

/// Pin, try, release, try again. The guard refuses only this process meanwhile.
pub(super) fn prove(swapfile: bool) -> Result<(), ProofError> {
    let file: File = memfd_create("longpin-proof", MemfdFlags::CLOEXEC)
        .map_err(|err| ProofError::NoFile(err.into()))?
        .into();
    ftruncate(&file, LEN).map_err(|err| ProofError::NoFile(err.into()))?;
    let half = usize::try_from(LEN / 2).unwrap_or(usize::MAX);
    let buffer = FixedBuffer::register(&file, LEN / 2, half).map_err(ProofError::NoPin)?;
    must_refuse("truncate", ftruncate(&file, LEN - 4096))?;
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    must_refuse("hole punch", fallocate(&file, punch, LEN / 2, 4096))?;
    let before = fallocate(&file, punch, 0, LEN / 2);
    if swapfile {
        // Level swapfile holds the whole file.
        must_refuse("a hole punch before the range", before)?;
    } else if before.is_err() {
        // Exact to the page: what lies before the pinned range is free.
        return Err(ProofError::Refused {
            act: "a hole punch before the range",
            answer: answer(before),
        });
    }
    drop(buffer);
    wait_for_release(&file)
}

fn wait_for_release(file: &File) -> Result<(), ProofError> {
    let deadline = Instant::now() + RELEASE_LIMIT;
    loop {
        let result = ftruncate(file, 0);
        if result.is_ok() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(ProofError::Refused {
                act: "truncate after the release",
                answer: answer(result),
            });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
