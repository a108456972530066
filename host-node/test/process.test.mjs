// Stores in a process that goes to another folder, aborts, and closes; and what no error shows.

import assert from "node:assert/strict";
import { copyFileSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { inspect } from "node:util";

import * as omni from "omni-credentials";
import { failure, folder, leftovers, run } from "./support.mjs";

const { Store } = omni;
const secret = await omni.generateMasterKey();
const options = { secret, principal: "app" };
const SLOW = { memoryKib: 262_144, passes: 16, lanes: 4 };

test("paths are resolved when a store is opened", async () => {
    const [at, other] = [folder(), folder()];
    await Store.create(join(at, "credentials.omni"), options);
    copyFileSync(join(at, "credentials.omni"), join(other, "credentials.omni"));
    writeFileSync(join(at, "key"), secret);
    writeFileSync(join(other, "key"), "another one");
    const before = process.cwd();
    process.env.NODE_TEST_PATHS_FILE = "key";
    try {
        process.chdir(at);
        const opening = Store.open("credentials.omni", { envVar: "NODE_TEST_PATHS", principal: "app" });
        process.chdir(other);
        const store = await opening;
        store.set("a", "1");
        await store.save();
    } finally {
        process.chdir(before);
        delete process.env.NODE_TEST_PATHS_FILE;
    }
    assert.equal(run(join(at, "credentials.omni"), secret, ["get", "a"]), "1");
    run(join(other, "credentials.omni"), secret, ["get", "a"], { status: 3 });
});

test("an aborted signal ends the opening", async () => {
    const path = join(folder(), "credentials.omni");
    await Store.create(path, { secret: "a password", costs: { memoryKib: 64, passes: 1, lanes: 1 } });
    const signal = AbortSignal.abort(new Error("enough"));
    for (const call of [Store.open, Store.create]) {
        const error = await failure(call.call(Store, `${path}.none`, { secret, signal }));
        assert.equal(error.message, "enough");
    }
    assert.deepEqual(readdirSync(join(path, "..")), ["credentials.omni"]);
    // Also while a key is derived, which takes seconds here.
    const aborting = new AbortController();
    const creating = Store.create(`${path}.none`, { secret: "a password", costs: SLOW, signal: aborting.signal });
    setTimeout(() => aborting.abort(new Error("later")), 100);
    assert.equal((await failure(creating)).message, "later");
    assert.deepEqual(readdirSync(join(path, "..")), ["credentials.omni"]);
});

test("a closed store reads and writes nothing", async () => {
    const path = join(folder(), "credentials.omni");
    const store = await Store.create(path, options);
    store.set("a", "1");
    assert.equal(store.closed, false);
    store.close();
    store.close();
    assert.equal(store.closed, true);
    const calls = [
        () => store.get("a"),
        () => store.has("a"),
        () => store.list(),
        () => store.set("b", "2"),
        () => store.delete("a"),
        () => store.verify(),
        () => store.save(),
        () => store.reload(),
        () => store.rotateKey(),
        () => store.rotateMasterSecret("x"),
    ];
    for (const call of calls) assert.equal((await failure(call)).code, "closed", String(call));
    assert.match(inspect(store), /credentials\.omni/);
    assert.deepEqual(leftovers(join(path, "..")), []);
});

test("an older file is reported", async () => {
    const path = join(folder(), "credentials.omni");
    const store = await Store.create(path, options);
    const older = readFileSync(path);
    for (const value of ["1", "2"]) {
        store.set("a", value);
        await store.save();
    }
    const warned = new Promise((resolve) => process.once("warning", resolve));
    writeFileSync(path, older);
    store.set("b", "1");
    await store.save();
    const warning = await warned;
    assert.equal(warning.name, "OlderFileWarning");
    assert.match(warning.message, /credentials\.omni: went back from generation 3 to 1: an older version of the file/);
    assert.equal(store.generation, 4);
});

test("text without UTF-8 is refused, and not shown", async () => {
    const at = folder();
    const path = join(at, "credentials.omni");
    const store = await Store.create(path, options);
    const half = "hunter2\ud800";
    const calls = [
        () => store.set("a", half),
        () => Store.open(path, { secret: half }),
        () => Store.create(join(at, "new"), { secret: half }),
        () => store.rotateMasterSecret(half),
    ];
    for (const call of calls) {
        const error = await failure(call);
        assert.deepEqual([error.name, error.code], ["InvalidInputError", "not-text"]);
        assert.doesNotMatch(inspect(error, { showHidden: true, depth: 9 }), /hunter2/);
    }
    assert.equal((await failure(() => store.get("\ud800"))).message, "there is no credential \\ud800");
    assert.deepEqual(readdirSync(at), ["credentials.omni"]);
});
