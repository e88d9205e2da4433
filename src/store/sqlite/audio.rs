//! What has become of the audio, and its archiving.

use async_trait::async_trait;
use rusqlite::params;

use super::deletions::{self, TRANSCRIBED};
use super::queue::{complete, enqueue};
use super::{SqliteStore, conversations, rows};
use crate::base::clock::Timestamp;
use crate::base::error::Result;
use crate::domain::coverage::{Coverage, DayCoverage};
use crate::domain::ids::{ConversationId, UserId};
use crate::domain::job::{JobKind, Lane, Lease, NewJob, Payload};
use crate::domain::object::Object;
use crate::store::Audio;

#[async_trait]
impl Audio for SqliteStore {
    async fn coverage(
        &self,
        user: Option<&UserId>,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<DayCoverage>> {
        let user = user.cloned();
        self.read(move |db| {
            // A window's row can be newer than the count of samples, for a moment.
            let sums = "select user_id, date(started_at / 1000, 'unixepoch') as day,
                    sum(max(samples, transcribed + waiting + failed)) as accepted,
                    sum(iif(audio_deleted_at is null,
                            max(samples, transcribed + waiting + failed), 0)) as on_disk,
                    sum(transcribed) as transcribed, sum(waiting) as waiting,
                    sum(failed) as failed
                from conversations where started_at >= ?1 and started_at < ?2";
            let range = (from.millis(), to.millis());
            match user {
                Some(user) => rows::all(
                    db,
                    &format!("{sums} and user_id = ?3 group by user_id, day order by day"),
                    params![range.0, range.1, user.as_str()],
                    day,
                ),
                None => rows::all(
                    db,
                    &format!("{sums} group by user_id, day order by day, user_id"),
                    params![range.0, range.1],
                    day,
                ),
            }
        })
        .await
    }

    async fn queue_archives(&self, at: Timestamp) -> Result<usize> {
        self.write(move |tx| {
            let sql = format!(
                "select id from conversations
                 where substr(audio_path, -4) = '.wav' and samples > 0 and {TRANSCRIBED}
                   and not exists (select 1 from jobs j
                                   where j.conversation_id = conversations.id
                                     and j.kind = 'archive' and j.state <> 'done')
                 order by started_at"
            );
            let ids = rows::all(tx, &sql, [], |row| {
                Ok(ConversationId::from_text(row.get::<_, String>("id")?))
            })?;
            for id in &ids {
                let payload = Payload::Conversation(id.clone());
                enqueue(tx, &NewJob { kind: JobKind::Archive, payload, lane: Lane::Backlog }, at)?;
            }
            Ok(ids.len())
        })
        .await
    }

    async fn complete_archive(
        &self,
        lease: Lease,
        id: &ConversationId,
        name: &str,
        at: Timestamp,
    ) -> Result<Option<String>> {
        let (id, name) = (id.clone(), name.to_owned());
        self.write(move |tx| {
            complete(tx, lease, JobKind::Archive, Payload::Conversation(id.clone()), at)?;
            let before = conversations::one(tx, &id)?.map(|found| found.audio_path);
            if before.as_deref() == Some(name.as_str()) {
                return Ok(None);
            }
            // Not while something reads it under its old name.
            let sql =
                format!("update conversations set audio_path = ?2 where id = ?1 and {TRANSCRIBED}");
            let swapped = rows::run(tx, &sql, params![id.as_str(), name])? > 0;
            let goes = if swapped { before.unwrap_or_default() } else { name };
            deletions::note(tx, &goes, at)?;
            Ok(Some(goes))
        })
        .await
    }

    async fn unstored_recordings(&self, wav_before: Timestamp) -> Result<Vec<String>> {
        self.read(move |db| {
            let sql = "with files as (
                    select audio_path as name, started_at from conversations
                    where ended_at is not null and audio_deleted_at is null and samples > 0
                      and (substr(audio_path, -4) <> '.wav' or ended_at < ?1)
                    union all
                    select x.audio_path, c.started_at
                    from crops x join conversations c on c.id = x.conversation_id
                    where x.audio_path is not null)
                select name from files
                where name not in (select name from objects where verified_at is not null)
                order by started_at, name";
            rows::all(db, sql, [wav_before.millis()], |row| row.get(0))
        })
        .await
    }

    async fn begin_object(&self, name: &str) -> Result<()> {
        let name = name.to_owned();
        self.write(move |tx| {
            let sql = "insert into objects (name) values (?1)
                       on conflict do update set verified_at = null";
            rows::run(tx, sql, [name])?;
            Ok(())
        })
        .await
    }

    async fn complete_object(&self, object: &Object, at: Timestamp) -> Result<bool> {
        let object = object.clone();
        self.write(move |tx| {
            let Object { name, bytes, sha256, verified_at } = &object;
            let verified_at = verified_at.map(Timestamp::millis);
            let sql = "insert or replace into objects (name, bytes, sha256, verified_at)
                       values (?1, ?2, ?3, ?4)";
            rows::run(tx, sql, params![name, rows::signed(*bytes), sha256, verified_at])?;
            let sql = "select 1 from conversations
                       where audio_path = ?1 and audio_deleted_at is null
                       union all select 1 from crops where audio_path = ?1";
            let used = rows::first(tx, sql, [name], |_| Ok(()))?.is_some();
            if !used {
                deletions::note(tx, name, at)?;
            }
            Ok(used)
        })
        .await
    }

    async fn objects(&self, names: &[String]) -> Result<Vec<Object>> {
        let names = rows::to_json(names)?;
        self.read(move |db| {
            let sql = "select * from objects where name in (select value from json_each(?1))
                       order by name";
            rows::all(db, sql, [names], rows::object)
        })
        .await
    }

    async fn forget_objects(&self, names: &[String]) -> Result<()> {
        let names = rows::to_json(names)?;
        self.write(move |tx| {
            let sql = "delete from objects where name in (select value from json_each(?1))";
            rows::run(tx, sql, [names])?;
            Ok(())
        })
        .await
    }
}

fn day(row: &rusqlite::Row<'_>) -> rusqlite::Result<DayCoverage> {
    let samples =
        |column: &str| row.get::<_, i64>(column).map(|count| u64::try_from(count).unwrap_or(0));
    Ok(DayCoverage {
        user_id: UserId::from_text(row.get::<_, String>("user_id")?),
        day: row.get("day")?,
        coverage: Coverage {
            accepted: samples("accepted")?,
            on_disk: samples("on_disk")?,
            transcribed: samples("transcribed")?,
            waiting: samples("waiting")?,
            failed: samples("failed")?,
        },
    })
}
