create view :schema.credential_file_stores as
    select s.filename, s.generation, s.synchronized_at, s.in_step, s.reason
    from :extension.file_store_status(:namespace::pg_catalog.regnamespace) s;
comment on view :schema.credential_file_stores is 'The files that mirror this instance, and whether they are in step.';
comment on column :schema.credential_file_stores.filename is 'As registered; relative to the data directory unless absolute.';
comment on column :schema.credential_file_stores.generation is 'The highest generation of the file that this instance has read or written.';
comment on column :schema.credential_file_stores.synchronized_at is 'When this instance last read or wrote the file.';
comment on column :schema.credential_file_stores.in_step is 'Whether file and table hold the same; NULL on a standby, and where the reader may not read the server''s files.';
comment on column :schema.credential_file_stores.reason is 'Why they do not, and how to fix it.';

create function :schema.credential_file_store_reload(
    filename text, prefer text default null, dry_run boolean default false)
returns table (name text, kind text, principal text, scope jsonb, action text, reason text)
language sql
begin atomic
    select r.name, r.kind, r.principal, r.scope, r.action, r.reason
    from :extension.file_store_reload(
        :namespace::pg_catalog.regnamespace,
        credential_file_store_reload.filename, credential_file_store_reload.prefer, credential_file_store_reload.dry_run) r;
end;
comment on function :schema.credential_file_store_reload is 'Imports the changes in a registered file. Says what it added, changed, removed and skipped. Where file and table changed the same credential, prefer => ''file'' or ''table'' decides.';

create function :schema.credential_file_store_sync(filename text)
returns void
language sql
begin atomic
    select :extension.file_store_sync(
        :namespace::pg_catalog.regnamespace, credential_file_store_sync.filename);
end;
comment on function :schema.credential_file_store_sync is 'Writes a registered file again before the transaction commits, if it is behind the table. Changes in the file stay there.';

