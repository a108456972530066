//! Why something was not done. No error holds a value, a secret or a key.

import type { Failure, Reason } from "./contract.js";
import { CODES, CONFLICTS, FILE_HINTS, HINTS } from "./error-table.js";
import { type Credential, printable, shown } from "./identity.js";

/** What a file without a name is called. */
export const UNNAMED = "the document";

/** What an error may say beside its message. */
export interface Details {
    line?: number;
    found?: number;
    hint?: string | undefined;
    cause?: unknown;
}

/** The parent of all errors of this package. */
export abstract class CredentialsError extends Error {
    /**
     * What is wrong, in one word that stays the same: a case of the contract's `types.error`, or one of this package.
     */
    readonly code: string;
    /** The line of the file, counted from 1; 0 where the error has no line. */
    readonly line: number;
    /** What was found, such as a version or a length; 0 if there is nothing to say. Exact up to 2^53. */
    readonly found: number;
    /** What to do about it: where possible the exact command or call. */
    readonly hint: string | undefined;

    constructor(code: string, message: string, { line = 0, found = 0, hint, cause }: Details = {}) {
        super(message, cause === undefined ? undefined : { cause });
        this.name = new.target.name;
        this.code = code;
        this.line = line;
        this.found = found;
        this.hint = hint;
    }
}

/** The module looked at the arguments of a call and refused them. What the low-level layer throws. */
export class RefusalError extends CredentialsError {
    /** The contract's `types.failure`, with `found` as it is. */
    readonly failure: Failure;

    constructor(failure: Failure) {
        super(failure.error, explain(failure), { line: failure.line, found: Number(failure.found) });
        this.failure = failure;
    }
}

/** There is no such credential. */
export class CredentialNotFoundError extends CredentialsError {
    constructor(name: string) {
        super("credential-not-found", `there is no credential ${printable(name)}`, {
            hint: "list the credentials: list()",
        });
    }
}

/** Several credentials match. */
export class AmbiguousCredentialError extends CredentialsError {
    /** Those that do. */
    readonly credentials: readonly Credential[];

    constructor(name: string, credentials: readonly Credential[]) {
        const found = credentials.map(shown).join("; ");
        super("ambiguous-credential", `there are ${credentials.length} credentials ${printable(name)}: ${found}`, {
            hint: HINTS.ambiguous,
        });
        this.credentials = credentials;
    }
}

/** The file does not exist, exists already, or cannot be reached. */
export class FileError extends CredentialsError {
    readonly path: string;

    constructor(code: string, path: string, reason: string, details?: Details) {
        super(code, `${path}: ${reason}`, details);
        this.path = path;
    }
}

/** Another process held the lock of the file until the wait ended. */
export class FileLockedError extends CredentialsError {
    readonly path: string;
    /** The process that holds it, as far as the lock file tells. */
    readonly holder: string;
    /** The lock file. */
    readonly lock: string;

    constructor(path: string, holder: string, lock: string) {
        const message = `${path}: is locked by ${holder}; if no such process is running, remove ${lock}`;
        super("locked", message, { hint: HINTS.locked.replaceAll("{lock}", () => lock) });
        this.path = path;
        this.holder = holder;
        this.lock = lock;
    }
}

/** The file is damaged or was altered. The package does not change it. */
export class DamagedFileError extends CredentialsError {}

/** The file needs a newer version or another crypto module. The package does not change it. */
export class NeedsNewerError extends CredentialsError {}

/**
 * Neither the call nor the environment gives the master secret (`no-secret`), or the principal (`no-principal`).
 */
export class MissingInputError extends CredentialsError {}

/** The program that prints the master secret gave none. */
export class SecretCommandError extends CredentialsError {
    /** The variable that names the program. */
    readonly variable: string;
    /** The program; empty if the command cannot be read. */
    readonly program: string;
    /** The end of what it wrote to standard error, on one line. */
    readonly printed: string;

    constructor(variable: string, reason: string, program: string, printed: string) {
        const about = program === "" ? "" : `: ${JSON.stringify(program).slice(1, -1)}`;
        const said = printed === "" ? "" : `, which said: ${printed}`;
        super("secret-command", `${variable}: ${reason}${about}${said}`, {
            hint: `run the program of ${variable} at the shell; it gets no input and no terminal`,
        });
        this.variable = variable;
        this.program = program;
        this.printed = printed;
    }
}

/** The master secret is wrong, or cannot be one. */
export class WrongMasterSecretError extends CredentialsError {}

