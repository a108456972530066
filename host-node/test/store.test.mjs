// Stores: files on disk, shared with the command.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
    chmodSync,
    existsSync,
    lstatSync,
    mkdirSync,
    readFileSync,
    readdirSync,
    renameSync,
    statSync,
    symlinkSync,
    writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { inspect } from "node:util";

import * as omni from "omni-credentials";
import { failure, folder, leftovers, run, withAlteredValue } from "./support.mjs";

const { Store } = omni;
const secret = await omni.generateMasterKey();
const options = { secret, principal: "app" };

/** A file with these credentials, and a store of it. */
async function made(credentials = {}) {
    const path = join(folder(), "credentials.omni");
    const store = await Store.create(path, options);
    for (const [name, value] of Object.entries(credentials)) store.set(name, value);
    await store.save();
    return { path, store };
}

test("a file is made, changed and read again", async () => {
    const { path, store } = await made({ a: "1" });
    assert.equal(statSync(path).mode & 0o777, 0o600);
    assert.equal(store.path, path);
    assert.equal(store.changed, false);
    assert.equal(store.set("a", "2"), "changed");
    assert.equal(store.changed, true);
    assert.equal(await store.save(), true);
    const before = readFileSync(path);
    assert.equal(await store.save(), false, "nothing to write, and it was written");
    store.set("a", "2");
    assert.equal(await store.save(), false);
    assert.deepEqual(readFileSync(path), before);
    const again = await Store.open(pathToFileURL(path), options);
    assert.deepEqual([again.getText("a"), again.get("a"), again.generation], ["2", new Uint8Array([0x32]), 3]);
    again.delete("a");
    assert.equal(again.has("a"), false);
    await again.save();
    assert.deepEqual(leftovers(join(path, "..")), []);
    assert.equal(run(path, secret, ["list", "--deleted"]).includes("a (deleted)"), true);
});

test("the command and a store change one file, and neither loses what the other did", async () => {
    const { path, store } = await made({ a: "1", b: "2" });
    store.set("a", "node");
    run(path, secret, ["set", "b"], { input: "command" });
    run(path, secret, ["set", "c"], { input: "command" });
    await store.save();
    assert.deepEqual(
        ["a", "b", "c"].map((name) => store.getText(name)),
        ["node", "command", "command"],
    );
    assert.deepEqual(
        ["a", "b", "c"].map((name) => run(path, secret, ["get", name])),
        ["node", "command", "command"],
    );
    run(path, secret, ["rm", "c"]);
    assert.equal(store.has("c"), true);
    assert.equal(await store.reload(), true);
    assert.equal(store.has("c"), false);
    assert.equal(await store.reload(), false);
    run(path, secret, ["verify"]);
});

test("a rotation by the command in between is taken over", async () => {
    const { path, store } = await made({ a: "1", b: "2" });
    store.set("a", "node");
    run(path, secret, ["rotate-key"]);
    await store.save();
    assert.deepEqual(
        ["a", "b"].map((name) => run(path, secret, ["get", name])),
        ["node", "2"],
    );
    assert.equal(JSON.parse(run(path, secret, ["verify", "--json"])).under_older_keys, 0);
});

test("a new master secret by the command in between: the store asks for the secret again", async () => {
    const { path } = await made({ a: "1" });
    const fresh = await omni.generateMasterKey();
    let current = secret;
    const store = await Store.open(path, { ...options, secret: () => current });
    store.set("a", "2");
    const { spawnSync } = await import("node:child_process");
    const { command } = await import("./support.mjs");
    const env = { OMNI_CREDENTIALS_MASTER_PASSWORD: secret, OMNI_CREDENTIALS_NEW_MASTER_PASSWORD: fresh, HOME: "/tmp" };
    assert.equal(spawnSync(command, ["rotate-master-secret", "--file", path], { env }).status, 0);
    const before = readFileSync(path);
    assert.ok((await failure(store.save())) instanceof omni.WrongMasterSecretError);
    assert.deepEqual(readFileSync(path), before);
    current = fresh;
    assert.equal(await store.save(), true);
    assert.equal(run(path, fresh, ["get", "a"]), "2");
});

