//! How rows of each kind are read and added.

use crate::store::transfer::RowKind;

/// The statements for one kind of rows.
pub(super) struct Statements {
    /// Where they are; each row of it makes one.
    pub(super) table: &'static str,
    /// Reads rows after the `_id` of `?1`, or the first, at most `?2`, as JSON.
    pub(super) read: &'static str,
    /// Add the rows in the JSON list `?1`, one after the other.
    pub(super) add: &'static [&'static str],
}

pub(super) fn statements(of: RowKind) -> Statements {
    let (table, read, add): (_, _, &[_]) = match of {
        RowKind::Users => ("users", USERS, &[ADD_USERS, ADD_ENDED_TOKENS]),
        RowKind::Devices => ("devices", DEVICES, &[ADD_DEVICES]),
        RowKind::Settings => ("settings where key <> 'known_time'", SETTINGS, &[ADD_SETTINGS]),
        RowKind::Audit => ("audit", AUDIT, &[ADD_AUDIT]),
        RowKind::Conversations => (
            "conversations",
            CONVERSATIONS,
            &[ADD_CONVERSATIONS, ADD_TRANSCRIPTS, ADD_SETS, ADD_CROPS],
        ),
        RowKind::Windows => ("windows", WINDOWS, &[ADD_WINDOWS]),
        RowKind::Jobs => ("jobs", JOBS, &[ADD_JOBS]),
        // Added by code: its width is part of a table.
        RowKind::Embedding => ("embedding_model", EMBEDDING, &[]),
        RowKind::Memories => ("memories", MEMORIES, &[ADD_MEMORIES]),
        RowKind::Shelved => ("shelved_memories", SHELVED, &[ADD_SHELVED]),
        RowKind::History => ("memory_history", HISTORY, &[ADD_HISTORY]),
        RowKind::Followers => ("memory_follower", FOLLOWERS, &[ADD_FOLLOWERS]),
        RowKind::News => ("memory_news", NEWS, &[ADD_NEWS]),
        RowKind::Chats => ("chats", CHATS, &[ADD_CHATS]),
        RowKind::Messages => ("chat_messages", MESSAGES, &[ADD_MESSAGES]),
        RowKind::Uploads => ("upload_jobs", UPLOADS, &[ADD_UPLOAD_JOBS, ADD_UPLOADS]),
        RowKind::Deletions => ("deletions", DELETIONS, &[ADD_DELETIONS]),
        RowKind::Objects => ("objects", OBJECTS, &[ADD_OBJECTS]),
        RowKind::Imported => ("imported", IMPORTED, &[ADD_IMPORTED]),
    };
    Statements { table, read, add }
}

const USERS: &str = "
select json_object(
    '_id', id, 'email', email, 'password_hash', password_hash, 'display_name', display_name,
    'is_active', json(iif(is_active, 'true', 'false')),
    'is_superuser', json(iif(is_superuser, 'true', 'false')),
    'is_verified', json(iif(is_verified, 'true', 'false')),
    'token_epoch', token_epoch, 'created_at', created_at,
    'ended', json((
        select json_group_array(json_object('token', token, 'expires_at', expires_at)
                                order by token)
        from ended_tokens where user_id = u.id))) as row
from users u where id > coalesce(?1, '') order by id limit ?2";

const ADD_USERS: &str = "
insert into users (id, email, password_hash, display_name, is_active, is_superuser, is_verified,
                   token_epoch, created_at)
select value ->> '_id', value ->> 'email', value ->> 'password_hash', value ->> 'display_name',
       value ->> 'is_active', value ->> 'is_superuser', value ->> 'is_verified',
       value ->> 'token_epoch', value ->> 'created_at'
from json_each(?1)";

const ADD_ENDED_TOKENS: &str = "
insert into ended_tokens (token, user_id, expires_at)
select e.value ->> 'token', u.value ->> '_id', e.value ->> 'expires_at'
from json_each(?1) u, json_each(u.value, '$.ended') e";

const DEVICES: &str = "
select json_object('_id', client_id, 'user_id', user_id, 'device_name', device_name,
                   'first_seen', first_seen, 'last_seen', last_seen) as row
from devices where client_id > coalesce(?1, '') order by client_id limit ?2";

const ADD_DEVICES: &str = "
insert into devices (client_id, user_id, device_name, first_seen, last_seen)
select value ->> '_id', value ->> 'user_id', value ->> 'device_name', value ->> 'first_seen',
       value ->> 'last_seen'
from json_each(?1)";

const SETTINGS: &str = "
select json_object('_id', key, 'value', value) as row
from settings where key > coalesce(?1, '') and key <> 'known_time' order by key limit ?2";

