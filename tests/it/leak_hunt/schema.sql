-- The same in both databases. Made by the superuser, for app_rw.
create extension if not exists plpgsql;
grant hunter to app_rw;
set role app_rw;
create schema side;
create table t1 as select 'public' as place, 1 as n;
create table side.t1 as select 'side' as place, 2 as n;
create table side.t2 as select 'side' as place, 3 as n;
create table t4 as table t1;
create table side.t4 as table side.t1;
create table fixed (id int primary key, word text);
insert into fixed select i, 'word ' || i from generate_series(1, 100) i;
create table log (id serial primary key, who text);
create sequence sq;
create sequence side.sq start 1000;
do $$ begin
  for i in 0..15 loop
    execute format('create table own_%s (id int primary key, v text)', i);
    execute format('insert into own_%s values (1, %L), (2, null)', i, i);
  end loop;
end $$;
grant usage on schema side to hunter;
grant select on t1, side.t1, t4, fixed to hunter;

-- What a statement does here, its text doesn't show.
create function hide_set(name text, value text, local boolean) returns text language plpgsql
  as $$ begin return set_config(name, value, local); end $$;
create function hide_plain(name text, value text) returns text language sql
  as 'select set_config(name, value, false)';
create function hide_run(statement text) returns text language plpgsql
  as $$ begin execute statement; return 'ran'; end $$;
create procedure hide_call(statement text) language plpgsql
  as $$ begin execute statement; end $$;
create procedure hide_commit(value text) language plpgsql
  as $$ begin
    perform set_config('app.person', value, false); commit;
    perform set_config('app.tenant', value, false); rollback;
    perform set_config('app.tenant', value, true); commit;
  end $$;
create function hide_undone(name text, value text) returns text language plpgsql
  as $$ begin
    begin
      perform set_config(name, value, false);
      create temp table t3 (place text, n int);
      raise exception 'undone';
    exception when raise_exception then null; end;
    return current_setting(name);
  end $$;
create function spring() returns trigger language plpgsql
  as $$ begin
    case new.kind
      when 'set' then perform set_config('app.tenant', new.value, false);
      when 'local' then perform set_config('app.tenant', new.value, true);
      when 'zone' then perform set_config('timezone', 'Asia/Tokyo', false);
      when 'path' then perform set_config('search_path', 'side, public', false);
      when 'temp' then create temp table if not exists t3 as select 'trigger' as place, 4 as n;
      when 'lock' then perform pg_try_advisory_lock(3);
      when 'listen' then execute 'listen news';
      when 'notify' then perform pg_notify('news', new.value);
      when 'prepare' then execute 'prepare q1 as select 7';
      when 'cursor' then execute 'declare c1 cursor with hold for select 8';
      when 'sequence' then perform nextval('public.sq');
      when 'role' then execute 'set role hunter';
      else raise exception 'no such kind: %', new.kind;
    end case;
    return new;
  end $$;
create table tripwire (kind text, value text);
create trigger spring before insert on tripwire for each row execute function spring();
create table late (kind text, value text);
create constraint trigger spring after insert on late deferrable initially deferred
  for each row execute function spring();
create view peephole as select hide_set('app.tenant', 'by view', false) as seen;
create table defaulted (v text default hide_set('app.person', 'by default', false));
create table guarded (v text);
insert into guarded values ('one');
alter table guarded enable row level security;
alter table guarded force row level security;
create policy guard on guarded using (hide_set('app.person', 'by policy', false) <> '');
create table ruled (v text);
create rule rule as on insert to ruled do also select hide_set('app.tenant', new.v, false);
create domain checked as text check (hide_set('app.tenant', 'by domain', false) <> '');
create function hide_operator(value text) returns text language plpgsql
  as $$ begin return set_config('app.tenant', value, false); end $$;
create operator @! (function = hide_operator, rightarg = text);
create function hide_immutable(value text) returns text immutable language plpgsql
  as $$ begin return set_config('app.person', value, false); end $$;
create table indexed (v text);
create index on indexed (hide_immutable(v));
reset role;

create function dressed(value text) returns text language plpgsql set work_mem = '9MB' set app.tenant = 'inside'
  as $$ begin
    perform set_config('app.person', value, false);
    perform set_config('app.tenant', value, false);
    return current_setting('work_mem') || current_setting('app.tenant');
  end $$;
create function note_command() returns event_trigger language plpgsql
  as $$ begin perform set_config('app.event', tg_tag, false); end $$;
create event trigger note on ddl_command_end execute function note_command();
analyze;
