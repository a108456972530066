/**
 * Makes bindings for your own crypto module, at build time. Needs `@bytecodealliance/jco-transpile`, which is
 * not installed along with this package.
 *
 * @packageDocumentation
 */

import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";

import { ModuleError } from "./errors.js";

/** The one function that a module may import. */
const ENTROPY = "wasi:random/random#get-random-bytes";
/** The version of the contract. */
const VERSION = "1.0.0";

/**
 * The files of a folder that `loadModule` takes, by name: the component as it is, and the bindings made from it. The
 * bindings are code: protect the folder as you protect your code.
 *
 * Throws a {@link ModuleError}: `not-a-component`; `forbidden-import` with the name of the import; `wrong-contract`
 * with the interface that is missing or different.
 */
export async function transpile(component: Uint8Array): Promise<Map<string, Uint8Array>> {
    const { bindings, interfaces } = await generate(component);
    for (const [name, types] of interfaces) {
        const ours = await readFile(new URL(`./builtin/${name}`, import.meta.url), "utf8").catch(() => "");
        if (declarations(ours) !== declarations(types))
            throw wrongContract(`${name.replace(/^.*\/|\.d\.ts$/g, "")} is different`);
    }
    const types =
        'import type { contract } from "omni-credentials/core";\n' +
        DECLARATIONS.replaceAll("Bindings", "contract.Bindings");
    return new Map([
        ["module.wasm", component],
        // Wherever the folder lies, the bindings are an ES module.
        ["package.json", new TextEncoder().encode('{ "private": true, "type": "module" }\n')],
        ["bindings.js", new TextEncoder().encode(bindings)],
        ["bindings.d.ts", new TextEncoder().encode(types)],
    ]);
}

/** The types of bindings. */
export const DECLARATIONS = `export declare const digest: Bindings["digest"];
export declare const instantiate: Bindings["instantiate"];
`;

/** @internal The bindings of a component, and the types of what it exports by file name. */
export async function generate(component: Uint8Array): Promise<{ bindings: string; interfaces: Map<string, string> }> {
    const made = await jco(component);
    const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
    const source = text(made.files["bindings.js"] ?? new Uint8Array());
    refuseImports(source, made.imports);
    refuseVersions(component);
    const exported = new Set(made.exports.map(([name]) => name));
    for (const name of ["module-info", "key-derivation", "encryption", "file-store", "primitives"]) {
        if (!exported.has(`omni:credentials/${name}@${VERSION}`)) throw wrongContract(`${name}@${VERSION} is missing`);
    }
    // jco's bindings print what they do when a variable of the environment says so: these must not.
    const quiet = source.replace(/const _debugLog = \(\.\.\.args\) => \{.*?\n\}/s, "const _debugLog = () => {};");
    if (/\bprocess\b|console\.(log|debug)/.test(quiet)) {
        throw new ModuleError(
            "not-a-component",
            "another version of jco is needed: this one makes bindings that print",
        );
    }
    const digest = createHash("sha256").update(component).digest("hex");
    const types = Object.entries(made.files).filter(([name]) => /^interfaces\/omni-credentials-.*\.d\.ts$/.test(name));
    return {
        bindings: `${quiet}\nexport const digest = "${digest}";\n`,
        interfaces: new Map(types.map(([name, bytes]) => [name, text(bytes)])),
    };
}

type Transpiled = Awaited<ReturnType<(typeof import("@bytecodealliance/jco-transpile"))["transpileBytes"]>>;

async function jco(component: Uint8Array): Promise<Transpiled> {
    const { transpileBytes } = await import("@bytecodealliance/jco-transpile");
    try {
        return await transpileBytes(component, { name: "bindings", instantiation: "sync", nodejsCompat: false });
    } catch (error) {
        const reason = error instanceof Error ? error.message : String(error);
        throw new ModuleError("not-a-component", `not a WebAssembly component that jco reads: ${reason}`, {
            cause: error,
        });
    }
}

/** Entropy is all that a module may import. What it takes of each interface stands in the bindings. */
function refuseImports(source: string, interfaces: readonly string[]): void {
    const taken = Array.from(
        source.matchAll(/const \{([^}]*)\} = imports\['([^']+)'\]/g),
        ([, names = "", from = ""]) =>
            names.split(",").map((name) => `${from}#${kebab(name.replace(/:.*/s, "").trim())}`),
    ).flat();
    const named = new Set(taken.map((name) => name.replace(/#.*/, "")));
    const forbidden = [...taken, ...interfaces.filter((name) => !named.has(name) && name !== "omni:credentials/types")];
    for (const name of forbidden) {
        if (name !== ENTROPY) {
            const message = `the crypto module imports ${name}, and only wasi:random/random may be imported`;
            throw new ModuleError("forbidden-import", message);
        }
    }
}

/** jco takes any version of an interface. Those of WASI 0.2 and 0.3 have the same function. */
function refuseVersions(component: Uint8Array): void {
    const names =
        new TextDecoder("latin1").decode(component).match(/wasi:random\/random@[0-9]+\.[0-9]+\.[0-9]+/g) ?? [];
    const other = names.find((name) => !/@0\.[23]\./.test(name));
    if (other === undefined) return;
    const message = `the crypto module imports ${other}, and only wasi:random/random may be imported`;
    throw new ModuleError("forbidden-import", message);
}

/** What an interface declares. The order says nothing: it is that of whatever encoded the component. */
function declarations(types: string): string {
    const all = types.replace(/\/\*\*.*?\*\//gs, "").split(/^(?=export )/m);
    return all
        .map((text) => text.trim())
        .sort()
        .join("\n");
}

function kebab(name: string): string {
    return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`).replace(/^-/, "");
}

function wrongContract(detail: string): ModuleError {
    return new ModuleError(
        "wrong-contract",
        `the crypto module does not keep to the contract omni:credentials@${VERSION}: ${detail}`,
    );
}
