-- Several may follow the memories from outside, the index and the graph: each has
-- changes of its own to hear of.
drop trigger memories_added;
drop trigger memories_changed;
drop trigger memories_removed;
alter table memory_follower rename to old_follower;
alter table memory_news rename to old_news;
create table memory_follower (
    follower text primary key,
    name     text not null
) strict, without rowid;
create table memory_news (
    number    integer primary key autoincrement,
    follower  text not null references memory_follower (follower) on delete cascade,
    memory_id text not null,
    unique (follower, memory_id)
) strict;
insert into memory_follower select 'index', name from old_follower;
insert into memory_news (number, follower, memory_id)
select number, 'index', memory_id from old_news where exists (select 1 from old_follower);
drop table old_follower;
drop table old_news;

-- The number is a new one each time: what changes while it is being told stays.
create trigger memories_added after insert on memories begin
    insert or replace into memory_news (follower, memory_id)
    select follower, new.id from memory_follower;
end;
create trigger memories_changed after update of user_id, text, embedding on memories begin
    insert or replace into memory_news (follower, memory_id)
    select follower, new.id from memory_follower;
end;
create trigger memories_removed after delete on memories begin
    insert or replace into memory_news (follower, memory_id)
    select follower, old.id from memory_follower;
end;
