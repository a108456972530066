//! The master secret, found the same way by every host.

import { resolve } from "node:path";

import { InvalidInputError, MissingInputError } from "../errors.js";
import { secretFromCommand } from "./command.js";
import { readRegular } from "./files.js";

/** The variable that is looked at when none is named. */
export const DEFAULT_VARIABLE = "OMNI_CREDENTIALS_MASTER_PASSWORD";
/** The longest file that is read, in bytes: the longest secret and a line end. */
const MAX_FILE = 4096 + 2;
const [LF, CR] = [0x0a, 0x0d];

/**
 * The secret in environment variable `variable`, or in the file that `variable`_FILE names, or what the program prints
 * that `variable`_COMMAND names: all of it but one line end. A relative name of a file starts in `folder`, the current one
 * if none is given, where the program runs as well. An empty variable counts as not set if another one is set.
 *
 * Throws a {@link MissingInputError} `no-secret` where none is set, a {@link FileError} for a file that cannot be read, a
 * {@link SecretCommandError} where the program gives no secret, an {@link InvalidInputError} for what is no name of a
 * variable and where a file and a program are named.
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
    const command = process.env[`${variable}_COMMAND`];
    if (!value && file && command) {
        throw new InvalidInputError("two-secrets", `${variable}_FILE and ${variable}_COMMAND are both set`, {
            hint: `unset ${variable}_FILE, or: unset ${variable}_COMMAND`,
        });
    }
    if (file && !value) return secretFromFile(resolve(folder, file));
    if (command && !value) {
        if (command.includes("\uFFFD")) {
            throw new InvalidInputError("not-text", `the command in ${variable}_COMMAND is not UTF-8`);
        }
        return withoutLineEnd(await secretFromCommand(command, variable, folder, MAX_FILE));
    }
    if (value !== undefined) return new TextEncoder().encode(value);
    throw new MissingInputError("no-secret", `the master secret is needed, but ${variable} is not set`, {
        hint:
            `export ${variable}=..., or ${variable}_FILE with the name of a file that holds it, or ` +
            `${variable}_COMMAND with a program that prints it`,
    });
}

/** The secret in a file: all of it but one trailing line end. Throws a {@link FileError}. */
export async function secretFromFile(path: string): Promise<Uint8Array> {
    return withoutLineEnd(await readRegular(path, MAX_FILE));
}

function withoutLineEnd(bytes: Uint8Array): Uint8Array {
    let length = bytes.length;
    if (bytes[length - 1] === LF) {
        length -= 1;
        if (bytes[length - 1] === CR) length -= 1;
    }
    return bytes.subarray(0, length);
}
