// Credentials as variables of the environment.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

import {
    config,
    FileError,
    generateMasterKey,
    InvalidInputError,
    Store,
    WrongMasterSecretError,
} from "omni-credentials";
import { ended, folder, node, repository, target } from "./support.mjs";

const secret = await generateMasterKey();
/** The rule of names, which all hosts share. */
const rule = JSON.parse(readFileSync(join(repository, "conformance", "variables.json"), "utf8"));

/** A file with these credentials. */
async function made(credentials) {
    const path = join(folder(), "credentials.omni");
    const store = await Store.create(path, { secret, principal: "app" });
    for (const [name, value, which] of credentials) store.set(name, value, which);
    await store.save();
    return path;
}

test("each credential becomes a variable", async () => {
    const path = await made([
        ["stripe-api.key", "sk"],
        ["2fa", "1"],
        ["naïve", "é\n", { kind: "api_key" }],
        ["EMPTY", ""],
    ]);
    const processEnv = { _2FA: "mine" };
    const { parsed } = await config({ path, secret, processEnv });
    assert.deepEqual(parsed, { STRIPE_API_KEY: "sk", _2FA: "1", NA_VE: "é\n", EMPTY: "" });
    assert.deepEqual(processEnv, { ...parsed, _2FA: "mine" });
    await config({ path, secret, processEnv, override: true });
    assert.deepEqual(processEnv, parsed);
    const some = { path, secret, processEnv: {} };
    assert.deepEqual((await config({ ...some, only: ["2fa", "2fa"] })).parsed, { _2FA: "1" });
    assert.deepEqual((await config({ ...some, kind: "api_key" })).parsed, { NA_VE: "é\n" });
    assert.deepEqual((await config({ ...some, principal: "other" })).parsed, {});
    assert.deepEqual((await config({ ...some, scope: { all: true }, only: ["EMPTY"] })).parsed, { EMPTY: "" });
    assert.equal((await config({ ...some, only: ["none"], quiet: true })).error.code, "credential-not-found");
    assert.deepEqual(some.processEnv, { _2FA: "1", NA_VE: "é\n", EMPTY: "" });
});

test("names become variables by the rule of the command", async () => {
    const names = Object.keys(rule.variables);
    for (const [name, variable] of Object.entries(rule.variables)) {
        const path = await made([[name, "v"]]);
        assert.deepEqual((await config({ path, secret, processEnv: {} })).parsed, { [variable]: "v" }, name);
    }
    assert.ok(names.length > 10);
});

test("what cannot be a variable is refused, and none is set", async () => {
    const refused = async (names, message) => {
        const path = await made(["a", ...names].map((name) => [name, "1"]));
        const processEnv = {};
        const { parsed, error } = await config({ path, secret, processEnv, override: true, quiet: true });
        assert.deepEqual([error.name, error.code], ["InvalidInputError", "invalid-variable"]);
        assert.ok(error.message.includes(message), error.message);
        assert.deepEqual([parsed, processEnv], [{}, {}]);
    };
    for (const name of rule.none) await refused([name], `${name} (credential of app, {"all":true}) cannot be`);
    for (const name of rule.reserved) await refused([name], "which decides which code runs");
    for (const names of rule.same) await refused(names, `would both be `);
    const processEnv = {};
    for (const [value, code] of [
        [new Uint8Array([0x61, 0]), "invalid-variable"],
        [new Uint8Array([0xff]), "not-text"],
    ]) {
        const path = await made([
            ["a", "1"],
            ["b", value],
        ]);
        assert.equal((await config({ path, secret, processEnv, quiet: true })).error.code, code);
    }
    assert.deepEqual(processEnv, {});
});

