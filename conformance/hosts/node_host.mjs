#!/usr/bin/env node
// The Node host in the matrix of hosts: node_host.mjs MODULE.wasm. It answers each line of JSON on its standard input
// with one on its standard output; what is asked, and what is answered, is written at the matrix.

import { rmSync } from "node:fs";
import { mkdtemp, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath, pathToFileURL } from "node:url";

// The package as it is shipped and installed, not as it lies in this repository.
const root = resolve(dirname(fileURLToPath(import.meta.url)), "..", "..");
const target = process.env.CARGO_TARGET_DIR ?? join(root, "target");
const at = (path) => pathToFileURL(join(target, "node", path)).href;
const { CredentialsError, CryptoModule, loadModule, Store } = await import(
    at("installed/node_modules/omni-credentials/dist/index.js")
);

const bytes = (text) => new Uint8Array(Buffer.from(text, "hex"));
const text = (array) => Buffer.from(array).toString();
const hex = (array) => Buffer.from(array).toString("hex");
const raw = ({ name, kind, principal, scope }) => ({
    name: Buffer.from(name),
    kind: Buffer.from(kind),
    principal: Buffer.from(principal),
    scope: Buffer.from(scope),
});
const joined = ({ name, kind, principal, scope }) =>
    Buffer.concat([name, kind, principal, scope].flatMap((field) => [length(field), field]));
const length = (field) => {
    const four = Buffer.alloc(4);
    four.writeUInt32BE(field.length);
    return four;
};
const packed = (identity) => joined(raw(identity));
const which = ({ kind, principal, scope }) => ({ kind, principal, scope });
const expires = (identity) => (identity.expires === undefined ? undefined : BigInt(identity.expires));

const module = await load(process.argv[2]);

/** The operations. Each gets an instance of its own and the arguments; `contract` is the low-level layer. */
const operations = {
    suite: () => module.describe().suite.id,
    "aead-open": (it) =>
        primitive(({ aeadOpen }) => aeadOpen(bytes(it.key), bytes(it.nonce), bytes(it.aad), bytes(it.sealed))),
    "hkdf-sha256": (it) =>
        primitive(({ hkdfSha256 }) => hkdfSha256(bytes(it.ikm), bytes(it.salt), bytes(it.info), it.length)),
    argon2id: (it) =>
        primitive(({ argon2id }) =>
            argon2id(bytes(it.password), bytes(it.salt), it.memory_kib, it.passes, it.lanes, it.length),
        ),
    "derive-kek": (it) =>
        hex(call(({ keyDerivation }) => keyDerivation.deriveKek(bytes(it.secret), bytes(it.keyring)))),
    unlock: (it) => unlocked(it, (keyring) => hex(keyring.toBytes())),
    seal: (it) =>
        unlocked(it, (keyring) => hex(keyring.seal(packed(it.identity), expires(it.identity), bytes(it.value)))),
    open: (it) =>
        unlocked(it, (keyring) => hex(keyring.open(packed(it.identity), expires(it.identity), bytes(it.sealed)))),
    "canonical-scope": (it) =>
        call(({ fileStore }) => {
            const document = fileStore.Document.create(bytes(it.keyring));
            const identity = { ...raw({ name: "n", kind: "k", principal: "p", scope: "" }), scope: bytes(it.scope) };
            document.put([{ identity, sealed: new Uint8Array(), deleted: true }]);
            return hex(document.entries()[0].identity.scope);
        }),
    "read-file": async (it) => {
        const file = await readFile(it.file);
        return call(({ encryption, fileStore }) => {
            const document = fileStore.Document.parse(file);
            const keyring = encryption.Keyring.unlock(document.keyringBytes(), bytes(it.kek));
            document.verify(keyring);
            return { records: records(document, keyring), generation: Number(document.generation()) };
        });
    },
    reconcile: async (it) => {
        const [ourFile, theirFile] = [await readFile(it.ours), await readFile(it.theirs)];
        return call(({ encryption, fileStore }) => {
            const [ours, theirs] = [fileStore.Document.parse(ourFile), fileStore.Document.parse(theirFile)];
            const unlock = (document, kek) =>
                kek === null ? undefined : encryption.Keyring.unlock(document.keyringBytes(), bytes(kek));
            const [mine, other] = [unlock(ours, it.our_kek), unlock(theirs, it.their_kek)];
            // Where a secret is not at hand, a side comes with the keyring of the other.
            const [ourKeyring, theirKeyring] = [mine ?? other, other ?? mine];
            ours.verify(ourKeyring);
            theirs.verify(theirKeyring);
            const { ours_complete: complete, prefer } = it;
            const ancestor = bytes(it.ancestor);
            const found = fileStore.reconcile(ancestor, ours, ourKeyring, theirs, theirKeyring, complete, prefer);
            const agreement = [ancestor, ours, theirs, theirs.generation()];
            const names = (entries) => entries.map(({ identity }) => text(identity.name));
            return {
                records: records(found.document, found.keyring),
                to_ours: names(found.toOurs),
                to_theirs: names(found.toTheirs),
                conflicts: found.conflicts.map(({ identity, reason }) => [text(identity.name), reason]),
                wrapping: found.wrapping,
                manifest: hex(found.document.manifest()),
                agreed: hex(fileStore.agreed(...agreement)),
                changes: ancestor.length === 0 ? "" : hex(fileStore.agreedChanges(...agreement)),
            };
        });
    },
    set: async ({ file, secret, identity, value }) => {
        const store = await Store.open(file, { module, secret: bytes(secret), wait: 60 });
        if (value === null) store.delete(identity.name, which(identity));
        else {
            const until = identity.expires === undefined ? {} : { expires: new Date(identity.expires * 1000) };
            store.set(identity.name, bytes(value), { ...which(identity), ...until });
        }
        await store.save();
        store.close();
        return null;
    },
    get: async ({ file, secret, identity }) => {
        const store = await Store.open(file, { module, secret: bytes(secret) });
        const value = store.get(identity.name, which(identity));
        store.close();
        return hex(value);
    },
};

