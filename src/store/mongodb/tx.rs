//! Steps in the database: of one transaction, or each for itself.

use std::marker::PhantomData;
use std::time::Duration;

use futures_util::future::BoxFuture;
use mongodb::bson::{Bson, Document, doc};
use mongodb::options::ReturnDocument;
use mongodb::{ClientSession, Collection, Database};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::{is_unknown, silence};
use super::schema::COUNTERS;
use crate::base::error::{Error, Kind, Result};

/// What one step may take.
const STEP: Duration = Duration::from_secs(10);
/// How often a commit is asked for whose outcome is not known.
const COMMITS: u32 = 3;
/// Documents that come from the server at once where many are looked at.
const BATCH: u32 = 256;

/// A collection, what its documents are read as, and which of their fields are
/// not read.
pub(super) struct Of<T> {
    pub(super) name: &'static str,
    without: &'static [&'static str],
    of: PhantomData<fn() -> T>,
}

impl<T> Clone for Of<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Of<T> {}

impl<T> Of<T> {
    /// The collection `name`.
    pub(super) const fn new(name: &'static str) -> Self {
        Self { name, without: &[], of: PhantomData }
    }

    /// The same without those fields.
    pub(super) const fn without(self, without: &'static [&'static str]) -> Self {
        Self { without, ..self }
    }

    fn projection(self) -> Option<Document> {
        let left_out = |name: &&str| ((*name).to_owned(), Bson::Int32(0));
        (!self.without.is_empty()).then(|| self.without.iter().map(left_out).collect())
    }
}

/// A transaction; without a session, steps that each stand for themselves. What
/// is read in a transaction is as of its beginning, and a document that somebody
/// else has changed since cannot be written: then all of it is done anew.
pub(super) struct Tx {
    database: Database,
    session: Option<ClientSession>,
}

/// Waits for a step, for so long as one may take. (Boxed, since the driver's own
/// futures hide from the compiler that they are `Send` for every lifetime.)
pub(super) fn step<'a, T, W>(work: W) -> BoxFuture<'a, Result<T>>
where
    T: 'a,
    W: IntoFuture<Output = mongodb::error::Result<T>>,
    W::IntoFuture: Send + 'a,
{
    let limited = tokio::time::timeout(STEP, work.into_future());
    Box::pin(async move {
        match limited.await {
            Ok(done) => Ok(done?),
            Err(_) => Err(silence()),
        }
    })
}

/// In the session, where there is one.
macro_rules! sent {
    ($tx:ident, $action:expr) => {{
        let action = $action;
        match &mut $tx.session {
            Some(session) => step(action.session(session)).await,
            None => step(action).await,
        }
    }};
}

/// Does something with each document that comes.
macro_rules! gather {
    ($tx:ident, $action:expr, |$one:ident| $work:expr) => {
        match &mut $tx.session {
            Some(session) => {
                let mut cursor = step($action.session(&mut *session)).await?;
                while step(cursor.advance(session)).await? {
                    let $one = cursor.deserialize_current()?;
                    $work;
                }
            }
            None => {
                let mut cursor = step($action).await?;
                while step(cursor.advance()).await? {
                    let $one = cursor.deserialize_current()?;
                    $work;
                }
            }
        }
    };
}

impl Tx {
    pub(super) fn new(database: Database, session: Option<ClientSession>) -> Self {
        Self { database, session }
    }

    fn collection<T: Send + Sync>(&self, of: Of<T>) -> Collection<T> {
        self.database.collection(of.name)
    }

    /// A document that `filter` names.
    pub(super) async fn first<T>(&mut self, of: Of<T>, filter: Document) -> Result<Option<T>>
    where
        T: DeserializeOwned + Send + Sync,
    {
        self.first_by(of, filter, doc! {}).await
    }

    /// Of the documents that `filter` names, the first in that order.
    pub(super) async fn first_by<T>(
        &mut self,
        of: Of<T>,
        filter: Document,
        order: Document,
    ) -> Result<Option<T>>
    where
        T: DeserializeOwned + Send + Sync,
    {
        let collection = self.collection(of);
        let find = collection.find_one(filter).sort(order);
        match of.projection() {
            Some(fields) => sent!(self, find.projection(fields)),
            None => sent!(self, find),
        }
    }

