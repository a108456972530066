// The lock that all hosts share (FORMAT.md §7.2), against itself and against the command.

import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { Worker } from "node:worker_threads";

import { FileLockedError, generateMasterKey, Store } from "omni-credentials";
import { command, ended, failure, folder, inside, installed, leftovers, node, run } from "./support.mjs";

const { withLock } = await inside("node/lock.js");
const holders = await inside("node/holder.js");
const { temporaryFor } = await inside("node/staged.js");
const secret = await generateMasterKey();
const here = holders.thisProcess();

/** The text of a lock that a process held which is gone now. */
function stale() {
    const { pid } = spawnSync("true");
    return holders.toText({ ...here, pid: String(pid) });
}

/** Holds the lock of a file in another process, until its standard input ends. */
async function holding(path) {
    const child = node(
        `
        const { withLock } = await import(${JSON.stringify(`file://${installed}/dist/node/lock.js`)});
        await withLock(process.argv[1], {}, async () => {
            console.log("held");
            for await (const _ of process.stdin);
        });`,
        [path],
    );
    await new Promise((resolve) => child.stdout.once("data", resolve));
    return child;
}

test("the text of a lock file is the one of all hosts", () => {
    const text = holders.toText(here);
    const lines = text.split("\n").map((line) => line.split(" ")[0]);
    assert.deepEqual(lines, ["omni-credentials", "pid", "start", "boot", "namespace", "machine", "host", ""]);
    assert.deepEqual(holders.parse(text), here);
    for (let cut = 0; cut < text.length; cut++) assert.equal(holders.parse(text.slice(0, cut)), undefined, String(cut));
    assert.equal(holders.parse(`${text}x\n`), undefined);
    assert.equal(holders.parse(text.replace("lock 1", "lock 2")), undefined);
    assert.equal(holders.parse(text.replace(/pid \d+/, "pid x")), undefined);
});

test("the living are told from the dead", () => {
    const gone = (change, isLocal = true) => holders.isGone({ ...here, ...change }, isLocal);
    const { pid } = spawnSync("true");
    assert.equal(gone({}), false);
    assert.equal(gone({ pid: String(pid) }), true);
    assert.equal(gone({ start: "1" }), true, "the pid was used again");
    assert.equal(gone({ start: "-" }), false);
    assert.equal(gone({ pid: "1", start: "-" }), false);
    assert.equal(gone({ pid: String(pid), namespace: "pid:[1]" }), false);
    assert.equal(gone({ pid: String(pid), host: "elsewhere" }), false);
    assert.equal(gone({ pid: String(pid), machine: "other" }), false);
    assert.equal(gone({ boot: "earlier" }), here.machine !== "-");
    assert.equal(gone({ boot: "earlier" }, false), false, "perhaps a machine made from the same image");
    assert.equal(gone({ pid: String(pid) }, false), true);
    assert.equal(gone({ pid: String(pid), boot: "-" }, false), false);
    assert.equal(gone({ pid: String(pid), namespace: "-" }), false);
});

test("it excludes, waits, and is freed", async () => {
    const at = folder();
    const path = join(at, "file");
    symlinkSync("file", join(at, "link"));
    await withLock(path, {}, async (file) => {
        assert.equal(file, path);
        assert.deepEqual(holders.parse(readFileSync(`${path}.lock`, "utf8")), here);
        const error = await failure(withLock(join(at, "link"), { wait: 0.03 }, async () => assert.fail()));
        assert.ok(error instanceof FileLockedError);
        assert.equal(error.holder, `process ${process.pid} on host ${here.host}`);
        assert.equal(error.lock, `${path}.lock`);
        const signal = AbortSignal.timeout(30);
        assert.equal((await failure(withLock(path, { signal }, async () => assert.fail()))).name, "TimeoutError");
    });
    const error = await failure(
        withLock(path, {}, async () => {
            throw new Error("inside");
        }),
    );
    assert.equal(error.message, "inside");
    assert.deepEqual(readdirSync(at), ["link"]);
});

test("a stale lock is taken over, with all that its holder staged", async () => {
    const at = folder();
    const path = join(at, "file");
    writeFileSync(`${path}.lock`, stale());
    writeFileSync(temporaryFor(path), "half");
    writeFileSync(join(at, ".file.short.tmp"), "another file");
    await withLock(path, { wait: 0 }, async () => {
        assert.deepEqual(holders.parse(readFileSync(`${path}.lock`, "utf8")), here);
    });
    assert.deepEqual(readdirSync(at), [".file.short.tmp"]);
});

test("a takeover that was broken off is taken over", async () => {
    const path = join(folder(), "file");
    for (const suffix of [".lock", ".lock.takeover", ".lock.takeover.takeover"]) writeFileSync(path + suffix, stale());
    await withLock(path, { wait: 0 }, async () => {});
    assert.deepEqual(readdirSync(join(path, "..")), []);
});

test("what cannot be judged stays, and is named", async () => {
    const path = join(folder(), "file");
    const lock = `${path}.lock`;
    const elsewhere = stale().replace("\nhost ", "\nhost not-");
    for (const text of ["", "nonsense", "omni-credentials lock 1\n", elsewhere, Buffer.from([0xff])]) {
        writeFileSync(lock, text);
        assert.ok((await failure(withLock(path, { wait: 0 }, async () => {}))) instanceof FileLockedError);
        assert.deepEqual(readFileSync(lock), Buffer.from(text));
    }
    writeFileSync(lock, stale());
    writeFileSync(`${lock}.takeover`, "nonsense");
    assert.equal((await failure(withLock(path, { wait: 0 }, async () => {}))).lock, `${lock}.takeover`);
    assert.ok(existsSync(lock));
});

test("it frees only its own", async () => {
    const path = join(folder(), "file");
    await withLock(path, {}, async () => writeFileSync(`${path}.lock`, "of another process"));
    assert.equal(readFileSync(`${path}.lock`, "utf8"), "of another process");
});

test("long names", async () => {
    const at = folder();
    const store = await Store.create(join(at, "é".repeat(120)), { secret, principal: "app" });
    store.set("a", "1");
    await store.save();
    assert.equal(readdirSync(at).length, 1);
});

test("the command waits for a store, and then does its work", async () => {
    const path = join(folder(), "f.omni");
    await Store.create(path, { secret });
    const child = await holding(path);
    run(path, secret, ["set", "a", "--wait", "0"], { input: "1", status: 9 });
    const env = { OMNI_CREDENTIALS_MASTER_PASSWORD: secret, HOME: "/tmp", USER: "app" };
    const waiting = spawn(command, ["set", "a", "--file", path, "--wait", "60"], {
        env,
        stdio: ["pipe", "ignore", "ignore"],
    });
    waiting.stdin.end("1");
    const [status] = [ended(waiting)];
    await new Promise((resolve) => setTimeout(resolve, 100));
    child.stdin.end();
    assert.equal(await ended(child), 0);
    assert.equal(await status, 0);
    assert.equal(run(path, secret, ["get", "a"]), "1");
});

test("a store waits for the command", async () => {
    const path = join(folder(), "f.omni");
    const store = await Store.create(path, { secret, principal: "app" });
    // Its lock, as the command writes it: of a process that lives.
    const sleeper = spawn("sleep", ["60"]);
    const lock = `${path}.lock`;
    const start = readFileSync(`/proc/${sleeper.pid}/stat`, "latin1")
        .replace(/^.*\) /s, "")
        .split(" ")[19];
    writeFileSync(lock, holders.toText({ ...here, pid: String(sleeper.pid), start }));
    store.set("a", "1");
    const error = await failure(store.save({ wait: 0 }));
    assert.equal(error.holder, `process ${sleeper.pid} on host ${here.host}`);
    const saving = store.save({ wait: 60 });
    sleeper.kill("SIGKILL");
    assert.equal(await saving, true, "the lock of a dead process was not taken over");
    assert.deepEqual(leftovers(join(path, "..")), []);
});

test("the command takes over from a store that was killed", async () => {
    const path = join(folder(), "f.omni");
    await Store.create(path, { secret });
    const child = await holding(path);
    const end = ended(child);
    child.kill("SIGKILL");
    assert.equal(await end, "SIGKILL");
    assert.ok(existsSync(`${path}.lock`));
    run(path, secret, ["set", "a", "--wait", "0"], { input: "1" });
    assert.deepEqual(leftovers(join(path, "..")), []);
});

test("a process that ends in the middle frees its lock", async () => {
    const path = join(folder(), "f.omni");
    const child = node(
        `
        const { withLock } = await import(${JSON.stringify(`file://${installed}/dist/node/lock.js`)});
        await withLock(process.argv[1], {}, async () => process.exit(3));`,
        [path],
    );
    assert.equal(await ended(child), 3);
    assert.deepEqual(readdirSync(join(path, "..")), []);
});

test("a worker that was terminated in the middle of a save is no holder any more", async () => {
    const path = join(folder(), "f.omni");
    const store = await Store.create(path, { secret, principal: "app" });
    const script = `
        const { parentPort, workerData } = await import("node:worker_threads");
        const { withLock } = await import(${JSON.stringify(`file://${installed}/dist/node/lock.js`)});
        await withLock(workerData, {}, async () => {
            parentPort.postMessage("held");
            await new Promise(() => setInterval(() => undefined, 1000));
        });`;
    for (const next of ["this process", "the command"]) {
        const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(script)}`), { workerData: path });
        await new Promise((resolve) => worker.once("message", resolve));
        const holder = holders.parse(readFileSync(`${path}.lock`, "utf8"));
        assert.notEqual(holder.pid, here.pid);
        store.set("a", next);
        assert.ok((await failure(store.save({ wait: 0 }))) instanceof FileLockedError, "the worker still holds it");
        run(path, secret, ["set", "a", "--wait", "0"], { input: "1", status: 9 });
        await worker.terminate();
        assert.ok(existsSync(`${path}.lock`));
        if (next === "this process") assert.equal(await store.save({ wait: 0 }), true);
        else run(path, secret, ["set", "a", "--wait", "0"], { input: next });
        assert.equal(run(path, secret, ["get", "a"]), next);
        await store.reload({ discard: true });
    }
    assert.deepEqual(leftovers(join(path, "..")), []);
});