test("a new data key encrypts every value, and what others wrote is kept", async () => {
    const { path, store } = await made({ a: "1", b: "2", gone: "3" });
    run(path, secret, ["set", "c"], { input: "command" });
    store.set("a", "node");
    store.delete("gone");
    assert.equal(await store.rotateKey(), 3);
    assert.equal(store.changed, false);
    const { values, under_older_keys, unreadable } = JSON.parse(run(path, secret, ["verify", "--json"]));
    assert.deepEqual([values, under_older_keys, unreadable], [3, 0, []]);
    for (const [name, value] of [
        ["a", "node"],
        ["b", "2"],
        ["c", "command"],
    ]) {
        assert.equal(run(path, secret, ["get", name]), value);
        assert.equal(store.getText(name), value);
    }
    run(path, secret, ["get", "gone"], { status: 3 });
    // The store goes on with the new key.
    store.set("later", "4");
    await store.save();
    assert.equal(JSON.parse(run(path, secret, ["verify", "--json"])).under_older_keys, 0);
    assert.deepEqual(leftovers(join(path, "..")), []);
});

test("a rotation does not conflict with an edit or a deletion, in either order", async () => {
    const { path, store } = await made({ edited: "old", deleted: "old", kept: "old" });
    const other = await Store.open(path, options);
    store.set("edited", "new");
    store.delete("deleted");
    assert.equal(await other.rotateKey(), 3);
    await store.save();
    assert.deepEqual(contents(store), { edited: "new", kept: "old" });
    await other.reload();
    store.set("edited", "newer");
    store.delete("kept");
    await store.save();
    other.set("more", "x");
    assert.equal(await other.rotateKey(), 2);
    await store.reload();
    for (const one of [other, store]) assert.deepEqual(contents(one), { edited: "newer", more: "x" });
    const { values, under_older_keys, unreadable } = JSON.parse(run(path, secret, ["verify", "--json"]));
    assert.deepEqual([values, under_older_keys, unreadable], [2, 0, []]);
});

test("two that both rotate lose nothing, and the keyring does not grow", async () => {
    const { path, store } = await made({ a: "1", b: "2" });
    const other = await Store.open(path, options);
    for (let number = 0; number < 3; number += 1) {
        store.set(`ours${number}`, "o");
        other.set(`theirs${number}`, "t");
        assert.equal(await store.rotateKey(), 3 + 2 * number);
        assert.equal(await other.rotateKey(), 4 + 2 * number);
    }
    await store.reload();
    assert.equal(Object.keys(contents(other)).length, 8);
    assert.deepEqual(contents(store), contents(other));
    const { values, under_older_keys, unreadable } = JSON.parse(run(path, secret, ["verify", "--json"]));
    assert.deepEqual([values, under_older_keys, unreadable], [8, 0, []]);
    await store.rotateKey();
    const header = () => readFileSync(path, "utf8").split("\ncredential ")[0].length;
    const size = header();
    for (let number = 0; number < 4; number += 1) {
        await store.rotateKey();
        assert.equal(header(), size, "keys that no value uses stay in the keyring");
    }
});

test("a deletion is not resurrected by an edit or a rotation", async () => {
    const { path, store } = await made({ gone: "1", kept: "1" });
    const editing = await Store.open(path, options);
    const rotating = await Store.open(path, options);
    store.delete("gone");
    await store.save();
    editing.set("kept", "2");
    await editing.save();
    assert.deepEqual(contents(editing), { kept: "2" });
    await rotating.rotateKey();
    assert.deepEqual(contents(rotating), { kept: "2" });
    run(path, secret, ["get", "gone"], { status: 3 });
});

