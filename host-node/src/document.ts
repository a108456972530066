//! A credentials file in memory: opened, changed, merged, and turned into bytes again. Reads and writes no file.

import { compare, decode, encode, equal, isWellFormed } from "./bytes.js";
import type { Costs, Identity } from "./contract.js";
import { type Derivation, inThisThread, type Secret, secretBytes } from "./derivation.js";
import { HINTS } from "./error-table.js";
import {
    aboutArgument,
    aboutFile,
    aboutValue,
    AmbiguousCredentialError,
    CredentialNotFoundError,
    InvalidInputError,
    MissingInputError,
    RefusalError,
    UNNAMED,
    UnreadableValueError,
} from "./errors.js";
import { dateOf, secondsOf } from "./expiry.js";
import { type Credential, DEFAULT_KIND, DEFAULT_SCOPE, identityOf, shown, type Which } from "./identity.js";
import { UnlockedKeyring, withKeyring } from "./keyring.js";
import type { CryptoModule } from "./module.js";
import { combine, type Entered, entered, read, type Records, type State, write } from "./state.js";

/** How a document is opened. */
export interface DocumentOptions {
    /** The master secret, or where to get it. It is asked for whenever a keyring is met that no known key unlocks. */
    secret: Secret | (() => Secret | Promise<Secret>);
    /** What the file is called in messages. */
    label?: string;
    /** The principal whose credentials are meant, if a call names none. */
    principal?: string | undefined;
    /** The principal of a new credential, if neither `principal` nor a call names one. */
    newPrincipal?: string | undefined;
    /** Where keys are derived; by default, in this thread. */
    derivation?: Derivation;
    /**
     * Is told when `merge` or `replace` takes over an older version of the file: the generation that was known, and the
     * one that was found.
     */
    onOlder?: (known: number, found: number) => void;
}

/** What `list` returns. */
export interface ListOptions extends Which {
    /** Of this name only. */
    name?: string;
    /** The deleted ones instead. */
    deleted?: boolean;
}

/** Which credential `set` means, and when it expires. */
export interface SetOptions extends Which {
    /**
     * When it expires; without it the credential does not, not even if it did before. Fractions of a second are dropped.
     */
    expires?: Date;
}

/** Which side wins if both changed a credential in different ways; without it, that is an error. */
export interface MergeOptions {
    prefer?: "ours" | "theirs" | undefined;
}

/** What `toBytes` and the rotations return, for `accept`. */
export interface Written {
    readonly bytes: Uint8Array;
}

/** What `rotateKey` returns, for `accept`. */
export interface RotatedKey extends Written {
    /** How many values the new data key encrypts. */
    readonly values: number;
}

/** How a master secret is replaced. */
export interface RotateMasterSecretOptions {
    /** The costs of Argon2id, for a password; the module's default if nothing is said. */
    costs?: Costs | undefined;
    /** What the file has become meanwhile. */
    theirs?: Uint8Array | undefined;
}

/**
 * A credentials file in memory. Values stay sealed until they are asked for, one at a time.
 *
 * It does not show a value or a key when it is printed, inspected or turned into JSON.
 */
export class CredentialsDocument {
    readonly #module: CryptoModule;
    readonly #options: DocumentOptions;
    readonly #label: string;
    /** What the changes are made to. */
    #state: State;
    #changes = new Map<string, Entered>();
    #keyring: UnlockedKeyring;
    #names: Map<string, Set<string>> | undefined;
    readonly #written = new WeakMap<Written, { state: State; changes: Records }>();

    private constructor(module: CryptoModule, options: DocumentOptions, state: State) {
        this.#module = module;
        this.#options = options;
        this.#label = options.label ?? UNNAMED;
        this.#state = state;
        this.#keyring = new UnlockedKeyring(module, state.keyring, state.kek);
    }

    /**
     * Opens the bytes of a file: parses them, unlocks the keyring and checks the seal.
     *
     * Throws a {@link DamagedFileError}, an {@link NeedsNewerError} or a {@link WrongMasterSecretError}.
     */
    static async open(module: CryptoModule, file: Uint8Array, options: DocumentOptions): Promise<CredentialsDocument> {
        const label = options.label ?? UNNAMED;
        const kekOf = (keyring: Uint8Array): Promise<Uint8Array> => derive(module, keyring, label, options);
        return new CredentialsDocument(module, options, await read(module, Uint8Array.from(file), label, kekOf));
    }

