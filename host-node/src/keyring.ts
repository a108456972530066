//! An unlocked keyring, for sealing and opening values.

import type { Contract, Entry, Identity, Keyring } from "./contract.js";
import { InvalidInputError } from "./errors.js";
import { packed } from "./identity.js";
import type { CryptoModule, Instance } from "./module.js";

/**
 * Values longer than this, in bytes, get an instance of their own: the long-lived one would keep the memory.
 */
const LARGE = 65_536;

/** Where the language has no `Symbol.dispose` yet, jco's output makes do with this one. */
const DISPOSE: unique symbol = (Symbol.dispose ?? Symbol.for("dispose")) as never;

type Call<T> = (contract: Contract, keyring: Keyring) => T;

/**
 * An unlocked keyring in an instance of its own. When a call traps, the instance is dropped; the next call makes a new
 * one from the keyring and the KEK, which are remembered here.
 */
export class UnlockedKeyring {
    readonly #module: CryptoModule;
    readonly #bytes: Uint8Array;
    readonly #kek: Uint8Array;
    #closed = false;
    #unlocked: { instance: Instance; keyring: Keyring } | undefined;

    constructor(module: CryptoModule, bytes: Uint8Array, kek: Uint8Array) {
        this.#module = module;
        this.#bytes = bytes;
        this.#kek = kek;
    }

    seal(identity: Identity, expires: bigint | undefined, value: Uint8Array): Uint8Array {
        return this.call((_, keyring) => keyring.seal(packed(identity), expires, value), value.length);
    }

    open({ identity, expires, sealed }: Entry): Uint8Array {
        return this.call((_, keyring) => keyring.open(packed(identity), expires, sealed), sealed.length);
    }

    reseal(entry: Entry): Entry {
        const { identity, expires, sealed } = entry;
        const resealed = this.call((_, keyring) => keyring.reseal(packed(identity), expires, sealed), sealed.length);
        return { ...entry, sealed: resealed };
    }

    /** A call of something small, or with `length` bytes. */
    call<T>(call: Call<T>, length = 0): T {
        this.refuseClosed();
        if (length > LARGE) {
            return withKeyring(this.#module.instantiate(), this.#bytes, this.#kek, call);
        }
        if (this.#unlocked === undefined || this.#unlocked.instance.failed) {
            const instance = this.#module.instantiate();
            this.#unlocked = { instance, keyring: unlock(instance, this.#bytes, this.#kek) };
        }
        const { instance, keyring } = this.#unlocked;
        return instance.call((contract) => call(contract, keyring));
    }

    get closed(): boolean {
        return this.#closed;
    }

    /** Throws if it was closed. */
    refuseClosed(): void {
        if (this.#closed) throw new InvalidInputError("closed", "the document was closed, and its keys are gone");
    }

    /** Wipes the keys in the module and drops it. */
    close(): void {
        this.#closed = true;
        if (this.#unlocked !== undefined) dispose(this.#unlocked.keyring);
        this.#unlocked = undefined;
    }
}

/** A call with a keyring unlocked for it alone. */
export function withKeyring<T>(instance: Instance, bytes: Uint8Array, kek: Uint8Array, call: Call<T>): T {
    const keyring = unlock(instance, bytes, kek);
    try {
        return instance.call((contract) => call(contract, keyring));
    } finally {
        if (!instance.failed) dispose(keyring);
    }
}

/** Unlocks a keyring in an instance. */
function unlock(instance: Instance, bytes: Uint8Array, kek: Uint8Array): Keyring {
    return instance.call((contract) => contract.encryption.Keyring.unlock(bytes, kek));
}

/**
 * Drops a resource of an instance now, rather than when garbage is collected: its keys are wiped, its memory is free.
 */
export function dispose(resource: object): void {
    (resource as { [DISPOSE]: () => void })[DISPOSE]();
}
