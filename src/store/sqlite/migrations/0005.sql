-- Uploaded files, and the requests they came in.
create table upload_jobs (
    id         text primary key,
    user_id    text not null references users (id) on delete cascade,
    client_id  text not null,
    created_at integer not null
) strict;
create index upload_jobs_by_user on upload_jobs (user_id, created_at);
create index upload_jobs_by_time on upload_jobs (created_at);

create table uploads (
    job_id          text not null references upload_jobs (id) on delete cascade,
    seq             integer not null,
    filename        text not null,
    bytes           integer not null,
    sha256          text not null, -- empty where it did not arrive whole
    spooled         text,          -- its name below uploads/, until it is recorded
    state           text not null,
    conversation_id text references conversations (id) on delete cascade,
    duplicate       integer not null,
    seconds         real,
    note            text,
    error           text,
    started_at      integer,
    ended_at        integer,
    primary key (job_id, seq)
) strict, without rowid;
create index uploads_by_conversation on uploads (conversation_id) where conversation_id is not null;
create index uploads_by_content on uploads (sha256);
create index uploads_waiting on uploads (state) where state = 'waiting';
