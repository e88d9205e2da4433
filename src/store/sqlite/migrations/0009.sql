-- Who and what the memories speak of. All of it hangs on memories: what no memory
-- speaks of any more goes.
create table entities (
    id      text primary key,
    user_id text not null references users (id) on delete cascade,
    key     text not null, -- the name as it is compared
    name    text not null,
    kind    text not null
) strict;
create unique index entities_by_user on entities (user_id, key);
create table mentions (
    memory_id text not null references memories (id) on delete cascade,
    entity_id text not null references entities (id) on delete cascade,
    primary key (memory_id, entity_id)
) strict, without rowid;
create index mentions_by_entity on mentions (entity_id);
create table relations (
    id         integer primary key,
    memory_id  text not null references memories (id) on delete cascade,
    subject_id text not null references entities (id) on delete cascade,
    predicate  text not null,
    object_id  text not null references entities (id) on delete cascade,
    unique (memory_id, subject_id, predicate, object_id)
) strict;
create index relations_by_subject on relations (subject_id);
create index relations_by_object on relations (object_id);
create trigger entities_unmentioned after delete on mentions
when not exists (select 1 from mentions where entity_id = old.entity_id) begin
    delete from entities where id = old.entity_id;
end;

-- Memories that have not been read for it as they are now, whoever changed them.
create table unread_memories (
    memory_id text primary key references memories (id) on delete cascade,
    attempts  integer not null default 0
) strict, without rowid;
create trigger memories_unread after insert on memories begin
    insert into unread_memories (memory_id) values (new.id);
end;
create trigger memories_reread after update of user_id, text on memories begin
    delete from relations where memory_id = new.id;
    delete from mentions where memory_id = new.id;
    insert or replace into unread_memories (memory_id) values (new.id);
end;
insert into unread_memories (memory_id) select id from memories;
