//! A crypto module of AES-256-GCM-SIV (suite 2, RFC 8452), which survives a repeated nonce.

omni_credentials_module_glue::export_module!(Aes256GcmSiv);
