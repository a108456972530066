-- The server was started with OMNI_CREDENTIALS_MASTER_PASSWORD in its environment.
create extension omni_credentials;

-- Credentials are rows of a view: an API key, a certificate in PEM, twenty binary bytes.
\set certificate `cat demo/certificate.pem`
insert into omni_credentials.credentials (name, value, kind) values
    ('payments', 'sk-demo-4f9Zk2vXw8Rb7TqN1mYc6Lp3', 'api_key'),
    ('api.example.com', convert_to(:'certificate', 'UTF8'), 'certificate'),
    ('totp', '\x00ff3b1c8e5d0a27946f00c2b7e81d53a9f40b6e', 'otp');

select name, kind, principal, octet_length(value) as bytes, substr(value, 1, 12) as value_begins
from omni_credentials.credentials;

select convert_from(value, 'UTF8') from omni_credentials.credentials where name = 'payments';

-- What the table holds, and so what its backups and replicas hold: sealed values.
select name, octet_length(value) as bytes, substr(value, 1, 24) as sealed_begins
from omni_credentials.encrypted_credentials;

-- A role needs one call, and then sees its own credentials only.
create role app login;
select omni_credentials.grant_access('app', 'SELECT, INSERT');
\connect - app
insert into omni_credentials.credentials (name, value) values ('smtp', 'relay-password-of-app');
select name, principal, convert_from(value, 'UTF8') as value from omni_credentials.credentials;
\connect - postgres

-- A second, independent copy with keys of its own, under another master secret.
create schema app_secrets;
select omni_credentials.instantiate(schema => 'app_secrets', env_var => 'APP_SECRETS_MASTER_PASSWORD');
insert into app_secrets.credentials (name, value, kind) values ('search', 'ak-demo-Zt5Hn0sQe2', 'api_key');

-- A file to commit to git, kept up to date by every commit of a transaction.
select * from omni_credentials.instantiate_file_store('credentials.omni', 'app_secrets');
insert into app_secrets.credentials (name, value, kind) values ('mail', 'm4il-p4ssw0rd', 'password');
select pg_read_file('credentials.omni') \g (format=unaligned tuples_only=on)

-- A colleague's database takes the file over and adds a credential to it, as a git pull would bring it.
create database colleague;
\connect colleague
create extension omni_credentials;
create schema app_secrets;
select omni_credentials.instantiate('app_secrets', 'APP_SECRETS_MASTER_PASSWORD');
select name, action from omni_credentials.instantiate_file_store('credentials.omni', 'app_secrets');
insert into app_secrets.credentials (name, value, kind) values ('maps', 'mk-demo-a81Jc', 'api_key');
\connect postgres
select name, action from app_secrets.credential_file_store_reload('credentials.omni');
select name, kind, convert_from(value, 'UTF8') as value from app_secrets.credentials order by name;
