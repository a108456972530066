//! The evil things.

use anyhow::{Context, Result};

use crate::shell::Shell;

/// Every case by name. Where a call has to be made for it, that is `open` unless said otherwise.
pub(crate) fn all() -> Result<Vec<(&'static str, Vec<u8>)>> {
    cases().into_iter().map(|(name, shell)| Ok((name, shell.build().context(name)?))).collect()
}

const OPEN: &str = "encryption.[method]keyring.open";
const SEAL: &str = "encryption.[method]keyring.seal";
const DESCRIBE: &str = "module-info.describe";
const DERIVE: &str = "key-derivation.derive-kek";
const ENTRIES: &str = "file-store.[method]document.entries";
const LOOP: &str = "(loop $forever (br $forever)) unreachable";

/// A body that returns ok, with a list of bytes at `start` of `length`. `open` and `derive-kek` have it.
fn list(start: &str, length: &str) -> String {
    format!(
        "(i32.store8 (i32.const 192) (i32.const 0))
         (i32.store (i32.const 200) (i32.const {start}))
         (i32.store (i32.const 204) (i32.const {length}))
         (i32.const 192)"
    )
}

/// A module that imports another version of `wasi:random`.
fn random_of(version: &str) -> Shell {
    let versioned = format!("@{version};");
    Shell::new().wit("random.wit", "@0.2.3;", &versioned).wit(
        "world.wit",
        "random@0.2.3;",
        &format!("random{versioned}"),
    )
}

