//! Which credential is meant.

import { decode, encode } from "./bytes.js";
import type { Identity } from "./contract.js";

/** A value of JSON. */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };

/** Which credential: the four fields that tell one from another. */
export interface Credential {
    readonly name: string;
    readonly kind: string;
    /** The database role it belongs to. */
    readonly principal: string;
    /**
     * Where it is valid: JSON as canonical text, which `JSON.parse` reads (a number may be more exact than a double).
     */
    readonly scope: string;
    /** When it expires; missing if it does not. */
    readonly expires?: Date;
}

/** Selects one of several credentials that share a name. */
export interface Which {
    kind?: string;
    principal?: string;
    /** JSON: as text if it is a string, otherwise as a value. Scopes are compared as values. */
    scope?: Json;
}

export const DEFAULT_KIND = "credential";
export const DEFAULT_SCOPE = '{"all":true}';

/** The contract's form of an identity, as it is given. */
export function identityOf(name: string, kind: string, principal: string, scope: Json): Identity {
    return { name: encode(name), kind: encode(kind), principal: encode(principal), scope: encode(jsonOf(scope)) };
}

/** The contract's `packed-identity`: the fields in one list, each with its length in four bytes before it. */
export function packed({ name, kind, principal, scope }: Identity): Uint8Array {
    const fields = [name, kind, principal, scope];
    const out = new Uint8Array(fields.reduce((length, field) => length + 4 + field.length, 0));
    const view = new DataView(out.buffer);
    let at = 0;
    for (const field of fields) {
        view.setUint32(at, field.length);
        out.set(field, at + 4);
        at += 4 + field.length;
    }
    return out;
}

/** The credential of an identity that the module returned: valid UTF-8, a canonical scope. */
export function credentialOf({ name, kind, principal, scope }: Identity): Credential {
    return { name: decode(name), kind: decode(kind), principal: decode(principal), scope: decode(scope) };
}

/** A credential on one line, for people. */
export function shown({ name, kind, principal, scope }: Credential): string {
    return `${escaped(name)} (${escaped(kind)} of ${escaped(principal)}, ${printable(scope)})`;
}

/** What is no JSON value becomes text that is no JSON, for the module to refuse. */
function jsonOf(scope: Json): string {
    if (typeof scope === "string") return scope;
    try {
        return JSON.stringify(scope) ?? "";
    } catch {
        return "";
    }
}

/** Text for a message: what is not printable is written as an escape. */
export function printable(text: string): string {
    return text.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, escape);
}

function escaped(text: string): string {
    return printable(text.replaceAll("\\", escape));
}

/** As in JSON, which leaves most of what cannot be seen as it is. */
function escape(character: string): string {
    const json = JSON.stringify(character).slice(1, -1);
    if (json !== character) return json;
    const units = Array.from({ length: character.length }, (_, at) => character.charCodeAt(at));
    return units.map((unit) => `\\u${unit.toString(16).padStart(4, "0")}`).join("");
}
