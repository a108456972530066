// The crypto module: one digest, no import but entropy, and what happens when a module misbehaves.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";

import { builtinModule, CryptoModule, ModuleError, RefusalError, Store } from "omni-credentials";
import { built, failure, folder, inside, installed, modules, repository } from "./support.mjs";

const component = readFileSync(join(modules, "xchacha20poly1305.wasm"));
// Where jco is installed.
const { transpile } = await import(pathToFileURL(join(built, "dist", "transpile.js")).href);
const hostile = (name) => readFileSync(join(modules, "hostile", `${name}.wasm`));

/** A module with bindings made now. */
async function made(bytes) {
    const path = folder();
    for (const [name, content] of await transpile(bytes)) writeFileSync(join(path, name), content);
    const { loadModule } = await import("omni-credentials");
    return loadModule(path);
}

test("the package carries the very module that the other hosts run", async () => {
    const [digest] = readFileSync(join(modules, "xchacha20poly1305.wasm.sha256"), "utf8").split(" ");
    assert.ok(readFileSync(join(installed, "dist", "builtin", "module.wasm")).equals(component));
    const { base64 } = await inside("builtin/inline.js");
    assert.ok(Buffer.from(base64, "base64").equals(component), "the browser's is another");
    const module = await builtinModule();
    assert.equal(module.digest, digest.trim());
    assert.equal(createHash("sha256").update(component).digest("hex"), digest.trim());
    const { name, contract, suite } = module.describe();
    assert.deepEqual([name, contract, suite.id], ["xchacha20poly1305", "omni:credentials@1.0.0", 1]);
});

