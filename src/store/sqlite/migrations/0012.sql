-- What has come from another database, by the id that it has there, and what it
-- became here: it does not come again, whatever has become of it since.
create table imported (
    kind   text not null,
    id     text not null,
    became text not null,
    primary key (kind, id)
) strict, without rowid;