test("two that both change the master secret: one has to be chosen", async () => {
    const { path } = await made({ a: "1" });
    let current = secret;
    const asking = { ...options, secret: () => current };
    const store = await Store.open(path, asking);
    const other = await Store.open(path, asking);
    const [ours, theirs] = [await omni.generateMasterKey(), await omni.generateMasterKey()];
    await other.rotateMasterSecret(theirs);
    current = theirs;
    other.set("b", "2");
    await other.save();
    store.set("c", "3");
    const before = readFileSync(path);
    const error = await failure(store.rotateMasterSecret(ours));
    assert.ok(error instanceof omni.MasterSecretConflictError);
    assert.deepEqual(
        [error.code, error.message, error.hint],
        [
            "master-secret-conflict",
            `both sides changed the master secret of ${path}`,
            'with the secret to keep, choose its side: { prefer: "ours" }, or { prefer: "theirs" }',
        ],
    );
    assert.deepEqual(readFileSync(path), before);
    assert.deepEqual([store.changed, contents(store)], [true, { a: "1", c: "3" }]);
    await store.rotateMasterSecret(ours, { prefer: "theirs" });
    assert.equal(run(path, theirs, ["get", "c"]), "3");
    // What was read last has their secret now: to replace that is no conflict.
    await store.rotateMasterSecret(ours);
    assert.equal(run(path, ours, ["get", "b"]), "2");
    current = ours;
    await other.rotateMasterSecret(theirs, { prefer: "ours" });
    assert.deepEqual(
        ["a", "b", "c"].map((name) => run(path, theirs, ["get", name])),
        ["1", "2", "3"],
    );
});

function contents(store) {
    return Object.fromEntries(store.list().map(({ name }) => [name, store.getText(name)]));
}

test("a rotation that fails changes neither the file nor the store", async () => {
    const { path, store } = await made({ a: "1", b: "2" });
    store.set("a", "node");
    run(path, secret, ["set", "a"], { input: "theirs" });
    const before = readFileSync(path);
    assert.ok((await failure(store.rotateKey())) instanceof omni.MergeConflictError);
    assert.ok((await failure(store.rotateMasterSecret("a new one"))) instanceof omni.MergeConflictError);
    assert.deepEqual(readFileSync(path), before);
    assert.deepEqual([store.changed, store.getText("a")], [true, "node"]);
    assert.equal(await store.rotateKey({ prefer: "ours" }), 2);
    assert.equal(run(path, secret, ["get", "a"]), "node");
});

test("a new master secret opens the file, the old one does not, and no value is encrypted again", async () => {
    const { path, store } = await made({ a: "1" });
    const values = (file) => readFileSync(file, "utf8").split("\ncredential ").slice(1).join().split("\nend\n")[0];
    const before = values(path);
    const fresh = await omni.generateMasterKey();
    await store.rotateMasterSecret(fresh);
    assert.equal(values(path), before);
    assert.equal(run(path, fresh, ["get", "a"]), "1");
    run(path, secret, ["get", "a"], { status: 8 });
    store.set("b", "2");
    await store.save();
    assert.equal(run(path, fresh, ["get", "b"]), "2");
    for (const invalid of ["", "omck1_damaged"]) {
        assert.ok((await failure(store.rotateMasterSecret(invalid))) instanceof omni.WrongMasterSecretError);
    }
    assert.equal(run(path, fresh, ["get", "b"]), "2");
    // A password is derived in a thread of its own.
    await store.rotateMasterSecret("a password", { costs: { memoryKib: 64, passes: 1, lanes: 1 } });
    assert.equal(run(path, "a password", ["get", "b"]), "2");
});

test("verify names the values that do not open", async () => {
    const { path, store } = await made({ a: "1", b: "2" });
    assert.deepEqual(store.verify(), []);
    const altered = await withAlteredValue(path, secret, "b");
    const document = await omni.openDocument(altered, { secret });
    const [error, ...others] = document.verify();
    assert.ok(error instanceof omni.UnreadableValueError);
    assert.deepEqual([error.credential.name, error.code, others], ["b", "not-authentic", []]);
    assert.ok(throwsUnreadable(() => document.rotateKey()));
});

