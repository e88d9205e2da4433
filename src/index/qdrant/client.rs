//! Qdrant's gRPC interface, as far as an index of memories needs it.
//!
//! The messages are those of Qdrant's own crate; the connection is made here, for
//! the limits, the authorities and the error classes that every service outside
//! has.

use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use qdrant_client::Payload;
use qdrant_client::qdrant::collections_client::CollectionsClient;
use qdrant_client::qdrant::point_id::PointIdOptions;
use qdrant_client::qdrant::points_client::PointsClient;
use qdrant_client::qdrant::qdrant_client::QdrantClient;
use qdrant_client::qdrant::vectors_config::Config as VectorsConfig;
use qdrant_client::qdrant::{
    Condition, CountPointsBuilder, CreateCollectionBuilder, CreateFieldIndexCollectionBuilder,
    DeleteCollectionBuilder, DeletePointsBuilder, Distance, FieldType, Filter,
    GetCollectionInfoRequest, HealthCheckRequest, KeywordIndexParamsBuilder, PointId, PointStruct,
    QueryPointsBuilder, RetrievedPoint, ScrollPointsBuilder, SetPayloadPointsBuilder,
    UpsertPointsBuilder, Value, VectorParams, VectorParamsBuilder,
};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Response, Status};

use super::found;
use crate::base::error::{Context, Error, Kind, Result};
use crate::config;
use crate::domain::ids::{MemoryId, UserId};
use crate::domain::past::{PastMemory, Unreadable};
use crate::remote::Fault;
use crate::remote::authorities::{Authorities, distrust, is_distrust};

/// The largest answer: a page of points with wide vectors.
const MAX_ANSWER: usize = 32 << 20;
/// Points that are read at once where all are.
const READ_AT_ONCE: u32 = 256;
/// Whose memory a point is, in mem0's payload and in ours.
pub(super) const USER: &str = "user_id";
/// Which store has put a point there.
pub(super) const STORE: &str = "store";

/// One collection of a server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
    url: String,
    key: Option<MetadataValue<Ascii>>,
    collection: String,
    deadline: Duration,
}

/// A page of points, and where the next one begins.
pub(super) type Page = (Vec<RetrievedPoint>, Option<PointId>);

impl Client {
    /// The collection that `config` names. It is connected to when it is first
    /// asked for something.
    ///
    /// # Errors
    /// `Config` when the address, the key or the certificates cannot be used.
    pub fn new(config: &config::Qdrant, remote: &config::Remote) -> Result<Self> {
        crate::base::tls::install();
        let url = config.address();
        let bad = |what: &str| Error::new(Kind::Config, format!("qdrant.{what} cannot be used"));
        let mut endpoint = Endpoint::from_shared(url.clone())
            .map_err(|error| bad("url").with_source(error))?
            .connect_timeout(remote.connect_timeout.get());
        if url.starts_with("https:") {
            let mut tls = ClientTlsConfig::new().with_native_roots();
            if let Some(authorities) = Authorities::read(remote)? {
                tls = tls.ca_certificate(Certificate::from_pem(authorities.pem));
            }
            endpoint = endpoint.tls_config(tls).context(Kind::Config, "cannot set up TLS")?;
        }
        let key = match config.api_key.expose() {
            "" => None,
            key => {
                let mut key = MetadataValue::try_from(key).map_err(|_| bad("api_key"))?;
                key.set_sensitive(true);
                Some(key)
            }
        };
        Ok(Self {
            channel: endpoint.connect_lazy(),
            url,
            key,
            collection: config.collection.clone(),
            deadline: config.deadline.get(),
        })
    }

    /// Server and collection.
    pub(super) fn place(&self) -> String {
        format!("{}/{}", self.url, self.collection)
    }

    pub(super) fn collection(&self) -> &str {
        &self.collection
    }

    /// Asks the server how it is, and what it says.
    ///
    /// # Errors
    /// A [`Fault`] with a message for people, as with all of these.
    pub async fn check(&self) -> Result<String, Fault> {
        let mut server = QdrantClient::new(self.channel.clone());
        let answer = self.ask(HealthCheckRequest {}, |request| server.health_check(request));
        let version = answer.await?.version;
        Ok(match self.vectors().await? {
            Some(_) => format!("version {version} answers, and has the collection"),
            None => format!("version {version} answers; the collection is still to be made"),
        })
    }

