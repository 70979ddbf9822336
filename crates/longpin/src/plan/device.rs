//! DAX devices: memory of a file system's kind without a file system. Nothing but the device's own end takes it away.

use longpin_linux::devdax::DaxDevice;

use super::read::unaligned;
use super::{Alternative, Level, Medium, PlanRequest, Planned, Question, decide};
use crate::activation::{Name, Reason};

/// Plan for an open DAX device. It needs no hold of any level: there is nobody to hold it against.
pub(super) fn plan_device(device: &DaxDevice, request: &PlanRequest) -> Planned {
    let range = match request.wanted {
        Some(wanted) => wanted.offset..wanted.offset.saturating_add(wanted.len),
        None => 0..device.size,
    };
    let mut unfit = Vec::new();
    if range.end > device.size {
        unfit.push(Reason::whole(Name::BeyondEnd));
    }
    if range.is_empty() {
        unfit.push(Reason::whole(Name::Empty));
    }
    unfit.extend(unaligned(&range, device.size, device.align));
    let question = Question {
        medium: Medium::DaxDevice,
        level: Level::Layout,
        ..Question::of(request, unfit, range.end.saturating_sub(range.start))
    };
    let plan = decide(&question);
    Planned {
        alternatives: Alternative::to(&question),
        unknown: None,
        range,
        fs: "a DAX device".into(),
        question,
        plan,
    }
}