function throwsUnreadable(call) {
    try {
        call();
        return false;
    } catch (error) {
        if (!(error instanceof omni.UnreadableValueError)) throw error;
        return true;
    }
}

test("a conflict writes nothing, names the credentials, and a preference settles it", async () => {
    for (const prefer of ["ours", "theirs"]) {
        const { path, store } = await made({ a: "1", b: "2" });
        store.set("a", "ours");
        store.set("b", "ours");
        run(path, secret, ["set", "a"], { input: "theirs" });
        const before = readFileSync(path);
        const error = await failure(store.save());
        assert.ok(error instanceof omni.MergeConflictError);
        assert.deepEqual(
            error.credentials.map(({ name }) => name),
            ["a"],
        );
        assert.deepEqual(readFileSync(path), before);
        assert.ok((await failure(store.reload())) instanceof omni.MergeConflictError);
        await store.save({ prefer });
        assert.deepEqual(
            ["a", "b"].map((name) => run(path, secret, ["get", name])),
            [prefer, "ours"],
        );
        assert.equal(store.getText("a"), prefer);
    }
});

test("reload keeps what was not saved, or discards it", async () => {
    const { path, store } = await made({ a: "1" });
    store.set("mine", "x");
    run(path, secret, ["set", "theirs"], { input: "y" });
    await store.reload();
    assert.deepEqual([store.has("mine"), store.has("theirs"), store.changed], [true, true, true]);
    await store.reload({ discard: true });
    assert.deepEqual([store.has("mine"), store.has("theirs"), store.changed], [false, true, false]);
});

test("what is set while a save is under way is not lost", async () => {
    const { path, store } = await made({ a: "1" });
    store.set("a", "2");
    const saving = store.save();
    let done = false;
    void saving.then(() => (done = true));
    for (let turn = 0; !done; turn++) {
        store.set("during", `${turn}`);
        await new Promise((resolve) => setImmediate(resolve));
    }
    const last = store.getText("during");
    await Promise.all([store.save(), store.save(), store.reload()]);
    assert.deepEqual([run(path, secret, ["get", "a"]), run(path, secret, ["get", "during"])], ["2", last]);
});

test("links are kept, and what they point at is replaced", async () => {
    const at = folder();
    mkdirSync(join(at, "deep"));
    symlinkSync("deep/file", join(at, "link"));
    symlinkSync("link", join(at, "link2"));
    assert.equal((await failure(Store.create(join(at, "link2"), options))).code, "exists");
    await Store.create(join(at, "deep", "file"), options);
    const store = await Store.open(join(at, "link2"), options);
    store.set("a", "1");
    await store.save();
    assert.ok(lstatSync(join(at, "link")).isSymbolicLink() && lstatSync(join(at, "link2")).isSymbolicLink());
    assert.equal(run(join(at, "deep", "file"), secret, ["get", "a"]), "1");
    assert.deepEqual(readdirSync(join(at, "deep")), ["file"]);
});

test("a folder that was renamed meanwhile, a file that is gone: nothing is created", async () => {
    const { path, store } = await made({ a: "1" });
    store.set("a", "2");
    renameSync(path, `${path}.away`);
    const error = await failure(store.save());
    assert.deepEqual([error.name, error.code, error.path], ["FileError", "not-found", path]);
    assert.ok(!existsSync(path));
    assert.deepEqual(leftovers(join(path, "..")), []);
    renameSync(`${path}.away`, path);
    assert.equal(await store.save(), true);
});