    /// The documents that `filter` names, in that order.
    pub(super) async fn all<T>(
        &mut self,
        of: Of<T>,
        filter: Document,
        order: Document,
    ) -> Result<Vec<T>>
    where
        T: DeserializeOwned + Send + Sync,
    {
        self.page(of, filter, order, 0, usize::MAX).await
    }

    /// As [`Tx::all`], at most `limit` after the first `offset`.
    pub(super) async fn page<T>(
        &mut self,
        of: Of<T>,
        filter: Document,
        order: Document,
        offset: usize,
        limit: usize,
    ) -> Result<Vec<T>>
    where
        T: DeserializeOwned + Send + Sync,
    {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let collection = self.collection(of);
        let limit = i64::try_from(limit).unwrap_or(0);
        let mut find = collection.find(filter).sort(order).limit(limit).skip(offset as u64);
        if let Some(fields) = of.projection() {
            find = find.projection(fields);
        }
        let mut found = Vec::new();
        gather!(self, find, |one| found.push(one));
        Ok(found)
    }

    /// Gives each document that `filter` names to `look`, as it comes from the
    /// server.
    pub(super) async fn each<T>(
        &mut self,
        of: Of<T>,
        filter: Document,
        mut look: impl FnMut(T),
    ) -> Result<()>
    where
        T: DeserializeOwned + Send + Sync,
    {
        let collection = self.collection(of);
        let mut find = collection.find(filter).batch_size(BATCH);
        if let Some(fields) = of.projection() {
            find = find.projection(fields);
        }
        gather!(self, find, |one| look(one));
        Ok(())
    }

    /// What `pipeline` makes of a collection.
    pub(super) async fn aggregate<T, R>(
        &mut self,
        of: Of<T>,
        pipeline: Vec<Document>,
    ) -> Result<Vec<R>>
    where
        T: Send + Sync,
        R: DeserializeOwned + Send + Sync,
    {
        let collection = self.collection(of);
        let aggregate = collection.aggregate(pipeline).with_type::<R>();
        let mut made = Vec::new();
        gather!(self, aggregate, |one| made.push(one));
        Ok(made)
    }

    /// How many documents `filter` names.
    pub(super) async fn count<T: Send + Sync>(
        &mut self,
        of: Of<T>,
        filter: Document,
    ) -> Result<u64> {
        let collection = self.collection(of);
        sent!(self, collection.count_documents(filter))
    }

    /// Whether `filter` names a document.
    pub(super) async fn has<T: Send + Sync>(
        &mut self,
        of: Of<T>,
        filter: Document,
    ) -> Result<bool> {
        let collection: Collection<Document> = self.database.collection(of.name);
        let only_id = doc! { "_id": 1 };
        Ok(sent!(self, collection.find_one(filter).projection(only_id))?.is_some())
    }

    /// Adds documents. `Conflict` when one of them does not fit those that are
    /// there.
    pub(super) async fn insert<T>(&mut self, of: Of<T>, documents: &[T]) -> Result<()>
    where
        T: Serialize + Send + Sync,
    {
        if documents.is_empty() {
            return Ok(());
        }
        let collection = self.collection(of);
        sent!(self, collection.insert_many(documents)).map(drop)
    }

    /// Puts a document in the place of the one of that id, or adds it.
    pub(super) async fn put<T>(
        &mut self,
        of: Of<T>,
        id: impl Into<Bson>,
        document: &T,
    ) -> Result<()>
    where
        T: Serialize + Send + Sync,
    {
        let collection = self.collection(of);
        let filter = doc! { "_id": id.into() };
        sent!(self, collection.replace_one(filter, document).upsert(true)).map(drop)
    }

    /// Changes the documents that `filter` names; how many those are.
    pub(super) async fn change<T: Send + Sync>(
        &mut self,
        of: Of<T>,
        filter: Document,
        update: impl Into<mongodb::options::UpdateModifications>,
    ) -> Result<u64> {
        let collection = self.collection(of);
        Ok(sent!(self, collection.update_many(filter, update))?.matched_count)
    }

