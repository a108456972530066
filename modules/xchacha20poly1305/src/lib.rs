//! The default crypto module: XChaCha20-Poly1305 (suite 1).

omni_credentials_module_glue::export_module!(XChaCha20Poly1305);