test("files that cannot be opened say why", async () => {
    const at = folder();
    const { path } = await made();
    writeFileSync(join(at, "plain"), "STRIPE=sk_live\n");
    writeFileSync(join(at, "empty"), "");
    writeFileSync(join(at, "long"), Buffer.alloc((64 << 20) + 1));
    writeFileSync(join(at, "cut"), readFileSync(path).subarray(0, -20));
    symlinkSync("loop", join(at, "loop"));
    const codes = {
        none: ["FileError", "not-found"],
        "none/file": ["FileError", "no-folder"],
        "plain/file": ["FileError", "no-folder"],
        loop: ["FileError", "link-loop"],
        ".": ["FileError", "is-directory"],
        long: ["FileError", "too-long"],
        plain: ["DamagedFileError", "not-a-credentials-file"],
        empty: ["DamagedFileError", "not-a-credentials-file"],
        cut: ["DamagedFileError", "truncated"],
    };
    for (const [name, expected] of Object.entries(codes)) {
        const error = await failure(Store.open(join(at, name), options));
        assert.deepEqual([error.name, error.code], expected, name);
        assert.ok(error instanceof omni.CredentialsError && error.message.startsWith(join(at, name)), error.message);
    }
    const { hint } = await failure(Store.open(join(at, "cut"), options));
    assert.equal(hint, `restore a good version: git checkout HEAD -- ${join(at, "cut")}`);
    assert.equal((await failure(Store.open("/dev/null", options))).code, "not-regular");
    assert.equal((await failure(Store.create(path, options))).code, "exists");
    assert.equal((await failure(Store.create(join(at, "none", "f"), options))).code, "no-folder");
    assert.equal(readFileSync(join(at, "plain"), "utf8"), "STRIPE=sk_live\n");
    if (process.getuid() !== 0) {
        chmodSync(join(at, "plain"), 0);
        assert.equal((await failure(Store.open(join(at, "plain"), options))).code, "no-permission");
    }
});

test("a file that is a mount point is refused before anything is written", async (context) => {
    const { path, store } = await made({ a: "1" });
    const mounted = spawnSync("mount", ["--bind", path, path]);
    if (mounted.status !== 0) return context.skip("no file can be mounted here");
    try {
        const before = readFileSync(path);
        assert.equal((await Store.open(path, options)).getText("a"), "1");
        store.set("a", "2");
        const error = await failure(store.save());
        assert.equal(error.code, "mount-point");
        assert.match(error.message, /is a mount point, which cannot be replaced: mount its folder instead/);
        assert.deepEqual(readFileSync(path), before);
        assert.deepEqual(leftovers(join(path, "..")), []);
    } finally {
        spawnSync("umount", ["-l", path]);
    }
    assert.equal(await store.save(), true);
});

test("a file that became another meanwhile is left as it is, byte for byte", async () => {
    const { path, store } = await made({ a: "1" });
    store.set("a", "2");
    const sound = readFileSync(path);
    const future = sound.toString().replace("omni-credentials 1", "omni-credentials 2");
    const files = { "unknown-version": future, "not-a-credentials-file": "A=1\n", truncated: sound.subarray(0, -9) };
    for (const [code, content] of Object.entries(files)) {
        writeFileSync(path, content);
        assert.equal((await failure(store.save())).code, code);
        assert.deepEqual(readFileSync(path), Buffer.from(content));
        assert.equal((await failure(store.reload())).code, code);
    }
    writeFileSync(path, sound);
    assert.equal(await store.save(), true);
    assert.deepEqual(leftovers(join(path, "..")), []);
});

