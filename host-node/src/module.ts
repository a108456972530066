//! A crypto module: a component, checked by its digest, and instances of it.

import * as builtin from "./builtin/bindings.js";
import { hex } from "./bytes.js";
import type { Bindings, Contract, CoreModule, Description, Failure } from "./contract.js";
import { CredentialsError, ModuleError, RefusalError } from "./errors.js";

/** Most random bytes that a module gets in one request; it needs 32 at a time. */
const MAX_RANDOM = 65_536n;

/**
 * A loaded crypto module. It keeps no state: every instance has a memory of its own.
 *
 * The core modules that run are parts of the component's own bytes, whose digest is checked on each load.
 */
export class CryptoModule {
    /** SHA-256 of the component, in hexadecimal digits. */
    readonly digest: string;
    /** @internal */
    readonly bindings: Bindings;
    /** @internal The component's core modules, compiled. */
    readonly cores: readonly CoreModule[];
    /** @internal Where another thread finds the bindings; none for those of this package. */
    readonly bindingsUrl: string | undefined;

    /** @internal */
    constructor(bindings: Bindings, cores: readonly CoreModule[], bindingsUrl?: string) {
        this.digest = bindings.digest;
        this.bindings = bindings;
        this.cores = cores;
        this.bindingsUrl = bindingsUrl;
    }

    /**
     * Loads a component with the bindings made from it by `omni-credentials/transpile`; without bindings, the
     * component that this package carries.
     *
     * Throws a {@link ModuleError}: `digest-mismatch` if the bindings were made from another component.
     */
    static async load(
        component: Uint8Array,
        bindings: Bindings = builtin,
        bindingsUrl?: string,
    ): Promise<CryptoModule> {
        // A copy: what is checked must be what is compiled, whatever the caller does meanwhile.
        const bytes = Uint8Array.from(component);
        const found = hex(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)));
        if (found !== bindings.digest) {
            const message = `the crypto module has digest ${found}, but ${bindings.digest} is expected`;
            throw new ModuleError("digest-mismatch", message);
        }
        const cores = await Promise.all(Array.from(coreModules(bytes), (core) => WebAssembly.compile(core)));
        return new CryptoModule(bindings, cores, bindingsUrl);
    }

    /**
     * The low-level layer: a fresh instance, to call the contract itself (`wit/`). Drop it when you are done, for its
     * memory never shrinks.
     */
    instantiate(): Instance {
        return new Instance(this);
    }

    /** What the module says of itself. Its word only: what it is, is its digest. */
    describe(): Description {
        return this.instantiate().call((contract) => contract.moduleInfo.describe());
    }
}

/** An instance of a crypto module. After a trap it is of no more use. */
export class Instance {
    readonly #contract: Contract;
    #failed = false;

    /** @internal */
    constructor({ bindings, cores }: CryptoModule) {
        // jco's names: module.core.wasm, module.core2.wasm, module.core3.wasm.
        const core = (name: string): CoreModule => {
            const found = cores[Number(/core(\d*)\.wasm$/.exec(name)?.[1] || 1) - 1];
            if (found === undefined) throw new Error(`the component has no ${name}`);
            return found;
        };
        this.#contract = guarded("instantiation", () => bindings.instantiate(core, { "wasi:random/random": entropy }));
    }

    /** Whether a call trapped. */
    get failed(): boolean {
        return this.#failed;
    }

    /**
     * Calls the contract. Throws a {@link RefusalError} for a refusal, after which the instance is as good as before;
     * and a {@link ModuleError} `trap` for anything else, after which it is not.
     */
    call<T>(call: (contract: Contract) => T): T {
        if (this.#failed) throw new ModuleError("trap", "the crypto module failed in an earlier call");
        try {
            return guarded("a call", () => call(this.#contract));
        } catch (error) {
            this.#failed = error instanceof ModuleError;
            throw error;
        }
    }
}

const entropy = {
    getRandomBytes(length: bigint): Uint8Array {
        if (length > MAX_RANDOM) throw new RangeError(`asked for ${length} random bytes at once`);
        return crypto.getRandomValues(new Uint8Array(Number(length)));
    },
};

/** The one place where what bindings throw becomes an error of this package. */
function guarded<T>(what: string, call: () => T): T {
    try {
        return call();
    } catch (error) {
        const failure = failureIn(error);
        if (failure !== undefined) throw new RefusalError(failure);
        if (error instanceof CredentialsError) throw error;
        const reason = error instanceof Error ? error.message : "for an unknown reason";
        throw new ModuleError("trap", `the crypto module failed in ${what}: ${reason}`, { cause: error });
    }
}

/** @internal What a call of the contract itself was refused for; nothing for any other error. */
export function failureIn(error: unknown): Failure | undefined {
    const payload = error instanceof Error && "payload" in error ? error.payload : undefined;
    const isFailure = typeof payload === "object" && payload !== null && "error" in payload;
    return isFailure ? (payload as Failure) : undefined;
}

/** The core modules in a component: its sections of id 1, in their order, each a whole module. */
function* coreModules(component: Uint8Array): Generator<Uint8Array<ArrayBuffer>> {
    let at = 8;
    const byte = (): number => component[at++] ?? 0;
    while (at < component.length) {
        const id = byte();
        let length = 0;
        for (let shift = 0, more = true; more; shift += 7) {
            const next = byte();
            length += (next & 0x7f) * 2 ** shift;
            more = next >= 0x80;
        }
        if (id === 1) yield component.slice(at, at + length);
        at += length;
    }
}
