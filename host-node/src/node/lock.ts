//! The right to replace a file, shared by all hosts and processes: the file `NAME.lock` beside it (FORMAT.md §7.2).

import { closeSync, constants, openSync, readFileSync, rmSync } from "node:fs";
import { link, open, rm, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

import { FileLockedError } from "../errors.js";
import { codeOf, failing, isLocal, isThere, resolveLinks } from "./files.js";
import { describe, type Holder, isGone, isSame, parse, thisProcess, toText } from "./holder.js";
import type { Signal } from "./signal.js";
import { sweep, temporaryFor } from "./staged.js";

/** How long to wait before looking again at a lock that another process holds, in milliseconds. */
const PAUSE = 10;
/** How many deaths in the middle of a takeover, one after another, do not need a person. */
const TAKEOVERS = 3;
/** How many takeovers there can be in one wait without a pause between them. */
const MAX_TAKEOVERS = 2 * TAKEOVERS + 2;
/** A lock file is shorter than this, in bytes. */
const MAX_LOCK_FILE = 4096;

/** How to wait for another holder. */
export interface WaitOptions {
    /** How long, in seconds; 10 by default. */
    wait?: number | undefined;
    /** What ends the wait: its reason is thrown, and nothing is written. */
    signal?: Signal | undefined;
}

/**
 * Runs `work` with the lock of `path`, which it gets with links followed. The lock is freed when `work` ends and, as
 * far as that is possible, when the process does.
 *
 * A lock whose holder died is taken over. Without care two processes could both find it stale, one remove it and take
 * the lock, and the other then remove the new lock. So a stale lock may be removed only by a process that created
 * `NAME.lock.takeover` exclusively and then found the lock stale. A process that dies in the few calls of a takeover
 * leaves that file behind, and it is taken over the same way.
 */
export async function withLock<T>(path: string, options: WaitOptions, work: (path: string) => Promise<T>): Promise<T> {
    const file = await resolveLinks(path);
    const lock = `${file}.lock`;
    const holder = thisProcess();
    await acquire(file, lock, holder, options);
    const freeIt = (): void => free(lock, holder);
    freeAtExit(freeIt);
    try {
        // No other process may stage now: what exists is from the dead, or the lock of a process that waits, and that
        // then makes another.
        await sweep(file);
        return await work(file);
    } finally {
        held.delete(freeIt);
        freeIt();
    }
}

/** What frees the locks that this thread holds. */
const held = new Set<() => void>();

/** All locks share one listener: Node warns of more than ten. */
function freeAtExit(work: () => void): void {
    if (!process.listeners("exit").includes(freeAll)) process.on("exit", freeAll);
    held.add(work);
}

function freeAll(): void {
    held.forEach((work) => work());
}

async function acquire(file: string, lock: string, holder: Holder, { wait = 10, signal }: WaitOptions): Promise<void> {
    const deadline = performance.now() + wait * 1000;
    let takeovers = MAX_TAKEOVERS;
    for (;;) {
        signal?.throwIfAborted();
        if (await failing(file, () => create(file, lock, holder))) return;
        const found = await failing(file, () => readHolder(lock));
        // Whatever other processes do, every round but a takeover ends the wait, or checks the clock and pauses.
        const stale = typeof found !== "string" && isGone(found, await isLocal(file));
        // Each takeover removes one file that a dead process left.
        if (stale && takeovers > 0 && (await failing(file, () => takeOver(file, lock, holder, TAKEOVERS)))) {
            takeovers -= 1;
            continue;
        }
        if (performance.now() >= deadline) {
            // A takeover that a process died in is what stands in the way of a stale lock.
            const inTheWay = stale ? `${lock}.takeover` : lock;
            throw new FileLockedError(
                file,
                typeof found === "string" ? "an unknown process" : describe(found),
                inTheWay,
            );
        }
        await sleep(PAUSE);
    }
}

/**
 * Creates a lock file; false if it exists. It appears with its text in it (it is linked into place), so that a process
 * that dies while it makes one leaves nothing that stands in the way.
 */
async function create(file: string, lock: string, holder: Holder): Promise<boolean> {
    if (await isThere(lock)) return false;
    const temporary = temporaryFor(file);
    try {
        await writeNew(temporary, holder);
        await link(temporary, lock);
        return true;
    } catch (error) {
        switch (codeOf(error)) {
            case "EEXIST":
                return false;
            case "ENOENT":
                // Swept by a takeover in between: try again. A folder that is missing is another matter.
                if ((await stat(dirname(file)).catch(() => undefined)) !== undefined) return false;
                throw error;
            // A link to the account's own file is refused only if the file system has no links.
            case "EPERM":
            case "EOPNOTSUPP":
            case "ENOTSUP":
            case "ENOSYS":
            case "EMLINK":
                return await createWithoutLink(lock, holder);
            default:
                throw error;
        }
    } finally {
        await rm(temporary, { force: true }).catch(() => undefined);
    }
}

async function createWithoutLink(lock: string, holder: Holder): Promise<boolean> {
    try {
        await writeNew(lock, holder);
        return true;
    } catch (error) {
        if (codeOf(error) === "EEXIST") return false;
        throw error;
    }
}

async function writeNew(path: string | Buffer, holder: Holder): Promise<void> {
    const file = await open(path, "wx", 0o644);
    try {
        await file.writeFile(toText(holder));
    } catch (error) {
        // Of no use to any process: there is no space for its few bytes.
        await rm(path, { force: true }).catch(() => undefined);
        throw error;
    } finally {
        await file.close();
    }
}

/** Removes a stale lock; false when another process does. */
async function takeOver(file: string, lock: string, holder: Holder, levels: number): Promise<boolean> {
    const takeover = `${lock}.takeover`;
    if (!(await create(file, takeover, holder))) {
        const found = levels > 0 ? await readHolder(takeover) : "unknown";
        const stale = typeof found !== "string" && isGone(found, await isLocal(file));
        return stale ? takeOver(file, takeover, holder, levels - 1) : false;
    }
    try {
        const found = await readHolder(lock);
        if (typeof found !== "string" && isGone(found, await isLocal(file))) await rm(lock, { force: true });
    } finally {
        await rm(takeover, { force: true });
    }
    return true;
}

/** The holder of the lock; unknown while it is still writing (without hard links), or if this is not a lock file. */
async function readHolder(lock: string): Promise<Holder | "none" | "unknown"> {
    let file;
    try {
        file = await open(lock, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    } catch (error) {
        if (codeOf(error) === "ENOENT") return "none";
        // Nothing tells which account made a symbolic link.
        if (codeOf(error) === "ELOOP") return "unknown";
        throw error;
    }
    try {
        const { buffer, bytesRead } = await file.read(Buffer.alloc(MAX_LOCK_FILE), 0, MAX_LOCK_FILE, 0);
        return parse(buffer.toString("utf8", 0, bytesRead)) ?? "unknown";
    } finally {
        await file.close();
    }
}

/** Frees a lock, if it is this one: one that a person removed may by now belong to another process. */
function free(lock: string, holder: Holder): void {
    try {
        const file = openSync(lock, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
        let found;
        try {
            found = parse(readFileSync(file, "utf8"));
        } finally {
            closeSync(file);
        }
        if (found !== undefined && isSame(found, holder)) rmSync(lock, { force: true });
    } catch {
        // It is gone, or cannot be removed.
    }
}
