//! Crypto modules of one's own.

import { readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

import type { Bindings } from "../contract.js";
import { CryptoModule } from "../module.js";

/**
 * Loads the folder that `omni-credentials-transpile MODULE.wasm FOLDER` made. Its bindings are code that runs as this
 * program: keep the folder as you keep code.
 *
 * Throws a {@link ModuleError} `digest-mismatch` if the component is not the one that the bindings were made from.
 */
export async function loadModule(folder: string): Promise<CryptoModule> {
    const url = pathToFileURL(resolve(folder, "bindings.js")).href;
    const bindings = (await import(url)) as Bindings;
    return CryptoModule.load(await readFile(join(folder, "module.wasm")), bindings, url);
}
