// Many writers at once, and writers that are killed.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

import { generateMasterKey, Store } from "omni-credentials";
import { command, ended, folder, leftovers, node, run } from "./support.mjs";

const secret = await generateMasterKey();

/** Changes credentials of its own and one that all share, one save each, and says which it saved. */
const WRITER = `
    import { Store } from "omni-credentials";
    const [path, secret, name, count] = process.argv.slice(1);
    const store = await Store.open(path, { secret, principal: "app", wait: 60 });
    for (let at = 0; at < Number(count); at++) {
        store.set(name + at, "value of " + name + at);
        store.set("last", name + at);
        await store.save({ prefer: "ours" });
        console.log(at);
    }`;

test("several stores and the command write at once, and nothing is lost", async () => {
    const path = join(folder(), "f.omni");
    await Store.create(path, { secret });
    const writers = ["a", "b"].map((name) => node(WRITER, [path, secret, name, "25"]));
    writers.forEach((writer) => writer.stdout.resume());
    const ends = writers.map(ended);
    for (let at = 0; at < 25; at++) {
        const env = { OMNI_CREDENTIALS_MASTER_PASSWORD: secret, HOME: "/tmp", USER: "app" };
        const child = spawn(command, ["set", `c${at}`, "--file", path, "--wait", "60"], {
            env,
            stdio: ["pipe", "ignore", "inherit"],
        });
        child.stdin.end(`value of c${at}`);
        assert.equal(await ended(child), 0);
    }
    assert.deepEqual(await Promise.all(ends), [0, 0]);
    const store = await Store.open(path, { secret });
    for (const name of ["a", "b", "c"]) {
        for (let at = 0; at < 25; at++) assert.equal(store.getText(`${name}${at}`), `value of ${name}${at}`);
    }
    assert.ok(store.generation > 75, "two writings had one generation");
    run(path, secret, ["verify"]);
    assert.deepEqual(leftovers(join(path, "..")), []);
});

test("stores of one process write at once, and nothing is lost", async () => {
    const path = join(folder(), "f.omni");
    await Store.create(path, { secret });
    const stores = await Promise.all([0, 1, 2, 3].map(() => Store.open(path, { secret, principal: "app", wait: 60 })));
    for (let round = 0; round < 10; round++) {
        await Promise.all(stores.map((store, at) => (store.set(`s${at}.${round}`, "x"), store.save())));
    }
    const store = await Store.open(path, { secret });
    assert.equal(store.list().length, 40);
});

test("a process that is killed while it saves leaves the old file or the new one", async () => {
    const path = join(folder(), "f.omni");
    const first = await Store.create(path, { secret, principal: "app" });
    // Large enough that a save takes its time.
    for (let at = 0; at < 300; at++) first.set(`filler${at}`, "x".repeat(500));
    await first.save();
    let killed = 0;
    for (let round = 0; round < 12; round++) {
        const writer = node(WRITER, [path, secret, `w${round}.`, "1000"]);
        const end = ended(writer);
        let saved = -1;
        writer.stdout.on("data", (data) => (saved = Number(data.toString().trim().split("\n").at(-1))));
        await new Promise((resolve) => writer.stdout.once("data", resolve));
        await new Promise((resolve) => setTimeout(resolve, 3 * round));
        writer.kill("SIGKILL");
        if ((await end) === "SIGKILL") killed += 1;
        const store = await Store.open(path, { secret, principal: "app" });
        assert.equal(store.getText(`w${round}.${saved}`), `value of w${round}.${saved}`, "what was saved is gone");
        assert.ok(store.list().length >= 300);
        // And the next writer is not kept from its work.
        store.set("after", String(round));
        assert.equal(await store.save({ wait: 1, prefer: "ours" }), true);
        assert.deepEqual(leftovers(join(path, "..")), []);
    }
    assert.equal(killed, 12);
    run(path, secret, ["verify"]);
    assert.ok(readFileSync(path).length > 300 * 500);
});