    /// As [`Tx::change`], in elements of lists: those that `elements` names.
    pub(super) async fn change_elements<T: Send + Sync>(
        &mut self,
        of: Of<T>,
        filter: Document,
        update: Document,
        elements: Document,
    ) -> Result<u64> {
        let collection = self.collection(of);
        let update = collection.update_many(filter, update).array_filters([elements]);
        Ok(sent!(self, update)?.matched_count)
    }

    /// Changes many documents, each by an update of its own.
    pub(super) async fn change_each<T>(
        &mut self,
        of: Of<T>,
        updates: Vec<(Document, Document)>,
    ) -> Result<()> {
        let updates = updates.into_iter().map(|(filter, update)| doc! { "q": filter, "u": update });
        let updates: Vec<Document> = updates.collect();
        for some in updates.chunks(500) {
            let command = doc! { "update": of.name, "updates": some.to_vec() };
            let database = self.database.clone();
            let answer: Document = sent!(self, database.run_command(command))?;
            if answer.contains_key("writeErrors") {
                return Err(Error::new(Kind::Internal, "MongoDB refused a step"));
            }
        }
        Ok(())
    }

    /// Changes the first document that `filter` names in that order, and returns
    /// it as it is then.
    pub(super) async fn take<T>(
        &mut self,
        of: Of<T>,
        filter: Document,
        update: impl Into<mongodb::options::UpdateModifications>,
        order: Document,
    ) -> Result<Option<T>>
    where
        T: DeserializeOwned + Send + Sync,
    {
        let collection = self.collection(of);
        let take = collection
            .find_one_and_update(filter, update)
            .sort(order)
            .return_document(ReturnDocument::After);
        match of.projection() {
            Some(fields) => sent!(self, take.projection(fields)),
            None => sent!(self, take),
        }
    }

    /// As [`Tx::take`] of the document of one id, which is added where it is
    /// missing.
    pub(super) async fn upsert<T>(
        &mut self,
        of: Of<T>,
        filter: Document,
        update: impl Into<mongodb::options::UpdateModifications>,
    ) -> Result<Option<T>>
    where
        T: DeserializeOwned + Send + Sync,
    {
        let collection = self.collection(of);
        let take = collection
            .find_one_and_update(filter, update)
            .upsert(true)
            .return_document(ReturnDocument::After);
        sent!(self, take)
    }

    /// Removes the documents that `filter` names; how many those are.
    pub(super) async fn remove<T: Send + Sync>(
        &mut self,
        of: Of<T>,
        filter: Document,
    ) -> Result<u64> {
        let collection = self.collection(of);
        Ok(sent!(self, collection.delete_many(filter))?.deleted_count)
    }

    /// A number that is higher than all before it. Taken outside the transaction,
    /// which others would have to wait for: one that is not carried out leaves a
    /// gap.
    pub(super) async fn number(&self, counter: &str) -> Result<i64> {
        let collection = self.collection(COUNTERS);
        let next = collection
            .find_one_and_update(doc! { "_id": counter }, doc! { "$inc": { "number": 1_i64 } })
            .return_document(ReturnDocument::After);
        let next = step(next).await?;
        next.map(|next| next.number)
            .ok_or_else(|| Error::new(Kind::Storage, format!("the counter {counter} is missing")))
    }

    /// Makes the transaction lasting.
    pub(super) async fn commit(mut self) -> Result<()> {
        let Some(session) = &mut self.session else { return Ok(()) };
        let mut outcome = step(session.commit_transaction()).await;
        for _ in 1..COMMITS {
            match &outcome {
                Err(error) if is_unknown(error) => {
                    outcome = step(session.commit_transaction()).await;
                }
                _ => break,
            }
        }
        outcome
    }

    /// Leaves nothing of the transaction.
    pub(super) async fn abort(mut self) {
        if let Some(session) = &mut self.session
            && let Err(error) = step(session.abort_transaction()).await
        {
            // The server drops it by itself, after a minute at most.
            tracing::debug!("a transaction could not be taken back: {}", error.report());
        }
    }
}
