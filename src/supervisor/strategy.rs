//! `Restart`, `Strategy`, `AutoShutdown`: what a child's end means for itself and for the others.

/// When a child that has ended by itself is restarted: OTP's [restart types].
///
/// [restart types]: https://www.erlang.org/doc/apps/stdlib/supervisor.html#restart
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Restart {
    /// Always. The default.
    #[default]
    Permanent,
    /// If it failed: returned an error, panicked, or was dropped.
    Transient,
    /// Never. If it was [added](crate::SupervisorHandle::add) to a running supervisor, it is forgotten when it has ended.
    Temporary,
}

/// Says which children are restarted when one of them is: OTP's [restart strategies].
///
/// A child that is taken along in another's restart is stopped first, in the reverse order of start, and started again in
/// order. A [`Temporary`](crate::Restart::Temporary) one is only stopped. One that had ended, or was stopped by name, is
/// started again, too, as in OTP: the strategy says that the others cannot do without each other.
///
/// If the child that failed has a [backoff](crate::Child::backoff), the others are stopped at once, and started with it when the delay is
/// over.
///
/// [restart strategies]: https://www.erlang.org/doc/apps/stdlib/supervisor.html#sup_flags
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Strategy {
    /// Only the child itself is restarted. The default.
    #[default]
    OneForOne,
    /// All children are restarted.
    OneForAll,
    /// The child and those after it in the order of start are restarted.
    RestForOne,
}

/// Says when the end of [significant](crate::Child::significant) children stops the supervisor: OTP's [automatic shutdown].
///
/// [automatic shutdown]: https://www.erlang.org/doc/system/sup_princ.html#automatic-shutdown
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AutoShutdown {
    /// As soon as one of them has ended by itself. The default.
    #[default]
    AnySignificant,
    /// When one of them has ended by itself, and none is left.
    AllSignificant,
}