/** A credential that both sides changed in different ways. */
export interface MergeConflict {
    readonly credential: Credential;
    /** Why that is a conflict. Ours is this document, theirs the other version of the file. */
    readonly reason: Reason;
}

/** Both sides changed the same credentials in different ways. Nothing was written. */
export class MergeConflictError extends CredentialsError {
    /** What is in conflict, and why. */
    readonly conflicts: readonly MergeConflict[];
    /** The credentials in conflict. */
    readonly credentials: readonly Credential[];

    constructor(conflicts: readonly MergeConflict[]) {
        const listed = conflicts.map(({ credential, reason }) => `${shown(credential)} (${CONFLICTS[reason]})`);
        super("conflict", `the two sides do not agree on ${listed.join("; ")}`, { hint: HINTS.conflict });
        this.conflicts = conflicts;
        this.credentials = conflicts.map(({ credential }) => credential);
    }
}

/** Both sides changed the master secret: choose the one to keep. Nothing was written. */
export class MasterSecretConflictError extends CredentialsError {
    constructor(file: string) {
        super("master-secret-conflict", `both sides changed the master secret of ${file}`, { hint: HINTS.wrapping });
    }
}

/** A name, kind, principal, scope or value is not valid. */
export class InvalidInputError extends CredentialsError {}

/** The value of a credential does not open. The others do. */
export class UnreadableValueError extends CredentialsError {
    readonly credential: Credential;

    constructor(credential: Credential, refusal: RefusalError) {
        const { code, line, found } = refusal;
        super(code, `${shown(credential)}: ${refusal.message}`, { line, found, hint: HINTS.value, cause: refusal });
        this.credential = credential;
    }
}

/** The crypto module was refused (`digest-mismatch`, `forbidden-import`, `wrong-contract`) or failed (`trap`). */
export class ModuleError extends CredentialsError {}

/** What a failure means, as the rest of a message. */
export function explain({ error, line, found }: Failure): string {
    const codes: Readonly<Record<Failure["error"], readonly [meaning: string, unitOfFound?: string]>> = CODES;
    const [meaning, unit] = codes[error] ?? codes.other;
    return `${line > 0 ? `line ${line}: ` : ""}${meaning}${unit === undefined ? "" : ` (${unit}${found})`}`;
}

/** Runs a call, which may be asynchronous, about a file, called `file` in messages. */
export function aboutFile<T>(file: string, call: () => T): T {
    return refining(call, (refusal) => {
        const { code, line, found } = refusal;
        const message = `${file}: ${refusal.message}`;
        const details = { line, found, hint: fileHint(code, file), cause: refusal };
        switch (code) {
            case "wrong-master-secret":
                return new WrongMasterSecretError(code, message, details);
            case "invalid-master-secret":
                return secretError(refusal);
            case "unknown-version":
            case "unknown-suite":
                return new NeedsNewerError(code, message, details);
            default:
                return new DamagedFileError(code, message, details);
        }
    });
}

/** Runs a call about an argument. */
export function aboutArgument<T>(subject: string, call: () => T): T {
    return refining(call, (refusal) => {
        const { code, line, found } = refusal;
        if (code === "invalid-master-secret") return secretError(refusal);
        const hint = code === "invalid-scope" ? HINTS.scope : undefined;
        return new InvalidInputError(code, `${subject}: ${refusal.message}`, { line, found, hint, cause: refusal });
    });
}

/** Runs a call that opens the value of a credential. */
export function aboutValue<T>(credential: Credential, call: () => T): T {
    return refining(call, (refusal) => new UnreadableValueError(credential, refusal));
}

function refining<T>(call: () => T, refine: (refusal: RefusalError) => CredentialsError): T {
    const refined = (error: unknown): never => {
        throw error instanceof RefusalError ? refine(error) : error;
    };
    try {
        const result = call();
        return result instanceof Promise ? (result.catch(refined) as T) : result;
    } catch (error) {
        return refined(error);
    }
}

function secretError(refusal: RefusalError): WrongMasterSecretError {
    return new WrongMasterSecretError(refusal.code, refusal.message, {
        hint: HINTS.secret,
        cause: refusal,
    });
}

function fileHint(code: string, file: string): string {
    // Without a name there is nothing to type after a command.
    const name = file === UNNAMED ? "FILE" : file;
    return (FILE_HINTS[code] ?? HINTS.file).replaceAll("{file}", () => name);
}
