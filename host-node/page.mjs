// Puts the page together: one file without anything from elsewhere, whose policy allows nothing but its own script.
// Called by build.mjs, after the TypeScript was compiled.

import { createHash } from "node:crypto";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { build } from "esbuild";

/** Writes dist/page.html, and removes its compiled parts. */
export async function makePage(root, version) {
    const source = (name) => readFileSync(join(root, "src", "page", name), "utf8");
    const worker = await bundle(join(root, "dist", "page", "worker.js"));
    const script = await bundle(join(root, "dist", "page", "main.js"), { WORKER: JSON.stringify(worker) });
    const style = source("page.css").trim();
    // What would end the script early, or start a comment, must not be in it.
    if (/<\/script|<!--/i.test(script) || /<\//.test(style)) throw new Error("the script cannot stand in a page");
    const policy = [
        "default-src 'none'",
        // Compiling WebAssembly, and no other code.
        `script-src '${digest(script)}' 'wasm-unsafe-eval'`,
        `style-src '${digest(style)}'`,
        "worker-src blob:",
        "img-src data:",
        "connect-src 'none'",
        "form-action 'none'",
        "base-uri 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types worker",
    ];
    const page = source("page.html")
        .replace("{{policy}}", policy.join("; "))
        .replace("{{version}}", version)
        .replace("<style></style>", () => `<style>${style}</style>`)
        .replace("<script></script>", () => `<script>${script}</script>`);
    writeFileSync(join(root, "dist", "page.html"), page);
    rmSync(join(root, "dist", "page"), { recursive: true });
}

async function bundle(entry, define = {}) {
    const { outputFiles } = await build({
        entryPoints: [entry],
        bundle: true,
        platform: "browser",
        format: "iife",
        target: "es2022",
        minify: true,
        write: false,
        legalComments: "none",
        logLevel: "error",
        define,
    });
    return outputFiles[0].text.trim();
}

const digest = (text) => `sha256-${createHash("sha256").update(text).digest("base64")}`;
