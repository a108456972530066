// Credentials as variables of the environment.

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

import { config, generateMasterKey, Store } from "omni-credentials";
import { ended, failure, folder, node } from "./support.mjs";

const secret = await generateMasterKey();

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
    assert.equal((await failure(config({ ...some, only: ["none"] }))).code, "credential-not-found");
    assert.deepEqual(some.processEnv, { _2FA: "1", NA_VE: "é\n", EMPTY: "" });
});

test("what cannot be a variable is refused, and none is set", async () => {
    for (const [names, message] of [
        [["a", "x.y", "X_Y"], 'x.y (credential of app, {"all":true}) would both be X_Y'],
        [["a", "…"], '… (credential of app, {"all":true}) cannot be a variable'],
        [["a", "path"], "would be PATH, which decides which code runs"],
        [["a", "Ld-Preload"], "would be LD_PRELOAD,"],
        [["a", "node.options"], "would be NODE_OPTIONS,"],
    ]) {
        const path = await made(names.map((name) => [name, "1"]));
        const processEnv = {};
        const error = await failure(config({ path, secret, processEnv }));
        assert.deepEqual([error.name, error.code], ["InvalidInputError", "invalid-variable"]);
        assert.ok(error.message.includes(message), error.message);
        assert.deepEqual(processEnv, {});
    }
    const processEnv = {};
    for (const [value, code] of [
        [new Uint8Array([0x61, 0]), "invalid-variable"],
        [new Uint8Array([0xff]), "not-text"],
    ]) {
        const path = await made([
            ["a", "1"],
            ["b", value],
        ]);
        assert.equal((await failure(config({ path, secret, processEnv }))).code, code);
    }
    assert.deepEqual(processEnv, {});
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
});
