//! A party as a tree of contexts: RSVPs and pickups run side by side, and whatever happens, each is told why.
//!
//! ```sh
//! cargo run --example party
//! ```
//!
//! Its argument is what goes wrong:
//!
//! - `few`: too few say yes. That is an error of the RSVPs, and calls the party off for everyone.
//! - `flat-tyre`: Bob's pickup is called off, and his alone: each pickup has a context of its own.
//! - `crash`: Bob's pickup fails. That ends the pickups, then the party, and is the error that `main` reports.
//!
//! At the end it prints the tree of who was told what.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use errgroup::{BoxError, Context, Group};

const GUESTS: [&str; 4] = ["Ann", "Bob", "Cid", "Dee"];
const ENOUGH: usize = 3;

struct Party {
    trouble: String,
    /// Who was told what, by the place in the tree: `party/pickups/Bob`.
    told: Mutex<BTreeMap<String, String>>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let party = Arc::new(Party {
        trouble: std::env::args().nth(1).unwrap_or_default(),
        told: Mutex::default(),
    });
    let mut group: Group = Group::new();
    let (for_rsvps, for_pickups) = (party.clone(), party.clone());
    let (rsvp, pickup) = (group.task("rsvps"), group.task("pickups"));
    rsvp.spawn_with(|ctx| rsvps(ctx, for_rsvps));
    pickup.spawn_with(|ctx| pickups(ctx, for_pickups));

    let outcome = group.wait().await;
    party.note("party", group.context().done().await);
    party.print();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("no party: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn rsvps(ctx: Context, party: Arc<Party>) -> Result<(), BoxError> {
    let mut group: Group = Group::with_context(&ctx);
    let mut answers = Vec::new();
    for (guest, millis) in GUESTS.into_iter().zip([10, 20, 30, 300]) {
        let party = party.clone();
        let task = group.task(guest);
        answers.push(task.spawn_with(move |ctx| async move {
            let answer = ctx.sleep(Duration::from_millis(millis)).await;
            let says_yes = party.trouble != "few" || guest == "Ann";
            let text = match &answer {
                Ok(()) if says_yes => "said yes".to_owned(),
                Ok(()) => "said no".to_owned(),
                Err(why) => format!("need not answer: {why}"),
            };
            party.note(&format!("party/rsvps/{guest}"), text);
            answer?;
            Ok(says_yes)
        }));
    }
    let outcome = group.wait().await;
    party.note("party/rsvps", group.context().done().await);
    outcome?;
    let mut yeses = 0;
    for answer in answers {
        yeses += usize::from(answer.await?);
    }
    match yeses {
        ENOUGH.. => Ok(()),
        _ => Err(format!("too few yeses: {yeses} of {}", GUESTS.len()).into()),
    }
}

async fn pickups(ctx: Context, party: Arc<Party>) -> Result<(), BoxError> {
    let mut group: Group = Group::with_context(&ctx);
    let mut handles = BTreeMap::new();
    for guest in GUESTS {
        let (ctx, handle) = group.context().with_cancel();
        handles.insert(guest, handle);
        let party = party.clone();
        let task = group.task(guest);
        task.spawn_with(move |_| async move {
            let driven = ctx.run(drive(guest, &party.trouble)).await;
            let text = match &driven {
                Ok(Ok(())) => "picked up".to_owned(),
                Ok(Err(error)) => format!("failed: {error}"),
                Err(why) => format!("called off: {why}"),
            };
            party.note(&format!("party/pickups/{guest}"), text);
            driven.unwrap_or(Ok(())) // called off is no failure
        });
    }
    if party.trouble == "flat-tyre" {
        handles["Bob"].cancel_with("a flat tyre");
    }
    let outcome = group.wait().await;
    party.note("party/pickups", group.context().done().await);
    outcome
}

async fn drive(guest: &str, trouble: &str) -> Result<(), BoxError> {
    if guest == "Bob" && trouble == "crash" {
        tokio::time::sleep(Duration::from_millis(100)).await;
        return Err("Bob's car has crashed".into());
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    Ok(())
}

impl Party {
    fn note(&self, place: &str, text: impl ToString) {
        let mut told = self.told.lock().expect("nobody has panicked");
        told.insert(place.to_owned(), text.to_string());
    }

    fn print(&self) {
        for (place, text) in self.told.lock().expect("nobody has panicked").iter() {
            let parts: Vec<_> = place.split('/').collect();
            let (indent, name) = (4 * (parts.len() - 1), parts[parts.len() - 1]);
            println!("{:indent$}{name}: {text}", "");
        }
    }
}
