//! The master secret, found the same way by every host.

import { resolve } from "node:path";

import { InvalidInputError, MissingInputError } from "../errors.js";
import { readRegular } from "./files.js";

/** The variable that is looked at when none is named. */
export const DEFAULT_VARIABLE = "OMNI_CREDENTIALS_MASTER_PASSWORD";
/** The longest file that is read, in bytes: the longest secret and a line end. */
const MAX_FILE = 4096 + 2;
const [LF, CR] = [0x0a, 0x0d];

/**
 * The secret in environment variable `variable`, or in the file that `variable`_FILE names: all of it but one line end.
 * A relative name of a file starts in `folder`, the current one if none is given. An empty variable counts as not set
 * if there is a `variable`_FILE.
 *
 * Throws a {@link MissingInputError} `no-secret` where neither is set, a {@link FileError} for a file that cannot be
 * read, an {@link InvalidInputError} for what is no name of a variable.
 */
export async function secretFromEnvironment(
    variable: string = DEFAULT_VARIABLE,
    folder: string = "",
): Promise<Uint8Array> {
    if (!/^[^=\0]+$/.test(variable)) {
        const message = `${JSON.stringify(variable)} is not the name of an environment variable`;
        throw new InvalidInputError("invalid-variable", message);
    }
    const value = process.env[variable];
    if (value?.includes("\uFFFD")) {
        // Node decodes the environment, and what it cannot decode is lost.
        throw new InvalidInputError("not-text", `the master secret in ${variable} is not UTF-8`, {
            hint: `put it into a file, and the name of that into ${variable}_FILE`,
        });
    }
    const file = process.env[`${variable}_FILE`];
    if (file && !value) return secretFromFile(resolve(folder, file));
    if (value !== undefined) return new TextEncoder().encode(value);
    throw new MissingInputError("no-secret", `the master secret is needed, but ${variable} is not set`, {
        hint: `export ${variable}=..., or ${variable}_FILE with the name of a file that holds it`,
    });
}

/** The secret in a file: all of it but one trailing line end. Throws a {@link FileError}. */
export async function secretFromFile(path: string): Promise<Uint8Array> {
    const bytes = await readRegular(path, MAX_FILE);
    let length = bytes.length;
    if (bytes[length - 1] === LF) {
        length -= 1;
        if (bytes[length - 1] === CR) length -= 1;
    }
    return bytes.subarray(0, length);
}
