//! A credentials file on disk.

import { resolve } from "node:path";
import { fileURLToPath } from "node:url";

import { equal } from "../bytes.js";
import type { Costs } from "../contract.js";
import { builtinModule } from "../core.js";
import { inThisThread, type Secret } from "../derivation.js";
import {
    CredentialsDocument,
    type DocumentOptions,
    type ListOptions,
    type SetOptions,
    type MergeOptions,
    type RotateMasterSecretOptions,
    type Written,
} from "../document.js";
import type { UnreadableValueError } from "../errors.js";
import type { Credential, Which } from "../identity.js";
import type { CryptoModule } from "../module.js";
import { inWorker } from "./derivation.js";
import { fault, isThere, readRegular, resolveLinks } from "./files.js";
import { type WaitOptions, withLock } from "./lock.js";
import { replace } from "./staged.js";
import { DEFAULT_VARIABLE, secretFromEnvironment } from "./secret.js";

/** The longest credentials file, in bytes: the format's limit. */
const MAX_FILE = 64 << 20;

/** The URL of a file: a `URL`, which not every compiler's library declares. */
export interface FileUrl {
    readonly href: string;
}

/**
 * How a file is opened. The `signal` ends the opening too, a derivation included: its reason is thrown. `wait` and
 * `signal` are also those of `save` and the rotations, if these have none of their own.
 */
export interface StoreOptions extends WaitOptions {
    /** The master secret, or where to get it. Without it, the environment: see `envVar`. */
    secret?: Secret | (() => Secret | Promise<Secret>) | undefined;
    /**
     * The environment variable that holds the master secret; `NAME_FILE` may name a file that does.
     * `OMNI_CREDENTIALS_MASTER_PASSWORD` by default. An empty variable counts as not set if there is a `NAME_FILE`.
     */
    envVar?: string | undefined;
    /**
     * The principal whose credentials are meant, if a call names none. Without it, those of every principal; a new
     * one belongs to `$PGUSER`, or else to the user.
     */
    principal?: string | undefined;
    /** A crypto module that `loadModule` loaded, instead of the one that this package carries. */
    module?: CryptoModule | undefined;
    /** False: passwords, too, are turned into keys in this thread, which waits for a third of a second. */
    worker?: boolean | undefined;
}

/** How changes are saved. */
export interface SaveOptions extends MergeOptions, WaitOptions {}

/** How a file is read again. */
export interface ReloadOptions extends MergeOptions {
    /** Give up the changes that were not saved. */
    discard?: boolean | undefined;
}

/**
 * A credentials file. What is read and changed is in memory until `save`, which takes the lock that all hosts share,
 * merges with what others wrote meanwhile, and replaces the file in one step.
 *
 * It does not show a value or a key when it is printed, inspected or turned into JSON.
 */
export class Store {
    /** The file. */
    readonly path: string;
    readonly #document: CredentialsDocument;
    readonly #options: WaitOptions;
    /** What was asked for last: savings and reloads of one store wait for each other. */
    #last: Promise<unknown> = Promise.resolve();

    private constructor(path: string, document: CredentialsDocument, options: WaitOptions) {
        this.path = path;
        this.#document = document;
        this.#options = options;
    }

    /**
     * Opens a file: reads it, unlocks its keyring and checks its seal. Takes no lock.
     *
     * Throws a {@link FileError}, {@link DamagedFileError}, {@link NeedsNewerError}, {@link WrongMasterSecretError} or
     * {@link MissingInputError}, or the reason of the signal.
     */
    static async open(path: string | FileUrl, options: StoreOptions = {}): Promise<Store> {
        const { signal } = options;
        signal?.throwIfAborted();
        // Before anything is waited for: the program may go to another folder.
        const file = pathOf(path);
        const settings = documentOptions(file, options);
        const module = options.module ?? (await builtinModule());
        const bytes = await read(file);
        signal?.throwIfAborted();
        const document = await CredentialsDocument.open(module, bytes, settings);
        signal?.throwIfAborted();
        return new Store(file, document, options);
    }