test("the secret comes from the environment, or from the file that it names", async () => {
    const { path } = await made({ a: "1" });
    const key = join(folder(), "key");
    const open = () => Store.open(path, { envVar: "NODE_TEST_SECRET" });
    const missing = await failure(open());
    assert.deepEqual([missing.name, missing.code], ["MissingInputError", "no-secret"]);
    assert.match(missing.hint, /export NODE_TEST_SECRET=..., or NODE_TEST_SECRET_FILE/);
    try {
        for (const end of ["", "\n", "\r\n"]) {
            writeFileSync(key, secret + end);
            process.env.NODE_TEST_SECRET_FILE = key;
            assert.equal((await open()).getText("a"), "1");
        }
        writeFileSync(key, `${secret}\n\n`);
        assert.equal((await failure(open())).code, "invalid-master-secret");
        process.env.NODE_TEST_SECRET_FILE = `${key}.none`;
        assert.equal((await failure(open())).code, "not-found");
        writeFileSync(key, "x".repeat(4099));
        process.env.NODE_TEST_SECRET_FILE = key;
        assert.equal((await failure(open())).code, "too-long");
        process.env.NODE_TEST_SECRET = secret;
        assert.equal((await open()).getText("a"), "1", "the variable goes before the file");
        process.env.NODE_TEST_SECRET = "";
        assert.equal((await failure(open())).code, "too-long", "an empty variable counts as not set");
        process.env.NODE_TEST_SECRET_FILE = "";
        assert.equal((await failure(open())).code, "invalid-master-secret");
        delete process.env.NODE_TEST_SECRET_FILE;
        assert.equal((await failure(open())).code, "invalid-master-secret");
        process.env.NODE_TEST_SECRET = "\ufffd";
        assert.equal((await failure(open())).code, "not-text");
    } finally {
        delete process.env.NODE_TEST_SECRET;
        delete process.env.NODE_TEST_SECRET_FILE;
    }
    for (const envVar of ["", "A=B", "A\0"])
        assert.equal((await failure(Store.open(path, { envVar }))).code, "invalid-variable");
});

test("a password is derived in a thread, and the event loop goes on", async () => {
    const path = join(folder(), "f");
    const password = { secret: "correct horse", principal: "app" };
    let turns = 0;
    const timer = setInterval(() => turns++, 1);
    const store = await Store.create(path, password);
    store.set("a", "1");
    await store.save();
    assert.equal((await Store.open(path, password)).getText("a"), "1");
    clearInterval(timer);
    assert.ok(turns > 20, `${turns} turns of the event loop`);
    assert.equal((await Store.open(path, { ...password, worker: false })).getText("a"), "1");
    const error = await failure(Store.open(path, { secret: "wrong" }));
    assert.deepEqual([error.name, error.code], ["WrongMasterSecretError", "wrong-master-secret"]);
    assert.equal(run(path, "correct horse", ["get", "a"]), "1");
});

test("the principal comes from the environment, as with the command", async () => {
    const { path } = await made();
    const saved = ["PGUSER", "USER", "LOGNAME"].map((name) => [name, process.env[name]]);
    try {
        saved.forEach(([name]) => delete process.env[name]);
        assert.equal(
            (await failure(async () => (await Store.open(path, { secret })).set("a", "1"))).code,
            "no-principal",
        );
        process.env.USER = "user";
        process.env.PGUSER = "session";
        const store = await Store.open(path, { secret });
        store.set("a", "1");
        assert.equal(store.list()[0].principal, "session");
        // It is the principal of new credentials; the others can still be seen.
        store.set("b", "1", { principal: "other" });
        assert.equal(store.set("b", "2"), "changed");
    } finally {
        for (const [name, value] of saved) {
            if (value === undefined) delete process.env[name];
            else process.env[name] = value;
        }
    }
});

test("nothing shows a value or a key", async () => {
    const { store } = await made({ a: "precious" });
    const shown = [
        inspect(store, { showHidden: true, depth: 20, getters: true }),
        JSON.stringify({ store }),
        `${store}`,
    ].join();
    assert.ok(!/precious|omck1|[0-9a-f]{16}|Uint8Array|sealed/.test(shown.replaceAll(store.path, "")), shown);
    assert.match(shown, /path.*generation/s);
});

test("a large file", async () => {
    const { path, store } = await made();
    for (let at = 0; at < 3000; at++) store.set(`c${at}`, `v${at}`);
    await store.save();
    const again = await Store.open(path, options);
    assert.equal(again.list().length, 3000);
    assert.equal(again.getText("c2999"), "v2999");
});
