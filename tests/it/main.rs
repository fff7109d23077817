//! The tests that see the crate as its users do, in one binary. (`tests/alloc.rs` counts allocations and is another.)
//!
//! A test is named `event_then_event` or `event_during_event`, with what is expected after it; one that pins a
//! guarantee of the design begins with its number, `c1_` to `c11_` for contexts, `g1_` to `g19_` for groups and `s1_` to `s8_` for supervisors. No real
//! sleep decides a test: the clock is paused and pushed by hand, threads meet at barriers, futures are polled by hand.
//!
//! What peers pin, and where it is pinned here:
//!
//! | Go's `context` | test |
//! |---|---|
//! | background and todo never end | `context_tree::background_and_todo_never_end` |
//! | … and print as themselves | `context_tree::background_and_todo_print_as_themselves` |
//! | cancelling ends synchronously, through values too | `context_tree::cancel_ends_children_through_values_before_it_returns` |
//! | children of all kinds have ended when it returns | `context_tree::parent_ended_has_ended_cancel_timer_callback_and_foreign_children_when_it_returns` |
//! | a child ends first, the parent ends the rest | `context_tree::child_ended_then_parent_ends_the_rest`, `c1_child_cancelled_leaves_parent_live` |
//! | cancelled or dropped children are forgotten | `alloc::c5_*` |
//! | deadline in the past, now | `context_deadline::c2_deadline_in_the_past_is_born_ended` |
//! | deadline in 50 ms | `context_deadline::timeout_passes_then_context_ends_not_a_moment_earlier` |
//! | deadline nested sooner, later, equal | `context_deadline::c2_nested_*` |
//! | a cancelled timeout is no exceeded one | `context_tree::c1_timeout_cancelled_by_parent_is_cancelled_not_exceeded` |
//! | values through layers, shadowed, side by side, absent | `context_value` |
//! | 100 nodes ended from many threads in any order | `context_race::tree_of_a_hundred_ended_from_many_threads_in_any_order` |
//! | a callback cancels ancestor and sibling during an end | `context_reentry::c6_callback_cancels_ancestor_and_sibling_during_its_own_end` |
//! | 30 random layers | `context_tree::thirty_random_layers_end_once_at_the_bottom_and_keep_their_values` |
//! | deriving from an ended parent | `context_tree::c1_child_derived_from_ended_parent_is_born_ended_with_its_reason` |
//! | deriving while the parent is being ended | `context_race::derive_during_end_then_child_is_ended` |
//! | the cause table | `context_cause::cause_and_reason_are_those_of_the_table` |
//! | error set implies done ready, from any thread | `context_done::error_set_implies_done_ready_from_any_thread` |
//! | without_cancel: values, no deadline, no cause, children | `context_merge::without_cancel_*` |
//! | callback after cancel, timeout, at once, not after stop | `context_hook::c7_*` |
//! | foreign source: its output as cause, dropped with the context | `context_foreign` |
//! | allocation ceilings | `alloc::derivations_stay_below_their_ceilings` |
//!
//! | `CancellationToken` | test |
//! |---|---|
//! | pending futures become ready | `context_done::pending_futures_become_ready_at_the_end` |
//! | only polled waiters are woken, once each | `context_done::only_polled_waiters_are_woken_and_once_each` |
//! | a registered future dropped before the end | `context_done::c9_dropped_unregisters` |
//! | a grandchild ends although the middle one is dropped | `context_tree::middle_dropped_then_grandparent_cancelled_ends_grandchild` |
//! | many children dropped forwards and backwards | `context_tree::many_children_dropped_forwards_or_backwards_leaves_the_rest_to_parent` |
//! | a subtree of 8 ends exactly its 6 descendants | `context_tree::subtree_of_eight_cancelled_ends_exactly_its_six_descendants` |
//! | a waker that touches an ancestor while being woken | `context_reentry::c6_waker_woken_uses_every_method` |
//! | a waker that panics: the others still wake | `context_reentry::c6_waker_panics_and_the_others_are_woken` |
//! | auto traits as documented | `static_assertions` |
//!
//! | Go's `errgroup`, `WaitGroup`, `signal` | test |
//! |---|---|
//! | the first error wins, several failing in a known order | `group_spawn::g1_three_fail_in_an_order_*`, `g1_sibling_fails_because_of_the_end_*` |
//! | nil errors are none | `go_parity::go_ok_is_no_error_and_the_first_error_stays` |
//! | the context is over after wait; its cause | `go_parity::go_context_is_over_after_wait_whatever_the_outcome`, `go_cause_of_a_groups_context` |
//! | limit 10 under 1,025 tasks | `group_limit::g10_limit_of_ten_then_1025_tasks_never_exceed_it` |
//! | try_spawn fills, fails, works again | `group_limit::g10_try_spawn_fills_the_limit_then_fails_until_one_ends` |
//! | the limit raised and lowered while tasks run | `group_limit::g10_raised_*`, `g10_lowered_*`, `g10_lifted_*`, `g10_first_limit_*`, `go_parity::go_try_spawn_under_a_limit_*` |
//! | panics with a value, with an error, of several tasks | `group_panic::g5_payload_is_the_original_one`, `g5_panic_first_*`, `g5_error_first_*` |
//! | panics with others blocked, at once | `group_panic::g5_others_are_blocked_then_the_end_comes_at_once_and_the_panic_last` |
//! | what a sibling learns of a failure | `go_parity::go_sibling_learns_who_failed_where_and_why` |
//! | a group used again after wait, `try_spawn` after wait | `group_wait::g4_spawned_after_*`, `tokio_parity::join_set_used_after_it_was_empty` |
//! | two-phase barrier reused 8 times | `wait_group::wg_two_phase_barrier_reused_8_times` |
//! | no spurious wake in 1,000 rounds | `wait_group::wg_thousand_rounds_then_no_wake_too_early`, `wg_woken_once_and_only_by_the_last_token` |
//! | signal context | `signal::first_signal_then_ended_with_its_name`, `signal::dropped_then_killed_by_first_signal` |
//!
//! | `TaskTracker`, `JoinSet` | test |
//! |---|---|
//! | auto traits as documented | `tokio_parity`, by static assertion |
//! | the last exit wakes every waiter | `wait_group::wg_last_token_dropped_then_every_waiter_is_woken` |
//! | exit during close | `tokio_parity::tracker_exit_during_the_end`, `group_spawner::g12_spawned_from_other_threads_while_waited_for_*` |
//! | wait registered before the first spawn | `tokio_parity::tracker_waited_for_before_the_first_spawn` |
//! | the runtime is gone, both kinds | `group_runtime::g17_*` |
//! | abort of half: the others complete | `group_task::g11_half_aborted_then_the_others_complete` |
//! | abort of a finished task keeps its result | `group_task::g11_finished_task_aborted_then_it_keeps_its_result` |
//! | abort before the first poll | `group_task::g11_aborted_before_the_first_poll_then_dropped_unpolled` |
//! | `AbortHandle` beside the handle | `group_task::g11_*_handle_*` |
//! | `abort_all` | `tokio_parity::join_set_abort_all` |
//! | results in order of completion | `tokio_parity::join_set_join_next_yields_in_order_of_completion` |
//! | panics outside a runtime, at the caller's place | `tokio_parity::spawn_outside_a_runtime_panics_at_the_callers_place` |
//! | 1,000 ready tasks do not starve others | `group_spawn::g14_thousand_self_waking_tasks_leave_room_for_others` |
//!
//! | async_nursery, conc, Java, Trio | test |
//! |---|---|
//! | captures are dropped before wait returns | `group_wait::g3_*` |
//! | … and values that nobody fetches | `group_value::g3_*` |
//! | a failure that stops nobody (Kotlin's `supervisorScope`) | `group_isolated::g18_*` |
//! | a scope inside a task outlives it by no task (nested nurseries) | `group_nested::g13_*` |
//! | tasks spawned by tasks, 100 deep, 10,000 wide | `group_spawner::g12_tasks_spawn_tasks_to_depth_100_*`, `g12_task_spawns_10_000_*` |
//! | early `?` of the owner stops everything | `group_drop::g6_owner_returns_early_then_everything_is_stopped` |
//! | grid: runtimes × spawn counts × cancel delays | `tokio_parity::grid_of_spawn_counts_and_cancel_delays` |
//! | wait in a timeout, timed out, waited again | `group_wait::g4_wait_times_out_twice_then_the_error_is_not_lost` |
//! | a panic's payload is the original one | `group_panic::g5_payload_is_the_original_one` |
//! | a panicking destructor during abort | `group_panic::g5_aborted_then_a_panic_in_the_destructor_is_the_tasks` |
//! | any order of operations at all | `group_model::model_and_group_agree` |
//! | a failure that stops nobody (`settle`, Java's `awaitAll`) | `batch_settle` |
//! | the first success, all failed, the losers' clean-up (`select_ok`, `anySuccessfulOrThrow`) | `batch_race` |
//! | a stagger that is cut by a failure (Trio's happy eyeballs, `tower::hedge`) | `batch_stagger` |
//! | any race at all | `batch_race_model::races_do_what_the_model_says` |
//! | a server that spawns for years does not grow | `alloc_group::g15_*` |
//!
//! | OTP's `supervisor`, tokio-graceful-shutdown | test |
//! |---|---|
//! | every restart type, strategy and way to end | `supervisor_restart::s2_every_strategy_with_every_restart_and_every_end` |
//! | a temporary sibling is not started again | `supervisor_restart::s2_temporary_siblings_*` |
//! | one that had ended or was terminated is, with the others | `supervisor_restart::s2_siblings_that_had_ended_*` |
//! | intensity and period | `supervisor_restart::s3_*`, `supervisor::intensity` in the crate |
//! | started in order, stopped in reverse | `supervisor_stop::s1_*`, `s5_stopped_in_reverse_order_*` |
//! | a start that fails stops what had started | `supervisor_stop::s1_start_fails_*` |
//! | significant children, automatic shutdown | `supervisor_stop::s8_*` |
//! | start, terminate, restart, delete of a child by id | `supervisor_command::s7_*` |
//! | a supervisor under a supervisor | `supervisor_stop::s6_*` |
//! | a child that must be killed | `supervisor_stop::s5_child_that_ignores_its_stop_*` |
//! | a partial shutdown of a subtree | `supervisor_model`, `supervisor_command::s7_stop_start_restart_*` |
//! | a child that fails at once, again and again: nothing grows, nobody starves | `supervisor_load`, `alloc_supervisor` |
//! | what none of them has | `supervisor_peers`, and the table in the docs of `Supervisor` |
//! | finished subsystems are forgotten | `supervisor_command::s7_temporary_ones_*`, `alloc_supervisor` |
//! | any order of events at all | `supervisor_model`, `supervisor::model` in the crate |

