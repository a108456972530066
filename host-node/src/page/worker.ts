//! The thread of the page that has the secret, the keys and the module: so the page does not freeze while a key is
//! derived, and closing the file is ending the thread.

import { decode } from "../bytes.js";
import {
    type Credential,
    CredentialsDocument,
    DamagedFileError,
    NeedsNewerError,
    openDocument,
    WrongMasterSecretError,
} from "../core.js";
import { CredentialsError } from "../errors.js";
import { printable } from "../identity.js";
import type { Failed, Reply, Request } from "./messages.js";

let document: CredentialsDocument | undefined;
let credentials: Credential[] = [];

addEventListener("message", ({ data }: MessageEvent<Request>) => {
    void answer(data).then((reply) => postMessage(reply));
});

async function answer(request: Request): Promise<Reply> {
    try {
        if (request.what === "open") return await open(request);
        if (document === undefined) return { failure: "no file is open" };
        return request.what === "show" ? show(document, request.at) : verify(document);
    } catch (error) {
        return failed(error);
    }
}

async function open({ file, name, secret }: Request & { what: "open" }): Promise<Reply> {
    document = await openDocument(file, { secret, label: printable(name) });
    credentials = document.list();
    const rows = credentials.map(({ name, kind, principal, scope, expires }) => ({
        name: printable(name),
        kind: printable(kind),
        principal: printable(principal),
        scope: printable(scope),
        expires,
    }));
    return { generation: document.generation, rows };
}

function show(document: CredentialsDocument, at: number): Reply {
    const credential = credentials[at];
    if (credential === undefined) return { failure: "there is no such credential" };
    const value = document.get(credential.name, {
        kind: credential.kind,
        principal: credential.principal,
        scope: credential.scope,
    });
    try {
        return { text: decode(value) };
    } catch {
        return { base64: btoa(Array.from(value, (byte) => String.fromCharCode(byte)).join("")) };
    } finally {
        value.fill(0);
    }
}

/** The seal of the file was checked when it was opened. */
function verify(document: CredentialsDocument): Reply {
    return { values: credentials.length, unreadable: document.verify().map(({ message }) => message) };
}

function failed(error: unknown): Failed {
    const failure = error instanceof Error ? error.message : String(error);
    return error instanceof CredentialsError ? { failure, hint: hintFor(error) } : { failure };
}

/** What a reader of the page can do; the hints of the errors are for programs. */
function hintFor(error: CredentialsError): string | undefined {
    if (error instanceof WrongMasterSecretError) return "Check the secret, and that it is the one of this file.";
    if (error.code === "conflict-markers") return "Finish the merge: omni-credentials merge";
    if (error instanceof DamagedFileError) return "Take an undamaged version of the file, for example from git.";
    if (error instanceof NeedsNewerError) return "Use the page of the newest version of the package omni-credentials.";
    return undefined;
}