for await (const line of createInterface({ input: process.stdin })) {
    const { op, ...it } = JSON.parse(line);
    process.stdout.write(`${await answer(op, it)}\n`);
}

async function answer(op, it) {
    const operation = operations[op];
    if (operation === undefined) return JSON.stringify({ unsupported: true });
    try {
        return JSON.stringify({ ok: await operation(it) });
    } catch (error) {
        if (!(error instanceof CredentialsError)) throw error;
        // JSON has numbers of any length, but JSON.stringify does not.
        const found = (error.failure ?? error.cause?.failure)?.found ?? 0;
        return `{"refused": {"class": ${JSON.stringify(error.code)}, "line": ${error.line}, "found": ${found}}}`;
    }
}

/** A call of the contract in a fresh instance. */
function call(body) {
    return module.instantiate().call(body);
}

function primitive(body) {
    return hex(call(({ primitives }) => body(primitives)));
}

function unlocked({ keyring, kek }, body) {
    return call(({ encryption }) => body(encryption.Keyring.unlock(bytes(keyring), bytes(kek))));
}

function records(document, keyring) {
    return document.entries().map(({ identity, expires, sealed, deleted }) => ({
        name: text(identity.name),
        kind: text(identity.kind),
        principal: text(identity.principal),
        scope: text(identity.scope),
        ...(expires === undefined ? {} : { expires: Number(expires) }),
        value: deleted ? null : opened(() => keyring.open(joined(identity), expires, sealed)),
    }));
}

/** A value in hexadecimal, or why it does not open. */
function opened(open) {
    try {
        return hex(open());
    } catch (error) {
        if (error.payload?.error === undefined) throw error;
        return error.payload.error;
    }
}

/** A module: the package's own bindings where they are this component's, otherwise bindings made now. */
async function load(path) {
    const component = await readFile(path);
    try {
        return await CryptoModule.load(component);
    } catch (error) {
        if (error.code !== "digest-mismatch") throw error;
    }
    // What makes bindings finds jco where the package was built.
    const { transpile } = await import(at("package/dist/transpile.js"));
    const folder = await mkdtemp(join(tmpdir(), "node-host-"));
    // Not before the end: a thread that derives a key reads the bindings, too.
    process.once("exit", () => rmSync(folder, { recursive: true, force: true }));
    for (const [name, content] of await transpile(component)) await writeFile(join(folder, name), content);
    return loadModule(folder);
}
