//! What the page and its worker tell each other.

/** What the page asks for: one thing at a time. */
export type Request =
    | { what: "open"; file: Uint8Array; name: string; secret: string }
    | { what: "show"; at: number }
    | { what: "verify" };

/** What it shows of a credential. */
export interface Row {
    readonly name: string;
    readonly kind: string;
    readonly principal: string;
    readonly scope: string;
    readonly expires: Date | undefined;
}

/** What the worker answers. */
export type Reply =
    | { generation: number; rows: Row[] }
    | { text: string }
    | { base64: string }
    | { values: number; unreadable: string[] }
    | Failed;

/** Why it did not. */
export interface Failed {
    failure: string;
    hint?: string | undefined;
}
