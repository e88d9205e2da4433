//! Carrying all that one store holds to another: the port, and how it is done.
//!
//! What is carried is rows, each a JSON object in the shape that MongoDB's
//! documents have (`mongodb::documents`), without what a store makes of the rest
//! by itself: names of nodes, revisions, search indexes. Vectors are in
//! hexadecimal digits, and the segments of a window are the text that SQLite
//! keeps, so that no number is rounded on the way.

use async_trait::async_trait;
use serde_json::{Map, Value};

use crate::base::error::{Error, Kind, Result};
use crate::domain::conversation::named;
use crate::store::Timekeeping;

/// Rows that are carried at once.
const BATCH: usize = 256;

named!(
    /// What rows are of.
    RowKind {
        /// People, with the tokens that were ended.
        Users = "users",
        /// Their devices.
        Devices = "devices",
        /// What the daemon keeps for itself, but for the last known time.
        Settings = "settings",
        /// The audit trail.
        Audit = "audit rows",
        /// Conversations with their versions and crops.
        Conversations = "conversations",
        /// Windows with what was said in them.
        Windows = "windows",
        /// Jobs, none of them held by anybody.
        Jobs = "jobs",
        /// The model of the vectors: one row, or none.
        Embedding = "embedding models",
        /// Memories with their vectors.
        Memories = "memories",
        /// Memories that no list shows.
        Shelved = "shelved memories",
        /// What became of memories.
        History = "changes of memories",
        /// Who follows the memories.
        Followers = "followers",
        /// What those have still to hear of.
        News = "news",
        /// Talks with the assistant.
        Chats = "chats",
        /// Their messages.
        Messages = "messages",
        /// Uploaded files.
        Uploads = "uploads",
        /// Files that are to go.
        Deletions = "deletions",
        /// Recordings in the bucket.
        Objects = "objects",
        /// What has come from another database.
        Imported = "imported things",
    }
);

impl RowKind {
    /// All of them: what a row speaks of comes before it.
    pub const ALL: [Self; 19] = [
        Self::Users,
        Self::Devices,
        Self::Settings,
        Self::Audit,
        Self::Conversations,
        Self::Windows,
        Self::Jobs,
        Self::Embedding,
        Self::Memories,
        Self::Shelved,
        Self::History,
        Self::Followers,
        Self::News,
        Self::Chats,
        Self::Messages,
        Self::Uploads,
        Self::Deletions,
        Self::Objects,
        Self::Imported,
    ];
}

/// A row; `_id` tells it from all others of its kind.
pub type Row = Map<String, Value>;

/// A store that gives and takes whatever it holds. Nobody else is at work on it
/// meanwhile.
#[async_trait]
pub trait Transfer: Timekeeping {
    /// How many rows of a kind there are.
    async fn count_rows(&self, of: RowKind) -> Result<u64>;
    /// The first `limit` rows of a kind by `_id`, of those after the row with the
    /// `_id` of `after`.
    async fn rows(&self, of: RowKind, after: Option<&Value>, limit: usize) -> Result<Vec<Row>>;
    /// Adds rows of a kind. After an error some of them may be there.
    async fn add_rows(&self, of: RowKind, rows: &[Row]) -> Result<()>;
    /// Makes what follows from the rows, once all are there: indexes, counters.
    async fn complete(&self) -> Result<()>;
}

/// Carries all that `from` holds to `to`, which is empty, and compares every row
/// after. `tell` hears of each batch how many rows it brought or compared. Returns
/// how many rows of each kind there are.
///
/// # Errors
/// As of the stores; `Storage`, naming the row, when one is not there as it was.
pub async fn transfer(
    from: &dyn Transfer,
    to: &dyn Transfer,
    tell: impl Fn(RowKind, u64),
) -> Result<Vec<(RowKind, u64)>> {
    for of in RowKind::ALL {
        let mut pages = Pages::new(from, of);
        while let Some(rows) = pages.next().await? {
            to.add_rows(of, &rows).await?;
            tell(of, rows.len() as u64);
        }
    }
    to.complete().await?;
    // Where several nodes share a store, each has a clock of its own.
    if let Some(known) = from.known_time().await? {
        to.note_time(&known).await?;
    }
    let mut carried = Vec::new();
    for of in RowKind::ALL {
        let (mut before, mut after) = (Pages::new(from, of), Pages::new(to, of));
        let mut compared = 0;
        while let Some(rows) = before.next().await? {
            compare(of, &rows, &after.next().await?.unwrap_or_default())?;
            compared += rows.len() as u64;
            tell(of, rows.len() as u64);
        }
        compare(of, &[], &after.next().await?.unwrap_or_default())?;
        carried.push((of, compared));
    }
    Ok(carried)
}

