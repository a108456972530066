//! When a credential expires: as JavaScript says it, and as the contract does.

import { InvalidInputError } from "./errors.js";

/** When a credential expires, as the contract has it: whole seconds since 1970. */
export function secondsOf(expires: Date | undefined): bigint | undefined {
    if (expires === undefined) return undefined;
    const milliseconds = expires.getTime();
    if (!(milliseconds >= 0)) {
        throw new InvalidInputError("invalid-expiry", "the expiry is no date, or one before 1970");
    }
    return BigInt(Math.floor(milliseconds / 1000));
}

/** The same as a date, for a credential. */
export function dateOf(expires: bigint | undefined): { expires?: Date } {
    return expires === undefined ? {} : { expires: new Date(Number(expires) * 1000) };
}
