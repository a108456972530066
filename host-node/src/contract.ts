//! The contract's interfaces, as types: what `wit/` says, in the names of JavaScript.

import type * as Encryption from "./builtin/interfaces/omni-credentials-encryption.js";
import type * as FileStore from "./builtin/interfaces/omni-credentials-file-store.js";
import type * as KeyDerivation from "./builtin/interfaces/omni-credentials-key-derivation.js";
import type * as ModuleInfo from "./builtin/interfaces/omni-credentials-module-info.js";
import type * as Primitives from "./builtin/interfaces/omni-credentials-primitives.js";

export type { Failure, Identity } from "./builtin/interfaces/omni-credentials-types.js";
export type { Key, Keyring } from "./builtin/interfaces/omni-credentials-encryption.js";
export type {
    Conflict,
    Document,
    Entry,
    Preference,
    Reason,
    Reconciled,
    Wrapping,
} from "./builtin/interfaces/omni-credentials-file-store.js";
export type { Costs, ProtectedKeyring } from "./builtin/interfaces/omni-credentials-key-derivation.js";
export type { Description } from "./builtin/interfaces/omni-credentials-module-info.js";

/** What an instance of a crypto module exports. */
export interface Contract {
    readonly moduleInfo: typeof ModuleInfo;
    readonly keyDerivation: typeof KeyDerivation;
    readonly encryption: typeof Encryption;
    readonly fileStore: typeof FileStore;
    readonly primitives: typeof Primitives;
}

/** The one import that a module gets. */
export interface Imports {
    "wasi:random/random": { getRandomBytes(length: bigint): Uint8Array };
}

/** What transpiling a component makes: the code that lifts and lowers its calls. */
export interface Bindings {
    /** SHA-256 of the component, in hexadecimal digits. */
    readonly digest: string;
    instantiate(coreModule: (name: string) => CoreModule, imports: Imports): Contract;
}

/** A compiled core module: a `WebAssembly.Module`, which only the libraries of browsers declare. */
export type CoreModule = object;
