-- Transcripts and memories of a conversation in versions, numbered from 1. A
-- version in the state PENDING is being made; it becomes the active one when it
-- is complete.

create table transcript_versions (
    conversation_id text not null references conversations (id) on delete cascade,
    version         integer not null,
    active          integer not null,
    state           text not null,
    created_at      integer not null,
    completed_at    integer,
    primary key (conversation_id, version)
) strict, without rowid;
create unique index transcript_versions_active on transcript_versions (conversation_id)
    where active;
create index transcript_versions_pending on transcript_versions (conversation_id, version)
    where state = 'PENDING';

insert into transcript_versions
    select id, 1, 1, transcription, started_at, iif(transcription = 'PENDING', null, ended_at)
    from conversations;

-- A window belongs to a version. SQLite cannot change a constraint in place.
create table windows_new (
    id              integer primary key autoincrement,
    conversation_id text not null,
    version         integer not null,
    seq             integer not null,
    spans           text not null,              -- JSON: [{"start":0,"end":16000}]
    state           text not null,
    segments        text not null default '[]', -- JSON, see domain::transcript::Segment
    engine          text,
    unique (conversation_id, version, seq),
    foreign key (conversation_id, version)
        references transcript_versions (conversation_id, version) on delete cascade
) strict;
insert into windows_new (id, conversation_id, version, seq, spans, state, segments, engine)
    select id, conversation_id, 1, seq, spans, state, segments, engine from windows;
drop table windows;
alter table windows_new rename to windows;
create index windows_waiting on windows (conversation_id) where state = 'waiting';

create table memory_versions (
    conversation_id    text not null references conversations (id) on delete cascade,
    version            integer not null,
    active             integer not null,
    transcript_version integer not null,
    state              text not null,
    model              text,
    prompt_version     text,
    created_at         integer not null,
    completed_at       integer,
    -- JSON: ids of memories of other conversations that come back while this
    -- version is not active, since it had changed or deleted them.
    replaced           text not null default '[]',
    primary key (conversation_id, version)
) strict, without rowid;
create unique index memory_versions_active on memory_versions (conversation_id) where active;
create unique index memory_versions_pending on memory_versions (conversation_id)
    where state = 'PENDING';

insert into memory_versions (conversation_id, version, active, transcript_version, state,
                             created_at, completed_at)
    select id, 1, memory in ('COMPLETED', 'EMPTY'), 1, memory, started_at,
           iif(memory = 'PENDING', null, ended_at)
    from conversations
    where memory in ('COMPLETED', 'EMPTY', 'FAILED')
       or memory = 'PENDING' and (transcription = 'COMPLETED' or exists (
           select 1 from jobs j where j.conversation_id = conversations.id
           and j.kind = 'remember' and j.state in ('ready', 'leased')));

-- Which version of its conversation's memories a memory belongs to.
alter table memories add column version integer not null default 1;

-- Memories that no list shows: those of versions that are not active, and what
-- memories said before the version named by `by_` changed or deleted them.
create table shelved_memories (
    seq             integer primary key,
    id              text not null,
    user_id         text not null references users (id) on delete cascade,
    text            text not null,
    conversation_id text references conversations (id) on delete cascade,
    version         integer not null,
    client_id       text,
    prompt_version  text not null,
    created_at      integer not null,
    updated_at      integer not null,
    embedding       blob not null,
    by_conversation text references conversations (id) on delete cascade,
    by_version      integer
) strict;
create index shelved_memories_by_id on shelved_memories (id);
create index shelved_memories_by_conversation on shelved_memories (conversation_id, version);
create index shelved_memories_by_version on shelved_memories (by_conversation, by_version);
create index shelved_memories_by_user on shelved_memories (user_id);

-- What a conversation is about, and who is known to speak in it (JSON: names).
alter table conversations add column summary text;
alter table conversations add column speakers text not null default '[]';

-- The speech of a recording alone; with no file where nobody spoke.
create table crops (
    conversation_id text primary key references conversations (id) on delete cascade,
    audio_path      text unique,
    spans           text not null, -- JSON, as in windows
    at              integer not null
) strict;
