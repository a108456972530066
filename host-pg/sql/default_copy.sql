-- The default instance, in the extension's own schema, and what a dump must carry of it.

-- Before the first row is written, for everything made so far. What an update from 0.2.0 has set aside keeps its rights: they
-- are taken over from there.
select omni_credentials.only_for_owner(d.classid, d.objid)
from pg_catalog.pg_depend d
join pg_catalog.pg_extension e on d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass and d.refobjid = e.oid
where e.extname = 'omni_credentials' and d.deptype = 'e'
  and (pg_catalog.pg_identify_object(d.classid, d.objid, 0)).identity not like '% 0.2.0"%';

select omni_credentials.register_builtin_module();
-- It sees to its own objects.
select omni_credentials.instantiate();

-- What drivers send for the column kind: parameters of type text or varchar. Only here: a cast has no owner, so that DROP
-- OWNED by the owner of another instance would stop at it.
create cast (text as omni_credentials.credential_kind) with inout as assignment;
create cast (character varying as omni_credentials.credential_kind) with inout as assignment;

select pg_catalog.pg_extension_config_dump('omni_credentials.crypto_modules', '');
select pg_catalog.pg_extension_config_dump('omni_credentials.credentials_config', '');
select pg_catalog.pg_extension_config_dump('omni_credentials.credentials_keyrings', '');
select pg_catalog.pg_extension_config_dump('omni_credentials.encrypted_credentials', '');
select pg_catalog.pg_extension_config_dump('omni_credentials.encrypted_credential_versions', '');
select pg_catalog.pg_extension_config_dump('omni_credentials.credentials_files', '');
select pg_catalog.pg_extension_config_dump('omni_credentials.added_policies', '');
-- A role that was dropped since would be restored as a number, and that may be another role's there.
select pg_catalog.pg_extension_config_dump('omni_credentials.allowed_variables',
    'where exists (select from pg_catalog.pg_roles r where r.oid operator(pg_catalog.=) role::pg_catalog.oid)');

-- From here on, changes of the default instance's policies are noted.
create event trigger omni_credentials_note_policies on ddl_command_end
    when tag in ('CREATE POLICY', 'ALTER POLICY')
    execute function omni_credentials.note_policies();
comment on event trigger omni_credentials_note_policies is
'Policies on the credentials of the extension are carried by dumps.';
create event trigger omni_credentials_note_dropped_policies on sql_drop
    when tag in ('DROP POLICY', 'DROP OWNED')
    execute function omni_credentials.note_policies();
comment on event trigger omni_credentials_note_dropped_policies is
'Policies dropped from the credentials of the extension stay dropped after a restore.';

create event trigger omni_credentials_keep_restorable on ddl_command_end
    when tag in ('ALTER TABLE')
    execute function omni_credentials.keep_restorable();
comment on event trigger omni_credentials_keep_restorable is
'Data can be restored over what CREATE EXTENSION and instantiate made, also with triggers disabled.';

create event trigger omni_credentials_guard_default on ddl_command_end
    when tag in ('ALTER TABLE', 'ALTER TYPE', 'CREATE INDEX', 'CREATE TRIGGER', 'CREATE RULE', 'COMMENT')
    execute function omni_credentials.guard_default();
comment on event trigger omni_credentials_guard_default is
'What a dump of the default instance would lose is refused or told.';
