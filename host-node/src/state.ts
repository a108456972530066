//! A credentials file as it was read, and what is made of it: pure functions over the contract.

import { equal } from "./bytes.js";
import type { Document, Entry, Keyring, Preference, Reconciled } from "./contract.js";
import { aboutArgument, aboutFile, MasterSecretConflictError, MergeConflictError } from "./errors.js";
import { dateOf } from "./expiry.js";
import { type Credential, credentialOf, packed } from "./identity.js";
import { withKeyring } from "./keyring.js";
import { type CryptoModule, failureIn } from "./module.js";

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
    return { ...credential, ...dateOf(entry.expires), key: JSON.stringify([name, kind, principal, scope]), entry };
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
export function write(
    module: CryptoModule,
    state: State,
    changes: Records,
    label: string,
    { retire = false }: { retire?: boolean } = {},
): State {
    const { kek } = state;
    return aboutArgument(label, () =>
        withKeyring(module.instantiate(), state.keyring, kek, ({ fileStore }, handle) => {
            const document = fileStore.Document.parse(state.bytes);
            put(document, changes);
            if (retire) document.retireKeys(handle);
            const keyring = handle.toBytes();
            document.setKeyring(keyring);
            const bytes = document.write(handle, state.generation);
            const records = new Map([...state.records, ...changes]);
            return { bytes, generation: state.generation + 1n, records, keyring, kek, rekeyed: false };
        }),
    );
}

/**
 * Makes the changes of `ours` changes of `theirs`, what the file has become meanwhile: the state of theirs, with the
 * keyring of both, and the changes that it lacks. Throws a {@link MergeConflictError} or a
 * {@link MasterSecretConflictError} if both sides changed the same and neither is preferred.
 */
export function combine(
    module: CryptoModule,
    ours: State,
    changes: Records,
    theirs: State,
    prefer: Preference,
    label: string,
): { state: State; changes: Map<string, Entered> } {
    return aboutFile(label, () =>
        withKeyring(module.instantiate(), theirs.keyring, theirs.kek, ({ encryption, fileStore }, theirKeyring) => {
            const ourKeyring = encryption.Keyring.unlock(ours.keyring, ours.kek);
            const document = fileStore.Document.parse(ours.bytes);
            const ancestor = document.manifest();
            put(document, changes);
            document.setKeyring(ours.keyring);
            const theirDocument = fileStore.Document.parse(theirs.bytes);
            const found = fileStore.reconcile(
                ancestor,
                document,
                ourKeyring,
                theirDocument,
                theirKeyring,
                false,
                prefer,
            );
            if (prefer === "neither") refuseConflicts(found, label);

            const records = found.toTheirs.map((entry) => entered(underCurrentKey(entry, found.keyring)));
            const lacking = new Map(records.map((record) => [record.key, record]));
            const ourSecret = found.wrapping === "ours" || (found.wrapping === "conflict" && prefer === "ours");
            const united = found.keyring.toBytes();
            const rekeyed = (ourSecret || lacking.size > 0) && !equal(united, theirs.keyring);
            const state = {
                ...theirs,
                generation: ours.generation > theirs.generation ? ours.generation : theirs.generation,
                keyring: rekeyed ? united : theirs.keyring,
                kek: ourSecret ? ours.kek : theirs.kek,
                rekeyed,
            };
            return { state, changes: lacking };
        }),
    );
}

function refuseConflicts({ wrapping, conflicts }: Reconciled, label: string): void {
    if (wrapping === "conflict") throw new MasterSecretConflictError(label);
    if (conflicts.length === 0) return;
    throw new MergeConflictError(
        conflicts.map(({ identity, reason }) => ({ credential: credentialOf(identity), reason })),
    );
}

function put(document: Document, changes: Records): void {
    document.put(Array.from(changes.values(), ({ entry }) => entry));
}

/** What was sealed before a rotation is sealed again after it. A value that does not open stays as it is. */
function underCurrentKey(entry: Entry, keyring: Keyring): Entry {
    if (entry.deleted) return entry;
    const { identity, expires, sealed } = entry;
    try {
        return { ...entry, sealed: keyring.reseal(packed(identity), expires, sealed) };
    } catch (error) {
        if (failureIn(error) !== undefined) return entry;
        throw error;
    }
}
