// The thread that derives a key.

import { parentPort, workerData } from "node:worker_threads";

import * as builtin from "../builtin/bindings.js";
import type { Bindings } from "../contract.js";
import { RefusalError } from "../errors.js";
import { CryptoModule } from "../module.js";
import type { Reply, Request } from "./derivation.js";

const { cores, digest, bindingsUrl, secret, keyring, kek, costs } = workerData as Request;
const bindings: Bindings = bindingsUrl === undefined ? builtin : await import(bindingsUrl);
parentPort?.postMessage(reply());
secret.fill(0);

function reply(): Reply {
    if (bindings.digest !== digest) return { trap: "the bindings changed while they were in use" };
    try {
        const result = new CryptoModule(bindings, cores).instantiate().call(({ keyDerivation }): unknown => {
            if (keyring === undefined) return keyDerivation.createKeyring(secret, costs);
            if (kek === undefined) return keyDerivation.deriveKek(secret, keyring);
            return keyDerivation.rewrap(keyring, kek, secret, costs);
        });
        return { result };
    } catch (error) {
        if (error instanceof RefusalError) return { failure: error.failure };
        return { trap: error instanceof Error ? error.message : String(error) };
    }
}