const ADD_SETTINGS: &str = "
insert into settings (key, value) select value ->> '_id', value ->> 'value' from json_each(?1)";

const AUDIT: &str = "
select json_object('_id', id, 'at', at, 'actor', actor, 'action', action,
                   'subject', subject) as row
from audit where id > coalesce(?1, -1) order by id limit ?2";

const ADD_AUDIT: &str = "
insert into audit (at, actor, action, subject)
select value ->> 'at', value ->> 'actor', value ->> 'action', value ->> 'subject'
from json_each(?1) order by key";

const CONVERSATIONS: &str = "
select json_object(
    '_id', id, 'user_id', user_id, 'client_id', client_id, 'audio_path', audio_path,
    'started_at', started_at, 'ended_at', ended_at, 'close_reason', close_reason,
    'samples', samples, 'transcription', transcription, 'memory', memory, 'error', error,
    'title', title, 'audio_deleted_at', audio_deleted_at,
    'time_estimated', json(iif(time_estimated, 'true', 'false')),
    'summary', summary, 'speakers', json(speakers),
    'transcripts', json((
        select json_group_array(json_object(
            'version', version, 'active', json(iif(active, 'true', 'false')), 'state', state,
            'engine', (select w.engine from windows w
                       where w.conversation_id = v.conversation_id and w.version = v.version
                         and w.engine is not null order by w.seq limit 1),
            'created_at', created_at, 'completed_at', completed_at) order by version)
        from transcript_versions v where conversation_id = c.id)),
    'sets', json((
        select json_group_array(json_object(
            'version', version, 'active', json(iif(active, 'true', 'false')),
            'transcript_version', transcript_version, 'state', state, 'model', model,
            'prompt_version', prompt_version, 'created_at', created_at,
            'completed_at', completed_at, 'replaced', json(replaced)) order by version)
        from memory_versions where conversation_id = c.id)),
    'crop', json((
        select json_object('audio_path', audio_path, 'spans', json(spans), 'at', at)
        from crops where conversation_id = c.id)),
    'figures', json_object(
        'transcribed', transcribed, 'waiting', waiting, 'failed', failed,
        'unfinished', (select count(*) from windows w
                       where w.conversation_id = c.id and w.state <> 'done'))) as row
from conversations c where id > coalesce(?1, '') order by id limit ?2";

const ADD_CONVERSATIONS: &str = "
insert into conversations (id, user_id, client_id, audio_path, started_at, ended_at, close_reason,
                           samples, transcription, memory, error, title, audio_deleted_at,
                           time_estimated, summary, speakers)
select value ->> '_id', value ->> 'user_id', value ->> 'client_id', value ->> 'audio_path',
       value ->> 'started_at', value ->> 'ended_at', value ->> 'close_reason',
       value ->> 'samples', value ->> 'transcription', value ->> 'memory', value ->> 'error',
       value ->> 'title', value ->> 'audio_deleted_at', value ->> 'time_estimated',
       value ->> 'summary', value -> 'speakers'
from json_each(?1)";

const ADD_TRANSCRIPTS: &str = "
insert into transcript_versions (conversation_id, version, active, state, created_at, completed_at)
select c.value ->> '_id', v.value ->> 'version', v.value ->> 'active', v.value ->> 'state',
       v.value ->> 'created_at', v.value ->> 'completed_at'
from json_each(?1) c, json_each(c.value, '$.transcripts') v";

const ADD_SETS: &str = "
insert into memory_versions (conversation_id, version, active, transcript_version, state, model,
                             prompt_version, created_at, completed_at, replaced)
select c.value ->> '_id', v.value ->> 'version', v.value ->> 'active',
       v.value ->> 'transcript_version', v.value ->> 'state', v.value ->> 'model',
       v.value ->> 'prompt_version', v.value ->> 'created_at', v.value ->> 'completed_at',
       v.value -> 'replaced'
from json_each(?1) c, json_each(c.value, '$.sets') v";

const ADD_CROPS: &str = "
insert into crops (conversation_id, audio_path, spans, at)
select value ->> '_id', value ->> '$.crop.audio_path', value -> '$.crop.spans',
       value ->> '$.crop.at'
from json_each(?1) where value ->> 'crop' is not null";

const WINDOWS: &str = "
select json_object('_id', id, 'conversation_id', conversation_id, 'version', version, 'seq', seq,
                   'spans', json(spans), 'samples', samples, 'state', state,
                   'segments', segments, 'engine', engine) as row
from windows where id > coalesce(?1, -1) order by id limit ?2";

