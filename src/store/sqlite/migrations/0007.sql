-- How much of each conversation's audio is transcribed, waits, and was given up,
-- in samples of speech, by the windows of its active transcript. The triggers
-- keep it, whoever changes a window; silence is what is left of `samples`.
alter table windows add column samples integer not null default 0;
update windows set samples = (
    select coalesce(sum(value ->> 'end' - value ->> 'start'), 0) from json_each(spans));

alter table conversations add column transcribed integer not null default 0;
alter table conversations add column waiting integer not null default 0;
alter table conversations add column failed integer not null default 0;

create view speech as
    select w.conversation_id,
           sum(iif(w.state = 'done', w.samples, 0))    as transcribed,
           sum(iif(w.state = 'waiting', w.samples, 0)) as waiting,
           sum(iif(w.state = 'failed', w.samples, 0))  as failed
    from windows w
    join transcript_versions v
        on v.conversation_id = w.conversation_id and v.version = w.version and v.active
    group by w.conversation_id;

update conversations set (transcribed, waiting, failed) = (
    select coalesce(max(s.transcribed), 0), coalesce(max(s.waiting), 0), coalesce(max(s.failed), 0)
    from speech s where s.conversation_id = conversations.id);

create trigger windows_added after insert on windows begin
    update windows set samples = (
        select coalesce(sum(value ->> 'end' - value ->> 'start'), 0) from json_each(new.spans))
    where id = new.id;
    update conversations set (transcribed, waiting, failed) = (
        select coalesce(max(s.transcribed), 0), coalesce(max(s.waiting), 0),
               coalesce(max(s.failed), 0)
        from speech s where s.conversation_id = new.conversation_id)
    where id = new.conversation_id;
end;
create trigger windows_settled after update of state on windows begin
    update conversations set (transcribed, waiting, failed) = (
        select coalesce(max(s.transcribed), 0), coalesce(max(s.waiting), 0),
               coalesce(max(s.failed), 0)
        from speech s where s.conversation_id = new.conversation_id)
    where id = new.conversation_id;
end;
create trigger windows_removed after delete on windows begin
    update conversations set (transcribed, waiting, failed) = (
        select coalesce(max(s.transcribed), 0), coalesce(max(s.waiting), 0),
               coalesce(max(s.failed), 0)
        from speech s where s.conversation_id = old.conversation_id)
    where id = old.conversation_id;
end;
create trigger transcripts_activated after update of active on transcript_versions
when new.active begin
    update conversations set (transcribed, waiting, failed) = (
        select coalesce(max(s.transcribed), 0), coalesce(max(s.waiting), 0),
               coalesce(max(s.failed), 0)
        from speech s where s.conversation_id = new.conversation_id)
    where id = new.conversation_id;
end;

create index conversations_in_wav on conversations (started_at)
    where audio_deleted_at is null and substr(audio_path, -4) = '.wav';