fn cases() -> Vec<(&'static str, Shell)> {
    let shell = Shell::new;
    vec![
        // Nothing evil, and nothing in it: what a host's tests compare with.
        ("empty", shell()),
        // Time.
        ("loop", shell().rest(LOOP)),
        ("loop-in-start", shell().fields(&format!("(func $main {LOOP}) (start $main)"))),
        ("loop-in-realloc", {
            let realloc =
                format!("(func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32) {LOOP})");
            shell().realloc(&realloc)
        }),
        ("loop-in-post-return", shell().body(&format!("post.{OPEN}"), LOOP)),
        ("loop-filling-memory", {
            shell().memory("(memory (export \"memory\") 100)").rest(
                "(loop $forever (memory.fill (i32.const 1024) (i32.const 7) (i32.const 6000000)) (br $forever))
                 unreachable",
            )
        }),
        ("loop-in-files", {
            shell()
                .rest(LOOP)
                .body(OPEN, &list("0", "32"))
                .body(SEAL, &list("0", "80"))
                .body(DERIVE, &list("0", "32"))
        }),
        ("loop-asking-for-entropy", {
            shell().rest(
                "(loop $forever
                   (call $get-random-bytes (i64.const 65536) (i32.const 192))
                   (global.set $heap (i32.const 1024))
                   (br $forever))
                 unreachable",
            )
        }),
        // Memory.
        ("memory-bomb", {
            shell().rest(
                "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable",
            )
        }),
        ("memory-bomb-touched", {
            shell().rest(
                "(local $at i32)
                 (loop $more
                   (local.set $at (i32.shl (memory.size) (i32.const 16)))
                   (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then unreachable))
                   (memory.fill (local.get $at) (i32.const 7) (i32.const 1048576))
                   (br $more))
                 unreachable",
            )
        }),
        ("memory-at-start", shell().memory("(memory (export \"memory\") 65535)")),
        // Each of them small enough.
        ("memories-together", {
            shell().memory("(memory (export \"memory\") 80)").beside("(module (memory 80))", 1)
        }),
        ("memories-too-many", shell().beside("(module (memory 1))", 3)),
        ("tables-too-many", {
            let five = "(table 1 funcref)".repeat(5);
            shell().beside(&format!("(module {five})"), 2)
        }),
        ("table-at-start", shell().beside("(module (table 20000 funcref))", 1)),
        ("instances-too-many", shell().beside("(module)", 8)),
        ("table-bomb", {
            shell().fields("(table $functions 1 funcref)").rest(
                "(loop $more
                   (br_if $more (i32.ne
                     (table.grow $functions (ref.null func) (i32.const 1000)) (i32.const -1))))
                 unreachable",
            )
        }),
        ("entropy-bomb", {
            shell()
                .rest("(call $get-random-bytes (i64.const 0x7fffffffffffffff) (i32.const 192)) unreachable")
        }),
        // Stack.
        ("recursion", shell().fields("(func $deep (call $deep))").rest("(call $deep) unreachable")),
        ("recursion-fat", {
            let pushes = "(call $fat (i64.add (local.get 0) (i64.const 1)))".repeat(3);
            shell()
                .fields(&format!(
                    "(func $fat (param i64) (result i64) {pushes} i64.add i64.add (local.get 0) i64.xor)"
                ))
                .rest("(drop (call $fat (i64.const 0))) unreachable")
        }),
        // Traps.
        ("trap", shell().rest("unreachable")),
        ("trap-in-unlock", shell().body("encryption.[static]keyring.unlock", "unreachable")),
        ("trap-in-start", shell().fields("(func $main unreachable) (start $main)")),
        ("trap-in-post-return", shell().body(&format!("post.{OPEN}"), "unreachable")),
        ("trap-in-realloc", {
            shell()
                .realloc("(func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32) unreachable)")
        }),
        ("divide-by-zero", shell().rest("(drop (i32.div_u (i32.const 1) (i32.const 0))) unreachable")),
        ("out-of-bounds", shell().rest("(drop (i32.load (i32.const -4))) unreachable")),
        ("wrong-indirect-call", {
            shell()
                .fields(
                    "(type $t (func (param f64))) (func $other) (table 2 funcref) (elem (i32.const 0) $other)",
                )
                .rest("(call_indirect (type $t) (f64.const 0) (i32.const 0)) unreachable")
        }),
        // Absurd results.
        ("list-endless", shell().body(OPEN, &list("0", "-1")).body(DERIVE, &list("0", "-1"))),
        ("list-outside", shell().body(OPEN, &list("0x7fffffff", "1")).body(DERIVE, &list("131072", "1"))),
        ("list-wrapping", shell().body(OPEN, &list("-16", "32"))),
        ("list-too-long", {
            shell().memory("(memory (export \"memory\") 100)").body(OPEN, &list("0", "6000000"))
        }),
        ("result-outside", shell().body(OPEN, "(i32.const -8)").body(DESCRIBE, "(i32.const -8)")),
        ("result-unaligned", shell().body(OPEN, "(i32.const 65)").body(DESCRIBE, "(i32.const 65)")),
        ("result-of-no-case", {
            shell().body(OPEN, "(i32.store8 (i32.const 192) (i32.const 9)) (i32.const 192)")
        }),
        ("error-of-no-case", {
            let body =
                "(i32.store8 (i32.const 192) (i32.const 1)) (i32.store8 (i32.const 200) (i32.const 200))
                        (i32.const 192)";
            shell().body(OPEN, body)
        }),
        ("kek-too-short", shell().body(DERIVE, &list("0", "5"))),
        ("description-not-utf8", {
            shell().body(
                DESCRIBE,
                "(i32.store (i32.const 192) (i32.const 200)) (i32.store (i32.const 196) (i32.const 4))
                 (i32.store (i32.const 200) (i32.const -1)) (i32.const 192)",
            )
        }),
        ("description-endless", {
            shell().memory("(memory (export \"memory\") 100)").body(
                DESCRIBE,
                "(i32.store (i32.const 192) (i32.const 1024)) (i32.store (i32.const 196) (i32.const 6000000))
                 (i32.const 192)",
            )
        }),
        ("entries-endless", {
            let body =
                "(i32.store (i32.const 192) (i32.const 0)) (i32.store (i32.const 196) (i32.const 0x0fffffff))
                        (i32.const 192)";
            shell().body("file-store.[static]document.create", DOCUMENT).body(ENTRIES, body)
        }),
        ("entries-many", {
            // Entries of 64 bytes, all empty, out of 250 MiB of zeros.
            let body =
                "(i32.store (i32.const 192) (i32.const 1024)) (i32.store (i32.const 196) (i32.const 4000000))
                        (i32.const 192)";
            shell()
                .memory("(memory (export \"memory\") 4000)")
                .body("file-store.[static]document.create", DOCUMENT)
                .body(ENTRIES, body)
        }),
        // Lies. The known-answer tests find them.
        ("constant-value", shell().body(OPEN, &list("0", "32")).body(SEAL, &list("0", "80"))),
        // Well-behaved until it is asked to open a value of one of these lengths; other values open as 32 zeros.
        ("by-length", {
            shell()
                .fields("(func $deep (call $deep))")
                .body(DERIVE, &list("0", "32"))
                .body(OPEN, &format!(
                    "(if (i32.eq (local.get 6) (i32.const 101)) (then unreachable))
                     (if (i32.eq (local.get 6) (i32.const 102)) (then {LOOP}))
                     (if (i32.eq (local.get 6) (i32.const 103)) (then
                       (loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable))
                     (if (i32.eq (local.get 6) (i32.const 104)) (then (call $deep)))
                     (if (i32.eq (local.get 6) (i32.const 105)) (then
                       (i32.store8 (i32.const 192) (i32.const 0))
                       (i32.store (i32.const 200) (i32.const 0))
                       (i32.store (i32.const 204) (i32.const -1))
                       (return (i32.const 192))))
                     {}",
                    list("0", "32"),
                ))
        }),
        // Resources.
        ("handle-made-up", {
            let body = "(i32.store (i32.const 136) (i32.const 12345)) (i32.const 128)";
            shell().body("encryption.[static]keyring.unlock", body)
        }),
        ("handle-returned-twice", {
            let body = "(if (i32.eqz (i32.load (i32.const 136)))
                          (then (i32.store (i32.const 136) (call $new-keyring (i32.const 7)))))
                        (i32.const 128)";
            shell().body("encryption.[static]keyring.unlock", body)
        }),
        ("handle-dropped-before-return", {
            let body = "(i32.store (i32.const 136) (call $new-keyring (i32.const 7)))
                        (call $drop-keyring (i32.load (i32.const 136)))
                        (i32.const 128)";
            shell().body("encryption.[static]keyring.unlock", body)
        }),
        ("handle-bomb", {
            shell().rest("(loop $more (drop (call $new-keyring (i32.const 7))) (br $more)) unreachable")
        }),
        // Imports and exports.
        ("imports-a-clock", {
            shell().wit(
                "world.wit",
                "export module-info;",
                "import clock: interface { now: func() -> u64; }\n    export module-info;",
            )
        }),
        ("imports-a-function", {
            shell().wit(
                "world.wit",
                "export module-info;",
                "import run-command: func(command: string) -> s32;\n    export module-info;",
            )
        }),
        ("imports-more-of-random", {
            shell().wit(
                "random.wit",
                "get-random-bytes:",
                "get-random-u64: func() -> u64;\n    get-random-bytes:",
            )
        }),
        // Its one function is that of WASI 0.2, with another name for its parameter. `derive-kek` returns what it gives.
        ("imports-random-of-wasi-0-3", {
            random_of("0.3.1").wit("random.wit", "func(len: u64)", "func(max-len: u64)").body(
                DERIVE,
                "(i32.store8 (i32.const 192) (i32.const 0))
                 (call $get-random-bytes (i64.const 32) (i32.const 200))
                 (i32.const 192)",
            )
        }),
        ("imports-random-of-wasi-0-4", random_of("0.4.0")),
        ("imports-the-types", shell().wit("world.wit", "export types;", "")),
        ("lacks-an-interface", shell().wit("world.wit", "export primitives;", "")),
        ("lacks-a-function", {
            shell().wit("encryption.wit", "key-of: func(sealed: list<u8>) -> result<key, failure>;", "")
        }),
        ("has-another-type", {
            shell().wit("encryption.wit", "key-of: func(sealed: list<u8>)", "key-of: func(sealed: string)")
        }),
        (
            "is-of-another-version",
            shell().wit("world.wit", "omni:credentials@1.0.0", "omni:credentials@2.0.0"),
        ),
    ]
}

/// Makes a document and returns it.
const DOCUMENT: &str = "(i32.store (i32.const 136) (call $new-document (i32.const 7))) (i32.const 128)";