// What is counted of them is noted by triggers.
const ADD_WINDOWS: &str = "
insert into windows (id, conversation_id, version, seq, spans, state, segments, engine)
select value ->> '_id', value ->> 'conversation_id', value ->> 'version', value ->> 'seq',
       value -> 'spans', value ->> 'state', value ->> 'segments', value ->> 'engine'
from json_each(?1)";

const JOBS: &str = "
select json_object(
    '_id', j.id, 'kind', j.kind, 'key', j.unique_key, 'window_id', j.window_id,
    'conversation_id', c.id, 'user_id', c.user_id, 'client_id', c.client_id, 'lane', j.lane,
    'state', iif(j.state = 'leased', 'ready', j.state),
    'live', json(iif(j.state in ('ready', 'leased'), 'true', 'false')),
    'attempts', j.attempts, 'epoch', j.epoch, 'run_at', j.run_at, 'last_error', j.last_error,
    'created_at', j.created_at, 'updated_at', j.updated_at) as row
from jobs j left join windows w on w.id = j.window_id
join conversations c on c.id = coalesce(j.conversation_id, w.conversation_id)
where j.id > coalesce(?1, -1) order by j.id limit ?2";

const ADD_JOBS: &str = "
insert into jobs (id, kind, window_id, conversation_id, unique_key, lane, state, attempts, epoch,
                  run_at, last_error, created_at, updated_at)
select value ->> '_id', value ->> 'kind', value ->> 'window_id',
       iif(value ->> 'window_id' is null, value ->> 'conversation_id', null),
       value ->> 'key', value ->> 'lane', value ->> 'state', value ->> 'attempts',
       value ->> 'epoch', value ->> 'run_at', value ->> 'last_error', value ->> 'created_at',
       value ->> 'updated_at'
from json_each(?1)";

const EMBEDDING: &str = "
select json_object('_id', 'embedding', 'model', model, 'width', width) as row
from embedding_model where ?1 is null limit ?2";

const MEMORIES: &str = "
select json_object('_id', id, 'seq', seq, 'user_id', user_id, 'text', text,
                   'conversation_id', conversation_id, 'version', version,
                   'client_id', client_id, 'prompt_version', prompt_version,
                   'created_at', created_at, 'updated_at', updated_at,
                   'vector', hex(embedding)) as row
from memories where id > coalesce(?1, '') order by id limit ?2";

const ADD_MEMORIES: &str = "
insert into memories (seq, id, user_id, text, conversation_id, version, client_id,
                      prompt_version, created_at, updated_at, embedding)
select value ->> 'seq', value ->> '_id', value ->> 'user_id', value ->> 'text',
       value ->> 'conversation_id', value ->> 'version', value ->> 'client_id',
       value ->> 'prompt_version', value ->> 'created_at', value ->> 'updated_at',
       unhex(value ->> 'vector')
from json_each(?1)";

const SHELVED: &str = "
select json_object(
    '_id', seq, 'by_conversation', by_conversation, 'by_version', by_version,
    'memory', json_object('_id', id, 'user_id', user_id, 'text', text,
                          'conversation_id', conversation_id, 'version', version,
                          'client_id', client_id, 'prompt_version', prompt_version,
                          'created_at', created_at, 'updated_at', updated_at,
                          'vector', hex(embedding))) as row
from shelved_memories where seq > coalesce(?1, -1) order by seq limit ?2";

const ADD_SHELVED: &str = "
insert into shelved_memories (seq, id, user_id, text, conversation_id, version, client_id,
                              prompt_version, created_at, updated_at, embedding, by_conversation,
                              by_version)
select value ->> '_id', value ->> '$.memory._id', value ->> '$.memory.user_id',
       value ->> '$.memory.text', value ->> '$.memory.conversation_id',
       value ->> '$.memory.version', value ->> '$.memory.client_id',
       value ->> '$.memory.prompt_version', value ->> '$.memory.created_at',
       value ->> '$.memory.updated_at', unhex(value ->> '$.memory.vector'),
       value ->> 'by_conversation', value ->> 'by_version'
from json_each(?1)";

const HISTORY: &str = "
select json_object('_id', id, 'memory_id', memory_id, 'user_id', user_id, 'event', event,
                   'old_text', old_text, 'new_text', new_text, 'at', at) as row
from memory_history where id > coalesce(?1, -1) order by id limit ?2";

const ADD_HISTORY: &str = "
insert into memory_history (id, memory_id, user_id, event, old_text, new_text, at)
select value ->> '_id', value ->> 'memory_id', value ->> 'user_id', value ->> 'event',
       value ->> 'old_text', value ->> 'new_text', value ->> 'at'
from json_each(?1)";