// Before those that use its macros.
#[macro_use]
mod group_support;
#[macro_use]
mod scope_support;

mod batch_blocks;
mod batch_end;
mod batch_failure;
mod batch_foreign;
mod batch_model;
mod batch_order;
mod batch_race;
mod batch_race_model;
mod batch_settle;
mod batch_source;
mod batch_stagger;
mod batch_support;
mod batch_workers;
mod checksum;
mod context_cause;
mod context_chain;
mod context_cleanup;
mod context_deadline;
mod context_done;
mod context_error;
mod context_foreign;
mod context_handle;
mod context_hook;
mod context_merge;
mod context_order;
mod context_race;
mod context_reentry;
mod context_runtime;
mod context_stop;
mod context_tree;
mod context_value;
mod go_parity;
mod group_drop;
mod group_hostile;
mod group_isolated;
mod group_limit;
mod group_local;
mod group_model;
mod group_nested;
mod group_outcome;
mod group_panic;
mod group_passing;
mod group_run;
mod group_runtime;
mod group_shutdown;
mod group_spawn;
mod group_spawner;
mod group_stop;
mod group_task;
mod group_value;
mod group_wait;
mod model;
#[cfg(unix)]
mod process;
#[cfg(unix)]
mod programs;
mod scope;
mod scope_end;
mod scope_hostile;
mod scope_nest;
mod scope_task;
mod scope_waker;
#[cfg(all(unix, feature = "signal"))]
mod signal;
mod snapshot;
mod snapshot_stragglers;
#[cfg(feature = "testing")]
mod snapshot_testing;
#[cfg(feature = "tracing")]
mod snapshot_tracing;
mod snapshot_work;
mod static_assertions;
mod sum_support;
mod supervisor_command;
mod supervisor_hostile;
mod supervisor_late;
mod supervisor_load;
mod supervisor_model;
mod supervisor_peers;
mod supervisor_restart;
mod supervisor_stop;
mod supervisor_support;
mod supervisor_under_way;
mod support;
mod tokio_parity;
mod verify;
mod wait_group;