    /**
     * Creates a file without credentials, under the master secret. A file that already exists is not changed: a
     * {@link FileError} `exists`. A password goes through Argon2id with `costs` or else the module's default.
     */
    static async create(
        path: string | FileUrl,
        options: StoreOptions & { costs?: Costs | undefined } = {},
    ): Promise<Store> {
        options.signal?.throwIfAborted();
        const file = pathOf(path);
        const settings = documentOptions(file, options);
        if (await isThere(file)) throw fault("exists", file);
        // A folder that is not there shows before a key is derived.
        await resolveLinks(file);
        const module = options.module ?? (await builtinModule());
        const document = await CredentialsDocument.create(module, {
            ...settings,
            costs: options.costs,
        });
        await withLock(file, options, async (locked) => {
            if (await isThere(locked)) throw fault("exists", file);
            await replace(locked, document.base);
        });
        return new Store(file, document, options);
    }

    /** How often the file was written, as far as is known here. */
    get generation(): number {
        return this.#document.generation;
    }

    /** Whether it was closed. */
    get closed(): boolean {
        return this.#document.closed;
    }

    /** Whether there are changes to save. */
    get changed(): boolean {
        return this.#document.changed;
    }

    /** See {@link CredentialsDocument.list}. */
    list(options?: ListOptions): Credential[] {
        return this.#document.list(options);
    }

    /** See {@link CredentialsDocument.has}. */
    has(name: string, which?: Which): boolean {
        return this.#document.has(name, which);
    }

    /** See {@link CredentialsDocument.get}. */
    get(name: string, which?: Which): Uint8Array {
        return this.#document.get(name, which);
    }

    /** See {@link CredentialsDocument.getText}. */
    getText(name: string, which?: Which): string {
        return this.#document.getText(name, which);
    }

    /** Changes a credential or adds one, in memory. See {@link CredentialsDocument.set}. */
    set(name: string, value: string | Uint8Array, which?: SetOptions): "added" | "changed" | "unchanged" {
        return this.#document.set(name, value, which);
    }

    /** Deletes a credential, in memory. See {@link CredentialsDocument.delete}. */
    delete(name: string, which?: Which): void {
        this.#document.delete(name, which);
    }

