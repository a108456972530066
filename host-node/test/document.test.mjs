// Documents: the part that runs anywhere.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { inspect } from "node:util";

import * as omni from "omni-credentials/core";
import { failure, folder, inside, repository, run } from "./support.mjs";

const secret = await omni.generateMasterKey();
const other = await omni.generateMasterKey();
const create = () => omni.createDocument({ secret, principal: "app" });
const open = (bytes, options = {}) => omni.openDocument(bytes, { secret, principal: "app", ...options });
const text = (bytes) => new TextDecoder().decode(bytes);

/** A document with these credentials, stored. */
async function stored(credentials) {
    const document = await create();
    for (const [name, value] of Object.entries(credentials)) document.set(name, value);
    document.accept(document.toBytes());
    return document;
}

/** The block of a credential in a file. */
const block = (file, name) =>
    text(file)
        .split("\n\n")
        .find((part) => part.includes(`credential "${name}"`));

test("a credential is added, read, changed and deleted", async () => {
    const document = await create();
    assert.equal(document.generation, 1);
    assert.deepEqual(document.list(), []);
    assert.equal(document.set("stripe", "sk_1", { kind: "api_key" }), "added");
    assert.equal(document.set("stripe", "sk_1"), "unchanged");
    assert.equal(document.set("stripe", "sk_2"), "changed");
    assert.equal(document.getText("stripe"), "sk_2");
    assert.deepEqual(document.list(), [{ name: "stripe", kind: "api_key", principal: "app", scope: '{"all":true}' }]);
    const again = await open(document.toBytes().bytes);
    assert.equal(again.generation, 2);
    assert.equal(again.getText("stripe"), "sk_2");
    again.delete("stripe");
    assert.equal(again.has("stripe"), false);
    const last = await open(again.toBytes().bytes);
    assert.deepEqual(last.list(), []);
    assert.deepEqual(
        last.list({ deleted: true }).map(({ name }) => name),
        ["stripe"],
    );
});

test("values are kept as they are", async () => {
    const values = [
        "",
        "x",
        "a\nb\n",
        "é\u{1f511}",
        "\0",
        new Uint8Array([0, 255, 254]),
        new Uint8Array(1 << 20).fill(7),
    ];
    const document = await create();
    values.forEach((value, at) => document.set(`v${at}`, value));
    const again = await open(document.toBytes().bytes);
    values.forEach((value, at) => {
        const bytes = typeof value === "string" ? new TextEncoder().encode(value) : value;
        assert.deepEqual(again.get(`v${at}`), bytes);
        if (typeof value === "string") assert.equal(again.getText(`v${at}`), value);
    });
    const { code, name } = await failure(() => again.getText("v5"));
    assert.deepEqual([name, code], ["InvalidInputError", "not-text"]);
});

test("what is returned and what was given is a copy", async () => {
    const given = new Uint8Array([1, 2, 3]);
    const document = await create();
    document.set("a", given);
    given.fill(9);
    document.get("a").fill(9);
    assert.deepEqual(document.get("a"), new Uint8Array([1, 2, 3]));
    const { bytes } = document.toBytes();
    const again = await open(bytes);
    bytes.fill(0);
    assert.deepEqual(again.get("a"), new Uint8Array([1, 2, 3]));
});

