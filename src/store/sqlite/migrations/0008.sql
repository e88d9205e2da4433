-- Memories that an index outside has still to hear of, while there is one: the
-- triggers note each change, whoever makes it.
create table memory_follower (
    only integer primary key check (only = 1),
    name text not null
) strict;
create table memory_news (
    number    integer primary key autoincrement,
    memory_id text not null unique
) strict;

-- The number is a new one each time: what changes while it is being told stays.
create trigger memories_added after insert on memories
when exists (select 1 from memory_follower) begin
    insert or replace into memory_news (memory_id) values (new.id);
end;
create trigger memories_changed after update of user_id, text, embedding on memories
when exists (select 1 from memory_follower) begin
    insert or replace into memory_news (memory_id) values (new.id);
end;
create trigger memories_removed after delete on memories
when exists (select 1 from memory_follower) begin
    insert or replace into memory_news (memory_id) values (old.id);
end;
