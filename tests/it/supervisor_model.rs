//! Random trees of supervisors on a runtime: failures, commands, time, a stop. After each step a child has at most one
//! incarnation, and exactly when its state says so; the stop is in reverse order, and nothing lives on.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use errgroup::{
    BoxError, Child, ChildState, Context, Ready, Restart, Strategy, Supervisor, SupervisorHandle,
};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::strategy::Strategy as Generator;

use crate::supervisor_support::{End, Stage, idle, paused};
use crate::support::{advance, ms};

#[derive(Clone, Debug)]
enum Plan {
    Leaf(Leaf),
    Tree(Strategy, Vec<Leaf>),
}

#[derive(Clone, Debug)]
struct Leaf {
    restart: Restart,
    backoff: Option<u64>,
    ready_after: Option<u64>,
}

#[derive(Clone, Debug)]
enum Step {
    End(Index, End),
    Pass(u64),
    Start(Index),
    Stop(Index),
    Restart(Index),
    Abort(Index),
}

/// The handles of all supervisors: of the root, and of those below by their names.
type Handles = Arc<Mutex<BTreeMap<String, SupervisorHandle>>>;

struct World {
    stage: Stage,
    handles: Handles,
    live: HashMap<String, usize>,
    leaves: Vec<String>,
}

fn leaf(stage: &Stage, name: &str, plan: &Leaf) -> Child {
    let mut child = match plan.ready_after {
        None => stage.child(name),
        Some(after) => {
            let (stage, name) = (stage.clone(), name.to_owned());
            Child::with_ready(name.clone(), move |ctx: Context, ready: Ready| {
                let act = stage.clone().act(ctx.clone(), name.clone());
                async move {
                    let readies = async {
                        tokio::time::sleep(ms(after)).await;
                        ready.notify();
                        std::future::pending::<()>().await;
                    };
                    tokio::select! {
                        ended = act => ended,
                        () = readies => unreachable!(),
                    }
                }
            })
        }
    };
    child = child.restart(plan.restart);
    match plan.backoff {
        Some(delay) => child.backoff([ms(delay); 64]),
        None => child,
    }
}

fn supervisor(stage: &Stage, above: &str, strategy: Strategy, leaves: &[Leaf]) -> Supervisor {
    let builder = Supervisor::builder().strategy(strategy);
    let mut supervisor = builder.intensity(100, Duration::from_secs(60)).build();
    for (n, plan) in leaves.iter().enumerate() {
        supervisor = supervisor.child(leaf(stage, &format!("{above}.{n}"), plan));
    }
    supervisor
}

impl World {
    fn new(plans: &[Plan]) -> Self {
        let leaves = plans.iter().enumerate().flat_map(|(n, plan)| match plan {
            Plan::Leaf(_) => vec![n.to_string()],
            Plan::Tree(_, leaves) => (0..leaves.len()).map(|m| format!("{n}.{m}")).collect(),
        });
        Self {
            stage: Stage::new(),
            handles: Handles::default(),
            live: HashMap::new(),
            leaves: leaves.collect(),
        }
    }

    fn root(&self, ctx: &Context, strategy: Strategy, plans: &[Plan]) -> Supervisor {
        let builder = Supervisor::builder().context(ctx).strategy(strategy);
        let mut root = builder.intensity(100, Duration::from_secs(60)).build();
        for (n, plan) in plans.iter().enumerate() {
            let name = n.to_string();
            root = root.child(match plan {
                Plan::Leaf(plan) => leaf(&self.stage, &name, plan),
                Plan::Tree(strategy, leaves) => {
                    let (stage, handles) = (self.stage.clone(), self.handles.clone());
                    let (strategy, leaves) = (*strategy, leaves.clone());
                    Child::supervisor(name.clone(), move |_ctx| {
                        let below = supervisor(&stage, &name, strategy, &leaves);
                        handles.lock().unwrap().insert(name.clone(), below.handle());
                        below
                    })
                }
            });
        }
        self.handles
            .lock()
            .unwrap()
            .insert(String::new(), root.handle());
        root
    }

    /// The supervisor of a leaf, as far as it has been started.
    fn handle(&self, leaf: &str) -> Option<SupervisorHandle> {
        let above = leaf.split_once('.').map_or("", |(above, _)| above);
        self.handles.lock().unwrap().get(above).cloned()
    }

