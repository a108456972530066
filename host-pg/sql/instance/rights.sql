-- For the owner, who gives access with grant_access. No row is written before this.
revoke all on
    :schema.credentials_config, :schema.credentials_keyrings, :schema.encrypted_credentials, :schema.credentials_files,
    :schema.encrypted_credential_versions, :schema.credentials, :schema.credential_versions, :schema.credential_file_stores
    from :others;
grant all on
    :schema.credentials_config, :schema.credentials_keyrings, :schema.encrypted_credentials, :schema.credentials_files,
    :schema.encrypted_credential_versions, :schema.credentials, :schema.credential_versions, :schema.credential_file_stores
    to current_user;
revoke all on function
    :schema.set_credential(text, text, text, text, jsonb, timestamptz),
    :schema.set_credential(text, text, :schema.credential_kind, regrole, jsonb, timestamptz),
    :schema.set_credential(text, text, regrole, timestamptz, jsonb),
    :schema.set_credential(text, bytea, text, text, jsonb, timestamptz),
    :schema.set_credential(text, bytea, :schema.credential_kind, regrole, jsonb, timestamptz),
    :schema.set_credential(text, bytea, regrole, timestamptz, jsonb),
    :schema.get_credential(text, text, text, jsonb),
    :schema.get_credential(text, :schema.credential_kind, regrole, jsonb),
    :schema.get_credential(text, regrole, jsonb),
    :schema.get_credential(text, bigint, text, text, jsonb),
    :schema.get_credential(text, bigint, :schema.credential_kind, regrole, jsonb),
    :schema.get_credential(text, bigint, regrole, jsonb),
    :schema.restore_credential(text, text, text, jsonb, bigint),
    :schema.restore_credential(text, :schema.credential_kind, regrole, jsonb, bigint),
    :schema.restore_credential(text, regrole, bigint, jsonb),
    :schema.purge_history, :schema.set_history_limit,
    :schema.expiring, :schema.credential_file_store_reload, :schema.credential_file_store_sync
    from :others;
grant all on function
    :schema.set_credential(text, text, text, text, jsonb, timestamptz),
    :schema.set_credential(text, text, :schema.credential_kind, regrole, jsonb, timestamptz),
    :schema.set_credential(text, text, regrole, timestamptz, jsonb),
    :schema.set_credential(text, bytea, text, text, jsonb, timestamptz),
    :schema.set_credential(text, bytea, :schema.credential_kind, regrole, jsonb, timestamptz),
    :schema.set_credential(text, bytea, regrole, timestamptz, jsonb),
    :schema.get_credential(text, text, text, jsonb),
    :schema.get_credential(text, :schema.credential_kind, regrole, jsonb),
    :schema.get_credential(text, regrole, jsonb),
    :schema.get_credential(text, bigint, text, text, jsonb),
    :schema.get_credential(text, bigint, :schema.credential_kind, regrole, jsonb),
    :schema.get_credential(text, bigint, regrole, jsonb),
    :schema.restore_credential(text, text, text, jsonb, bigint),
    :schema.restore_credential(text, :schema.credential_kind, regrole, jsonb, bigint),
    :schema.restore_credential(text, regrole, bigint, jsonb),
    :schema.purge_history, :schema.set_history_limit,
    :schema.expiring, :schema.credential_file_store_reload, :schema.credential_file_store_sync
    to current_user;
revoke all on type :schema.credential_kind from :others;
grant all on type :schema.credential_kind to current_user;

insert into :schema.credentials_config (environment_variable, kdf_memory_kib, kdf_passes, kdf_lanes)
values (:env_var, :costs);
