// The types, as a user's compiler sees them.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

import { built, folder, installed } from "./support.mjs";

const SAMPLE = `
import { type Credential, CredentialsError, FileError, loadModule, MergeConflictError } from "omni-credentials";
import { config, type ConfigOptions, Store, type StoreOptions } from "omni-credentials";
import "omni-credentials/register";
import { type CredentialsDocument, openDocument, type contract, builtinModule } from "omni-credentials/core";
import { transpile } from "omni-credentials/transpile";

const options: StoreOptions = { envVar: "APP_SECRET", principal: "app", wait: 5, signal: AbortSignal.timeout(1000) };
const store: Store = await Store.open(new URL("file:///srv/credentials.omni"), options);
const value: Uint8Array = store.get("stripe", { kind: "api_key", scope: { db: ["main", 1, null] } });
const text: string = store.getText("stripe");
const found: Credential[] = store.list({ deleted: true });
const scope: unknown = JSON.parse(found[0]!.scope);
const result: "added" | "changed" | "unchanged" = store.set("a", value);
const saved: boolean = await store.save({ prefer: "ours" });
try {
    await store.reload({ discard: true });
} catch (error) {
    if (error instanceof MergeConflictError) error.credentials.map(({ name }) => name);
    if (error instanceof FileError) error.path.length;
    if (error instanceof CredentialsError) error.code.length + error.line + error.found + (error.hint?.length ?? 0);
}
const document: CredentialsDocument = await openDocument(value, { secret: () => "s", module: await loadModule("x") });
const merged: Promise<void> = document.merge(value, { prefer: "theirs" });
const digest: string = (await builtinModule()).digest;
const failure: contract.Failure["error"] = "not-authentic";
const instance = (await builtinModule()).instantiate();
const bytes: Uint8Array = instance.call((c) => c.primitives.hkdfSha256(value, value, value, 42));
const files: Map<string, Uint8Array> = await transpile(value);
const which: ConfigOptions = { ...options, path: "f.omni", only: ["stripe"], override: true, processEnv: {} };
const { parsed: variables, error: configError }: { parsed: Record<string, string>; error?: CredentialsError } =
    await config({ ...which, quiet: true });
if (configError !== undefined) throw configError;
export { variables };
export { text, scope, result, saved, merged, digest, failure, bytes, files };

// @ts-expect-error a value is text or bytes
store.set("a", 5);
// @ts-expect-error there is no such side
await store.save({ prefer: "mine" });
// @ts-expect-error nothing is told about the secret
store.secret;
// @ts-expect-error a credential cannot be changed in a list
found[0]!.name = "b";
// @ts-expect-error only the package makes them
new Store();
`;

const compile = (lib, source, ...more) => {
    const at = folder();
    writeFileSync(join(at, "sample.mts"), source);
    writeFileSync(
        join(at, "tsconfig.json"),
        JSON.stringify({
            compilerOptions: {
                strict: true,
                exactOptionalPropertyTypes: true,
                noEmit: true,
                skipLibCheck: false,
                target: "ES2022",
                module: "NodeNext",
                lib,
                types: more,
                typeRoots: [join(built, "node_modules", "@types")],
                paths: Object.fromEntries(
                    [
                        ["omni-credentials", "index"],
                        ["omni-credentials/core", "core"],
                        ["omni-credentials/register", "node/register"],
                        ["omni-credentials/transpile", "transpile"],
                    ].map(([name, file]) => [name, [join(installed, "dist", `${file}.d.ts`)]]),
                ),
            },
            files: ["sample.mts"],
        }),
    );
    const tsc = join(built, "node_modules", "typescript", "bin", "tsc");
    const done = spawnSync(process.execPath, [tsc, "-p", at], { encoding: "utf8" });
    return done.stdout + done.stderr;
};

test("the types say what the package does", () => {
    assert.equal(compile(["ES2022", "DOM"], SAMPLE, "node"), "");
});

test("the declarations need neither the types of a browser nor those of Node", () => {
    assert.equal(compile(["ES2022"], SAMPLE, "node"), "");
    const source = SAMPLE.replace('new URL("file:///srv/credentials.omni")', '"credentials.omni"').replace(
        "signal: AbortSignal.timeout(1000)",
        "wait: 3",
    );
    assert.equal(compile(["ES2022"], source.replace("wait: 5, ", "")), "");
});

test("the core needs no types of Node", () => {
    const source =
        SAMPLE.split("\n")
            .filter((line) => /openDocument|CredentialsDocument/.test(line) && line.startsWith("import"))
            .join("\n") +
        '\nexport const document: CredentialsDocument = await openDocument(new Uint8Array(), { secret: "s" });\n' +
        'export const of: contract.Failure["line"] = (await builtinModule()).describe().suite.id;\n';
    assert.equal(compile(["ES2022", "DOM"], source), "");
    assert.equal(compile(["ES2022"], source), "");
});
