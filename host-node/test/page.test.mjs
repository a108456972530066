// dist/page.html in a real browser. Where there is no Chromium, the tests are skipped: `./just test-browser` installs it.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { delimiter, join } from "node:path";
import { after, afterEach, before, describe, test } from "node:test";
import { pathToFileURL } from "node:url";

import { Store } from "omni-credentials";
import { built, folder, installed, withAlteredValue } from "./support.mjs";

const require = createRequire(join(built, "package.json"));
const page = join(installed, "dist", "page.html");
const html = readFileSync(page, "utf8");
const PASSWORD = "correct horse battery staple";
const EVIL = "<img src=x onerror=alert(1)>\u202e";

/** A browser: the names that tools/browser.sh looks for. */
const chromium = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
    .flatMap((name) => process.env.PATH.split(delimiter).map((at) => join(at, name)))
    .find((file) => existsSync(file));
const skip = chromium === undefined ? "there is no Chromium: ./just test-browser installs it" : false;

test("the page is one file, whose policy allows nothing but its own code", () => {
    const [policy] = html.match(/(?<=http-equiv="Content-Security-Policy" content=")[^"]+/);
    const of = (tag) => {
        const found = [...html.matchAll(new RegExp(`<${tag}>([^]*?)</${tag}>`, "g"))].map(([, text]) => text);
        assert.equal(found.length, 1);
        return `'sha256-${createHash("sha256").update(found[0]).digest("base64")}'`;
    };
    assert.deepEqual(policy.split("; "), [
        "default-src 'none'",
        `script-src ${of("script")} 'wasm-unsafe-eval'`,
        `style-src ${of("style")}`,
        "worker-src blob:",
        "img-src data:",
        "connect-src 'none'",
        "form-action 'none'",
        "base-uri 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types worker",
    ]);
    const markup = html.replace(/<(script|style)>[^]*?<\/\1>/g, "");
    assert.doesNotMatch(markup, /\s(on\w+|style|src)=|<script|<iframe|<object|<base/);
    assert.deepEqual(markup.match(/\shref="[^"]*"/g), [' href="data:,"']);
    assert.match(
        markup,
        new RegExp(`omni_credentials ${JSON.parse(readFileSync(join(installed, "package.json"))).version}`),
    );
});

describe("in a browser", { skip }, () => {
    const at = folder();
    const path = join(at, "credentials.omni");
    let browser, server, address, requested, seen, view;

    before(async () => {
        const store = await Store.create(path, { secret: PASSWORD, principal: "app" });
        store.set("stripe", "sk_live\nsecond line", { kind: "api_key" });
        store.set("smtp", new Uint8Array([0, 255]), { kind: "password", expires: new Date(Date.UTC(2020, 0, 31)) });
        store.set(EVIL, EVIL);
        await store.save();
        store.close();
        server = createServer((request, response) => {
            requested.push(request.url);
            response.setHeader("Content-Type", "text/html").end(html);
        });
        await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
        address = `http://127.0.0.1:${server.address().port}/`;
        browser = await require("playwright-core").chromium.launch({
            executablePath: chromium,
            // Chromium has no sandbox for root.
            args: process.getuid() === 0 ? ["--no-sandbox"] : [],
        });
    });

    after(async () => {
        await browser?.close();
        server?.close();
    });

    afterEach(() => view?.context().close());

    /** The page, opened: what it asks a network for, and what its policy refuses, is noted. */
    const visit = async (url = address) => {
        [requested, seen] = [[], []];
        const context = await browser.newContext();
        view = await context.newPage();
        context.on("request", (request) => requested.push(request.url()));
        view.on("console", (message) => seen.push(message.text()));
        view.on("pageerror", (error) => seen.push(error.message));
        view.on("dialog", (dialog) => seen.push(dialog.message()));
        await view.goto(url);
        requested.length = 0;
    };
    const opened = async (secret, file = path) => {
        await view.getByLabel("Credentials file").setInputFiles(file);
        await view.getByLabel("Master secret").fill(secret);
        await view.getByRole("button", { name: "Open" }).click();
        await view.locator("main[aria-busy=false]").waitFor();
    };
    const status = () => view.getByRole("status").textContent();
    const problem = () => view.getByRole("alert").textContent();
    const value = () => view.getByRole("region", { name: "Value", exact: true });
    const rows = () =>
        view.locator("tbody tr").evaluateAll((found) => found.map((row) => [...row.cells].map((it) => it.textContent)));
    const showing = async (name) => {
        await view.getByRole("button", { name: `Show the value of ${name}` }).click();
        await value().waitFor();
        return value().textContent();
    };
    /** The whole page as anything in it could see it. */
    const everything = () =>
        view.evaluate(
            () =>
                document.documentElement.outerHTML +
                JSON.stringify([...document.querySelectorAll("input")].map((it) => it.value)),
        );

    for (const from of ["a server", "a file"]) {
        test(`from ${from}, it lists, shows and verifies, and asks nothing of any network`, async () => {
            await visit(from === "a file" ? pathToFileURL(page).href : address);
            await opened(PASSWORD);
            assert.equal(await problem(), "");
            assert.equal(await status(), "credentials.omni: the seal is right. 3 credentials, generation 2.");
            const everyone = '{"all":true}';
            assert.deepEqual(await rows(), [
                [EVIL.replace("\u202e", "\\u202e"), "credential", "app", everyone, "never", "Show"],
                ["smtp", "password", "app", everyone, "2020-01-31T00:00:00Z (expired)", "Show"],
                ["stripe", "api_key", "app", everyone, "never", "Show"],
            ]);
            const before = await everything();
            for (const secret of [PASSWORD, "sk_live"]) assert.ok(!before.includes(secret), "it keeps a secret");
            assert.equal(await showing("stripe"), "sk_live\nsecond line");
            assert.equal(await showing("smtp"), "AP8=");
            assert.match(
                await view.getByRole("heading", { level: 3 }).textContent(),
                /^Value of smtp, which is not text/,
            );
            assert.ok(!(await everything()).includes("sk_live"), "it shows two values");
            assert.equal(await showing("<img"), EVIL);
            await view.getByRole("button", { name: "Hide the value" }).click();
            assert.equal(await value().count(), 0);
            await view.getByRole("button", { name: "Verify" }).click();
            await view.getByText("all 3 values open").waitFor();
            assert.equal(view.workers().length, 1);
            await view.getByRole("button", { name: "Close the file" }).click();
            await view.getByText("The file is closed.").waitFor();
            assert.deepEqual(await rows(), []);
            // No connection at all; a worker is code of the page.
            assert.deepEqual(
                requested.filter((url) => !url.startsWith("blob:")),
                [],
            );
            assert.deepEqual(seen, []);
        });
    }

    test("what does not open is said, and the secret field is empty", async () => {
        await visit();
        const damaged = join(at, "damaged.omni");
        const text = readFileSync(path, "utf8");
        for (const [content, secret, said] of [
            [text, "not hunter2", /^damaged\.omni: the master secret is not the one.*Check the secret/],
            [text, "omck1_hunter2", /Check the secret/],
            [text.replace('"api_key"', '"token"'), PASSWORD, /Take an undamaged version/],
            [text.replace(/\n/, "\n<<<<<<< ours\n"), PASSWORD, /Finish the merge/],
            [text.slice(0, -40), PASSWORD, /Take an undamaged version/],
            ["STRIPE=sk_live\n", PASSWORD, /Take an undamaged version/],
            ["", PASSWORD, /Take an undamaged version/],
        ]) {
            writeFileSync(damaged, content);
            await opened(secret, damaged);
            assert.match(await problem(), said);
            assert.equal(await status(), "");
            assert.deepEqual(await rows(), []);
            assert.equal(await view.getByLabel("Master secret").inputValue(), "");
            assert.ok(!(await everything()).includes(secret));
            assert.equal(view.workers().length, 0);
        }
        await opened(PASSWORD);
        assert.equal((await rows()).length, 3);
        // A failure leaves nothing of the file before.
        await opened("not hunter2");
        assert.deepEqual(await rows(), []);
        assert.deepEqual([requested.filter((url) => !url.startsWith("blob:")), seen], [[], []]);
    });

    test("a value that does not open is named; the others are shown", async () => {
        await visit();
        const altered = join(at, "altered.omni");
        writeFileSync(altered, await withAlteredValue(path, PASSWORD, "stripe"));
        await opened(PASSWORD, altered);
        await view.getByRole("button", { name: "Verify" }).click();
        await view.getByText("1 of 3 values do not open:").waitFor();
        assert.match(await view.getByRole("listitem").textContent(), /^stripe \(api_key of app, /);
        assert.equal(await showing("smtp"), "AP8=");
        await view.getByRole("button", { name: "Show the value of stripe" }).click();
        await view.getByText("stripe (api_key of app").first().waitFor();
        assert.equal(await value().count(), 0);
    });

    test("a file is dropped on the page, and all is done with the keyboard", async () => {
        await visit();
        const transfer = await view.evaluateHandle(
            (bytes) => {
                const made = new DataTransfer();
                made.items.add(new File([new Uint8Array(bytes)], "dropped.omni"));
                return made;
            },
            [...readFileSync(path)],
        );
        await view.dispatchEvent("body", "drop", { dataTransfer: transfer });
        await view.keyboard.type(PASSWORD);
        await view.keyboard.press("Enter");
        await view.getByText("dropped.omni: the seal is right").waitFor();
        await view.getByRole("button", { name: "Show the value of stripe" }).focus();
        await view.keyboard.press("Enter");
        await value().waitFor();
        assert.equal(await view.evaluate(() => document.activeElement.id), "shown");
    });

    test("no rule of accessibility is broken, at no step", async () => {
        await visit();
        const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
        await view.evaluate(axe);
        const check = async () => {
            const { violations } = await view.evaluate(() => globalThis.axe.run());
            assert.deepEqual(
                violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)]),
                [],
            );
        };
        await check();
        await opened("not hunter2");
        await check();
        await opened(PASSWORD);
        await showing("stripe");
        await check();
    });

    test("its policy is in force, in its worker too", async () => {
        await visit();
        await opened(PASSWORD);
        const leak = (url) =>
            fetch(url).then(
                () => "sent",
                (error) => error.name,
            );
        const there = `${address}?leak`;
        requested.length = 0;
        assert.equal(await view.evaluate(leak, there), "TypeError");
        assert.equal(await view.workers()[0].evaluate(leak, there), "TypeError");
        await view.evaluate((url) => {
            for (const made of [new Image(), document.createElement("iframe")])
                document.body.append(Object.assign(made, { src: url }));
            navigator.sendBeacon(url);
        }, there);
        const refused = (run, argument) =>
            view.evaluate(run, argument).then(
                () => "",
                ({ message }) => message,
            );
        assert.match(await refused(() => document.body.insertAdjacentHTML("beforeend", "<b>x</b>")), /TrustedHTML/);
        assert.match(await refused((url) => void new Worker(url), there), /TrustedScriptURL/);
        await view.getByText("Read a credentials file").first().waitFor();
        assert.deepEqual(
            requested.filter((url) => url === "/?leak"),
            [],
        );
        assert.ok(
            seen.some((text) => text.includes("connect-src 'none'")),
            seen.join("\n"),
        );
    });
});