test("a failure is a result and a warning, as with dotenv", async (t) => {
    const warned = t.mock.method(process, "emitWarning", () => {});
    const path = await made([["a", "1"]]);
    for (const [options, type] of [
        [{ path: `${path}.none`, secret }, FileError],
        [{ path, secret: await generateMasterKey() }, WrongMasterSecretError],
        [{ path, secret: "omck1_x" }, WrongMasterSecretError],
    ]) {
        const processEnv = {};
        const { parsed, error } = await config({ ...options, processEnv });
        assert.ok(error instanceof type, error);
        assert.deepEqual([parsed, processEnv], [{}, {}]);
        const [message, { type: name, code }] = warned.mock.calls.at(-1).arguments;
        assert.equal(message, `no variable was set: ${error.message}`);
        assert.deepEqual([name, code], ["CredentialsWarning", error.code]);
        const before = warned.mock.callCount();
        await config({ ...options, processEnv, quiet: true });
        assert.equal(warned.mock.callCount(), before);
    }
    const { error, ...rest } = await config({ path, secret, processEnv: {} });
    assert.deepEqual([error, rest], [undefined, { parsed: { A: "1" } }]);
    const reason = new InvalidInputError("mine", "given up");
    // What the caller asked for is no failure of the file's.
    await assert.rejects(config({ path, secret, signal: AbortSignal.abort(new Error("given up")) }), /given up/);
    assert.equal((await config({ path, secret, signal: AbortSignal.abort(reason), quiet: true })).error, reason);
});

test("an expired credential is set, with a warning", async (t) => {
    const warned = t.mock.method(process, "emitWarning", () => {});
    const path = await made([
        ["old", "1", { expires: new Date(Date.UTC(2020, 0, 31)) }],
        ["due", "2", { expires: new Date(Date.now() + 3_600_000) }],
    ]);
    assert.deepEqual((await config({ path, secret, processEnv: {} })).parsed, { OLD: "1", DUE: "2" });
    assert.deepEqual(
        warned.mock.calls.map(({ arguments: given }) => given),
        [
            [
                'old (credential of app, {"all":true}) expired at 2020-01-31T00:00:00.000Z',
                { type: "CredentialsWarning", code: "expired" },
            ],
        ],
    );
    await config({ path, secret, processEnv: {}, quiet: true });
    assert.equal(warned.mock.callCount(), 1);
});

const requires = process.features.require_module ? false : "this Node cannot require() an ES module";
test("a CommonJS program requires it", { skip: requires }, async () => {
    const path = await made([["stripe", "sk"]]);
    const script = `
        const { config } = require("omni-credentials");
        config({ path: ${JSON.stringify(path)} }).then(({ parsed }) => console.log(parsed, process.env.STRIPE));`;
    const done = spawnSync(process.execPath, ["--input-type=commonjs", "--eval", script], {
        cwd: join(target, "node", "installed"),
        env: { PATH: process.env.PATH, OMNI_CREDENTIALS_MASTER_PASSWORD: secret },
        encoding: "utf8",
    });
    assert.equal(done.stdout, "{ STRIPE: 'sk' } sk\n", done.stderr);
});

test("node --import omni-credentials/register", async () => {
    const path = await made([["stripe", "sk"]]);
    writeFileSync(join(path, "..", "key"), secret);
    const script = `
        const { Worker, isMainThread } = await import("node:worker_threads");
        const { fork } = await import("node:child_process");
        console.log(process.env.STRIPE);
        const ended = (it) => new Promise((resolve) => it.once("exit", resolve));
        await ended(new Worker("process.stdout.write(process.env.STRIPE + '\\\\n')", { eval: true }));`;
    const run = async (env) => {
        const child = node(script, [], {
            env: { PATH: process.env.PATH, NODE_OPTIONS: "--import omni-credentials/register", ...env },
            stdio: ["ignore", "pipe", "pipe"],
        });
        let [out, err] = ["", ""];
        child.stdout.on("data", (data) => (out += data));
        child.stderr.on("data", (data) => (err += data));
        const status = await ended(child);
        return { status, out, err };
    };
    const variables = { OMNI_CREDENTIALS_FILE: path, OMNI_CREDENTIALS_MASTER_PASSWORD_FILE: join(path, "..", "key") };
    assert.deepEqual(await run(variables), { status: 0, out: "sk\nsk\n", err: "" });
    const failed = await run({ ...variables, OMNI_CREDENTIALS_FILE: `${path}.none` });
    assert.deepEqual([failed.status, failed.out], [1, ""]);
    assert.match(failed.err, /none: no such file/);
    const wrong = await run({ ...variables, OMNI_CREDENTIALS_MASTER_PASSWORD: await generateMasterKey() });
    assert.deepEqual([wrong.status, wrong.out], [1, ""]);
    assert.match(wrong.err, /the master secret is not the one/);
});