    /**
     * Writes the changes; true if there was anything to write. What others wrote since the file was read is merged in
     * and is in the store afterwards.
     *
     * Throws a {@link MergeConflictError} if others changed the same credentials: nothing is written, the changes stay,
     * and `prefer` resolves it. Throws a {@link FileLockedError} and what `open` throws. Whatever goes wrong,
     * the file is the old one or the new one.
     */
    save(options: SaveOptions = {}): Promise<boolean> {
        return this.#afterLast(async () => {
            this.#document.refuseClosed();
            if (!this.#document.changed) return false;
            return this.#locked(options, async (put) => {
                // The others may have written the same.
                if (!this.#document.changed) return false;
                await put(this.#document.toBytes());
                return true;
            });
        });
    }

    /**
     * Adds a data key and encrypts every value with it; saves changes as well. Older keys stay in the file, for its
     * versions in git. Returns the number of values.
     *
     * Throws an {@link UnreadableValueError} for a value that does not open, and what `save` throws; then nothing was
     * changed.
     */
    rotateKey(options: SaveOptions = {}): Promise<number> {
        return this.#afterLast(() =>
            this.#locked(options, async (put) => {
                const rotated = this.#document.rotateKey();
                await put(rotated);
                return rotated.values;
            }),
        );
    }

    /**
     * Replaces the master secret; saves changes as well. No value is encrypted again, and older versions of the file
     * still open with the old secret: where it has leaked, replace the credentials themselves.
     *
     * Throws a {@link WrongMasterSecretError} for what cannot be a secret, a {@link MasterSecretConflictError} if another
     * process has replaced the master secret since this store last read the file, and what `save` throws; nothing was changed
     * then.
     */
    rotateMasterSecret(newSecret: Secret, options: SaveOptions & RotateMasterSecretOptions = {}): Promise<void> {
        return this.#afterLast(() =>
            this.#locked({ ...options, merge: false }, async (put, theirs) =>
                put(await this.#document.rotateMasterSecret(newSecret, { ...options, theirs })),
            ),
        );
    }

    /**
     * Reads the file again; true if it was another. Unsaved changes stay and are merged, as by `save`, unless `discard`
     * is set. Throws what `save` throws.
     */
    reload({ discard = false, prefer }: ReloadOptions = {}): Promise<boolean> {
        return this.#afterLast(async () => {
            this.#document.refuseClosed();
            const theirs = await read(this.path);
            const isOther = !equal(theirs, this.#document.base);
            if (discard) await this.#document.replace(theirs);
            else if (isOther) await this.#document.merge(theirs, { prefer });
            return isOther;
        });
    }

    /** See {@link CredentialsDocument.verify}. */
    verify(): UnreadableValueError[] {
        return this.#document.verify();
    }

    /** Wipes the keys. Nothing can be read or written after it; changes that were not saved are lost. */
    close(): void {
        this.#document.close();
    }

    /** What JSON.stringify and loggers get: neither values nor keys. */
    toJSON(): { path: string; generation: number; changed: boolean } {
        return { path: this.path, ...this.#document.toJSON() };
    }

    /** What Node's console shows: the same. */
    [Symbol.for("nodejs.util.inspect.custom")](): unknown {
        return { ...this.toJSON() };
    }

    /**
     * Works under the lock, on what the file holds then. What is put becomes the file, in one step, and is in the store
     * afterwards.
     */
    async #locked<T>(
        {
            wait = this.#options.wait,
            signal = this.#options.signal,
            prefer,
            merge = true,
        }: SaveOptions & { merge?: boolean },
        work: (put: (written: Written) => Promise<void>, theirs: Uint8Array | undefined) => Promise<T>,
    ): Promise<T> {
        this.#document.refuseClosed();
        return withLock(this.path, { wait, signal }, async (locked) => {
            const theirs = await readRegular(locked, MAX_FILE, true);
            const isOther = !equal(theirs, this.#document.base);
            if (isOther && merge) await this.#document.merge(theirs, { prefer });
            const put = async (written: Written): Promise<void> => {
                signal?.throwIfAborted();
                await replace(locked, written.bytes);
                this.#document.accept(written);
            };
            return work(put, isOther ? theirs : undefined);
        });
    }

    #afterLast<T>(work: () => Promise<T>): Promise<T> {
        const result = this.#last.then(work);
        this.#last = result.catch(() => undefined);
        return result;
    }
}

function pathOf(path: string | FileUrl): string {
    return resolve(typeof path === "string" ? path : fileURLToPath(path.href));
}

function read(path: string): Promise<Uint8Array> {
    return readRegular(path, MAX_FILE);
}

function documentOptions(label: string, { secret, envVar, principal, worker, signal }: StoreOptions): DocumentOptions {
    const folder = currentFolder();
    return {
        label,
        secret: secret ?? ((): Promise<Uint8Array> => secretFromEnvironment(envVar ?? DEFAULT_VARIABLE, folder)),
        principal,
        newPrincipal: defaultPrincipal(),
        derivation: worker === false ? inThisThread : inWorker(signal),
        onOlder(known, found) {
            const message =
                `${label}: went back from generation ${known} to ${found}: ` +
                "an older version of the file was put in place";
            process.emitWarning(message, "OlderFileWarning");
        },
    };
}

/** Where relative paths start; none where the folder was removed. */
function currentFolder(): string {
    try {
        return process.cwd();
    } catch {
        return "";
    }
}

/** As libpq: the role of the session. */
function defaultPrincipal(): string | undefined {
    return ["PGUSER", "USER", "LOGNAME"]
        .map((name) => process.env[name])
        .find((value) => value !== undefined && value !== "");
}
