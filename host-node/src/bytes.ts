//! Bytes and text.

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Text as UTF-8. A lone surrogate has no UTF-8: it becomes a byte that is none, for the module to refuse. */
export function encode(text: string): Uint8Array {
    return isWellFormed(text) ? encoder.encode(text) : new Uint8Array([0xff]);
}

/** Whether text has no half of a surrogate pair, and so has UTF-8. */
export function isWellFormed(text: string): boolean {
    return !/[\uD800-\uDFFF]/u.test(text);
}

/** UTF-8 as text. Throws a TypeError for other bytes. */
export function decode(bytes: Uint8Array): string {
    return decoder.decode(bytes);
}

export function equal(a: Uint8Array, b: Uint8Array): boolean {
    return a.length === b.length && compare(a, b) === 0;
}

/** Orders byte by byte. */
export function compare(a: Uint8Array, b: Uint8Array): number {
    const length = Math.min(a.length, b.length);
    for (let at = 0; at < length; at++) {
        const difference = (a[at] ?? 0) - (b[at] ?? 0);
        if (difference !== 0) return difference;
    }
    return a.length - b.length;
}

export function hex(bytes: Uint8Array): string {
    return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
