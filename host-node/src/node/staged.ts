//! New contents of a file: written and synced beside it, then renamed over it (FORMAT.md §7.2).

import { createHash, randomBytes } from "node:crypto";
import { constants, type Stats } from "node:fs";
import { type FileHandle, lstat, open, readdir, rename, rm } from "node:fs/promises";
import { basename, dirname } from "node:path";

import { codeOf, failing, fault, isMountPoint, syncFolder } from "./files.js";

/**
 * Replaces the file at `path` in one step that survives a crash. For the holder of its lock; links are already
 * resolved.
 */
export async function replace(path: string, bytes: Uint8Array): Promise<void> {
    await failing(path, async () => {
        const replaced = await existing(path);
        const temporary = temporaryFor(path);
        const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
        const file = await open(temporary, flags, 0o600);
        try {
            try {
                if (replaced !== undefined) await keepRights(file, replaced);
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
 * Removes what was staged for `path` by writers that died. Only for the holder of its lock: no other process stages
 * anything then.
 */
export async function sweep(path: string): Promise<void> {
    const prefix = prefixOf(path);
    const names = await readdir(dirname(path), { encoding: "buffer" }).catch(() => []);
    for (const name of names) {
        const isStaged =
            name.length === prefix.length + 20 &&
            name.subarray(0, prefix.length).equals(prefix) &&
            /^[0-9a-f]{16}\.tmp$/.test(name.toString("latin1", prefix.length));
        if (isStaged) {
            const staged = Buffer.concat([Buffer.from(`${dirname(path)}/`), name]);
            await rm(staged, { force: true }).catch(() => undefined);
        }
    }
}

/** What the names of all files staged for a file start with (FORMAT.md §7.2). Names have at most 255 bytes. */
function prefixOf(path: string): Buffer {
    let name = Buffer.from(basename(path));
    if (name.length > 200) {
        const digest = createHash("sha256").update(name).digest("hex");
        name = Buffer.concat([name.subarray(0, 150), Buffer.from(`~${digest}`)]);
    }
    return Buffer.concat([Buffer.from("."), name, Buffer.from(".")]);
}

/** What exists of a file: nothing if it does not. It must be a regular file. */
async function existing(path: string): Promise<Stats | undefined> {
    const found = await lstat(path).catch((error: unknown) => {
        if (codeOf(error) === "ENOENT") return undefined;
        throw error;
    });
    if (found?.isDirectory()) throw fault("is-directory", path);
    if (found !== undefined && !found.isFile()) throw fault("not-regular", path);
    if (found !== undefined && (await isMountPoint(path))) throw fault("mount-point", path);
    return found;
}

/** Gives a new file the mode and, where this process may give it away, the group of the one that it replaces. */
async function keepRights(file: FileHandle, replaced: Stats): Promise<void> {
    let mode = replaced.mode & 0o777;
    const own = await file.stat();
    if (own.gid !== replaced.gid) {
        await file.chown(own.uid, replaced.gid).catch(() => {
            // What the group may do is not given to another one, beyond what all may.
            mode &= 0o707 | ((mode & 0o007) << 3);
        });
    }
    await file.chmod(mode);
}
