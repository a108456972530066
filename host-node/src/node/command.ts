//! A program that prints the master secret, as every host runs it.

import { spawn } from "node:child_process";
import { constants } from "node:os";

import { SecretCommandError } from "../errors.js";

/** How long the program may take, in milliseconds. */
const TIME_LIMIT = 30_000;
/** How much of its standard error is kept, in bytes: the end. */
const MAX_PRINTED = 1000;
/** How long what it started may hold its output open after its end, in milliseconds. */
const LATE = 20;
const DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin";

// conformance/commands.json has examples of what a program gets and does not get.
const PASSED_ON = new Set(
    (
        "ALL_PROXY CREDENTIALS_DIRECTORY DISPLAY GNUPGHOME GPG_TTY HOME HTTPS_PROXY HTTP_PROXY LANG LANGUAGE LC_ALL " +
        "LOGNAME NO_PROXY PATH SHELL SSH_AUTH_SOCK SSL_CERT_DIR SSL_CERT_FILE TERM TMPDIR TZ USER WAYLAND_DISPLAY all_proxy " +
        "http_proxy https_proxy no_proxy"
    ).split(" "),
);
const PASSED_ON_PREFIXES = (
    "AGE_ AWS_ AZURE_ BAO_ BITWARDENCLI_ BWS_ BW_ CLOUDSDK_ DBUS_ DOPPLER_ GOOGLE_ INFISICAL_ KUBERNETES_ OP_ " +
    "PASSWORD_STORE_ SOPS_ VAULT_ XDG_"
).split(" ");

/**
 * What the program of a command prints, at most so many bytes. It gets no input and few variables, and has a session of
 * its own. Throws a {@link SecretCommandError}.
 */
export async function secretFromCommand(
    command: string,
    variable: string,
    folder: string,
    most: number,
): Promise<Uint8Array> {
    const failed = (reason: string, program = "", printed: Buffer = Buffer.alloc(0)): SecretCommandError =>
        new SecretCommandError(`${variable}_COMMAND`, reason, program, oneLine(printed));
    const words = splitCommand(command);
    if (typeof words === "string") throw failed(`the command ${words}`);
    const [program, ...rest] = words;
    if (program === undefined) throw failed("the command is empty");
    if (program === "" || (program.includes("/") && !program.startsWith("/"))) {
        throw failed("the command names neither a program on the search path nor the absolute path of one", program);
    }
    return new Promise((resolve, reject) => {
        const child = spawn(program, rest, {
            stdio: ["ignore", "pipe", "pipe"],
            env: environment(variable),
            cwd: folder || undefined,
            detached: true,
        });
        const printed: Buffer[] = [];
        let length = 0;
        let errors: Buffer = Buffer.alloc(0);
        let failure: string | undefined;
        const kill = (reason: string): void => {
            failure ??= reason;
            if (child.exitCode === null && child.signalCode === null && child.pid !== undefined) {
                try {
                    process.kill(-child.pid, "SIGKILL");
                } catch {
                    // It has ended meanwhile.
                }
            }
        };
        const timer = setTimeout(() => {
            kill(`the program did not end within ${TIME_LIMIT / 1000} seconds`);
        }, TIME_LIMIT);
        child.stdout.on("data", (data: Buffer) => {
            length += data.length;
            if (length <= most) printed.push(data);
            else kill(`the program printed more than ${most} bytes`);
        });
        child.stderr.on("data", (data: Buffer) => {
            errors = Buffer.from(Buffer.concat([errors, data]).subarray(-MAX_PRINTED));
        });
        child.on("error", (error: NodeJS.ErrnoException) => {
            clearTimeout(timer);
            if (error.code === "ENOENT") reject(failed("there is no such program", program));
            else if (error.code === "EACCES") reject(failed("the program is not executable", program));
            else reject(failed(`the program cannot be run: ${error.code ?? "unknown error"}`, program));
        });
        child.on("exit", () => {
            // What it started may go on and hold the pipes; what it has printed itself is there.
            setTimeout(() => {
                child.stdout.destroy();
                child.stderr.destroy();
            }, LATE).unref();
        });
        child.on("close", (status, signal) => {
            clearTimeout(timer);
            if (failure === undefined && signal !== null)
                failure = `the program was ended by signal ${constants.signals[signal]}`;
            if (failure === undefined && status !== 0) failure = `the program ended with status ${status}`;
            const secret = Buffer.concat(printed);
            if (failure === undefined && secret.every((byte) => BLANKS.has(byte)))
                failure = "the program printed nothing";
            if (failure === undefined) resolve(new Uint8Array(secret));
            else reject(failed(failure, program, errors));
        });
    });
}

/**
 * The words of a command, or what is wrong with it. Single quotes take the meaning from everything; between double quotes,
 * a backslash does from `"`, `\`, `$` and a backquote; outside of quotes, from any character. Before a line end, it stands
 * for nothing, and the line end as well. Nothing is expanded.
 */
export function splitCommand(command: string): string[] | string {
    const words: string[] = [];
    let word: string | undefined;
    let quote = "";
    const characters = [...command];
    for (let at = 0; at < characters.length; at++) {
        const it = characters[at] ?? "";
        const next = characters[at + 1];
        if (quote === "'") {
            if (it === "'") quote = "";
            else word = (word ?? "") + it;
        } else if (it === "\\" && next === "\n") {
            at += 1;
        } else if (quote === '"') {
            if (it === '"') {
                quote = "";
            } else if (it === "\\" && next !== undefined && '"\\$`'.includes(next)) {
                word = (word ?? "") + next;
                at += 1;
            } else {
                word = (word ?? "") + it;
            }
        } else if (" \t\r\n".includes(it)) {
            if (word !== undefined) words.push(word);
            word = undefined;
        } else if (it === "'" || it === '"') {
            quote = it;
            word ??= "";
        } else if (it === "\\") {
            if (next === undefined) return "ends with a backslash";
            word = (word ?? "") + next;
            at += 1;
        } else {
            word = (word ?? "") + it;
        }
    }
    if (quote !== "") return `has a ${quote === "'" ? "single" : "double"} quote without its pair`;
    if (word !== undefined) words.push(word);
    return words;
}

const BLANKS = new Set([0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x20]);

function environment(variable: string): NodeJS.ProcessEnv {
    const own = new Set(["", "_FILE", "_COMMAND"].map((ending) => variable + ending));
    const passedOn = Object.entries(process.env).filter(
        ([name]) =>
            (PASSED_ON.has(name) || PASSED_ON_PREFIXES.some((prefix) => name.startsWith(prefix))) && !own.has(name),
    );
    const found = Object.fromEntries(passedOn);
    return { ...found, PATH: found["PATH"] || DEFAULT_PATH };
}

function oneLine(text: Buffer): string {
    return text
        .toString("utf8")
        .replace(/[\p{C}\s]+/gu, " ")
        .trim();
}