test("a name that several credentials share needs more, a name that none has is an error", async () => {
    const document = await create();
    document.set("a", "1", { scope: { x: 1.0, b: 2 } });
    document.set("a", "2", { kind: "password" });
    document.set("a", "3", { kind: "password", principal: "other" });
    assert.equal(document.getText("a", { kind: "credential" }), "1");
    assert.equal(document.getText("a", { scope: '{"b":2.00, "x":1}' }), "1", "scopes are compared as values");
    assert.equal(document.getText("a", { kind: "password", principal: "other" }), "3");
    const ambiguous = await failure(() => document.get("a"));
    assert.ok(ambiguous instanceof omni.AmbiguousCredentialError);
    assert.deepEqual(
        ambiguous.credentials.map(({ kind }) => kind),
        ["credential", "password"],
    );
    assert.match(
        ambiguous.message,
        /^there are 2 credentials a: a \(credential of app, \{"b":2,"x":1\}\); a \(password/,
    );
    assert.ok((await failure(() => document.set("a", "x"))) instanceof omni.AmbiguousCredentialError);
    assert.ok((await failure(() => document.delete("b"))) instanceof omni.CredentialNotFoundError);
    assert.ok(document.has("a") && !document.has("b") && !document.has("a", { kind: "otp" }));
    // Without a principal of its own, a document looks at everybody's.
    const all = await open(document.toBytes().bytes, { principal: undefined });
    assert.equal(all.list({ name: "a" }).length, 3);
    assert.equal((await failure(() => all.set("new", "x"))).code, "no-principal");
});

test("lists are sorted by bytes, with changes and without", async () => {
    const document = await create();
    const names = ["b", "\u{10000}", "\u{ffff}", "a", "é", "Z", "ab"];
    names.forEach((name) => document.set(name, "x"));
    const sorted = names.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
    assert.deepEqual(
        document.list().map(({ name }) => name),
        sorted,
    );
    const again = await open(document.toBytes().bytes);
    assert.deepEqual(
        again.list().map(({ name }) => name),
        sorted,
    );
    assert.deepEqual(again.list({ name: "é" }).length, 1);
});

test("what is not valid is refused, by its name", async () => {
    const document = await create();
    const codes = {
        "invalid-name": [
            () => document.set("", "v"),
            () => document.set("a\0", "v"),
            () => document.set("\ud800", "v"),
        ],
        "invalid-kind": [() => document.set("a", "v", { kind: "" })],
        "invalid-principal": [() => document.set("a", "v", { principal: "p".repeat(256) })],
        "invalid-scope": [
            () => document.set("a", "v", { scope: "{" }),
            () => document.set("a", "v", { scope: undefined ?? (() => 1) }),
            () => document.get("a", { scope: "nonsense" }),
        ],
        "scope-too-large": [() => document.set("a", "v", { scope: "x".repeat(3000).split("") })],
        "value-too-large": [() => document.set("a", new Uint8Array((1 << 20) + 1))],
        "not-text": [() => document.set("a", "\udc00")],
    };
    for (const [code, calls] of Object.entries(codes)) {
        for (const call of calls) {
            const error = await failure(call);
            assert.deepEqual([error.name, error.code], ["InvalidInputError", code]);
        }
    }
    assert.equal((await failure(() => document.set("a", new Uint8Array((1 << 20) + 1)))).found, (1 << 20) + 1);
    assert.ok((await failure(() => document.set("a", 5))) instanceof TypeError);
    assert.ok(!document.changed);
});

test("a wrong secret is told from what cannot be one", async () => {
    const { base } = await create();
    for (const [wrong, code] of [
        [other, "wrong-master-secret"],
        ["", "invalid-master-secret"],
        ["omck1_x", "invalid-master-secret"],
    ]) {
        const error = await failure(open(base, { secret: wrong, label: "f.omni" }));
        assert.ok(error instanceof omni.WrongMasterSecretError);
        assert.equal(error.code, code);
        assert.ok(error.hint);
    }
    const costs = { memoryKib: 1, passes: 1, lanes: 1 };
    const error = await failure(omni.createDocument({ secret: "password", costs }));
    assert.deepEqual([error.name, error.code], ["InvalidInputError", "kdf-out-of-bounds"]);
});

test("every damaged file has its class, its line and its code", async () => {
    const folder = join(repository, "conformance", "vectors", "hostile", "xchacha20poly1305");
    const { cases, kek } = JSON.parse(readFileSync(join(folder, "manifest.json")));
    const derivation = { deriveKek: async () => new Uint8Array(Buffer.from(kek, "hex")) };
    const files = cases.filter(({ name }) => name.startsWith("file_"));
    assert.ok(files.length > 50);
    for (const { name, class: code, line, found } of files) {
        const file = readFileSync(join(folder, `${name}.credentials`));
        const error = await failure(async () => {
            const document = await open(file, { derivation, principal: undefined });
            for (const { name, ...which } of document.list()) document.get(name, which);
        });
        assert.deepEqual([error.code, error.line, error.found], [code, line, found], name);
        const classes = {
            "unknown-version": ["NeedsNewerError"],
            "unknown-suite": ["NeedsNewerError"],
            "wrong-master-secret": ["WrongMasterSecretError"],
        };
        assert.ok(
            (classes[code] ?? ["DamagedFileError", "UnreadableValueError"]).includes(error.name),
            `${name}: ${error.name}`,
        );
        assert.ok(error.hint, name);
    }
});

test("a value that was moved does not open, and the others do", async () => {
    const document = await stored({ a: "1", b: "2" });
    // Authentic as a file, for its writer has the keys; not as a value.
    const moved = await movedValue(document.base);
    const error = await failure(() => moved.get("b"));
    assert.ok(error instanceof omni.UnreadableValueError);
    assert.deepEqual([error.code, error.credential.name], ["not-authentic", "b"]);
    assert.equal(moved.getText("a"), "1");
    assert.equal(moved.set("b", "replaced"), "changed");
    assert.equal((await open(moved.toBytes().bytes)).getText("b"), "replaced");
});

/** The file with the value of `a` also as that of `b`, written by the low-level layer. */
async function movedValue(file) {
    const module = await omni.builtinModule();
    const bytes = module.instantiate().call(({ encryption, fileStore, keyDerivation }) => {
        const document = fileStore.Document.parse(file);
        const keyring = document.keyringBytes();
        const kek = keyDerivation.deriveKek(new TextEncoder().encode(secret), keyring);
        const [a, b] = document.entries();
        document.put([{ ...b, sealed: a.sealed }]);
        return document.write(encryption.Keyring.unlock(keyring, kek), 0n);
    });
    return open(bytes);
}

test("records that did not change keep their bytes", async () => {
    const document = await stored({ a: "1", b: "2", c: "3" });
    const before = document.base;
    document.set("b", "new");
    document.delete("c");
    const { bytes } = document.toBytes();
    assert.equal(block(bytes, "a"), block(before, "a"));
    assert.notEqual(block(bytes, "b"), block(before, "b"));
    assert.deepEqual(document.base, before, "toBytes changed the document");
    assert.ok(document.changed);
});

test("what is changed after toBytes stays a change", async () => {
    const document = await stored({ a: "1" });
    document.set("a", "2");
    document.set("b", "2");
    const written = document.toBytes();
    document.set("b", "3");
    document.delete("a");
    document.accept(written);
    assert.ok(document.changed);
    const stays = await open(document.toBytes().bytes);
    assert.deepEqual([stays.has("a"), stays.getText("b")], [false, "3"]);
    assert.equal((await open(document.base)).getText("b"), "2");
});

test("a deletion of what was never stored leaves nothing", async () => {
    const document = await create();
    document.set("a", "1");
    document.delete("a");
    assert.ok(!document.changed);
    assert.deepEqual(document.list({ deleted: true }), []);
});

test("changes of both sides are joined", async () => {
    const ours = await stored({ a: "1", b: "2", c: "3" });
    const theirs = await open(ours.base);
    ours.set("a", "ours");
    ours.set("new", "ours");
    theirs.set("b", "theirs");
    theirs.delete("c");
    theirs.accept(theirs.toBytes());
    await ours.merge(theirs.base);
    const merged = await open(ours.toBytes().bytes);
    assert.deepEqual(
        merged.list().map(({ name }) => [name, merged.getText(name)]),
        [
            ["a", "ours"],
            ["b", "theirs"],
            ["new", "ours"],
        ],
    );
    assert.equal(merged.generation, 4);
    assert.equal(block(ours.toBytes().bytes, "b"), block(theirs.base, "b"), "sealed again without need");
});

test("a conflict names the credentials and changes nothing until a side is preferred", async () => {
    for (const [prefer, value] of [
        ["ours", "ours"],
        ["theirs", "theirs"],
    ]) {
        const ours = await stored({ a: "1", b: "2" });
        const theirs = await open(ours.base);
        ours.set("a", "ours");
        ours.set("c", "ours");
        theirs.set("a", "theirs");
        theirs.delete("b");
        theirs.accept(theirs.toBytes());
        const error = await failure(ours.merge(theirs.base));
        assert.ok(error instanceof omni.MergeConflictError);
        assert.deepEqual(
            error.credentials.map(({ name }) => name),
            ["a"],
        );
        assert.ok(!error.message.includes("ours") && error.hint.includes("prefer"));
        assert.deepEqual([ours.getText("a"), ours.has("b")], ["ours", true], "something changed");
        await ours.merge(theirs.base, { prefer });
        const merged = await open(ours.toBytes().bytes);
        assert.deepEqual([merged.getText("a"), merged.has("b"), merged.getText("c")], [value, false, "ours"]);
    }
});

test("the same value on both sides is no conflict, and a deletion against a change is one", async () => {
    const ours = await stored({ a: "1", b: "2" });
    const theirs = await open(ours.base);
    ours.set("a", "same");
    theirs.set("a", "same");
    theirs.accept(theirs.toBytes());
    await ours.merge(theirs.base);
    assert.equal(ours.getText("a"), "same");
    theirs.set("b", "theirs");
    theirs.accept(theirs.toBytes());
    ours.delete("b");
    const error = await failure(ours.merge(theirs.base));
    assert.deepEqual(
        error.conflicts.map(({ credential, reason }) => [credential.name, reason]),
        [["b", "ours-deleted"]],
    );
    assert.equal(
        error.message,
        'the two sides do not agree on b (credential of app, {"all":true}) (deleted by ours, changed by theirs)',
    );
    // And seen from the other side.
    const deleted = await stored({ b: "1" });
    const other = await open(deleted.base);
    other.set("b", "other");
    deleted.delete("b");
    deleted.accept(deleted.toBytes());
    assert.match((await failure(other.merge(deleted.base))).message, /\(deleted by theirs, changed by ours\)$/);
});

test("the reasons of conflicts are those of the contract, each with its meaning", async () => {
    const contract = readFileSync(join(repository, "wit/file-store.wit"), "utf8");
    const cases = contract
        .split("enum reason {")[1]
        .split("}")[0]
        .match(/^ +[a-z-]+(?=,)/gm);
    const { CONFLICTS } = await inside("error-table.js");
    assert.deepEqual(
        cases.map((name) => name.trim()),
        Object.keys(CONFLICTS),
    );
});

test("a rotation on the other side is no change of values, and ours are sealed with the new key", async () => {
    const ours = await stored({ a: "1", b: "2", c: "3" });
    const before = ours.base;
    ours.set("a", "ours");
    const rotated = await rotate(before);
    await ours.merge(rotated);
    const merged = await open(ours.toBytes().bytes);
    assert.deepEqual(
        ["a", "b", "c"].map((name) => merged.getText(name)),
        ["ours", "2", "3"],
    );
    assert.equal(await underOlderKeys(merged.base), 0);
    // And back: the file of before the rotation was put in its place. No key may be lost.
    merged.set("c", "newer");
    merged.accept(merged.toBytes());
    merged.set("b", "ours");
    await merged.merge(before, { prefer: "ours" });
    const last = await open(merged.toBytes().bytes);
    assert.deepEqual(
        ["a", "b", "c"].map((name) => last.getText(name)),
        ["1", "ours", "3"].with(0, last.getText("a")),
    );
    assert.ok(last.generation > merged.generation);
});

async function rotate(file) {
    const { packed } = await inside("identity.js");
    const module = await omni.builtinModule();
    return module.instantiate().call(({ encryption, fileStore, keyDerivation }) => {
        const document = fileStore.Document.parse(file);
        const kek = keyDerivation.deriveKek(new TextEncoder().encode(secret), document.keyringBytes());
        const keyring = encryption.Keyring.unlock(document.keyringBytes(), kek);
        keyring.addKey();
        document.put(
            document.entries().map((entry) => ({
                ...entry,
                sealed: keyring.reseal(packed(entry.identity), entry.expires, entry.sealed),
            })),
        );
        document.setKeyring(keyring.toBytes());
        return document.write(keyring, 0n);
    });
}

async function underOlderKeys(file) {
    const module = await omni.builtinModule();
    return module.instantiate().call(({ encryption, fileStore, keyDerivation }) => {
        const document = fileStore.Document.parse(file);
        const kek = keyDerivation.deriveKek(new TextEncoder().encode(secret), document.keyringBytes());
        const keyring = encryption.Keyring.unlock(document.keyringBytes(), kek);
        return document.entries().filter(({ sealed, deleted }) => !deleted && keyring.keyOf(sealed) !== "current")
            .length;
    });
}

test("a file of another keyring is not merged", async () => {
    const ours = await stored({ a: "1" });
    ours.set("a", "2");
    const strange = await omni.createDocument({ secret: other });
    const error = await failure(ours.merge(strange.base));
    assert.ok(error instanceof omni.WrongMasterSecretError);
    const damaged = ours.base.slice();
    // Another character of base64: what is none would be found before the seal.
    const at = damaged.length - 5;
    damaged[at] = damaged[at] === 0x41 ? 0x42 : 0x41;
    const sealed = await failure(ours.merge(damaged));
    assert.deepEqual(
        [sealed.code, sealed.hint],
        ["seal-mismatch", "restore a good version: git checkout HEAD -- FILE"],
    );
    assert.equal(ours.getText("a"), "2");
});

test("nothing shows a value or a key", async () => {
    const document = await stored({ a: "precious" });
    document.set("b", "precious too");
    const shown = [
        inspect(document, { showHidden: true, depth: 20, getters: true }),
        JSON.stringify(document),
        JSON.stringify({ document }),
        String(document),
        JSON.stringify(await failure(() => document.get("none"))),
    ].join();
    assert.ok(!/precious|[0-9a-f]{16}|Uint8Array|sealed/.test(shown), shown);
    assert.match(shown, /generation/);
});

test("a closed document opens nothing", async () => {
    const document = await stored({ a: "1" });
    document.getText("a");
    document.set("b", "2");
    document.close();
    for (const work of [() => document.get("a"), () => document.set("c", "1"), () => document.toBytes()]) {
        assert.equal((await failure(work)).code, "closed");
    }
    assert.equal((await failure(document.merge(document.base))).code, "closed");
});

test("the command reads what was made here, and the other way round", async () => {
    const { writeFileSync } = await import("node:fs");
    const file = join(folder(), "credentials.omni");
    const document = await create();
    document.set('a"\n', "1", { kind: "api_key", scope: { db: "main" } });
    writeFileSync(file, document.toBytes().bytes);
    assert.equal(run(file, secret, ["get", 'a"\n']), "1");
    run(file, secret, ["set", "b"], { input: "2" });
    const again = await open(readFileSync(file));
    assert.equal(again.getText("b"), "2");
    assert.equal(again.list()[0].scope, '{"db":"main"}');
});

test("a credential expires when it was said to", async () => {
    const document = await create();
    const soon = new Date("2027-01-15T08:00:00.900Z");
    const second = new Date("2027-01-15T08:00:00Z");
    assert.equal(document.set("a", "1", { expires: soon }), "added");
    assert.equal(document.set("a", "1", { expires: second }), "unchanged");
    const again = await open(document.toBytes().bytes);
    assert.match(text(again.base), /\n {2}expires 2027-01-15T08:00:00Z\n/);
    assert.deepEqual(again.list()[0].expires, second);
    assert.equal(again.getText("a"), "1");
    again.accept(again.rotateKey());
    assert.deepEqual(again.list()[0].expires, second);
    assert.equal(again.set("a", "1"), "changed");
    assert.equal("expires" in again.list()[0], false);
    assert.equal((await open(again.toBytes().bytes)).getText("a"), "1");
    for (const expires of [new Date(NaN), new Date(-1), new Date(8.64e15)]) {
        const error = await failure(async () => again.set("a", "2", { expires }));
        assert.equal(error.code, "invalid-expiry");
    }
    assert.equal(again.getText("a"), "1");
});

test("a message shows what cannot be seen", async () => {
    const document = await omni.createDocument({ secret: await omni.generateMasterKey(), principal: "app" });
    const hidden = ["\n", "\u007f", "\u009b", "\u200b", "\u202e", "\u2028", "\u{e0001}", "\u00ad"];
    for (const character of hidden) {
        const { message } = await failure(() => document.get(`a${character}b`));
        assert.match(message, /^there is no credential a\\(n|u[0-9a-f]{4}(\\u[0-9a-f]{4})?)b$/);
    }
});
