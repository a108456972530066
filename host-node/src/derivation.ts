//! From a master secret to the key that opens a keyring (the KEK).

import { encode, isWellFormed } from "./bytes.js";
import type { Costs, ProtectedKeyring } from "./contract.js";
import { InvalidInputError } from "./errors.js";
import type { CryptoModule } from "./module.js";

/** A master secret: 1 to 4,096 bytes, a password or a generated key. Text stands for its UTF-8. */
export type Secret = string | Uint8Array;

/** Where derivations run. */
export interface Derivation {
    deriveKek(module: CryptoModule, secret: Uint8Array, keyring: Uint8Array): Promise<Uint8Array>;
    createKeyring(module: CryptoModule, secret: Uint8Array, costs: Costs | undefined): Promise<ProtectedKeyring>;
    /** The same keys under another master secret. */
    rewrap(
        module: CryptoModule,
        before: ProtectedKeyring,
        secret: Uint8Array,
        costs: Costs | undefined,
    ): Promise<ProtectedKeyring>;
}

/**
 * In this thread, which waits: Argon2id takes a third of a second. Each in an instance of its own, which is dropped.
 */
export const inThisThread: Derivation = {
    async deriveKek(module, secret, keyring) {
        return module.instantiate().call((contract) => contract.keyDerivation.deriveKek(secret, keyring));
    },
    async createKeyring(module, secret, costs) {
        return module.instantiate().call((contract) => contract.keyDerivation.createKeyring(secret, costs));
    },
    async rewrap(module, { keyring, kek }, secret, costs) {
        return module.instantiate().call((contract) => contract.keyDerivation.rewrap(keyring, kek, secret, costs));
    },
};

/** The bytes of a secret: a copy, which the caller wipes. */
export function secretBytes(secret: Secret): Uint8Array {
    if (typeof secret !== "string") return Uint8Array.from(secret);
    if (isWellFormed(secret)) return encode(secret);
    throw new InvalidInputError("not-text", "the master secret has half a surrogate pair, which has no UTF-8");
}