    /**
     * A new document without credentials, under a new keyring. A password goes through Argon2id with `costs` or else
     * the module's default; a generated key needs no costs.
     *
     * Throws a {@link WrongMasterSecretError} for what cannot be a secret, an {@link InvalidInputError} for costs out
     * of bounds.
     */
    static async create(
        module: CryptoModule,
        options: DocumentOptions & { costs?: Costs | undefined },
    ): Promise<CredentialsDocument> {
        const { derivation = inThisThread, costs } = options;
        const { keyring, kek } = await withSecret(options, (secret) =>
            aboutArgument("the master secret", () => derivation.createKeyring(module, secret, costs)),
        );
        const bytes = withKeyring(module.instantiate(), keyring, kek, ({ fileStore }, handle) =>
            fileStore.Document.create(keyring).write(handle, 0n),
        );
        const state = { bytes, generation: 1n, records: new Map(), keyring, kek, rekeyed: false };
        return new CredentialsDocument(module, options, state);
    }

    /** How often the file was written. */
    get generation(): number {
        return Number(this.#state.generation);
    }

    /** Whether it was closed. */
    get closed(): boolean {
        return this.#keyring.closed;
    }

    /** Throws an {@link InvalidInputError} `closed` if it was closed. */
    refuseClosed(): void {
        this.#keyring.refuseClosed();
    }

    /** Whether there are changes that the file does not have. */
    get changed(): boolean {
        return this.#changes.size > 0 || this.#state.rekeyed;
    }

    /** The file as it was read, or written and accepted, last. */
    get base(): Uint8Array {
        return this.#state.bytes;
    }

    /** The credentials, sorted, without their values. Decrypts nothing. */
    list(options: ListOptions = {}): Credential[] {
        const found = this.#matching(options.name, options, options.deleted ?? false);
        if (this.#changes.size > 0) found.sort(byIdentity);
        return found.map(publicPart);
    }

    /** Whether there is a credential, or several. */
    has(name: string, which: Which = {}): boolean {
        return this.#matching(name, which).length > 0;
    }

    /**
     * The value of the one credential of that name, a copy of its bytes that the caller may wipe.
     *
     * Throws a {@link CredentialNotFoundError}, an {@link AmbiguousCredentialError} or an {@link UnreadableValueError}.
     */
    get(name: string, which: Which = {}): Uint8Array {
        return this.#open(this.#theOne(name, which));
    }

    /** The value as text. Throws also an {@link InvalidInputError} `not-text` for a value that is not UTF-8. */
    getText(name: string, which: Which = {}): string {
        const record = this.#theOne(name, which);
        const value = this.#open(record);
        try {
            return decode(value);
        } catch {
            throw new InvalidInputError("not-text", `${shown(record)}: the value is not UTF-8`, {
                hint: "get() gives its bytes",
            });
        } finally {
            value.fill(0);
        }
    }

    /**
     * Changes the one credential that matches, or adds one. Defaults for a new one: kind `credential`, scope
     * `{"all":true}`, the principal of the document's options. Setting the value and expiry that it already has is no
     * change.
     *
     * Throws an {@link AmbiguousCredentialError} if several match, an {@link InvalidInputError}, or a
     * {@link MissingInputError} if there is no principal.
     */
    set(name: string, value: string | Uint8Array, which: SetOptions = {}): "added" | "changed" | "unchanged" {
        if (typeof value !== "string" && !(value instanceof Uint8Array)) {
            throw new TypeError("a value is a string or a Uint8Array");
        }
        const expires = secondsOf(which.expires);
        const before = this.#atMostOne(name, which);
        const target = before ?? this.#new(name, which);
        const bytes = typeof value === "string" ? valueBytes(value, target) : value;
        try {
            if (before?.entry.expires === expires && before !== undefined && this.#holds(before, bytes)) {
                return "unchanged";
            }
            const { identity } = target.entry;
            const sealed = aboutArgument(shown(target), () => this.#keyring.seal(identity, expires, bytes));
            const until = expires === undefined ? {} : { expires };
            this.#change(entered({ identity, ...until, sealed, deleted: false }));
        } finally {
            if (bytes !== value) bytes.fill(0);
        }
        return before === undefined ? "added" : "changed";
    }

    /** Deletes the one credential of that name. The file remembers the deletion. Throws as `get` does. */
    delete(name: string, which: Which = {}): void {
        const record = this.#theOne(name, which);
        const { identity } = record.entry;
        this.#change(entered({ identity, sealed: new Uint8Array(), deleted: true }));
    }

    /**
     * The file's new bytes, sealed, with the changes. The document stays as it is: once the bytes are stored, `accept`
     * what this returned.
     */
    toBytes(): Written {
        this.#keyring.refuseClosed();
        const changes = new Map(this.#changes);
        const state = this.changed ? write(this.#module, this.#state, changes, this.#label) : this.#state;
        return this.#remember({ bytes: state.bytes }, state, changes);
    }

    /**
     * The file's new bytes, with the changes: a new data key encrypts every value. Every value stays the version that it
     * was, so that a change made elsewhere does not conflict with it. Keys that no value uses any more are removed; the
     * file's versions in git keep those that they need. As with `toBytes`, the document stays as it is until the result
     * is accepted.
     *
     * Throws an {@link UnreadableValueError} for a value that does not open.
     */
    rotateKey(): RotatedKey {
        this.#keyring.refuseClosed();
        const changes = new Map(this.#changes);
        const { kek } = this.#state;
        const keyring = aboutFile(this.#label, () =>
            withKeyring(this.#module.instantiate(), this.#state.keyring, kek, (_, handle) => {
                handle.addKey();
                return handle.toBytes();
            }),
        );
        const fresh = new UnlockedKeyring(this.#module, keyring, kek);
        const rotated = new Map<string, Entered>();
        let values = 0;
        try {
            for (const record of this.#all()) {
                if (record.entry.deleted) {
                    if (changes.has(record.key)) rotated.set(record.key, record);
                    continue;
                }
                const entry = aboutValue(record, () => fresh.reseal(record.entry));
                rotated.set(record.key, { ...record, entry });
                values += 1;
            }
        } finally {
            fresh.close();
        }
        const rekeyed = { ...this.#state, keyring, rekeyed: true };
        const state = write(this.#module, rekeyed, rotated, this.#label, { retire: true });
        return this.#remember({ bytes: state.bytes, values }, state, changes);
    }

    /**
     * The file's new bytes, with the changes, under another master secret. No value is encrypted again, and older
     * versions of the file still open with the old secret: if it has leaked, replace the credentials themselves. As
     * with `toBytes`, the document stays as it is until the result is accepted.
     *
     * With `theirs`, what the file has become meanwhile, the result has their changes as well. Throws a
     * {@link WrongMasterSecretError} for what cannot be a secret, a {@link MasterSecretConflictError} if they changed
     * the master secret, too, and what `merge` throws.
     */
    async rotateMasterSecret(
        newSecret: Secret,
        options: RotateMasterSecretOptions & MergeOptions = {},
    ): Promise<Written> {
        const { costs, theirs, prefer = "neither" } = options;
        this.#keyring.refuseClosed();
        const changes = new Map(this.#changes);
        const before = this.#state;
        const { derivation = inThisThread } = this.#options;
        const secret = secretBytes(newSecret);
        try {
            const made = await aboutArgument("the new master secret", () =>
                derivation.rewrap(this.#module, { keyring: before.keyring, kek: before.kek }, secret, costs),
            );
            let both = { state: { ...before, ...made, rekeyed: true }, changes };
            if (theirs !== undefined) {
                const state = await this.#read(theirs);
                both = combine(this.#module, both.state, changes, state, prefer, this.#label);
            }
            const isNew = both.state.rekeyed || both.changes.size > 0;
            const state = isNew ? write(this.#module, both.state, both.changes, this.#label) : both.state;
            return this.#remember({ bytes: state.bytes }, state, changes);
        } finally {
            secret.fill(0);
        }
    }

    /** Opens every value. Returns the errors of those that do not open. The seal was checked when the file was read. */
    verify(): UnreadableValueError[] {
        const unreadable: UnreadableValueError[] = [];
        for (const record of this.#all()) {
            if (record.entry.deleted) continue;
            try {
                this.#open(record).fill(0);
            } catch (error) {
                if (!(error instanceof UnreadableValueError)) throw error;
                unreadable.push(error);
            }
        }
        return unreadable;
    }

    /** What `toBytes` or a rotation returned is the file now. Changes made since then stay changes. */
    accept(written: Written): void {
        const known = this.#written.get(written);
        if (known === undefined) throw new TypeError("accept takes what toBytes of this document returned");
        for (const [key, record] of known.changes) {
            if (this.#changes.get(key) === record) this.#changes.delete(key);
        }
        this.#become(known.state, this.#changes);
    }

    /**
     * Takes over another version of the file. The changes made here stay; if the other side changed the same
     * credentials, they are merged three ways, with the version before as the base.
     *
     * Throws a {@link MergeConflictError}, which names the credentials and says why each is in conflict, a
     * {@link MasterSecretConflictError}, and those of `open`; the document is then as it was.
     */
    async merge(theirs: Uint8Array, { prefer }: MergeOptions = {}): Promise<void> {
        const state = await this.#read(theirs);
        if (!this.changed) return this.#become(state, new Map());
        const merged = combine(this.#module, this.#state, this.#changes, state, prefer ?? "neither", this.#label);
        this.#become(merged.state, merged.changes);
    }

    /** Takes over another version of the file, and discards the changes made here. Throws what `open` throws. */
    async replace(file: Uint8Array): Promise<void> {
        this.#become(await this.#read(file), new Map());
    }

    /** Wipes the keys. Nothing can be read or written after it. */
    close(): void {
        this.#keyring.close();
        this.#state.kek.fill(0);
    }

    /** What JSON.stringify and loggers get: neither values nor keys. */
    toJSON(): { generation: number; changed: boolean } {
        return { generation: this.generation, changed: this.changed };
    }

    /** What Node's console shows: the same. */
    [Symbol.for("nodejs.util.inspect.custom")](): unknown {
        return { ...this.toJSON() };
    }

    /** A result that `accept` knows, with what it is made of. */
    #remember<T extends Written>(written: T, state: State, changes: Records): T {
        this.#written.set(written, { state, changes });
        return written;
    }

    #find(key: string): Entered | undefined {
        return this.#changes.get(key) ?? this.#state.records.get(key);
    }

    #change(record: Entered): void {
        const { key } = record;
        if (record.entry.deleted && !this.#state.records.has(key)) {
            this.#changes.delete(key);
        } else {
            this.#changes.set(key, record);
        }
        if (this.#names !== undefined) enter(this.#names, record.name, key);
    }

    #become(state: State, changes: Map<string, Entered>): void {
        if (!equal(state.keyring, this.#state.keyring)) {
            this.#keyring.close();
            this.#keyring = new UnlockedKeyring(this.#module, state.keyring, state.kek);
        }
        if (state.records !== this.#state.records) this.#names = undefined;
        this.#state = state;
        this.#changes = changes;
    }

    *#all(): Generator<Entered> {
        for (const [key, record] of this.#state.records) yield this.#changes.get(key) ?? record;
        for (const [key, record] of this.#changes) if (!this.#state.records.has(key)) yield record;
    }

    *#named(name: string): Generator<Entered> {
        if (this.#names === undefined) {
            this.#names = new Map();
            for (const record of this.#all()) enter(this.#names, record.name, record.key);
        }
        for (const key of this.#names.get(name) ?? []) {
            const record = this.#find(key);
            if (record !== undefined) yield record;
        }
    }

    #matching(name: string | undefined, which: Which, deleted = false): Entered[] {
        this.#keyring.refuseClosed();
        const { kind, principal = this.#options.principal, scope } = which;
        // Scopes are compared as values: in the module's canonical form.
        const any = scope === undefined ? undefined : this.#canonical(identityOf("x", "x", "x", scope), "the scope");
        const wanted = any === undefined ? undefined : decode(any.scope);
        const found: Entered[] = [];
        for (const record of name === undefined ? this.#all() : this.#named(name)) {
            const matches =
                record.entry.deleted === deleted &&
                (kind === undefined || record.kind === kind) &&
                (principal === undefined || record.principal === principal) &&
                (wanted === undefined || record.scope === wanted);
            if (matches) found.push(record);
        }
        return found;
    }

    #atMostOne(name: string, which: Which): Entered | undefined {
        const found = this.#matching(name, which);
        if (found.length > 1) throw new AmbiguousCredentialError(name, found.sort(byIdentity).map(publicPart));
        return found[0];
    }

    #theOne(name: string, which: Which): Entered {
        const found = this.#atMostOne(name, which);
        if (found === undefined) throw new CredentialNotFoundError(name);
        return found;
    }

    /** A credential that does not exist yet, as a document returns it: checked, its scope in canonical form. */
    #new(name: string, { kind = DEFAULT_KIND, principal, scope = DEFAULT_SCOPE }: Which): Entered {
        const whose = principal ?? this.#options.principal ?? this.#options.newPrincipal;
        if (whose === undefined) {
            throw new MissingInputError("no-principal", "no principal is given, and neither PGUSER nor USER is set", {
                hint: HINTS.principal,
            });
        }
        const identity = this.#canonical(identityOf(name, kind, whose, scope), JSON.stringify(name));
        return entered({ identity, sealed: new Uint8Array(), deleted: true });
    }

    #open(record: Entered): Uint8Array {
        return aboutValue(record, () => this.#keyring.open(record.entry));
    }

    #holds(record: Entered, value: Uint8Array): boolean {
        let found: Uint8Array;
        try {
            found = this.#keyring.open(record.entry);
        } catch (error) {
            // A value that does not open is replaced.
            if (error instanceof RefusalError) return false;
            throw error;
        }
        const same = equal(found, value);
        found.fill(0);
        return same;
    }

    #canonical(identity: Identity, subject: string): Identity {
        return aboutArgument(subject, () => this.#keyring.call(({ encryption }) => encryption.canonical(identity)));
    }

    async #read(file: Uint8Array): Promise<State> {
        this.#keyring.refuseClosed();
        const state = await read(this.#module, Uint8Array.from(file), this.#label, (keyring) => this.#kekOf(keyring));
        const known = this.#state.generation;
        if (state.generation < known) this.#options.onOlder?.(Number(known), Number(state.generation));
        return state;
    }

    async #kekOf(keyring: Uint8Array): Promise<Uint8Array> {
        const { kek } = this.#state;
        // After a rotation the KEK is the same, and there is no need to derive it again.
        const fits = unlocks(this.#module, keyring, kek);
        return fits ? kek : derive(this.#module, keyring, this.#label, this.#options);
    }
}

/** The KEK of a keyring, from the secret. */
function derive(
    module: CryptoModule,
    keyring: Uint8Array,
    label: string,
    options: DocumentOptions,
): Promise<Uint8Array> {
    const { derivation = inThisThread } = options;
    return withSecret(options, (secret) => aboutFile(label, () => derivation.deriveKek(module, secret, keyring)));
}

/** Asks for the secret, and wipes this copy of it afterwards. */
async function withSecret<T>(options: DocumentOptions, call: (secret: Uint8Array) => Promise<T>): Promise<T> {
    const given = typeof options.secret === "function" ? await options.secret() : options.secret;
    const secret = secretBytes(given);
    try {
        return await call(secret);
    } finally {
        secret.fill(0);
    }
}

function unlocks(module: CryptoModule, keyring: Uint8Array, kek: Uint8Array): boolean {
    try {
        return withKeyring(module.instantiate(), keyring, kek, () => true);
    } catch (error) {
        // What else is wrong with it shows when it is unlocked with the right one.
        if (error instanceof RefusalError) return false;
        throw error;
    }
}

function valueBytes(text: string, record: Credential): Uint8Array {
    if (!isWellFormed(text)) {
        throw new InvalidInputError(
            "not-text",
            `${shown(record)}: the value has half a surrogate pair, which has no UTF-8`,
        );
    }
    return encode(text);
}

function enter(names: Map<string, Set<string>>, name: string, key: string): void {
    const keys = names.get(name);
    if (keys === undefined) names.set(name, new Set([key]));
    else keys.add(key);
}

function publicPart({ name, kind, principal, scope, entry }: Entered): Credential {
    return { name, kind, principal, scope, ...dateOf(entry.expires) };
}

function byIdentity(a: Entered, b: Entered): number {
    const [one, other] = [a.entry.identity, b.entry.identity];
    return (
        compare(one.name, other.name) ||
        compare(one.kind, other.kind) ||
        compare(one.principal, other.principal) ||
        compare(one.scope, other.scope)
    );
}
