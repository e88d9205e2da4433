//! The job table, as people look at it.

use rusqlite::{Connection, Row, named_params};

use super::{rows, sql_limit};
use crate::base::error::Result;
use crate::domain::ids::{ClientId, ConversationId, JobId, UserId};
use crate::domain::job::{JobKind, JobState};
use crate::store::{JobCensus, JobEntry, JobQuery};

/// Jobs with what they work on. Of a window, that is its conversation.
const FROM: &str = "from jobs j
    left join windows w on w.id = j.window_id
    left join conversations c on c.id = coalesce(j.conversation_id, w.conversation_id)";

const WANTED: &str = "where (:user is null or c.user_id = :user)
    and (:kind is null or j.kind = :kind)
    and (:state is null or j.state = :state)
    and (:session is null or c.id = :session or c.client_id = :session)";

const SHOWN: &str = "select j.*, c.user_id as subject_user, c.id as subject_conversation,
    c.client_id as subject_client";

/// The page that `query` asks for, newest first, and how many there are in all.
pub(super) fn page(db: &Connection, query: &JobQuery) -> Result<(Vec<JobEntry>, u64)> {
    let user = query.user.as_ref().map(UserId::as_str);
    let kind = query.kind.map(JobKind::as_str);
    let state = query.state.map(JobState::as_str);
    let session = query.session.as_deref();
    let count = format!("select count(*) {FROM} {WANTED}");
    let wanted =
        named_params! { ":user": user, ":kind": kind, ":state": state, ":session": session };
    let total = rows::first(db, &count, wanted, |row| row.get::<_, u32>(0))?.unwrap_or(0);
    let select = format!("{SHOWN} {FROM} {WANTED} order by j.id desc limit :limit offset :offset");
    let wanted = named_params! {
        ":user": user, ":kind": kind, ":state": state, ":session": session,
        ":limit": sql_limit(query.limit), ":offset": sql_limit(query.offset),
    };
    Ok((rows::all(db, &select, wanted, entry)?, total.into()))
}

/// One job.
pub(super) fn one(db: &Connection, id: JobId) -> Result<Option<JobEntry>> {
    rows::first(db, &format!("{SHOWN} {FROM} where j.id = ?1"), [id], entry)
}

/// How many jobs there are of each kind in each state.
pub(super) fn census(db: &Connection, user: Option<&UserId>) -> Result<Vec<JobCensus>> {
    let sql = format!(
        "select j.kind, j.state, count(*) as jobs {FROM}
         where ?1 is null or c.user_id = ?1 group by j.kind, j.state order by j.kind, j.state"
    );
    rows::all(db, &sql, [user.map(UserId::as_str)], rows::census)
}

fn entry(row: &Row<'_>) -> rusqlite::Result<JobEntry> {
    Ok(JobEntry {
        job: rows::job(row)?,
        user_id: row.get::<_, Option<String>>("subject_user")?.map(UserId::from_text),
        conversation_id: row
            .get::<_, Option<String>>("subject_conversation")?
            .map(ConversationId::from_text),
        client_id: row.get::<_, Option<String>>("subject_client")?.map(ClientId::from_text),
        waits_for: None,
    })
}
