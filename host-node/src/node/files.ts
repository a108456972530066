//! Reading files, and what can be wrong with them.

import { constants } from "node:fs";
import { lstat, open, readFile, readlink, realpath, stat, statfs } from "node:fs/promises";
import { basename, dirname, join } from "node:path";

import { FileError } from "../errors.js";

/** The least that is read at once, in bytes. */
const CHUNK = 16_384;

/** Reads a regular file of at most `max` bytes. Symbolic links are followed, unless the path was resolved before. */
export async function readRegular(path: string, max: number, resolved = false): Promise<Uint8Array> {
    return failing(path, async () => {
        // A pipe must not block, and a terminal must not become ours.
        const file = await open(
            path,
            constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY | (resolved ? constants.O_NOFOLLOW : 0),
        );
        try {
            const found = await file.stat();
            if (found.isDirectory()) throw fault("is-directory", path);
            if (!found.isFile()) throw fault("not-regular", path);
            // It may grow while it is read, so the length that counts is that of what was read.
            const chunks: Uint8Array[] = [];
            let length = 0;
            for (;;) {
                const chunk = new Uint8Array(Math.min(Math.max(found.size - length + 1, CHUNK), max - length + 1));
                const { bytesRead } = await file.read(chunk, 0, chunk.length, null);
                if (bytesRead === 0) break;
                chunks.push(chunk.subarray(0, bytesRead));
                length += bytesRead;
                if (length > max) throw new FileError("too-long", path, `is longer than ${max} bytes`);
            }
            return joined(chunks, length);
        } finally {
            await file.close();
        }
    });
}

/**
 * The file that `path` stands for: links are followed, so that a process that comes by another name locks and
 * replaces the same file. The file itself need not exist, its folder must.
 */
export async function resolveLinks(path: string): Promise<string> {
    return failing(path, async () => {
        await refuseForeignLinks(path);
        let at = path;
        // A link may point at what does not exist yet, which `realpath` refuses.
        for (let links = 0; links < 40; links++) {
            try {
                return await realpath(at);
            } catch (error) {
                if (codeOf(error) !== "ENOENT") throw error;
            }
            const target = await readlink(at).catch(() => undefined);
            if (target === undefined) {
                const folder = await failing(at, () => realpath(dirname(at)));
                return join(folder, basename(at));
            }
            at = target.startsWith("/") ? target : `${dirname(at)}/${target}`;
        }
        throw fault("link-loop", path);
    });
}

/**
 * Refuses a path through a symbolic link of another account, which could make it lead to any file that only this
 * process may write.
 */
async function refuseForeignLinks(path: string): Promise<void> {
    const parts = (text: string): string[] => text.split("/").filter((part) => part !== "" && part !== ".");
    let folder = path.startsWith("/") ? "/" : ".";
    const rest = parts(path);
    for (let links = 0; ;) {
        const part = rest.shift();
        if (part === undefined) return;
        const at = `${folder}/${part}`;
        const found = await lstat(at).catch(() => undefined);
        // What is missing, or cannot be looked at, is named by what comes next.
        if (found === undefined) return;
        if (!found.isSymbolicLink()) {
            folder = at;
            continue;
        }
        if (found.uid !== 0 && found.uid !== process.geteuid?.()) {
            throw new FileError("foreign-link", path, `the symbolic link ${at} belongs to another account`);
        }
        links += 1;
        if (links > 40) throw fault("link-loop", path);
        const target = await readlink(at);
        if (target.startsWith("/")) folder = "/";
        rest.unshift(...parts(target));
    }
}

/** File systems that one kernel alone has mounted, by the number that statfs(2) gives them. */
const LOCAL = new Set([
    0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010, 0xca45_1a4e, 0x2fc1_2fc1, 0x0102_1994, 0x8584_58f6, 0x794c_7630,
]);

/** Whether no other machine can have the folder of a file mounted, as far as the type of its file system tells. */
export async function isLocal(path: string): Promise<boolean> {
    return statfs(dirname(path)).then(
        ({ type }) => LOCAL.has(type),
        () => false,
    );
}

