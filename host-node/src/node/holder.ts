//! The holder of a lock: a process, identified so that it is never confused with another, even after a restart.

import { readFileSync, readlinkSync } from "node:fs";
import { hostname } from "node:os";
import { isMainThread } from "node:worker_threads";

/** The lines of a lock file (FORMAT.md §7.2), after the first one. */
const FIELDS = ["pid", "start", "boot", "namespace", "machine", "host"] as const;
const HEADER = "omni-credentials lock 1";
/** What stands for something that the system does not tell. */
const UNKNOWN = "-";

export type Holder = Readonly<Record<(typeof FIELDS)[number], string>>;

/**
 * This process. In a worker it is the worker's thread, which can end before the process does and then frees nothing.
 * The system numbers threads as it numbers processes, so every host sees whether the thread is still running.
 */
export function thisProcess(): Holder {
    const pid = (isMainThread ? undefined : thisThread()) ?? process.pid;
    return {
        pid: String(pid),
        start: startOf(pid) ?? UNKNOWN,
        boot: firstWord(fileText("/proc/sys/kernel/random/boot_id")),
        namespace: pidNamespace(),
        machine: firstWord(fileText("/etc/machine-id")),
        host: firstWord(hostname()),
    };
}

export function toText(holder: Holder): string {
    return [HEADER, ...FIELDS.map((field) => `${field} ${holder[field]}`), ""].join("\n");
}

/** The holder that a lock file names; none for any other file. */
export function parse(text: string): Holder | undefined {
    const [header, ...lines] = text.split("\n");
    if (header !== HEADER || lines.length !== FIELDS.length + 1 || lines.pop() !== "") return undefined;
    const values: Partial<Record<(typeof FIELDS)[number], string>> = {};
    for (const [at, field] of FIELDS.entries()) {
        const line = lines[at] ?? "";
        if (!line.startsWith(`${field} `) || line.length === field.length + 1) return undefined;
        values[field] = line.slice(field.length + 1);
    }
    // The pid of a process is a u32 for all hosts.
    const isPid = /^\+?\d+$/.test(values.pid ?? "") && Number(values.pid) <= 0xffff_ffff;
    return isPid ? (values as Holder) : undefined;
}

/**
 * Whether a holder has certainly ended. `isLocal` says that no other machine can have the lock's folder mounted. For a
 * process that cannot be seen from here, on another machine or in another container, the answer is no.
 *
 * Machines made from one image can share host name and machine id. They differ in `boot`, as this machine does after a
 * restart, so another `boot` proves nothing where the folder may be shared between machines.
 */
export function isGone(holder: Holder, isLocal: boolean): boolean {
    const here = thisProcess();
    if (holder.machine !== here.machine || holder.host !== here.host) return false;
    if (holder.boot !== here.boot) {
        return isLocal && ![holder.machine, holder.boot, here.boot].includes(UNKNOWN);
    }
    if (holder.boot === UNKNOWN && !isLocal) return false;
    // Unknown ones may be of two containers.
    if (holder.namespace === UNKNOWN || holder.namespace !== here.namespace) return false;
    const pid = Number(holder.pid);
    // /proc may hide the processes of others, the signal 0 does not.
    if (!exists(pid)) return true;
    const start = startOf(pid);
    return start !== undefined && holder.start !== UNKNOWN && start !== holder.start;
}

export function isSame(a: Holder, b: Holder): boolean {
    return toText(a) === toText(b);
}

/** For a message, with why this process cannot see whether the holder is still running. */
export function describe(holder: Holder): string {
    const here = thisProcess();
    let place = "";
    if (holder.host === here.host && (holder.machine !== here.machine || holder.boot !== here.boot)) {
        place = ", another machine of the same name or before a restart";
    } else if (holder.host === here.host && holder.namespace !== here.namespace) {
        place = `, in another container (pid namespace ${holder.namespace})`;
    }
    return `process ${holder.pid} on host ${holder.host}${place}`;
}

/** The number of this thread, where it stands for the thread as that of a process stands for the process. */
function thisThread(): number | undefined {
    let link: string;
    try {
        link = readlinkSync("/proc/thread-self");
    } catch {
        return undefined;
    }
    const [process_, thread] = /^(\d+)\/task\/(\d+)$/.exec(link)?.slice(1).map(Number) ?? [];
    const isKnown = process_ === process.pid && thread !== undefined && startOf(thread) !== undefined && exists(thread);
    return isKnown ? thread : undefined;
}

/** Field 22 of /proc/PID/stat. The name in field 2 may hold spaces and parentheses. */
function startOf(pid: number): string | undefined {
    const stat = fileText(`/proc/${pid}/stat`);
    const end = stat?.lastIndexOf(")") ?? -1;
    return end < 0
        ? undefined
        : stat
              ?.slice(end + 1)
              .trim()
              .split(/\s+/)[19];
}

function exists(pid: number): boolean {
    // Beyond what a pid can be there is no process; 0 would be a group.
    if (pid === 0 || pid > 0x7fff_ffff) return false;
    try {
        return process.kill(pid, 0);
    } catch (error) {
        return (error as NodeJS.ErrnoException).code !== "ESRCH";
    }
}

function pidNamespace(): string {
    try {
        return readlinkSync("/proc/self/ns/pid") || UNKNOWN;
    } catch {
        return UNKNOWN;
    }
}

function fileText(path: string): string | undefined {
    try {
        return readFileSync(path, "utf8");
    } catch {
        return undefined;
    }
}

function firstWord(text: string | undefined): string {
    return text?.trim().split(/\s+/)[0] || UNKNOWN;
}
