-- The default copy, in the extension's own schema, and what a dump must carry of it.

revoke all on all functions in schema omni_credentials from public;
select omni_credentials.register_builtin_module();
select omni_credentials.instantiate();
revoke all on all functions in schema omni_credentials from public;

select pg_catalog.pg_extension_config_dump('omni_credentials.crypto_modules', '');
select pg_catalog.pg_extension_config_dump('omni_credentials.credentials_config', '');
select pg_catalog.pg_extension_config_dump('omni_credentials.credentials_keyrings', '');
select pg_catalog.pg_extension_config_dump('omni_credentials.encrypted_credentials', '');
select pg_catalog.pg_extension_config_dump('omni_credentials.credentials_files', '');
select pg_catalog.pg_extension_config_dump('omni_credentials.added_policies', '');

-- From here on, changes of the default copy's policies are noted.
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
