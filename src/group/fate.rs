//! `Fate`: how a task ended. `Counts`: how many ended in which way.

/// How a task ended.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Completed,
    Failed,
    Panicked,
    /// It passed on another task's failure, which has not ended the context.
    PassedOn,
    /// Cut short by the end of the context.
    CutShort,
    /// The context had ended before it was polled.
    NeverStarted,
    Aborted,
    /// Its runtime went away.
    Lost,
    /// It is none of the group's tasks: the spawn panicked, or it is the body of `run`.
    Uncounted,
}

/// How the tasks have ended so far.
#[derive(Default)]
pub(super) struct Ends {
    completed: usize,
    /// `None` as long as all have completed.
    others: Option<Box<Counts>>,
    /// Something was spawned when the context had ended, and nobody has been told of it.
    pub(super) has_refused: bool,
}

/// What kept tasks from their work.
#[derive(Clone, Copy)]
pub(crate) struct Lacks {
    /// The end of the context.
    pub(crate) was_cut: bool,
    /// Their runtime, which went away.
    pub(crate) was_lost: bool,
    /// The end of the context, before they were spawned; nobody has been told.
    pub(crate) has_refused: bool,
}

/// How many tasks of a group have ended in which way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) completed: usize,
    pub(crate) failed: usize,
    pub(crate) panicked: usize,
    passed_on: usize,
    cut_short: usize,
    pub(crate) never_started: usize,
    pub(crate) aborted: usize,
    lost: usize,
}

impl Ends {
    #[inline]
    pub(super) fn count(&mut self, fate: Fate) {
        match fate {
            Fate::Completed => self.completed += 1,
            _ => self.others.get_or_insert_default().count(fate),
        }
    }

    #[inline]
    pub(super) fn lacks(&self) -> Lacks {
        let others = self.others.as_deref();
        Lacks {
            was_cut: others.is_some_and(|counts| counts.cut_short + counts.never_started > 0),
            was_lost: others.is_some_and(|counts| counts.lost > 0),
            has_refused: self.has_refused,
        }
    }

    pub(super) fn counts(&self) -> Counts {
        let others = self.others.as_deref().cloned().unwrap_or_default();
        Counts {
            completed: self.completed,
            ..others
        }
    }
}

impl Counts {
    fn count(&mut self, fate: Fate) {
        let count = match fate {
            Fate::Completed => &mut self.completed,
            Fate::Failed => &mut self.failed,
            Fate::Panicked => &mut self.panicked,
            Fate::PassedOn => &mut self.passed_on,
            Fate::CutShort => &mut self.cut_short,
            Fate::NeverStarted => &mut self.never_started,
            Fate::Aborted => &mut self.aborted,
            Fate::Lost => &mut self.lost,
            Fate::Uncounted => return,
        };
        *count += 1;
    }

    /// Those that others kept from their own end, whichever it was: the context's, a sibling's failure, the runtime's.
    pub(crate) fn cut_short(&self) -> usize {
        self.passed_on + self.cut_short + self.lost
    }
}
