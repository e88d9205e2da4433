-- Recordings in the bucket, and those that may be there because their upload has
-- begun. A row stays until the object is known to be gone.
create table objects (
    name        text primary key, -- as in conversations.audio_path
    bytes       integer not null default 0,
    sha256      text not null default '',
    verified_at integer
) strict;
