//! The one engine of a process, and why it is set as it is. host/README.md has the measurements.

use std::sync::Arc;

use wasmtime::{Engine, InstanceAllocationStrategy, OptLevel, Strategy};

use crate::memory::Memories;
use crate::{Error, system};

/// How much native stack a module may use. Postgres lets a backend come within 512 KiB of the end
/// of its stack before it refuses to go deeper, and the host's own frames need some of that.
const WASM_STACK: usize = 256 << 10;

/// Makes an engine. It starts no thread, installs no signal handler and no alternate stack.
pub(crate) fn new() -> Result<Engine, Error> {
    let mut config = wasmtime::Config::new();

    // The host owns the process's signals: every check is an explicit branch in the compiled code.
    // Guard pages stay all the same, so that a check the compiler got wrong ends in a crash and not
    // in a silent read of the host's memory.
    config.signals_based_traps(false);
    config.guard_before_linear_memory(true);
    // With the whole address space reserved, a memory never moves: no stale copy of a key stays
    // behind in a released mapping, and the base address is a constant to the compiler. Where the system limits the
    // address space, a memory has what it needs, and moves to grow. Compiled code is for one of the two, and a cached
    // artifact has another name in the other.
    let limited = system::limits_address_space();
    if limited {
        config.memory_reservation(0).memory_guard_size(64 << 10).memory_may_move(true);
    } else {
        config.memory_reservation(4 << 30).memory_guard_size(32 << 20).memory_may_move(false);
    }
    config.with_host_memory(Arc::new(Memories { may_move: limited }));
    // No memfd and no file mapping: a module's data segment is small, and a copy is as fast.
    config.memory_init_cow(false);
    config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
    config.max_wasm_stack(WASM_STACK);

    // Interruption by epoch: one load and compare at loops and function entries. Fuel would count.
    config.epoch_interruption(true);

    // Code that tells apart more than it must keeps more in the artifact than it needs: no traces,
    // no address maps, no unwind tables. A trap is reported by kind and export.
    config.wasm_backtrace_max_frames(None);
    config.generate_address_map(false);
    config.native_unwind_info(false);

    config.strategy(Strategy::Cranelift).cranelift_opt_level(OptLevel::Speed);

    // What compilers emit for plain Rust, C or Zig, and nothing that is young or that the modules
    // do not need: each feature is engine code that a hostile module could reach.
    config.wasm_simd(true).wasm_bulk_memory(true).wasm_multi_value(true);
    config
        .wasm_relaxed_simd(false)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .wasm_tail_call(false)
        .wasm_extended_const(false)
        .wasm_custom_page_sizes(false)
        .wasm_wide_arithmetic(false);
    config.concurrency_support(false);

    Engine::new(&config).map_err(|error| Error::Engine(error.to_string()))
}
