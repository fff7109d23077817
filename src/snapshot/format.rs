//! What the feature `serde` writes and reads: the list of items, whole, and the version of the format.
//!
//! A list with parents by number, not a tree of trees: parsers refuse what is nested deeply.

use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::{Item, Snapshot};

const VERSION: u32 = 1;

impl Serialize for Snapshot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Snapshot", 2)?;
        fields.serialize_field("format_version", &VERSION)?;
        fields.serialize_field("items", &self.items)?;
        fields.end()
    }
}

impl<'de> Deserialize<'de> for Snapshot {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        struct Written {
            format_version: u32,
            items: Vec<Item>,
        }
        let Written {
            format_version,
            items,
        } = Written::deserialize(deserializer)?;
        if format_version != VERSION {
            return Err(D::Error::custom(format_args!(
                "a snapshot of format {format_version}, and this is {VERSION}"
            )));
        }
        // Whoever draws relies on it.
        let is_ordered =
            |(place, item): (usize, &Item)| item.parent.is_none_or(|parent| parent < place);
        match items.iter().enumerate().all(is_ordered) {
            true => Ok(Self { items }),
            false => Err(D::Error::custom("an item stands before its parent")),
        }
    }
}