const FOLLOWERS: &str = "
select json_object('_id', follower, 'name', name) as row
from memory_follower where follower > coalesce(?1, '') order by follower limit ?2";

const ADD_FOLLOWERS: &str = "
insert into memory_follower (follower, name)
select value ->> '_id', value ->> 'name' from json_each(?1)";

const NEWS: &str = "
select json_object('_id', follower || ':' || memory_id, 'follower', follower,
                   'memory_id', memory_id, 'number', number) as row
from memory_news where follower || ':' || memory_id > coalesce(?1, '')
order by follower || ':' || memory_id limit ?2";

const ADD_NEWS: &str = "
insert into memory_news (number, follower, memory_id)
select value ->> 'number', value ->> 'follower', value ->> 'memory_id' from json_each(?1)";

const CHATS: &str = "
select json_object('_id', id, 'user_id', user_id, 'title', title, 'created_at', created_at,
                   'updated_at', updated_at,
                   'messages', (select count(*) from chat_messages m
                                where m.chat_id = c.id)) as row
from chats c where id > coalesce(?1, '') order by id limit ?2";

const ADD_CHATS: &str = "
insert into chats (id, user_id, title, created_at, updated_at)
select value ->> '_id', value ->> 'user_id', value ->> 'title', value ->> 'created_at',
       value ->> 'updated_at'
from json_each(?1)";

const MESSAGES: &str = "
select json_object('_id', id, 'chat_id', chat_id, 'role', role, 'content', content,
                   'memories', json(memories), 'at', at) as row
from chat_messages where id > coalesce(?1, -1) order by id limit ?2";

const ADD_MESSAGES: &str = "
insert into chat_messages (id, chat_id, role, content, memories, at)
select value ->> '_id', value ->> 'chat_id', value ->> 'role', value ->> 'content',
       value -> 'memories', value ->> 'at'
from json_each(?1)";

const UPLOADS: &str = "
select json_object(
    '_id', id, 'seq', j.rowid, 'user_id', user_id, 'client_id', client_id,
    'created_at', created_at,
    'files', json((
        select json_group_array(json_object(
            'filename', filename, 'bytes', bytes, 'sha256', sha256, 'spooled', spooled,
            'state', state, 'conversation_id', conversation_id,
            'duplicate', json(iif(duplicate, 'true', 'false')), 'seconds', seconds,
            'note', note, 'error', error, 'started_at', started_at,
            'ended_at', ended_at) order by seq)
        from uploads where job_id = j.id))) as row
from upload_jobs j where id > coalesce(?1, '') order by id limit ?2";

const ADD_UPLOAD_JOBS: &str = "
insert into upload_jobs (rowid, id, user_id, client_id, created_at)
select value ->> 'seq', value ->> '_id', value ->> 'user_id', value ->> 'client_id',
       value ->> 'created_at'
from json_each(?1)";

const ADD_UPLOADS: &str = "
insert into uploads (job_id, seq, filename, bytes, sha256, spooled, state, conversation_id,
                     duplicate, seconds, note, error, started_at, ended_at)
select j.value ->> '_id', f.key, f.value ->> 'filename', f.value ->> 'bytes',
       f.value ->> 'sha256', f.value ->> 'spooled', f.value ->> 'state',
       f.value ->> 'conversation_id', f.value ->> 'duplicate', f.value ->> 'seconds',
       f.value ->> 'note', f.value ->> 'error', f.value ->> 'started_at',
       f.value ->> 'ended_at'
from json_each(?1) j, json_each(j.value, '$.files') f";

const DELETIONS: &str = "
select json_object('_id', name, 'at', at) as row
from deletions where name > coalesce(?1, '') order by name limit ?2";

const ADD_DELETIONS: &str = "
insert into deletions (name, at) select value ->> '_id', value ->> 'at' from json_each(?1)";

const OBJECTS: &str = "
select json_object('_id', name, 'bytes', bytes, 'sha256', sha256,
                   'verified_at', verified_at) as row
from objects where name > coalesce(?1, '') order by name limit ?2";

const ADD_OBJECTS: &str = "
insert into objects (name, bytes, sha256, verified_at)
select value ->> '_id', value ->> 'bytes', value ->> 'sha256', value ->> 'verified_at'
from json_each(?1)";

const IMPORTED: &str = "
select json_object('_id', kind || ':' || id, 'kind', kind, 'id', id, 'became', became) as row
from imported where kind || ':' || id > coalesce(?1, '') order by kind || ':' || id limit ?2";

const ADD_IMPORTED: &str = "
insert into imported (kind, id, became)
select value ->> 'kind', value ->> 'id', value ->> 'became' from json_each(?1)";
