// Sleeps, but for two bursts in every second of the wall clock: `burst` from 300 ms to 400 ms of it,
// `other` from 600 ms to 700 ms. Truth: CPU time of the process and the number of seconds that had both.
// Usage: burst TRUTH_FILE SECONDS
#include "common.h"

#define SECOND 1000000000ull

static inline uint64_t phase_ns(void) { return clock_ns(CLOCK_REALTIME) % SECOND; }

FRAME void burst(uint64_t until) {
    while (phase_ns() < until) {
        SPIN(20000);
    }
}

FRAME void other(uint64_t until) {
    while (phase_ns() < until) {
        SPIN(20000);
    }
}

// Sleeps until this far into a second, of which it may be later now.
FRAME void rest(uint64_t until) {
    uint64_t phase = phase_ns();
    sleep_ns(phase <= until ? until - phase : SECOND - phase + until);
}

int main(int argc, char **argv) {
    uint64_t end = wall_ns() + (uint64_t)(seconds_argument(argc, argv) * 1e9);
    uint64_t seconds = 0;
    while (wall_ns() < end) {
        rest(300000000);
        burst(400000000);
        rest(600000000);
        other(700000000);
        seconds++;
    }
    FILE *truth = truth_open(argv[1]);
    fprintf(truth, "{\"cpu_ns\":%llu,\"seconds\":%llu}\n", (unsigned long long)cpu_ns(),
            (unsigned long long)seconds);
    truth_close(truth, argv[1]);
    return 0;
}
