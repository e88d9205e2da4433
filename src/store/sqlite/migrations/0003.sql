-- Tokens that were ended by a logout, by their hash, until they would have
-- expired by themselves.
create table ended_tokens (
    token      text primary key,
    user_id    text not null references users (id) on delete cascade,
    expires_at integer not null
) strict, without rowid;
create index ended_tokens_by_user on ended_tokens (user_id);
create index ended_tokens_by_expiry on ended_tokens (expires_at);
