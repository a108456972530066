//! Credentials as variables of the environment, as `dotenv` and the command `exec` have them.

import { CredentialsError } from "../errors.js";
import { type Credential, type Json, printable, shown } from "../identity.js";
import { type FileUrl, Store, type StoreOptions } from "./store.js";
import { assign, refused } from "./variables.js";

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
    /** Emit no warning: neither about a failure, which the result has, nor about credentials that have expired. */
    quiet?: boolean | undefined;
}

/** What `config` read. */
export interface ConfigResult {
    /** The variables, also those that were set already and so were left as they were. None after a failure. */
    parsed: Record<string, string>;
    /** Why no variable was set. */
    error?: CredentialsError;
}

/**
 * Sets a variable for each credential of a file. Its name is that of the credential in upper case, with `_` in place of
 * everything but letters and digits, and `_` before a leading digit.
 *
 * Like that of `dotenv`, it does not throw if it fails: `error` then says why, the process emits a
 * `CredentialsWarning`, and no variable was set. The error is one of `Store.open`, a {@link CredentialNotFoundError}, an
 * {@link UnreadableValueError}, or an {@link InvalidInputError} for what cannot be a variable or is one that decides
 * which code runs. Unlike that of `dotenv`, it is asynchronous. An aborted `signal` still throws its reason.
 */
export async function config(options: ConfigOptions = {}): Promise<ConfigResult> {
    try {
        return { parsed: await setVariables(options) };
    } catch (error) {
        if (!(error instanceof CredentialsError)) throw error;
        const { hint } = error;
        const warning = {
            type: "CredentialsWarning",
            code: error.code,
            ...(hint === undefined ? {} : { detail: `hint: ${hint}` }),
        };
        if (!options.quiet) process.emitWarning(`no variable was set: ${error.message}`, warning);
        return { parsed: {}, error };
    }
}

/** As `config`, but throws. Nothing was set then. */
export async function setVariables(options: ConfigOptions = {}): Promise<Record<string, string>> {
    const { path, only, kind, scope, override = false, processEnv = process.env, quiet = false, ...open } = options;
    const store = await Store.open(path ?? (process.env["OMNI_CREDENTIALS_FILE"] || "credentials.omni"), open);
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
        if (!quiet) warnOfExpired(found);
        return parsed;
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

function textOf(store: Store, { name, ...which }: Credential): string {
    const value = store.getText(name, which);
    if (value.includes("\0")) throw refused(`${printable(name)} holds a zero byte, which no variable can`);
    return value;
}

/** They are set all the same: a program that suddenly has no credentials is worse than a late warning. */
function warnOfExpired(credentials: readonly Credential[]): void {
    for (const credential of credentials) {
        const { expires } = credential;
        if (expires === undefined || expires.getTime() > Date.now()) continue;
        const message = `${shown(credential)} expired at ${expires.toISOString()}`;
        process.emitWarning(message, { type: "CredentialsWarning", code: "expired" });
    }
}