    async fn run(&mut self, step: &Step) {
        let pick = |index: &Index| self.leaves[index.index(self.leaves.len())].clone();
        match step {
            Step::End(index, end) => {
                self.stage.try_end(&pick(index), *end);
            }
            Step::Pass(millis) => advance(ms(*millis)).await,
            Step::Start(index) | Step::Stop(index) | Step::Restart(index) | Step::Abort(index) => {
                let name = pick(index);
                if let Some(handle) = self.handle(&name) {
                    // Whether it is carried out is of no interest here, nor is how long that takes.
                    tokio::spawn({
                        let step = step.clone();
                        async move {
                            match step {
                                Step::Start(_) => handle.start(&name).await,
                                Step::Stop(_) => handle.stop(&name).await,
                                Step::Restart(_) => handle.restart(&name).await,
                                _ => handle.abort(&name).await,
                            }
                        }
                    });
                }
            }
        }
        for _ in 0..8 {
            idle().await;
        }
    }

    /// Counts the incarnations from what they logged.
    fn follow(&mut self) -> Vec<String> {
        let log = self.stage.took();
        for line in &log {
            let (sign, name) = line.split_at(1);
            let live = self.live.entry(name.to_owned()).or_default();
            *live = match sign {
                "+" => *live + 1,
                _ => *live - 1,
            };
            assert!(*live <= 1, "two incarnations of {name}");
        }
        log
    }

    /// What lives is what the states say.
    fn check(&self) {
        for leaf in &self.leaves {
            let live = self.live.get(leaf).copied().unwrap_or(0);
            let state = self.handle(leaf).and_then(|handle| handle.child(leaf));
            match state.map(|status| status.state) {
                Some(ChildState::Running | ChildState::Ready) => assert_eq!(live, 1, "{leaf}"),
                None
                | Some(ChildState::Stopped | ChildState::Failed | ChildState::BackingOff { .. }) => {
                    assert_eq!(live, 0, "{leaf}");
                }
                Some(_) => {}
            }
        }
    }
}

fn any_leaf() -> impl Generator<Value = Leaf> {
    let restart = select(vec![
        Restart::Permanent,
        Restart::Permanent,
        Restart::Transient,
        Restart::Temporary,
    ]);
    let backoff = prop::option::of(1..50_u64);
    let ready_after = prop::option::weighted(0.3, 0..30_u64);
    (restart, backoff, ready_after).prop_map(|(restart, backoff, ready_after)| Leaf {
        restart,
        backoff,
        ready_after,
    })
}

fn any_strategy() -> impl Generator<Value = Strategy> {
    select(vec![
        Strategy::OneForOne,
        Strategy::OneForAll,
        Strategy::RestForOne,
    ])
}

fn any_plan() -> impl Generator<Value = Plan> {
    let tree = (any_strategy(), prop::collection::vec(any_leaf(), 1..4));
    prop_oneof![
        2 => any_leaf().prop_map(Plan::Leaf),
        1 => tree.prop_map(|(strategy, leaves)| Plan::Tree(strategy, leaves)),
    ]
}

fn any_step() -> impl Generator<Value = Step> {
    let index = any::<Index>;
    let end = select(vec![End::Finish, End::Fail, End::Fail]);
    prop_oneof![
        5 => (index(), end).prop_map(|(index, end)| Step::End(index, end)),
        4 => (0..40_u64).prop_map(Step::Pass),
        1 => index().prop_map(Step::Start),
        1 => index().prop_map(Step::Stop),
        1 => index().prop_map(Step::Restart),
        1 => index().prop_map(Step::Abort),
    ]
}

/// Those that ran are stopped in the reverse order of the names, which is that of start.
fn assert_reversed(log: &[String]) {
    let stopped: Vec<_> = log.iter().filter(|line| line.starts_with('-')).collect();
    assert!(stopped.is_sorted_by(|a, b| a > b), "{log:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_then_one_incarnation_at_most_and_a_stop_in_reverse_order(
        strategy in any_strategy(),
        plans in prop::collection::vec(any_plan(), 1..5),
        steps in prop::collection::vec(any_step(), 0..30),
    ) {
        paused(async {
            let mut world = World::new(&plans);
            let (ctx, cancel) = Context::background().with_cancel();
            let run = tokio::spawn(world.root(&ctx, strategy, &plans).run());
            idle().await;
            for step in &steps {
                world.follow();
                world.run(step).await;
                world.follow();
                world.check();
            }
            // What has failed before it was ready has made a supervisor fail, perhaps the root.
            let was_running = !run.is_finished();
            cancel.cancel();
            let ran: Result<(), BoxError> = run.await.unwrap().map_err(Into::into);
            let log = world.follow();
            if was_running {
                ran.unwrap();
                assert_reversed(&log);
            }
            assert!(world.live.values().all(|&live| live == 0), "something lives on");
        });
    }
}
