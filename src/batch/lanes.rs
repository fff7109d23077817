//! `Lanes`: how many there are, by what they do. `Seat`: one of them, as the source knows it.

/// How many lanes there are, by what they do.
#[derive(Default)]
pub(super) struct Lanes {
    pub(super) new: usize,
    pub(super) running: usize,
    pub(super) parked: usize,
    pub(super) held_up: usize,
}

/// What a lane does, as the source knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    New,
    Running,
    Parked,
    HeldUp,
    Ended,
}

/// A lane, as the source knows it.
pub(super) struct Seat {
    pub(super) doing: Doing,
    /// Its place among the parked.
    pub(super) ticket: Option<u64>,
    /// Items that it has pulled and not told of since.
    pub(super) pulled: usize,
}

impl Seat {
    /// A lane that `Staff::OneMore` or the batch itself has started.
    pub(super) fn new() -> Self {
        Self {
            doing: Doing::New,
            ticket: None,
            pulled: 0,
        }
    }
}

impl Lanes {
    pub(super) fn all(&self) -> usize {
        self.new + self.running + self.parked + self.held_up
    }

    /// A lane does something else from now on.
    pub(super) fn note(&mut self, seat: &mut Seat, doing: Doing) {
        if seat.doing == doing {
            return;
        }
        if let Some(count) = self.count(seat.doing) {
            *count -= 1;
        }
        if let Some(count) = self.count(doing) {
            *count += 1;
        }
        seat.doing = doing;
    }

    fn count(&mut self, doing: Doing) -> Option<&mut usize> {
        match doing {
            Doing::New => Some(&mut self.new),
            Doing::Running => Some(&mut self.running),
            Doing::Parked => Some(&mut self.parked),
            Doing::HeldUp => Some(&mut self.held_up),
            Doing::Ended => None,
        }
    }
}
