//! New contents of a file: written and synced beside it, then renamed over it (FORMAT.md §7.2).

import { randomBytes } from "node:crypto";
import { constants } from "node:fs";
import { open, readdir, rename, rm, stat } from "node:fs/promises";
import { basename, dirname } from "node:path";

import { failing, fault, syncFolder } from "./files.js";

/**
 * Replaces the file at `path` in one step that survives a crash. For who holds its lock; links are resolved already.
 */
export async function replace(path: string, bytes: Uint8Array): Promise<void> {
    await failing(path, async () => {
        if ((await stat(path).catch(() => undefined))?.isDirectory()) throw fault("is-directory", path);
        const temporary = temporaryFor(path);
        const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
        const file = await open(temporary, flags, 0o600);
        try {
            try {
                await file.writeFile(bytes);
                await file.sync();
            } finally {
                await file.close();
            }
            await rename(temporary, path);
        } catch (error) {
            await rm(temporary, { force: true }).catch(() => undefined);
            throw error;
        }
        await syncFolder(path);
    });
}

/** A new name beside `path`, of the sort that {@link sweep} removes. */
export function temporaryFor(path: string): Buffer {
    const name = Buffer.concat([prefixOf(path), Buffer.from(`${randomBytes(8).toString("hex")}.tmp`)]);
    return Buffer.concat([Buffer.from(`${dirname(path)}/`), name]);
}

/**
 * Removes what was staged for `path` by writers that died. Only for who holds its lock: nobody else stages anything
 * then.
 */
export async function sweep(path: string): Promise<void> {
    const prefix = prefixOf(path);
    const names = await readdir(dirname(path), { encoding: "buffer" }).catch(() => []);
    for (const name of names) {
        const isStaged =
            name.length === prefix.length + 20 &&
            name.subarray(0, prefix.length).equals(prefix) &&
            name.subarray(-4).equals(Buffer.from(".tmp"));
        if (isStaged) {
            const staged = Buffer.concat([Buffer.from(`${dirname(path)}/`), name]);
            await rm(staged, { force: true }).catch(() => undefined);
        }
    }
}

/** What the names of all files staged for a file start with. Names have at most 255 bytes. */
function prefixOf(path: string): Buffer {
    return Buffer.concat([Buffer.from("."), Buffer.from(basename(path)).subarray(0, 200), Buffer.from(".")]);
}
