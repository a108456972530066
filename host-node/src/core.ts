/**
 * The part that runs anywhere: credentials files as bytes, in browsers, workers and Node. Entropy and SHA-256 come from
 * WebCrypto; nothing here touches a file or a network.
 *
 * @packageDocumentation
 */

import component from "#component";
import { decode } from "./bytes.js";
import type { Costs } from "./contract.js";
import { CredentialsDocument, type DocumentOptions } from "./document.js";
import { CryptoModule } from "./module.js";

export type * as contract from "./contract.js";
export {
    CredentialsDocument,
    type DocumentOptions,
    type ListOptions,
    type SetOptions,
    type MergeOptions,
    type RotatedKey,
    type RotateMasterSecretOptions,
    type Written,
} from "./document.js";
export type { Derivation, Secret } from "./derivation.js";
export {
    AmbiguousCredentialError,
    CredentialNotFoundError,
    CredentialsError,
    DamagedFileError,
    FileError,
    FileLockedError,
    InvalidInputError,
    MasterSecretConflictError,
    type MergeConflict,
    MergeConflictError,
    MissingInputError,
    ModuleError,
    NeedsNewerError,
    RefusalError,
    SecretCommandError,
    UnreadableValueError,
    WrongMasterSecretError,
} from "./errors.js";
export type { Credential, Json, Which } from "./identity.js";
export { CryptoModule, Instance } from "./module.js";

let loaded: Promise<CryptoModule> | undefined;

/** The crypto module that this package carries. It is loaded once. */
export function builtinModule(): Promise<CryptoModule> {
    loaded ??= component().then((bytes) => CryptoModule.load(bytes));
    return loaded;
}

/**
 * Opens the bytes of a credentials file, with the built-in module if none is given. See {@link
 * CredentialsDocument.open}.
 */
export async function openDocument(
    file: Uint8Array,
    options: DocumentOptions & { module?: CryptoModule | undefined },
): Promise<CredentialsDocument> {
    return CredentialsDocument.open(options.module ?? (await builtinModule()), file, options);
}

/** A new document without credentials. See {@link CredentialsDocument.create}. */
export async function createDocument(
    options: DocumentOptions & { module?: CryptoModule | undefined; costs?: Costs | undefined },
): Promise<CredentialsDocument> {
    return CredentialsDocument.create(options.module ?? (await builtinModule()), options);
}

/** A new generated master key, `omck1_` and 48 characters: a secret of 32 random bytes, which costs no derivation. */
export async function generateMasterKey(module?: CryptoModule): Promise<string> {
    const instance = (module ?? (await builtinModule())).instantiate();
    const key = instance.call((contract) => contract.keyDerivation.generateMasterKey());
    try {
        return decode(key);
    } finally {
        key.fill(0);
    }
}
