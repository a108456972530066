//! A credentials file as it was read, and what is made of it: pure functions over the contract.

import { equal } from "./bytes.js";
import type { Document, Entry, Keyring } from "./contract.js";
import { aboutArgument, aboutFile, MergeConflictError } from "./errors.js";
import { type Credential, credentialOf } from "./identity.js";
import { withKeyring } from "./keyring.js";
import type { CryptoModule } from "./module.js";

/** A credential or a tombstone. Never changed, only replaced. */
export interface Entered extends Credential {
    /** What tells its identity from others. */
    readonly key: string;
    readonly entry: Entry;
}

/** Records by identity. */
export type Records = ReadonlyMap<string, Entered>;

/** A file whose keyring was unlocked and whose seal is right. */
export interface State {
    readonly bytes: Uint8Array;
    readonly generation: bigint;
    readonly records: Records;
    /** The keyring that the next writing puts into the header. */
    readonly keyring: Uint8Array;
    readonly kek: Uint8Array;
    /** Whether that is another than the one in `bytes`. */
    readonly rekeyed: boolean;
}

/** The KEK of a keyring. */
export type KekOf = (keyring: Uint8Array) => Promise<Uint8Array>;

/** A record that the module returned: its scope is in canonical form. */
export function entered(entry: Entry): Entered {
    const credential = credentialOf(entry.identity);
    const { name, kind, principal, scope } = credential;
    return { ...credential, key: JSON.stringify([name, kind, principal, scope]), entry };
}

/** Parses a file, unlocks its keyring and checks its seal. */
export async function read(module: CryptoModule, bytes: Uint8Array, label: string, kekOf: KekOf): Promise<State> {
    const instance = module.instantiate();
    const document = aboutFile(label, () => instance.call(({ fileStore }) => fileStore.Document.parse(bytes)));
    const keyring = instance.call(() => document.keyringBytes());
    const kek = await kekOf(keyring);
    return aboutFile(label, () =>
        withKeyring(instance, keyring, kek, (_, handle) => {
            document.verify(handle);
            const records = new Map<string, Entered>();
            for (const entry of document.entries()) {
                const record = entered(entry);
                records.set(record.key, record);
            }
            return { bytes, generation: document.generation(), records, keyring, kek, rekeyed: false };
        }),
    );
}

/** The state with changes, written: its bytes keep those of every record that did not change. */
export function write(module: CryptoModule, state: State, changes: Records, label: string): State {
    const { keyring, kek } = state;
    return aboutArgument(label, () =>
        withKeyring(module.instantiate(), keyring, kek, ({ fileStore }, handle) => {
            const document = fileStore.Document.parse(state.bytes);
            if (state.rekeyed) document.setKeyring(keyring);
            put(document, changes);
            const bytes = document.write(handle, state.generation);
            const records = new Map([...state.records, ...changes]);
            return { bytes, generation: state.generation + 1n, records, keyring, kek, rekeyed: false };
        }),
    );
}

/**
 * Merges changes of `ours` with `theirs`, what the file has become meanwhile: the state of theirs, and the changes that
 * it lacks. Throws a {@link MergeConflictError} where both sides changed the same and nobody is preferred.
 */
export function combine(
    module: CryptoModule,
    ours: State,
    changes: Records,
    theirs: State,
    prefer: "neither" | "ours" | "theirs",
    label: string,
): { state: State; changes: Map<string, Entered> } {
    return aboutFile(label, () =>
        withKeyring(module.instantiate(), theirs.keyring, theirs.kek, ({ encryption, fileStore }, keyring) => {
            // Theirs has the newer keyring if any has: this side makes no keys. But it may be an older file.
            const isOther = !equal(ours.keyring, theirs.keyring);
            const rekeyed = isOther && keyring.absorb(encryption.Keyring.unlock(ours.keyring, ours.kek)) > 0;

            const base = fileStore.Document.parse(ours.bytes);
            const ourDocument = fileStore.Document.parse(ours.bytes);
            put(ourDocument, changes);
            base.put(sealedAnew(ours.records, changes, theirs.records, keyring));
            const merged = fileStore.merge(
                base.manifest(),
                ourDocument,
                fileStore.Document.parse(theirs.bytes),
                false,
                keyring,
                prefer,
            );
            if (merged.conflicts.length > 0 && prefer === "neither") {
                throw new MergeConflictError(merged.conflicts.map(credentialOf));
            }

            const lacking = new Map<string, Entered>();
            for (const entry of merged.toTheirs) {
                const record = entered(entry);
                lacking.set(record.key, changes.has(record.key) ? underCurrentKey(record, keyring) : record);
            }
            const state = {
                ...theirs,
                generation: ours.generation > theirs.generation ? ours.generation : theirs.generation,
                keyring: rekeyed ? keyring.toBytes() : theirs.keyring,
                rekeyed,
            };
            return { state, changes: lacking };
        }),
    );
}

function put(document: Document, changes: Records): void {
    document.put(Array.from(changes.values(), ({ entry }) => entry));
}

/**
 * A merge compares sealed values with those of the base, so after a rotation every value looks changed. Where a side
 * only encrypted a value anew, its sealed value is to stand for the base's.
 */
function sealedAnew(base: Records, changes: Records, theirs: Records, keyring: Keyring): Entry[] {
    const value = ({ entry }: Entered): Uint8Array | undefined => {
        try {
            return keyring.open(entry.identity, entry.sealed);
        } catch {
            // One that does not open is not the same as any other; the merge says what is wrong.
            return undefined;
        }
    };
    const found: Entry[] = [];
    for (const [key, our] of changes) {
        const before = base.get(key);
        const their = theirs.get(key);
        if (before === undefined || their === undefined) continue;
        if (before.entry.deleted || our.entry.deleted || their.entry.deleted) continue;
        if (equal(before.entry.sealed, their.entry.sealed)) continue;
        const known = value(before);
        if (known === undefined) continue;
        const side = [our, their].find((side) => {
            const opened = value(side);
            return opened !== undefined && equal(opened, known);
        });
        if (side !== undefined) found.push(side.entry);
    }
    return found;
}

/** What was sealed before a rotation is sealed again after it. */
function underCurrentKey(record: Entered, keyring: Keyring): Entered {
    const { identity, sealed, deleted } = record.entry;
    if (deleted || keyring.isCurrent(sealed)) return record;
    const value = keyring.open(identity, sealed);
    try {
        return { ...record, entry: { identity, sealed: keyring.seal(identity, value), deleted } };
    } finally {
        value.fill(0);
    }
}
