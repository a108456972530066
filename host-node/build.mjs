// Builds the package: the bindings of the crypto module, then the TypeScript. Usage: node build.mjs MODULE.wasm
//
// jco's transpiler is held at 0.1.1. From 0.3 on its bindings carry the machinery of asynchronous components, which this
// contract has no use for: twice the code, and 14 ms for an instance instead of half a millisecond.

import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

import { build } from "esbuild";

import { makePage } from "./page.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const builtin = join(here, "src", "builtin");
const component = readFileSync(process.argv[2]);

// What makes bindings is a part of the package, in TypeScript that cannot be checked before there are any.
const generator = join(here, "generator.mjs");
await build({
    entryPoints: [join(here, "src", "transpile.ts")],
    outfile: generator,
    bundle: true,
    platform: "node",
    format: "esm",
    external: ["@bytecodealliance/jco-transpile"],
    logLevel: "error",
});
const { DECLARATIONS, generate } = await import(pathToFileURL(generator).href);
rmSync(generator);
const { bindings, interfaces } = await generate(component);

rmSync(builtin, { recursive: true, force: true });
rmSync(join(here, "dist"), { recursive: true, force: true });
const files = new Map([
    ["module.wasm", component],
    ["bindings.js", bindings],
    ["bindings.d.ts", `import type { Bindings } from "../contract.js";\n${DECLARATIONS}`],
    ["inline.js", `export const base64 = "${component.toString("base64")}";\n`],
    ["inline.d.ts", "export declare const base64: string;\n"],
    ...interfaces,
]);
for (const [name, content] of files) {
    const file = join(builtin, name);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, content);
}

execFileSync(process.execPath, [join(here, "node_modules", "typescript", "bin", "tsc"), "-p", here], {
    stdio: "inherit",
});
cpSync(builtin, join(here, "dist", "builtin"), { recursive: true });
await makePage(here, JSON.parse(readFileSync(join(here, "package.json"), "utf8")).version);
