//! Crypto modules other than the one in this package.

import { readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

import type { Bindings } from "../contract.js";
import { CryptoModule } from "../module.js";

/**
 * Loads the folder that `omni-credentials-transpile MODULE.wasm FOLDER` made. Its bindings are code that runs as this
 * program: protect the folder as you protect your code.
 *
 * Throws a {@link ModuleError} `digest-mismatch` if the component is not the one that the bindings were made from.
 */
export async function loadModule(folder: string): Promise<CryptoModule> {
    // Before anything is waited for: the program may go to another folder.
    const at = resolve(folder);
    const url = pathToFileURL(join(at, "bindings.js")).href;
    const bindings = (await import(url)) as Bindings;
    return CryptoModule.load(await readFile(join(at, "module.wasm")), bindings, url);
}
