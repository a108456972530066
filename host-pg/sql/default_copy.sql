-- The default copy, in the extension's own schema, and what a dump must carry of it.

revoke all on all functions in schema omni_credentials from public;
select omni_credentials.register_builtin_module();
select omni_credentials.instantiate();
revoke all on all functions in schema omni_credentials from public;

select pg_catalog.pg_extension_config_dump('omni_credentials.crypto_modules', '');
select pg_catalog.pg_extension_config_dump('omni_credentials.credentials_config', '');
select pg_catalog.pg_extension_config_dump('omni_credentials.credentials_keyrings', '');
select pg_catalog.pg_extension_config_dump('omni_credentials.encrypted_credentials', '');
select pg_catalog.pg_extension_config_dump('omni_credentials.credential_file_stores', '');
