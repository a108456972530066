-- What `make installcheck` runs. The server's environment must have OMNI_CREDENTIALS_MASTER_PASSWORD.
create extension omni_credentials;

-- Write, read, change and remove.
insert into omni_credentials.credentials (name, value, kind) values ('payments', 'sk-4f9Zk2', 'api_key');
select omni_credentials.set_credential('smtp', 'relay-password', 'password');
select name, convert_from(value, 'UTF8') as value, kind, scope from omni_credentials.credentials order by name;
update omni_credentials.credentials set value = 'sk-8b1Xw0' where name = 'payments';
select convert_from(value, 'UTF8') as value from omni_credentials.credentials where name = 'payments';
delete from omni_credentials.credentials where name = 'smtp';
select count(*) from omni_credentials.credentials;

-- What the table holds is sealed.
select name, position('sk-'::bytea in value) as found_at from omni_credentials.encrypted_credentials;

-- Another role sees nothing before it is given access, and then its own.
create role regress_omni_credentials;
set role regress_omni_credentials;
select count(*) from omni_credentials.credentials;
reset role;
select omni_credentials.grant_access('regress_omni_credentials', 'SELECT, INSERT');
set role regress_omni_credentials;
insert into omni_credentials.credentials (name, value) values ('own', 'value');
select name, convert_from(value, 'UTF8') as value, principal from omni_credentials.credentials;
reset role;

-- A new data key: every value is sealed again, and opens.
select omni_credentials.rotate_key('omni_credentials');
select count(*) as do_not_open from omni_credentials.verify('omni_credentials');
select name, convert_from(value, 'UTF8') as value from omni_credentials.credentials order by name;

-- An extension that holds credentials is not dropped.
\set VERBOSITY sqlstate
drop extension omni_credentials;
\set VERBOSITY default
delete from omni_credentials.credentials;
select omni_credentials.purge_history(everything => true);
drop extension omni_credentials;
drop schema omni_credentials;
drop role regress_omni_credentials;
