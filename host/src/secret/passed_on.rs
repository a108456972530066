//! Which variables of the environment a program gets that prints a master secret.

/// Variables that say where things are, and how to talk to a person. The server itself sets LC_COLLATE and LC_CTYPE, to what
/// the creator of a database chose.
const NAMES: [&str; 27] = [
    "ALL_PROXY",
    "CREDENTIALS_DIRECTORY",
    "DISPLAY",
    "GNUPGHOME",
    "HOME",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "LANG",
    "LANGUAGE",
    "LC_ALL",
    "LOGNAME",
    "NO_PROXY",
    "PATH",
    "SHELL",
    "SSH_AUTH_SOCK",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TERM",
    "TMPDIR",
    "TZ",
    "USER",
    "WAYLAND_DISPLAY",
    "all_proxy",
    "https_proxy",
    "http_proxy",
    "no_proxy",
    "GPG_TTY",
];

/// How variables of the programs start that such secrets come from.
const PREFIXES: [&str; 18] = [
    "AGE_",
    "AWS_",
    "AZURE_",
    "BAO_",
    "BITWARDENCLI_",
    "BWS_",
    "BW_",
    "CLOUDSDK_",
    "DBUS_",
    "DOPPLER_",
    "GOOGLE_",
    "INFISICAL_",
    "KUBERNETES_",
    "OP_",
    "PASSWORD_STORE_",
    "SOPS_",
    "VAULT_",
    "XDG_",
];

/// Whether the program gets a variable. `conformance/commands.json` has examples, for every host.
pub(crate) fn is_passed_on(name: &str) -> bool {
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}
