//! What people are shown of a snapshot: of many siblings twenty, of a deep tree the upper part, and how many there are beside
//! these. A context between two others, with nobody beside it, says nothing that the one below does not say.

use super::{Item, Snapshot, What};

/// So many siblings are shown.
const SIBLINGS: usize = 20;

/// So deep the tree is shown.
const DEPTH: usize = 48;

/// A line of a drawing.
pub(super) struct Line {
    pub(super) shows: Shows,
    /// The line of its parent.
    pub(super) parent: Option<usize>,
    /// For each level above, the root's left out, and for its own: whether it is the last of its siblings.
    pub(super) is_last: Vec<bool>,
}

pub(super) enum Shows {
    /// By its place in the snapshot.
    Item(usize),
    /// So many siblings are not shown.
    More(usize),
    /// So many items below are not shown.
    Below(usize),
}

/// The lines of a drawing, parents before children.
pub(super) fn lines(snapshot: &Snapshot) -> Vec<Line> {
    let items = snapshot.items();
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); items.len()];
    for (place, item) in items.iter().enumerate() {
        if let Some(parent) = item.parent {
            children[parent].push(place);
        }
    }
    let tally = tally(items);
    let mut lines: Vec<Line> = Vec::new();
    let mut to_draw: Vec<Line> = roots(items).collect();
    to_draw.reverse();
    while let Some(mut line) = to_draw.pop() {
        if let Shows::Item(shown) = line.shows {
            let place = skip(shown, items, &children);
            line.shows = Shows::Item(place);
            let below = match line.is_last.len() >= DEPTH && tally[place].below > 0 {
                true => vec![Shows::Below(tally[place].below)],
                false => chosen(&children[place], &tally),
            };
            let last = below.len().saturating_sub(1);
            let below = below.into_iter().enumerate().map(|(number, shows)| {
                let mut is_last = line.is_last.clone();
                is_last.push(number == last);
                Line {
                    shows,
                    parent: Some(lines.len()),
                    is_last,
                }
            });
            let first = to_draw.len();
            to_draw.extend(below);
            to_draw[first..].reverse();
        }
        lines.push(line);
    }
    lines
}

/// The item that is shown for one: the next below a context that has a parent and one child.
fn skip(mut place: usize, items: &[Item], children: &[Vec<usize>]) -> usize {
    while let (What::ContextSnapshot(_), Some(_), &[child]) = (
        &items[place].what,
        items[place].parent,
        &children[place][..],
    ) {
        place = child;
    }
    place
}

fn roots(items: &[Item]) -> impl Iterator<Item = Line> {
    let roots = items
        .iter()
        .enumerate()
        .filter(|(_, item)| item.parent.is_none());
    roots.map(|(place, _)| Line {
        shows: Shows::Item(place),
        parent: None,
        is_last: Vec::new(),
    })
}

/// What is below an item.
#[derive(Clone, Copy, Default)]
struct Tally {
    below: usize,
    /// It is a straggler, or has one below.
    is_urgent: bool,
}

fn tally(items: &[Item]) -> Vec<Tally> {
    let mut tally = vec![Tally::default(); items.len()];
    // Children come after their parents.
    for (place, item) in items.iter().enumerate().rev() {
        tally[place].is_urgent |= match &item.what {
            What::TaskSnapshot(task) => task.is_straggler(),
            What::BatchSnapshot(batch) => batch.end.is_some() && batch.live > 0,
            What::ScopeSnapshot(scope) => scope.end.is_some() && scope.live > 0,
            What::ContextSnapshot(_) | What::GroupSnapshot(_) => false,
        };
        let Tally { below, is_urgent } = tally[place];
        if let Some(parent) = item.parent {
            tally[parent].below += below + 1;
            tally[parent].is_urgent |= is_urgent;
        }
    }
    tally
}

/// All of a few siblings; of many the urgent ones, then the oldest, which come first.
fn chosen(children: &[usize], tally: &[Tally]) -> Vec<Shows> {
    if children.len() <= SIBLINGS {
        return children.iter().map(|&place| Shows::Item(place)).collect();
    }
    let mut ordered = children.to_vec();
    ordered.sort_by_key(|&place| !tally[place].is_urgent);
    let more = ordered.len() - SIBLINGS;
    ordered.truncate(SIBLINGS);
    let shown = ordered.into_iter().map(Shows::Item);
    shown.chain([Shows::More(more)]).collect()
}