test("a holder that cannot be seen is named, with what to do", async () => {
    const path = join(folder(), "file");
    const { pid } = spawnSync("true");
    for (const [change, place] of [
        [{ namespace: "pid:[1]" }, "in another container (pid namespace pid:[1])"],
        [{ machine: "other" }, "another machine of the same name or before a restart"],
    ]) {
        writeFileSync(`${path}.lock`, holders.toText({ ...here, pid: String(pid), ...change }));
        const error = await failure(withLock(path, { wait: 0 }, async () => {}));
        assert.equal(error.holder, `process ${pid} on host ${here.host}, ${place}`);
        assert.equal(error.hint, `if no process is using the file: rm ${path}.lock`);
        assert.ok(existsSync(`${path}.lock`));
    }
});

test("many locks at once, and many calls with one signal, cause no warning", async () => {
    const warnings = [];
    const warn = (warning) => warnings.push(warning.name);
    process.on("warning", warn);
    const at = folder();
    const { signal } = new AbortController();
    const options = { secret, principal: "app", signal };
    const stores = await Promise.all(
        Array.from({ length: 15 }, (_, number) => Store.create(join(at, `f${number}`), options)),
    );
    for (const store of stores) store.set("a", "1");
    await Promise.all(stores.map((store) => store.save()));
    await Promise.all(
        Array.from({ length: 15 }, (_, number) =>
            Store.create(join(at, `p${number}`), {
                ...options,
                secret: "a password",
                costs: { memoryKib: 64, passes: 1, lanes: 1 },
            }),
        ),
    );
    await new Promise((resolve) => setImmediate(resolve));
    process.removeListener("warning", warn);
    assert.deepEqual(warnings, []);
});

test("a wait has an end, whatever the lock is", async () => {
    const at = folder();
    symlinkSync("nowhere", join(at, "file.lock"));
    const error = await failure(withLock(join(at, "file"), { wait: 0.05 }, async () => assert.fail()));
    assert.ok(error instanceof FileLockedError);
    assert.equal(existsSync(join(at, "nowhere")), false);
});