    /// The vectors that the collection is for; nothing when it is not there.
    pub(super) async fn vectors(&self) -> Result<Option<Option<VectorParams>>, Fault> {
        let message = GetCollectionInfoRequest { collection_name: self.collection.clone() };
        let mut server = self.collections();
        let info = match self.ask(message, |request| server.get(request)).await {
            Err(Fault::Refused(error)) if error.kind() == Kind::NotFound => return Ok(None),
            answer => answer?.result,
        };
        let config = info.and_then(|info| info.config?.params?.vectors_config?.config);
        Ok(Some(match config {
            Some(VectorsConfig::Params(params)) => Some(params),
            // Several to a point, by name.
            _ => None,
        }))
    }

    /// Makes the collection, for vectors `width` wide that are compared by cosine.
    pub(super) async fn create(&self, width: usize) -> Result<(), Fault> {
        let vectors = VectorParamsBuilder::new(width as u64, Distance::Cosine);
        let message = CreateCollectionBuilder::new(&self.collection).vectors_config(vectors);
        let mut server = self.collections();
        self.ask(message.build(), |request| server.create(request)).await.map(drop)
    }

    /// Has the points of one user found without a look at those of others.
    pub(super) async fn index_users(&self) -> Result<(), Fault> {
        let tenant = KeywordIndexParamsBuilder::default().is_tenant(true);
        let message =
            CreateFieldIndexCollectionBuilder::new(&self.collection, USER, FieldType::Keyword)
                .field_index_params(tenant.build())
                .wait(true);
        let mut server = self.points();
        self.ask(message.build(), |request| server.create_field_index(request)).await.map(drop)
    }

    /// Takes the collection away with all that is in it.
    pub(super) async fn remove(&self) -> Result<(), Fault> {
        let message = DeleteCollectionBuilder::new(&self.collection).build();
        let mut server = self.collections();
        self.ask(message, |request| server.delete(request)).await.map(drop)
    }

    /// Puts points in, in place of those of the same ids.
    pub(super) async fn put(&self, points: Vec<PointStruct>) -> Result<(), Fault> {
        let message = UpsertPointsBuilder::new(&self.collection, points).wait(true).build();
        let mut server = self.points();
        self.ask(message, |request| server.upsert(request)).await.map(drop)
    }

    /// Takes points out; those that are not there do no harm.
    pub(super) async fn delete(&self, ids: Vec<PointId>) -> Result<(), Fault> {
        let message = DeletePointsBuilder::new(&self.collection).points(ids).wait(true).build();
        let mut server = self.points();
        self.ask(message, |request| server.delete(request)).await.map(drop)
    }

    /// Notes that points are of the store `store` and memories of `user`, and
    /// leaves all else in them.
    pub(super) async fn mark(
        &self,
        ids: Vec<PointId>,
        store: &str,
        user: &UserId,
    ) -> Result<(), Fault> {
        let payload: [(&str, Value); 2] =
            [(STORE, store.to_owned().into()), (USER, user.to_string().into())];
        let message = SetPayloadPointsBuilder::new(&self.collection, Payload::from(payload))
            .points_selector(ids)
            .wait(true)
            .build();
        let mut server = self.points();
        self.ask(message, |request| server.set_payload(request)).await.map(drop)
    }

    /// The `k` memories of `user` nearest to `vector` with their cosine.
    pub(super) async fn nearest(
        &self,
        user: &UserId,
        vector: Vec<f32>,
        k: usize,
    ) -> Result<Vec<(MemoryId, f32)>, Fault> {
        let message = QueryPointsBuilder::new(&self.collection)
            .query(vector)
            .filter(Filter::must([Condition::matches(USER, user.to_string())]))
            .limit(k as u64)
            .with_payload(false)
            .build();
        let mut server = self.points();
        let found = self.ask(message, |request| server.query(request)).await?.result;
        Ok(found.into_iter().filter_map(|point| Some((memory(point.id?)?, point.score))).collect())
    }

    /// Points of the store `store`, or those that no store has put there, from the
    /// one at `from` on: with all that is in them when `whole`.
    pub(super) async fn page(
        &self,
        store: Option<&str>,
        from: Option<PointId>,
        limit: u32,
        whole: bool,
    ) -> Result<Page, Fault> {
        let mut message = ScrollPointsBuilder::new(&self.collection)
            .filter(of_store(store))
            .limit(limit)
            .with_payload(whole)
            .with_vectors(whole);
        if let Some(from) = from {
            message = message.offset(from);
        }
        let mut server = self.points();
        let found = self.ask(message.build(), |request| server.scroll(request)).await?;
        Ok((found.result, found.next_page_offset))
    }

