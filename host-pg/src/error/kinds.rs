//! What errors have in common, for those who go on after some of them.

use super::Error;

impl Error {
    /// Whether values do not open because of what this server has or permits, or because their instance is incomplete, and not
    /// because of what the values are. What a dump brings is kept then: reading says what is missing.
    pub(crate) fn is_of_this_server(&self) -> bool {
        self.is_of_keyring()
            || matches!(
                self,
                Self::MasterSecretMissing { .. }
                    | Self::MasterSecretFile { .. }
                    | Self::MasterSecretCommand { .. }
                    | Self::MasterSecretTwice { .. }
                    | Self::MasterSecretInvalid { .. }
                    | Self::VariableNotAllowed { .. }
                    | Self::SettingsMissing { .. }
            )
    }

    /// Whether one keyring does not open, for a cause of its own: the values of other keyrings are read all the same. These are
    /// all such causes. A cancelled statement or a lack of memory is none.
    pub(crate) fn is_of_keyring(&self) -> bool {
        matches!(
            self,
            Self::MasterSecretWrong { .. }
                | Self::KeyringTampered { .. }
                | Self::ModuleMissing { .. }
                | Self::ModuleNotAllowed { .. }
                | Self::KeyringDamaged { .. }
                | Self::KeyringOfAnotherSecret { .. }
                | Self::KeyringModuleMissing { .. }
                | Self::KeyringModuleNotAllowed { .. }
        )
    }

    /// Whether the statement is to end with this error, whatever it would do otherwise.
    pub(crate) fn ends_statement(&self) -> bool {
        matches!(self, Self::Interrupted | Self::SystemMemory { .. } | Self::NoExecutableMemory { .. })
    }

    /// The same error, with the id of the keyring that it is about.
    pub(crate) fn of_keyring(self, schema: String, id: String) -> Self {
        match self {
            Self::MasterSecretWrong { variable, .. } => Self::KeyringOfAnotherSecret { schema, id, variable },
            Self::KeyringTampered { .. } => Self::KeyringDamaged { schema, id },
            Self::ModuleMissing { digest } => Self::KeyringModuleMissing { schema, id, digest },
            Self::ModuleNotAllowed { digest } => Self::KeyringModuleNotAllowed { schema, id, digest },
            other => other,
        }
    }
}