/// The rows of a kind, some at a time.
struct Pages<'a> {
    store: &'a dyn Transfer,
    of: RowKind,
    last: Option<Value>,
}

impl<'a> Pages<'a> {
    fn new(store: &'a dyn Transfer, of: RowKind) -> Self {
        Self { store, of, last: None }
    }

    async fn next(&mut self) -> Result<Option<Vec<Row>>> {
        let rows = self.store.rows(self.of, self.last.as_ref(), BATCH).await?;
        let Some(last) = rows.last() else { return Ok(None) };
        self.last = last.get("_id").cloned();
        Ok(Some(rows))
    }
}

/// `Storage` for the first row that is not the same after as it was before.
fn compare(of: RowKind, before: &[Row], after: &[Row]) -> Result<()> {
    for at in 0..before.len().max(after.len()) {
        let (old, new) = (before.get(at), after.get(at));
        if old.map(|row| carried(of, row)) != new.map(|row| carried(of, row)) {
            let id = old.or(new).and_then(|row| row.get("_id")).unwrap_or(&Value::Null);
            let (of, what) = (of.as_str(), difference(old, new));
            let message = format!("of the {of}, {id} has not come over as it was: {what}");
            return Err(Error::new(Kind::Storage, message));
        }
    }
    Ok(())
}

/// A row without what each store says in its own way.
fn carried(of: RowKind, row: &Row) -> Row {
    let mut row = row.clone();
    match of {
        // Numbered by the store.
        RowKind::Audit => drop(row.remove("_id")),
        // Of several engines that transcribed one conversation, SQLite names that of
        // the first window and MongoDB the one that was done first.
        RowKind::Conversations => {
            let transcripts = row.get_mut("transcripts").and_then(Value::as_array_mut);
            for transcript in transcripts.into_iter().flatten() {
                transcript.as_object_mut().map(|transcript| transcript.remove("engine"));
            }
        }
        _ => {}
    }
    row
}

/// In which field two rows differ; what it holds may be private.
fn difference(old: Option<&Row>, new: Option<&Row>) -> String {
    match (old, new) {
        (Some(old), Some(new)) => {
            let differs = |name: &&String| old.get(*name) != new.get(*name);
            let names: Vec<&str> =
                old.keys().chain(new.keys()).filter(differs).map(String::as_str).collect();
            format!("another {}", names.first().unwrap_or(&"row"))
        }
        (Some(_), None) => "it is missing".to_owned(),
        _ => "it was not there before".to_owned(),
    }
}

/// The field of a row, which is to be a string.
pub(super) fn text<'a>(row: &'a Row, name: &str) -> Result<&'a str> {
    row.get(name).and_then(Value::as_str).ok_or_else(|| lacks(name))
}

/// What is said of a row without a field that it is to have.
pub(super) fn lacks(name: &str) -> Error {
    Error::new(Kind::Storage, format!("a row lacks its {name}, or it is of another kind"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(value: Value) -> Row {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn the_row_and_the_field_that_differ_are_named() {
        let (a, b) = (row(json!({ "_id": "a", "n": 1 })), row(json!({ "_id": "a", "n": 2 })));
        let of = RowKind::Users;
        compare(of, std::slice::from_ref(&a), std::slice::from_ref(&a)).unwrap();
        let said = |old: &[Row], new: &[Row]| compare(of, old, new).unwrap_err().to_string();
        let differs = said(std::slice::from_ref(&a), std::slice::from_ref(&b));
        assert!(differs.contains(r#""a" has not come over as it was: another n"#), "{differs}");
        assert!(said(std::slice::from_ref(&a), &[]).contains("missing"));
        assert!(said(&[], &[b]).contains("not there before"));
    }

    #[test]
    fn what_a_store_numbers_by_itself_is_not_compared() {
        let (a, b) = (row(json!({ "_id": 1, "at": 5 })), row(json!({ "_id": 9, "at": 5 })));
        compare(RowKind::Audit, std::slice::from_ref(&a), std::slice::from_ref(&b)).unwrap();
        compare(RowKind::Users, &[a], &[b]).unwrap_err();
    }
}
