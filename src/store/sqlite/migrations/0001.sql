-- Times are milliseconds since the Unix epoch, UTC; audio is counted in samples.

create table users (
    id            text primary key,
    email         text not null unique, -- lower case
    password_hash text not null,
    display_name  text,
    is_active     integer not null,
    is_superuser  integer not null,
    is_verified   integer not null,
    token_epoch   integer not null,
    created_at    integer not null
) strict;

create table devices (
    client_id   text primary key,
    user_id     text not null references users (id) on delete cascade,
    device_name text,
    first_seen  integer not null,
    last_seen   integer not null
) strict;
create index devices_by_user on devices (user_id, first_seen);

create table settings (
    key   text primary key,
    value text not null
) strict, without rowid;

-- No foreign keys: the trail outlives what it speaks of.
create table audit (
    id      integer primary key,
    at      integer not null,
    actor   text,
    action  text not null,
    subject text not null
) strict;

create table conversations (
    id            text primary key,
    user_id       text not null references users (id),
    client_id     text not null,
    audio_path    text not null unique,
    started_at    integer not null,
    ended_at      integer,
    close_reason  text,
    samples       integer not null,
    transcription text not null,
    memory        text not null,
    error         text,
    title         text
) strict;
create index conversations_by_user on conversations (user_id, started_at);
create index conversations_by_time on conversations (started_at);
create index conversations_open on conversations (started_at) where ended_at is null;
create index conversations_unsettled on conversations (id)
    where transcription = 'PENDING' or memory = 'PENDING';

create table windows (
    id              integer primary key autoincrement,
    conversation_id text not null references conversations (id) on delete cascade,
    seq             integer not null,
    spans           text not null,              -- JSON: [{"start":0,"end":16000}]
    state           text not null,
    segments        text not null default '[]', -- JSON, see domain::transcript::Segment
    engine          text,
    unique (conversation_id, seq)
) strict;
create index windows_waiting on windows (conversation_id) where state = 'waiting';

create table jobs (
    id              integer primary key autoincrement,
    kind            text not null,
    window_id       integer references windows (id) on delete cascade,
    conversation_id text references conversations (id) on delete cascade,
    unique_key      text not null,
    lane            integer not null, -- rank, smallest first
    state           text not null,
    attempts        integer not null default 0,
    epoch           integer not null default 0,
    owner           text,
    run_at          integer not null,
    last_error      text,
    created_at      integer not null,
    updated_at      integer not null,
    check ((window_id is null) <> (conversation_id is null))
) strict;
create unique index jobs_live on jobs (unique_key) where state in ('ready', 'leased');
create index jobs_ready on jobs (lane, id) where state = 'ready';
create index jobs_by_state on jobs (state, updated_at);
create index jobs_by_window on jobs (window_id) where window_id is not null;
create index jobs_by_conversation on jobs (conversation_id) where conversation_id is not null;

-- `embedding` (unit length, little-endian f32) is the truth; the vector and
-- full-text indexes share `seq` as their rowid and can be made again from here.
create table memories (
    seq             integer primary key,
    id              text not null unique,
    user_id         text not null references users (id),
    text            text not null,
    conversation_id text references conversations (id) on delete set null,
    client_id       text,
    prompt_version  text not null,
    created_at      integer not null,
    updated_at      integer not null,
    embedding       blob not null
) strict;
create index memories_by_user on memories (user_id, created_at);
create index memories_by_conversation on memories (conversation_id);

-- Outlives its memory, not its user.
create table memory_history (
    id        integer primary key,
    memory_id text not null,
    user_id   text not null references users (id) on delete cascade,
    event     text not null,
    old_text  text,
    new_text  text,
    at        integer not null
) strict;
create index memory_history_by_memory on memory_history (memory_id);
create index memory_history_by_user on memory_history (user_id);

-- Porter stems English endings and leaves most other words alone; where it cuts
-- one it cuts query and text alike, so nothing is lost to it.
create virtual table memories_fts using fts5 (
    text,
    content = '',
    contentless_delete = 1,
    tokenize = 'porter unicode61 remove_diacritics 2'
);

-- Which model made the vectors; empty until the first is stored. The width
-- decides the shape of the table memory_vectors, which is made then.
create table embedding_model (
    only  integer primary key check (only = 1),
    model text not null,
    width integer not null
) strict;
