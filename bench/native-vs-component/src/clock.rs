//! Timing of two things that do the same.

use std::hint::black_box;
use std::time::{Duration, Instant};

/// How long a batch takes at least, so that the clock's own cost does not count.
const BATCH: Duration = Duration::from_millis(20);
const ROUNDS: usize = 9;
/// What takes longer than this is timed in fewer rounds.
const LONG: Duration = Duration::from_millis(300);
const LONG_ROUNDS: usize = 3;

/// The best time of each for one call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timed {
    pub(crate) native: Duration,
    pub(crate) component: Duration,
}

/// Times both in turns. Each call says whether it did what it should; one that did not is an error.
pub(crate) fn race(
    mut native: impl FnMut() -> bool,
    mut component: impl FnMut() -> bool,
) -> Result<Timed, &'static str> {
    let (native_calls, component_calls) = (calls(&mut native)?, calls(&mut component)?);
    let first = batch(&mut component, component_calls)?;
    let rounds = if first > LONG { LONG_ROUNDS } else { ROUNDS };
    let mut best = Timed { native: Duration::MAX, component: Duration::MAX };
    for _ in 0..rounds {
        best.native = best.native.min(batch(&mut native, native_calls)? / native_calls);
        best.component = best.component.min(batch(&mut component, component_calls)? / component_calls);
    }
    Ok(best)
}

/// How many calls fill a batch.
fn calls(call: &mut impl FnMut() -> bool) -> Result<u32, &'static str> {
    let mut calls = 1;
    while batch(call, calls)? < BATCH {
        calls *= 2;
    }
    Ok(calls)
}

fn batch(call: &mut impl FnMut() -> bool, calls: u32) -> Result<Duration, &'static str> {
    let start = Instant::now();
    for _ in 0..calls {
        if !black_box(call()) {
            return Err("a call failed");
        }
    }
    Ok(start.elapsed())
}
