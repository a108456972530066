-- The shortest way through: create, write, read, change, remove; a second role; a second copy.
create extension omni_credentials;

insert into omni_credentials.credentials (name, value, kind) values
    ('payments', 'sk-demo-4f9Zk2vXw8Rb7TqN1mYc6Lp3', 'api_key'),
    ('totp', '\x00ff3b1c8e5d0a27946f00c2', 'otp')
    returning name, value, kind, principal, scope;

update omni_credentials.credentials set value = value || '\x01' where name = 'totp' returning value;
select name, value from omni_credentials.credentials order by name;
delete from omni_credentials.credentials where name = 'totp' returning name, value;

-- Sealed: version 1, suite 1, the value nowhere in it.
select name, substr(value, 1, 2) as version_and_suite, position('sk-demo'::bytea in value) as found_at
from omni_credentials.encrypted_credentials;

-- Another role, before and after it is given access.
create role first_steps_app;
set role first_steps_app;
select name from omni_credentials.credentials;
reset role;
select omni_credentials.grant_access('first_steps_app', 'SELECT, INSERT');
set role first_steps_app;
select name from omni_credentials.credentials;
insert into omni_credentials.credentials (name, value) values ('smtp', 'relay') returning principal;
select name, convert_from(value, 'UTF8') as value from omni_credentials.credentials;
update omni_credentials.credentials set value = 'other';
insert into omni_credentials.credentials (name, value, principal) values ('stolen', 'x', 'postgres');
reset role;

-- An independent copy, in a schema whose name needs quotes. This variable is not set for the server.
create schema "App Secrets";
select omni_credentials.instantiate('"App Secrets"', 'APP_SECRETS_MASTER_PASSWORD');
insert into "App Secrets".credentials (name, value) values ('a', 'b');
\echo :LAST_ERROR_SQLSTATE
select count(*) from "App Secrets".credentials;
