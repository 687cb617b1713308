// A busy program with one hot and one warm function: four fifths of the time in the hot one.
// Truth: CPU time of each, and of the process. Usage: spin TRUTH_FILE CPU_SECONDS [COMM [EXIT_CODE]]
#include "common.h"

static volatile uint64_t calls;

FRAME void hot_function(uint64_t rounds) {
    SPIN(rounds);
    calls++;
}
FRAME void warm_function(uint64_t rounds) {
    SPIN(rounds);
    calls++;
}

int main(int argc, char **argv) {
    uint64_t until = (uint64_t)(seconds_argument(argc, argv) * 1e9);
    if (argc > 3 && argv[3][0]) {
        prctl(PR_SET_NAME, argv[3]);
    }
    uint64_t hot_ns = 0, warm_ns = 0;
    for (uint64_t now = cpu_ns(); now < until;) {
        hot_function(4000000);
        uint64_t between = cpu_ns();
        warm_function(1000000);
        hot_ns += between - now;
        now = cpu_ns();
        warm_ns += now - between;
    }
    FILE *truth = truth_open(argv[1]);
    fprintf(truth, "{\"cpu_ns\":%llu,\"hot_ns\":%llu,\"warm_ns\":%llu}\n", (unsigned long long)cpu_ns(),
            (unsigned long long)hot_ns, (unsigned long long)warm_ns);
    truth_close(truth, argv[1]);
    return argc > 4 ? atoi(argv[4]) : 0;
}
