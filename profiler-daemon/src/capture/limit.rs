//! Ends a capture that takes more than it may.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::model::{Allowance, Usage};

/// How often a running capture is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Records are counted over so long: a burst that is shorter is none.
const RATE_OVER: Duration = Duration::from_secs(1);
/// CPU time is judged by its mean over so long: the names of a large program are read but once.
const CPU_OVER: Duration = Duration::from_secs(5);

/// What was seen at a look.
#[derive(Clone, Copy)]
struct Look {
    at: Instant,
    events: u64,
    cpu: Duration,
}

/// Watches a capture for as long as it stays within its limits; then says which one it has met.
pub(super) async fn exceeded(allowed: Allowance, usage: &Usage, cpu_time: impl Fn() -> Duration) -> String {
    let mut looks: VecDeque<Look> = VecDeque::new();
    loop {
        let now = Look { at: Instant::now(), events: usage.events(), cpu: cpu_time() };
        if let Some(reason) = met(allowed, usage.bytes(), &looks, now) {
            return reason;
        }
        looks.push_back(now);
        // One look that is old enough must stay.
        while looks.get(1).is_some_and(|second| now.at - second.at >= CPU_OVER) {
            looks.pop_front();
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Which limit is met, by what was seen now and before.
fn met(allowed: Allowance, bytes: u64, before: &VecDeque<Look>, now: Look) -> Option<String> {
    if bytes > allowed.bytes {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let (bytes, allowed) = (mib(bytes), mib(allowed.bytes));
        return Some(format!(
            "ended early: {bytes:.1} MiB recorded, {allowed:.1} allowed; a longer min block or more bytes \
             make it last"
        ));
    }
    let since = |length| before.iter().rev().find(|look| now.at - look.at >= length);
    if let Some(then) = since(RATE_OVER) {
        let rate = (now.events - then.events) as f64 / (now.at - then.at).as_secs_f64();
        if rate > allowed.events_per_second as f64 {
            return Some(format!(
                "ended early: {rate:.0} events a second, {} allowed; a longer min block or more events make \
                 it last",
                allowed.events_per_second
            ));
        }
    }
    if let Some(then) = since(CPU_OVER) {
        let spent = now.cpu.saturating_sub(then.cpu).as_secs_f64() / (now.at - then.at).as_secs_f64();
        if spent * 1000.0 > allowed.millicpus as f64 {
            return Some(format!(
                "ended early: it took {:.0} thousandths of a CPU, {} allowed; a longer min block or a \
                 narrower target makes it last",
                spent * 1000.0,
                allowed.millicpus
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: Allowance = Allowance { events_per_second: 100, bytes: 1 << 20, millicpus: 500 };

    fn seen(bytes: u64, then: (u64, u64), seconds: f64) -> Option<String> {
        let now = Instant::now() + Duration::from_secs(100);
        let look = |at, events, cpu| Look { at, events, cpu: Duration::from_millis(cpu) };
        let before = VecDeque::from([look(now - Duration::from_secs_f64(seconds), 0, 0)]);
        met(ALLOWED, bytes, &before, look(now, then.0, then.1))
    }

    #[test]
    fn each_limit_is_told_by_what_was_seen() {
        assert_eq!(seen(1 << 20, (100, 0), 1.0), None, "all of what is allowed");
        assert!(seen(2 << 20, (0, 0), 1.0).is_some_and(|reason| reason.contains("2.0 MiB")));
        assert!(seen(0, (303, 0), 2.0).is_some_and(|reason| reason.contains("152 events a second")));
        assert_eq!(seen(0, (900, 0), 0.5), None, "a burst");
        assert!(seen(0, (0, 4000), 5.0).is_some_and(|reason| reason.contains("800 thousandths")));
        assert_eq!(seen(0, (0, 4000), 4.0), None, "a start may cost what it will");
    }
}
