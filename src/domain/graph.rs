//! Who and what memories speak of, and how they are related.

use sha2::{Digest, Sha256};

use super::conversation::named;
use super::ids::{EntityId, MemoryId, UserId};
use crate::base::clock::Timestamp;

named!(
    /// What an entity is.
    EntityKind {
        /// Somebody.
        Person = "person",
        /// Somewhere.
        Place = "place",
        /// A company, a club, an authority.
        Organization = "organization",
        /// Something that happens.
        Event = "event",
        /// Anything else.
        Thing = "thing",
    }
);

impl EntityKind {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Person, Self::Place, Self::Organization, Self::Event, Self::Thing];
}

/// Somebody or something that memories of one user speak of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entity {
    /// Identifier.
    pub id: EntityId,
    /// Whose memories speak of it.
    pub user_id: UserId,
    /// Its name, as it was first read.
    pub name: String,
    /// What it is.
    pub kind: EntityKind,
    /// When the first of those memories was made.
    pub first_seen: Timestamp,
    /// When one of them last changed.
    pub last_seen: Timestamp,
}

/// One end of a relation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Which entity.
    pub id: EntityId,
    /// Its name.
    pub name: String,
}

/// How two entities of one user are related, as a memory says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// Who or what.
    pub subject: End,
    /// Does or is what: the words of the memory.
    pub predicate: String,
    /// To whom or what.
    pub object: End,
    /// The memory that says so.
    pub memory_id: MemoryId,
}

/// An entity as a memory speaks of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: EntityKind,
}

/// A relation as a memory states it, between names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Who or what.
    pub subject: String,
    /// Does or is what.
    pub predicate: String,
    /// To whom or what.
    pub object: String,
}

/// All that one memory speaks of; statements are between its entities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// The entities.
    pub entities: Vec<Sighting>,
    /// How they are related.
    pub relations: Vec<Statement>,
}

/// A name as it is compared: in lower case, with single spaces, without `the`.
pub fn key(name: &str) -> String {
    let lower = name.to_lowercase();
    let words: Vec<&str> = lower.split_whitespace().collect();
    match words.split_first() {
        Some((&"the", rest)) if !rest.is_empty() => rest.join(" "),
        _ => words.join(" "),
    }
}

impl EntityId {
    /// The id of what `user`'s memories call `name`.
    pub fn of(user: &UserId, name: &str) -> Self {
        let digest = Sha256::digest(format!("{user}\n{}", key(name)));
        Self::from_text(hex::encode(digest.get(..16).unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_in_any_case_is_one_entity_of_a_user() {
        let (ann, ben) = (UserId::from_text("ann"), UserId::from_text("ben"));
        let id = EntityId::of(&ann, "Lake  Geneva");
        assert_eq!(id, EntityId::of(&ann, "the lake geneva"));
        assert_eq!(id.as_str().len(), 32);
        assert_ne!(id, EntityId::of(&ben, "Lake Geneva"));
        assert_eq!(key("The"), "the");
    }
}