test("its bindings are what jco makes of that module", async () => {
    const files = await transpile(component);
    const bindings = readFileSync(join(installed, "dist", "builtin", "bindings.js"));
    assert.ok(Buffer.from(files.get("bindings.js")).equals(bindings));
    // Entropy is the only thing that they take from outside.
    const taken = [...bindings.toString().matchAll(/imports\[[^\]]*\]/g)].map(([text]) => text);
    assert.deepEqual(taken, ["imports['wasi:random/random']"]);
    // Nothing of Node, nothing that prints values, whatever the environment says.
    assert.doesNotMatch(bindings.toString(), /\brequire\(|\bprocess\b|\bfetch\(|\bimport\(|console\.(log|debug)/);
});

test("every error of the contract has a meaning, and no other", async () => {
    const wit = readFileSync(join(repository, "wit", "types.wit"), "utf8");
    const names = wit
        .split("enum error {")[1]
        .split("}")[0]
        .replace(/\/\/.*/g, "")
        .split(",")
        .map((name) => name.trim());
    const { explain } = await inside("errors.js");
    const unknown = explain({ error: "no such", line: 0, found: 0n });
    for (const error of names.filter((name) => name !== "" && name !== "other")) {
        assert.notEqual(explain({ error, line: 0, found: 0n }), unknown, error);
    }
    assert.equal(explain({ error: "unsorted", line: 7, found: 0n }), "line 7: the records are out of order");
    assert.match(explain({ error: "unknown-suite", line: 0, found: 2n }), /\(suite 2\)$/);
});

test("another component is not loaded with these bindings", async () => {
    const other = readFileSync(join(modules, "aes256gcmsiv.wasm"));
    for (const bytes of [other, component.subarray(1), new Uint8Array()]) {
        const error = await failure(CryptoModule.load(bytes));
        assert.ok(error instanceof ModuleError);
        assert.equal(error.code, "digest-mismatch");
    }
});

test("the other module works with bindings of its own, and says what it needs", async () => {
    const module = await made(readFileSync(join(modules, "aes256gcmsiv.wasm")));
    const path = join(folder(), "f.omni");
    const secret = "a password";
    const costs = { memoryKib: 64, passes: 1, lanes: 1 };
    const store = await Store.create(path, { module, secret, costs, principal: "app" });
    store.set("a", "1");
    await store.save();
    assert.equal((await Store.open(path, { module, secret })).getText("a"), "1");
    const error = await failure(Store.open(path, { secret }));
    assert.deepEqual([error.name, error.code, error.found], ["NeedsNewerError", "unknown-suite", 2]);
});

test("the program that makes bindings refuses what it must, by name", () => {
    const path = folder();
    const cli = join(built, "dist", "transpile-cli.js");
    const run = (...given) => spawnSync(process.execPath, [cli, ...given], { encoding: "utf8" });
    assert.equal(run(join(modules, "aes256gcmsiv.wasm"), join(path, "m")).status, 0);
    assert.deepEqual(readdirSync(join(path, "m")).sort(), [
        "bindings.d.ts",
        "bindings.js",
        "module.wasm",
        "package.json",
    ]);
    const refused = run(join(modules, "hostile", "imports-a-clock.wasm"), join(path, "n"));
    assert.equal(refused.status, 1);
    assert.match(refused.stderr, /^error: the crypto module imports .*clock/);
    assert.ok(!existsSync(join(path, "n")));
    assert.equal(run().status, 2);
    assert.equal(run(join(path, "none"), join(path, "n")).status, 1);
});

const refusals = {
    "imports-a-clock": ["forbidden-import", /imports .*clock/],
    "imports-a-function": ["forbidden-import", /imports .*run-command/],
    "imports-more-of-random": ["forbidden-import", /imports wasi:random\/random#get-random-u64/],
    "lacks-an-interface": ["wrong-contract", /primitives/],
    "lacks-a-function": ["wrong-contract", /encryption/],
    "has-another-type": ["wrong-contract", /encryption/],
    "is-of-another-version": ["wrong-contract", /@1\.0\.0 is missing/],
};
for (const [name, [code, message]] of Object.entries(refusals)) {
    test(`refused before it runs: ${name}`, async () => {
        const error = await failure(transpile(hostile(name)));
        assert.deepEqual([error.name, error.code], ["ModuleError", code], String(error));
        assert.match(error.message, message);
    });
}

test("a module may ask WASI 0.3 for entropy, and no later version", async () => {
    const [from, to] = ["wasi:random/random@0.2.3", "wasi:random/random@0.3.0"].map((name) => Buffer.from(name));
    const bytes = Buffer.from(component);
    let found = 0;
    for (let at = bytes.indexOf(from); at >= 0; at = bytes.indexOf(from, at)) {
        to.copy(bytes, at);
        found++;
    }
    assert.ok(found > 0);
    const module = await made(bytes);
    const path = join(folder(), "credentials.omni");
    const store = await Store.create(path, { secret: "secret", principal: "app", module });
    store.set("a", "1");
    assert.equal(await store.save(), true);
    const error = await failure(transpile(hostile("imports-random-of-wasi-0-4")));
    assert.deepEqual([error.name, error.code], ["ModuleError", "forbidden-import"]);
    assert.match(error.message, /imports wasi:random\/random@0\.4\.0, and only/);
});

test("what is no component is refused", async () => {
    for (const bytes of [
        new Uint8Array(),
        Buffer.from("nonsense"),
        component.subarray(0, 1000),
        hostile("empty").subarray(0, 8),
    ]) {
        const error = await failure(transpile(bytes));
        assert.equal(error.name, "ModuleError", String(error));
        assert.ok(["not-a-component", "wrong-contract"].includes(error.code));
    }
});

// Those that trap at once. Loops and ever more memory are not among them: the README says that nothing stops them here.
const traps = [
    "trap",
    "trap-in-unlock",
    "trap-in-start",
    "trap-in-realloc",
    "divide-by-zero",
    "out-of-bounds",
    "wrong-indirect-call",
    "recursion",
    "recursion-fat",
    "entropy-bomb",
    "result-outside",
    "result-of-no-case",
    "error-of-no-case",
];
for (const name of traps) {
    test(`a trap is an error and the process lives: ${name}`, async () => {
        const module = await made(hostile(name));
        const error = await failure(() =>
            module.instantiate().call(({ encryption, moduleInfo }) => {
                moduleInfo.describe();
                const keyring = encryption.Keyring.unlock(new Uint8Array(8), new Uint8Array(32));
                keyring.open(new Uint8Array(20), undefined, new Uint8Array(80));
            }),
        );
        assert.ok(error instanceof ModuleError, String(error));
        assert.equal(error.code, "trap");
    });
}

test("an instance that trapped is replaced", async () => {
    const { UnlockedKeyring } = await inside("keyring.js");
    const module = await made(hostile("by-length"));
    const keyring = new UnlockedKeyring(module, new Uint8Array(8), new Uint8Array(32));
    const identity = {
        name: new Uint8Array(1),
        kind: new Uint8Array(1),
        principal: new Uint8Array(1),
        scope: new Uint8Array(1),
    };
    const entry = (length) => ({ identity, sealed: new Uint8Array(length), deleted: false });
    // A sealed value of 101 bytes makes this module trap.
    const trapped = await failure(() => keyring.open(entry(101)));
    assert.ok(trapped instanceof ModuleError, String(trapped));
    assert.equal(keyring.open(entry(80)).length, 32);
});

test("a refusal costs no instance, and one that trapped is of no more use", async () => {
    const instance = (await builtinModule()).instantiate();
    const refused = await failure(() =>
        instance.call(({ encryption }) => encryption.Keyring.unlock(new Uint8Array(3), new Uint8Array(32))),
    );
    assert.ok(refused instanceof RefusalError);
    assert.deepEqual(refused.failure, { error: "malformed", line: 0, found: 0n });
    assert.equal(
        instance.call(({ moduleInfo }) => moduleInfo.describe().suite.id),
        1,
    );
    await failure(() => instance.call(({ primitives }) => primitives.hkdfSha256("not bytes")));
    assert.ok(instance.failed);
    assert.equal((await failure(() => instance.call(() => 1))).code, "trap");
});
