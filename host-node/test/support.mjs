// What the tests share. They run beside the installed package (`tools/npm.sh`), so that what is tested is what is
// shipped.

import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after } from "node:test";
import { pathToFileURL } from "node:url";

import { builtinModule } from "omni-credentials";

export const target = process.env.CARGO_TARGET_DIR;
export const repository = process.env.OMNI_REPOSITORY;
/** The installed package. */
export const installed = join(target, "node", "installed", "node_modules", "omni-credentials");
/** Where it was built; its development dependencies are there. */
export const built = join(target, "node", "package");
export const modules = join(target, "modules");
export const command = join(target, "release", "omni-credentials");
/** How long a thing may take that has no reason to take long, in milliseconds. */
export const PATIENCE = 60_000;

/** A part of the package that it does not export. */
export const inside = (name) => import(pathToFileURL(join(installed, "dist", name)).href);

const folders = [];
after(() => folders.forEach((folder) => rmSync(folder, { recursive: true, force: true })));

/** A new folder, gone after the tests. */
export function folder() {
    const made = realpathSync(mkdtempSync(join(tmpdir(), "omni-node-")));
    folders.push(made);
    return made;
}

/** Locks and temporary files that were not removed. */
export const leftovers = (path) => readdirSync(path).filter((name) => /\.lock|\.tmp$/.test(name));

/** Runs the command on a file and expects this status; gives what it printed. */
export function run(file, secret, [...arguments_], { input = "", status = 0 } = {}) {
    const done = spawnSync(command, [...arguments_, "--file", file], {
        env: { PATH: process.env.PATH, HOME: tmpdir(), USER: "app", OMNI_CREDENTIALS_MASTER_PASSWORD: secret },
        input,
        timeout: PATIENCE,
    });
    if (done.status !== status) throw new Error(`${arguments_}: status ${done.status}\n${done.stderr}`);
    return done.stdout.toString();
}

/** Starts Node on a script that sees the package as this test does. */
export function node(script, arguments_ = [], options = {}) {
    return spawn(process.execPath, ["--input-type=module", "--eval", script, "--", ...arguments_], {
        cwd: join(target, "node", "installed"),
        stdio: ["pipe", "pipe", "inherit"],
        ...options,
    });
}

/** How a process ends: its status, or the signal. */
export const ended = (child) => new Promise((resolve) => child.once("exit", (code, signal) => resolve(signal ?? code)));

/** The rejection of a promise, or what a call throws. */
export async function failure(work) {
    try {
        await (typeof work === "function" ? work() : work);
    } catch (error) {
        return error;
    }
    throw new Error("it did not fail");
}

/** The file with another value in the place of one: well-formed and sealed, but not this credential's value. */
export async function withAlteredValue(path, secret, name) {
    const module = await builtinModule();
    return module.instantiate().call(({ encryption, fileStore, keyDerivation }) => {
        const document = fileStore.Document.parse(readFileSync(path));
        const kek = keyDerivation.deriveKek(new TextEncoder().encode(secret), document.keyringBytes());
        const keyring = encryption.Keyring.unlock(document.keyringBytes(), kek);
        const isIt = ({ identity }) => new TextDecoder().decode(identity.name) === name;
        const [its, other] = [document.entries().find(isIt), document.entries().find((entry) => !isIt(entry))];
        document.put([{ ...its, sealed: other.sealed }]);
        return document.write(keyring, 0n);
    });
}
