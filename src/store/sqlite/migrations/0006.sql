-- Files below the audio directory that are to go. Written in the transaction
-- that lets go of them and struck off once they are gone, so that a crash in
-- between neither leaves a file behind nor has it adopted again.
create table deletions (
    name text primary key,
    at   integer not null
) strict, without rowid;

-- When the audio alone was deleted; the row and its transcript stay.
alter table conversations add column audio_deleted_at integer;
-- The clock had not been set when it began.
alter table conversations add column time_estimated integer not null default 0;

create index conversations_with_audio on conversations (started_at)
    where audio_deleted_at is null;