/** Whether anything has that name, even a link that leads nowhere. */
export async function isThere(path: string): Promise<boolean> {
    return lstat(path).then(
        () => true,
        () => false,
    );
}

/** Makes what was done in the folder of a file survive a crash. */
export async function syncFolder(path: string): Promise<void> {
    const folder = await open(dirname(path), constants.O_RDONLY);
    try {
        await folder.sync();
    } finally {
        await folder.close();
    }
}

/** Runs what works on a file; the system's errors become ours. */
/**
 * Whether a file is on another mount than its folder, so that no other file can take its place. The path has no links.
 * Where the system does not tell, the renaming fails.
 */
export async function isMountPoint(path: string): Promise<boolean> {
    const [file, folder] = await Promise.all([mountOf(path), mountOf(dirname(path))]);
    return file !== undefined && folder !== undefined && file !== folder;
}

/** The number of the mount that a file or folder is on. */
async function mountOf(path: string): Promise<string | undefined> {
    const flags = constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY | constants.O_NOFOLLOW;
    try {
        const opened = await open(path, flags);
        try {
            const lines = await readFile(`/proc/self/fdinfo/${opened.fd}`, "ascii");
            return /^mnt_id:\s*([0-9]+)$/m.exec(lines)?.[1];
        } finally {
            await opened.close();
        }
    } catch {
        return undefined;
    }
}

export async function failing<T>(path: string, work: () => Promise<T>): Promise<T> {
    try {
        return await work();
    } catch (error) {
        throw await asFileError(path, error);
    }
}

export function codeOf(error: unknown): string | undefined {
    return (error as NodeJS.ErrnoException | undefined)?.code;
}

const REASONS = {
    "not-found": "no such file",
    "no-folder": "the folder does not exist",
    "is-directory": "is a directory",
    "not-regular": "is not a regular file",
    "no-permission": "permission denied",
    "read-only": "the file system is read-only",
    "no-space": "no space left",
    "link-loop": "too many symbolic links",
    "mount-point": "is a mount point, which cannot be replaced: mount its folder instead",
    exists: "exists already",
} as const;

const FAULTS: Readonly<Record<string, keyof typeof REASONS>> = {
    ENOENT: "not-found",
    ENOTDIR: "no-folder",
    EISDIR: "is-directory",
    EACCES: "no-permission",
    EPERM: "no-permission",
    EROFS: "read-only",
    ENOSPC: "no-space",
    EDQUOT: "no-space",
    ELOOP: "link-loop",
    ENXIO: "not-regular",
};

export function fault(code: keyof typeof REASONS, path: string, cause?: unknown): FileError {
    return new FileError(code, path, REASONS[code], { hint: hintFor(code, path), cause });
}

async function asFileError(path: string, error: unknown): Promise<unknown> {
    const code = codeOf(error);
    if (!(error instanceof Error) || code === undefined || !/^E[A-Z0-9]+$/.test(code)) return error;
    const known = FAULTS[code];
    if (known === undefined) return new FileError("other", path, error.message, { cause: error });
    const lacksFolder = known === "not-found" && !(await stat(dirname(path)).catch(() => undefined))?.isDirectory();
    return fault(lacksFolder ? "no-folder" : known, path, error);
}

function hintFor(code: keyof typeof REASONS, path: string): string | undefined {
    switch (code) {
        case "not-found":
            return `a new one: omni-credentials init --file ${path}, or Store.create()`;
        case "no-permission":
            return `ls -l ${path}`;
        default:
            return undefined;
    }
}

function joined(chunks: readonly Uint8Array[], length: number): Uint8Array {
    const [only, ...others] = chunks;
    if (only !== undefined && others.length === 0) return only;
    const all = new Uint8Array(length);
    let at = 0;
    for (const chunk of chunks) {
        all.set(chunk, at);
        at += chunk.length;
    }
    return all;
}