    /// What the points say of memories, whoever has put them there, as the pages
    /// come.
    pub fn memories(&self) -> BoxStream<'static, Result<Result<PastMemory, Unreadable>>> {
        let pages = stream::try_unfold(
            (self.clone(), Some(None)),
            |(client, from): (Self, Option<Option<PointId>>)| async move {
                let Some(from) = from else { return Ok::<_, Error>(None) };
                let (points, next) = client.any_page(from).await.map_err(Fault::into_error)?;
                let found = points.into_iter().map(|point| Ok::<_, Error>(found::past(point)));
                Ok(Some((stream::iter(found), (client, next.map(Some)))))
            },
        );
        pages.try_flatten().boxed()
    }

    /// Points without their vectors, from the one at `from` on.
    async fn any_page(&self, from: Option<PointId>) -> Result<Page, Fault> {
        let mut message = ScrollPointsBuilder::new(&self.collection)
            .limit(READ_AT_ONCE)
            .with_payload(true)
            .with_vectors(false);
        if let Some(from) = from {
            message = message.offset(from);
        }
        let mut server = self.points();
        let found = self.ask(message.build(), |request| server.scroll(request)).await?;
        Ok((found.result, found.next_page_offset))
    }

    /// How many points there are that are not of the store `store`.
    pub(super) async fn strangers(&self, store: &str) -> Result<u64, Fault> {
        let others = Filter::must_not([Condition::matches(STORE, store.to_owned())]);
        let message = CountPointsBuilder::new(&self.collection).filter(others).exact(true).build();
        let mut server = self.points();
        let counted = self.ask(message, |request| server.count(request)).await?.result;
        Ok(counted.map_or(0, |counted| counted.count))
    }

    fn collections(&self) -> CollectionsClient<Channel> {
        CollectionsClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    fn points(&self) -> PointsClient<Channel> {
        PointsClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    /// Sends a message, with the key.
    async fn ask<M, A, F>(&self, message: M, send: impl FnOnce(Request<M>) -> F) -> Result<A, Fault>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let mut request = Request::new(message);
        if let Some(key) = &self.key {
            request.metadata_mut().insert("api-key", key.clone());
        }
        match tokio::time::timeout(self.deadline, send(request)).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(fault(&status)),
            Err(_) => {
                let error = Error::new(Kind::Timeout, "qdrant does not answer in time");
                Err(Fault::Passing(error, None))
            }
        }
    }
}

fn of_store(store: Option<&str>) -> Filter {
    match store {
        Some(store) => Filter::must([Condition::matches(STORE, store.to_owned())]),
        None => Filter::must([Condition::is_empty(STORE)]),
    }
}

/// The memory that a point stands for: mem0 and this program give both one id.
pub(super) fn memory(id: PointId) -> Option<MemoryId> {
    match id.point_id_options? {
        PointIdOptions::Uuid(id) => Some(MemoryId::from_text(id)),
        PointIdOptions::Num(_) => None,
    }
}

/// The id of a point as a text.
pub(super) fn name(id: &PointId) -> String {
    match &id.point_id_options {
        Some(PointIdOptions::Uuid(id)) => id.clone(),
        Some(PointIdOptions::Num(id)) => id.to_string(),
        None => String::new(),
    }
}

fn fault(status: &Status) -> Fault {
    if is_distrust(status) {
        let error = Error::new(Kind::Unavailable, distrust("qdrant"));
        return Fault::Lasting(error.with_source(status.clone()));
    }
    let said = format!("{:?}: {}", status.code(), status.message());
    let error = |kind, message: &str| Error::new(kind, message).with_source(said.clone());
    match status.code() {
        // Its own words are left out: they may have pieces of the key in them.
        Code::Unauthenticated | Code::PermissionDenied => Fault::Lasting(Error::new(
            Kind::Unavailable,
            "qdrant refuses the key; correct qdrant.api_key",
        )),
        Code::Unimplemented => {
            Fault::Lasting(error(Kind::Unavailable, "qdrant lacks what is needed: update it"))
        }
        Code::NotFound => Fault::Refused(error(Kind::NotFound, "qdrant has no such collection")),
        Code::AlreadyExists => {
            Fault::Refused(error(Kind::Conflict, "qdrant has such a collection already"))
        }
        Code::InvalidArgument | Code::FailedPrecondition => {
            Fault::Refused(error(Kind::BadInput, "qdrant refuses it"))
        }
        Code::DeadlineExceeded => {
            Fault::Passing(error(Kind::Timeout, "qdrant does not answer in time"), None)
        }
        Code::Unavailable => {
            Fault::Passing(error(Kind::Unavailable, "qdrant cannot be reached"), None)
        }
        _ => Fault::Passing(error(Kind::Unavailable, "qdrant fails"), None),
    }
}
