// A chain of ten calls that is known by construction: f1 -> f2 -> ... -> f10, spinning in f10.
// Truth: the process's own CPU time. Usage: chain TRUTH_FILE CPU_SECONDS
#include "common.h"

static volatile uint64_t after_call;

FRAME void f10(void) {
    // Tens of milliseconds a call, so that next to no time is spent elsewhere.
    SPIN(20000000);
    after_call++;
}
// Work after the call: none of these can become a jump.
#define LINK(NAME, NEXT)     \
    FRAME void NAME(void) {  \
        NEXT();              \
        after_call++;        \
    }
LINK(f9, f10)
LINK(f8, f9)
LINK(f7, f8)
LINK(f6, f7)
LINK(f5, f6)
LINK(f4, f5)
LINK(f3, f4)
LINK(f2, f3)
LINK(f1, f2)

int main(int argc, char **argv) {
    uint64_t until = (uint64_t)(seconds_argument(argc, argv) * 1e9);
    while (cpu_ns() < until) {
        f1();
    }
    FILE *truth = truth_open(argv[1]);
    fprintf(truth, "{\"cpu_ns\":%llu}\n", (unsigned long long)cpu_ns());
    truth_close(truth, argv[1]);
    return 0;
}
