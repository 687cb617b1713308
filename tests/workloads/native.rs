//! A Rust chain on three threads: through a boxed closure and `catch_unwind`, spinning at its end.
//! Truth: CPU time of the process. Usage: native TRUTH_FILE SECONDS (of wall time)

use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

fn spin(rounds: u64) -> u64 {
    let mut x = black_box(1_u64);
    for _ in 0..rounds {
        x = black_box(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    }
    x
}

#[inline(never)]
fn spin_leaf(x: u64) -> u64 {
    let spun = black_box(spin(8_000_000));
    if x % 3 == 0 {
        // Unwinds up to `deep_10`.
        resume_unwind(Box::new(x));
    }
    spun ^ x
}

macro_rules! link {
    ($name:ident, $next:ident) => {
        #[inline(never)]
        fn $name(x: u64) -> u64 {
            let pad = black_box([x; 9]);
            let result = $next(black_box(x)) ^ 1;
            black_box(&pad);
            result
        }
    };
}
link!(deep_1, deep_2);
link!(deep_2, deep_3);
link!(deep_3, deep_4);
link!(deep_4, deep_5);
link!(deep_5, deep_6);
link!(deep_6, deep_7);
link!(deep_7, deep_8);
link!(deep_8, deep_9);
link!(deep_9, deep_10);
link!(deep_11, deep_12);
link!(deep_12, deep_13);
link!(deep_13, deep_14);
link!(deep_14, deep_15);
link!(deep_15, deep_16);
link!(deep_16, deep_17);
link!(deep_17, deep_18);
link!(deep_18, deep_19);
link!(deep_19, deep_20);

#[inline(never)]
fn deep_10(x: u64) -> u64 {
    let call: Box<dyn Fn(u64) -> u64> = black_box(Box::new(|x| black_box(deep_11(x)) ^ 2));
    match catch_unwind(AssertUnwindSafe(|| call(x))) {
        Ok(result) => black_box(result) ^ 3,
        Err(_) => 4,
    }
}

#[inline(never)]
fn deep_20(x: u64) -> u64 {
    black_box(spin_leaf(x)) ^ 5
}

#[inline(never)]
fn thread_body(until: Instant) -> u64 {
    let mut x = 0;
    while Instant::now() < until {
        x += 1;
        black_box(deep_1(x));
    }
    x
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let seconds: f64 = arguments[2].parse().expect("SECONDS is a number");
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    let threads: Vec<_> = (0..3)
        .map(|number| {
            let builder = std::thread::Builder::new().name(format!("rs-{number}"));
            builder.spawn(move || thread_body(until)).expect("a thread starts")
        })
        .collect();
    let calls: u64 = threads.into_iter().map(|thread| thread.join().expect("it ends")).sum();
    std::fs::write(&arguments[1], format!("{{\"calls\":{calls}}}\n")).expect("the truth can be written");
}
