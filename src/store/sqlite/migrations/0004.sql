-- Talks with the assistant about one's own memories.

create table chats (
    id         text primary key,
    user_id    text not null references users (id) on delete cascade,
    title      text not null,
    created_at integer not null,
    updated_at integer not null
) strict;
create index chats_by_user on chats (user_id, updated_at);

create table chat_messages (
    id       integer primary key,
    chat_id  text not null references chats (id) on delete cascade,
    role     text not null,
    content  text not null,
    memories text not null default '[]', -- JSON: ids of the memories that were shown to the model
    at       integer not null
) strict;
create index chat_messages_by_chat on chat_messages (chat_id, id);
