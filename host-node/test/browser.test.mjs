// The core, bundled for a browser and run where there is nothing of Node.

import assert from "node:assert/strict";
import { webcrypto } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { test } from "node:test";
import { createContext, runInContext } from "node:vm";

import { generateMasterKey } from "omni-credentials";
import { built, folder, run, target } from "./support.mjs";
import { writeFileSync } from "node:fs";

const { build } = createRequire(join(built, "package.json"))("esbuild");

const bundle = async (contents, more = {}) =>
    build({
        stdin: { contents, resolveDir: join(target, "node", "installed") },
        bundle: true,
        platform: "browser",
        format: "iife",
        globalName: "app",
        target: "es2022",
        write: false,
        logLevel: "silent",
        ...more,
    });

/** What browsers have, of all that the core may use. */
const browser = () => ({
    WebAssembly,
    crypto: webcrypto,
    TextEncoder,
    TextDecoder,
    atob,
    Uint8Array,
    console: undefined,
});

test("a bundle opens, changes and merges a file", async () => {
    const secret = await generateMasterKey();
    const path = join(folder(), "f.omni");
    run(path, secret, ["init"]);
    run(path, secret, ["set", "a"], { input: "1" });
    const { outputFiles } = await bundle(`
        import * as omni from "omni-credentials/core";
        export async function work(file, theirs, secret) {
            const document = await omni.openDocument(file, { secret, principal: "app" });
            document.set("b", "2");
            await document.merge(theirs);
            const seen = document.list().map(({ name }) => name + "=" + document.getText(name));
            const wrong = await omni.openDocument(file, { secret: "wrong" }).catch((error) => error);
            const made = await omni.createDocument({ secret: await omni.generateMasterKey() });
            const refused = [wrong.name, wrong instanceof omni.WrongMasterSecretError];
            return { seen, file: document.toBytes().bytes, refused, made: made.base };
        }`);
    const source = outputFiles[0].text;
    assert.doesNotMatch(source, /["'`]node:|\brequire\(/);
    const context = createContext(browser());
    runInContext(source, context);
    const before = readFileSync(path);
    run(path, secret, ["set", "c"], { input: "3" });
    const result = await context.app.work(new Uint8Array(before), new Uint8Array(readFileSync(path)), secret);
    assert.deepEqual([...result.seen], ["a=1", "b=2", "c=3"]);
    assert.deepEqual([...result.refused], ["WrongMasterSecretError", true]);
    assert.ok(result.made.length > 100);
    writeFileSync(path, result.file);
    assert.equal(run(path, secret, ["get", "b"]), "2");
    run(path, secret, ["verify"]);
});

test("with pages of their own, the module is one that is loaded when it is needed", async () => {
    const { outputFiles } = await bundle(
        'import { openDocument } from "omni-credentials/core"; export { openDocument };',
        {
            format: "esm",
            globalName: undefined,
            splitting: true,
            minify: true,
            outdir: folder(),
        },
    );
    const sizes = outputFiles.map(({ contents }) => contents.length).sort((a, b) => b - a);
    assert.ok(outputFiles.length > 1 && sizes[0] > 300_000, "the module is not a file of its own");
});

test("the part with files does not go into a browser's bundle in silence", async () => {
    await assert.rejects(bundle('import { Store } from "omni-credentials"; Store.open("f");'), /node:/);
});
