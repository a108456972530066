//! Credentials as variables of the environment, as `dotenv` and the command `exec` have them.

import { InvalidInputError } from "../errors.js";
import { type Credential, type Json, printable, shown } from "../identity.js";
import { type FileUrl, Store, type StoreOptions } from "./store.js";

/** Which credentials become variables, and where. */
export interface ConfigOptions extends StoreOptions {
    /** The credentials file. By default `$OMNI_CREDENTIALS_FILE`, or else `credentials.omni` in the current folder. */
    path?: string | FileUrl | undefined;
    /** Only credentials of these names; each must exist. */
    only?: readonly string[] | undefined;
    /** Only credentials of this kind. */
    kind?: string | undefined;
    /** Only credentials of this scope. */
    scope?: Json | undefined;
    /** Replace variables that are set already. By default they stay, as with `dotenv`. */
    override?: boolean | undefined;
    /** Where the variables are set. By default `process.env`. */
    processEnv?: Record<string, string | undefined> | undefined;
}

/** What `config` read. */
export interface ConfigResult {
    /** The variables, also those that were set already and so were left as they were. */
    parsed: Record<string, string>;
}

/** Variables that decide which code runs: not for a file to set. */
const RESERVED = new Set(["PATH", "IFS", "ENV", "BASH_ENV", "SHELL", "NODE_OPTIONS", "NODE_PATH"]);
const RESERVED_PREFIXES = ["LD_", "DYLD_", "BASH_FUNC_"];

/**
 * Sets a variable for each credential of a file. Its name is that of the credential in upper case, with `_` in place of
 * everything but letters and digits, and `_` before a leading digit.
 *
 * Unlike that of `dotenv`, it is asynchronous, and it throws: what `Store.open` throws, a
 * {@link CredentialNotFoundError}, an {@link UnreadableValueError}, and an {@link InvalidInputError} for what cannot be
 * a variable or is one that decides which code runs. Then no variable was set.
 */
export async function config(options: ConfigOptions = {}): Promise<ConfigResult> {
    const { path, only, kind, scope, override = false, processEnv = process.env, ...storeOptions } = options;
    const store = await Store.open(path ?? (process.env["OMNI_CREDENTIALS_FILE"] || "credentials.omni"), storeOptions);
    try {
        const which = {
            ...(kind === undefined ? {} : { kind }),
            ...(scope === undefined ? {} : { scope }),
        };
        const found =
            only === undefined ? store.list(which) : [...new Set(only)].flatMap((name) => named(store, name, which));
        const parsed: Record<string, string> = {};
        for (const [variable, credential] of assign(found)) parsed[variable] = textOf(store, credential);
        for (const [variable, value] of Object.entries(parsed)) {
            if (override || processEnv[variable] === undefined) processEnv[variable] = value;
        }
        return { parsed };
    } finally {
        store.close();
    }
}

/** The credentials of a name, at least one. */
function named(store: Store, name: string, which: { kind?: string; scope?: Json }): Credential[] {
    const found = store.list({ ...which, name });
    // It throws that no such credential exists.
    if (found.length === 0) store.get(name, which);
    return found;
}

function assign(credentials: readonly Credential[]): Map<string, Credential> {
    const variables = new Map<string, Credential>();
    for (const credential of credentials) {
        const variable = variableOf(credential.name);
        if (variable === undefined) throw refused(`${shown(credential)} cannot be a variable`);
        if (RESERVED.has(variable) || RESERVED_PREFIXES.some((prefix) => variable.startsWith(prefix))) {
            throw refused(`${shown(credential)} would be ${variable}, which decides which code runs`);
        }
        const other = variables.get(variable);
        if (other !== undefined) throw refused(`${shown(other)} and ${shown(credential)} would both be ${variable}`);
        variables.set(variable, credential);
    }
    return variables;
}

/** The variable of a credential; none for a name without letters and digits. */
function variableOf(name: string): string | undefined {
    const variable = name.replace(/^(?=[0-9])/, "_").replace(/[^A-Za-z0-9]/gu, "_");
    return /[A-Za-z0-9]/.test(variable) ? variable.toUpperCase() : undefined;
}

function textOf(store: Store, { name, ...which }: Credential): string {
    const value = store.getText(name, which);
    if (value.includes("\0")) throw refused(`${printable(name)} holds a zero byte, which no variable can`);
    return value;
}

function refused(message: string): InvalidInputError {
    return new InvalidInputError("invalid-variable", message, { hint: "choose others with only, kind or principal" });
}
