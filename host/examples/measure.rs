//! Measures what host/README.md reports. Usage: `measure MODULE.wasm`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a tool for developers")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use omni_credentials_host::{Config, Costs, Digest, Identity, Runtime};

fn main() {
    let path = std::env::args().nth(1).unwrap();
    let wasm = std::fs::read(path).unwrap();
    let digest = Digest::of(&wasm);
    let folder = std::env::temp_dir().join(format!("omni-measure-{}", std::process::id()));
    let config = || Config { cache_dir: Some(folder.clone()), ..Config::default() };

    let before = private_kib();
    let (took, runtime) = timed(|| Runtime::new(config()).unwrap());
    report("engine", took);
    let (took, _) = timed(|| runtime.load(&wasm, &digest).unwrap());
    report("compile and keep", took);
    let artifact = std::fs::read_dir(&folder).unwrap().next().unwrap().unwrap().metadata().unwrap().len();
    println!("{:<32}{:>12} KiB", "artifact", artifact >> 10);
    report("load cached", best(20, || drop(runtime.load_with(&digest, || unreachable!()).unwrap())));
    let module = runtime.load_with(&digest, || unreachable!()).unwrap();

    let (took, made) = timed(|| module.create_keyring(b"correct horse", None).unwrap());
    report("create keyring, default Argon2id", took);
    let cheap = Some(Costs { memory_kib: 64, passes: 1, lanes: 1 });
    let small = module.create_keyring(b"correct horse", cheap).unwrap();
    report(
        "instantiate + cheap derive",
        best(50, || drop(module.derive_kek(b"correct horse", &small.keyring))),
    );
    report("instantiate + unlock", best(200, || drop(module.unlock(&made.keyring, &made.kek))));

    let mut keyring = module.unlock(&made.keyring, &made.kek).unwrap();
    let identity =
        Identity { name: b"stripe", kind: b"api_key", principal: b"app", scope: br#"{"all": true}"# };
    for length in [40, 1 << 10, 16 << 10, 64 << 10, 1 << 20] {
        let sealed = keyring.seal(&identity, None, &vec![7; length]).unwrap();
        let rounds = (4_000_000 / (length + 400)).max(4);
        let each = |total: Duration| total / u32::try_from(rounds).unwrap();
        let open = best(5, || {
            for _ in 0..rounds {
                drop(black_box(keyring.open(&identity, None, &sealed).unwrap()));
            }
        });
        report(&format!("open {length} bytes"), each(open));
        let value = vec![7; length];
        let seal = best(5, || {
            for _ in 0..rounds {
                drop(black_box(keyring.seal(&identity, None, &value).unwrap()));
            }
        });
        report(&format!("seal {length} bytes"), each(seal));
    }
    drop((keyring, module, runtime));
    println!("{:<32}{:>12} KiB", "private, all dropped", private_kib().saturating_sub(before));

    // A fresh runtime in this process stands for a backend: what is kept after a first read.
    let before = private_kib();
    let (took, kept) = timed(|| {
        let runtime = Runtime::new(config()).unwrap();
        let module = runtime.load_with(&digest, || unreachable!()).unwrap();
        let mut keyring = module.unlock(&made.keyring, &made.kek).unwrap();
        let sealed = keyring.seal(&identity, None, b"sk_live_0123456789").unwrap();
        drop(keyring.open(&identity, None, &sealed).unwrap());
        (runtime, module, keyring)
    });
    report("engine to first value", took);
    println!("{:<32}{:>12} KiB", "private, kept", private_kib().saturating_sub(before));
    drop(kept);
    std::fs::remove_dir_all(folder).unwrap();
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let started = Instant::now();
    let result = work();
    (started.elapsed(), result)
}

fn best(rounds: usize, mut work: impl FnMut()) -> Duration {
    (0..rounds).map(|_| timed(&mut work).0).min().unwrap()
}

fn report(what: &str, took: Duration) {
    println!("{what:<32}{:>12.3} µs", took.as_secs_f64() * 1e6);
}

fn private_kib() -> u64 {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    rollup
        .lines()
        .filter(|line| line.starts_with("Private_"))
        .map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap())
        .sum()
}
