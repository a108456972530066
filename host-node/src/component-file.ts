import { readFile } from "node:fs/promises";

/** The component that this package carries. */
export default async function component(): Promise<Uint8Array> {
    return readFile(new URL("./builtin/module.wasm", import.meta.url));
}
