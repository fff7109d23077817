//! `NameKey`: a child's name, to be looked up by its text.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};

use crate::group::Name;

/// Shares the name with the child's task.
#[derive(Clone, Debug)]
pub(super) struct NameKey(pub(super) Name);

impl NameKey {
    fn text(&self) -> &str {
        self.0.as_ref().as_ref()
    }
}

impl Borrow<str> for NameKey {
    fn borrow(&self) -> &str {
        self.text()
    }
}

impl PartialEq for NameKey {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl Eq for NameKey {}

impl Hash for NameKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text().hash(state);
    }
}
