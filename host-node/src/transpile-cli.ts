#!/usr/bin/env node
// omni-credentials-transpile MODULE.wasm FOLDER: makes a folder that `loadModule` takes.

import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { transpile } from "./transpile.js";

const [component, folder] = process.argv.slice(2);
if (component === undefined || folder === undefined) {
    console.error("usage: omni-credentials-transpile MODULE.wasm FOLDER");
    process.exit(2);
}
try {
    const files = await transpile(await readFile(component));
    await mkdir(folder, { recursive: true });
    for (const [name, bytes] of files) await writeFile(join(folder, name), bytes);
} catch (error) {
    console.error(`error: ${error instanceof Error ? error.message : String(error)}`);
    process.exit(1);
}
