// What README.md shows, run.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

import * as omni from "omni-credentials";
import { ended, folder, installed, node, run } from "./support.mjs";

const readme = readFileSync(join(installed, "README.md"), "utf8");
const snippets = [...readme.matchAll(/```js\n(.*?)```/gs)].map(([, code]) => code);
const secret = await omni.generateMasterKey();

/** Runs a snippet in a folder with a file of the command's, after `before`. */
async function execute(snippet, before = "") {
    const at = folder();
    const path = join(at, "credentials.omni");
    run(path, secret, ["init"]);
    run(path, secret, ["set", "stripe", "--kind", "api_key"], { input: "sk_live" });
    const env = { ...process.env, OMNI_CREDENTIALS_MASTER_PASSWORD: secret };
    const child = node(`process.chdir(${JSON.stringify(at)});\n${before}\n${snippet}`, [], { env });
    let out = "";
    child.stdout.on("data", (data) => (out += data));
    assert.equal(await ended(child), 0);
    return { path, out };
}

test("five lines", async () => {
    const { path } = await execute(snippets[0]);
    assert.equal(run(path, secret, ["get", "mail"]), "hunter2");
});

test("credentials in the environment", async () => {
    const { out } = await execute(snippets[1]);
    assert.equal(out, "[ 'STRIPE' ] true\n");
});

test("a conflict", async () => {
    const before = `import { Store } from "omni-credentials";
        const other = await Store.open("credentials.omni");
        const store = await Store.open("credentials.omni");
        other.set("stripe", "theirs");
        await other.save();
        store.set("stripe", "ours");
        console.warn = (text) => console.log(text);`;
    const { path, out } = await execute(snippets[2], before);
    assert.equal(run(path, secret, ["get", "stripe"]), "ours");
    assert.match(out, /^the two sides do not agree on stripe .*\(changed by both\)\n$/);
});

test("bytes", async () => {
    const before = `import { createDocument } from "omni-credentials/core";
        const bytes = (await createDocument({ secret: "correct horse battery staple" })).base;`;
    const { out } = await execute(`${snippets[3]}\nconsole.log(document.getText("stripe"), document.changed);`, before);
    assert.equal(out, "sk_live false\n");
});

test("the contract", async () => {
    const { out } = await execute(`${snippets[4]}\nconsole.log(okm.length);`);
    assert.match(out, /^[0-9a-f]{64} xchacha20poly1305\n42\n$/);
    assert.equal(snippets.length, 5, "a snippet that no test runs");
});

test("the table of errors is complete", () => {
    const rows = [...readme.matchAll(/^\| (`\w+Error`.*?) \|/gm)].flatMap(([, names]) => names.match(/\w+/g));
    const exported = Object.keys(omni).filter(
        (name) => name.endsWith("Error") && !["CredentialsError", "RefusalError"].includes(name),
    );
    assert.deepEqual(rows.sort(), exported.sort());
});
