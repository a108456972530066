-- The server was started again, with another OMNI_CREDENTIALS_MASTER_PASSWORD.
select convert_from(value, 'UTF8') from omni_credentials.credentials where name = 'payments';
insert into omni_credentials.credentials (name, value) values ('new', 'never written');

-- Names are not secret, and the other copy has its own variable.
select name, kind from omni_credentials.credentials order by name;
select count(value) from app_secrets.credentials;
