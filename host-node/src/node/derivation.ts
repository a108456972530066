//! Key derivation in a thread of its own, so that the event loop goes on while Argon2id works.

import { Worker } from "node:worker_threads";

import type { Costs, CoreModule, Failure, ProtectedKeyring } from "../contract.js";
import { type Derivation, inThisThread } from "../derivation.js";
import { ModuleError, RefusalError } from "../errors.js";
import type { CryptoModule } from "../module.js";
import { onAbort, type Signal } from "./signal.js";

/** What generated master keys start with. */
const GENERATED = Buffer.from("omck1_");

/** What a worker gets. */
export interface Request {
    readonly cores: readonly CoreModule[];
    readonly digest: string;
    readonly bindingsUrl: string | undefined;
    readonly secret: Uint8Array;
    /** To derive its KEK; without it, to create one. */
    readonly keyring?: Uint8Array;
    /** The KEK of `keyring`, to put the keyring under `secret`. */
    readonly kek?: Uint8Array;
    readonly costs?: Costs | undefined;
}

/** What a worker answers. */
export type Reply = { result: unknown } | { failure: Failure } | { trap: string };

/**
 * A worker for each password. It ends with the derivation or when `signal` is aborted, and so does the memory that was
 * taken. A generated key is never treated as a password (`wit/key-derivation.wit`) and takes less time than starting a
 * thread: it stays in this one.
 */
export const inWorker = (signal?: Signal): Derivation => ({
    deriveKek(module, secret, keyring) {
        if (isGenerated(secret)) return inThisThread.deriveKek(module, secret, keyring);
        return run<Uint8Array>(signal, { ...common(module), secret, keyring });
    },
    createKeyring(module, secret, costs) {
        if (isGenerated(secret)) return inThisThread.createKeyring(module, secret, costs);
        return run<ProtectedKeyring>(signal, { ...common(module), secret, costs });
    },
    rewrap(module, before, secret, costs) {
        if (isGenerated(secret)) return inThisThread.rewrap(module, before, secret, costs);
        return run<ProtectedKeyring>(signal, { ...common(module), secret, ...before, costs });
    },
});

/** Only says where to derive; what the secret is, the module decides. */
function isGenerated(secret: Uint8Array): boolean {
    return GENERATED.equals(secret.subarray(0, GENERATED.length));
}

function common({ cores, digest, bindingsUrl }: CryptoModule): Pick<Request, "cores" | "digest" | "bindingsUrl"> {
    return { cores, digest, bindingsUrl };
}

async function run<T>(signal: Signal | undefined, request: Request): Promise<T> {
    signal?.throwIfAborted();
    // The worker gets neither the program's options nor its environment.
    const worker = new Worker(new URL("./derivation-worker.js", import.meta.url), {
        workerData: request,
        env: {},
        execArgv: [],
        stdin: false,
    });
    const stop = onAbort(signal, () => void worker.terminate());
    try {
        const reply = await new Promise<Reply>((resolve, reject) => {
            worker.once("message", resolve);
            worker.once("error", reject);
            worker.once("exit", (code) => reject(new Error(`the thread ended with ${code}`)));
        });
        if ("result" in reply) return reply.result as T;
        if ("failure" in reply) throw new RefusalError(reply.failure);
        throw new ModuleError("trap", reply.trap);
    } catch (error) {
        signal?.throwIfAborted();
        if (error instanceof RefusalError || error instanceof ModuleError) throw error;
        const reason = error instanceof Error ? error.message : String(error);
        throw new ModuleError("trap", `the key could not be derived in a thread: ${reason}`, { cause: error });
    } finally {
        stop();
        await worker.terminate();
    }
}
